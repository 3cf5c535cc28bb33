//! Where connections come from and go to: IPv6, names, sources, sockets of one's own for each worker.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{
    Proxy, Servers, answer_lines, ask, attempt, configured, connect, eventually, is_refused,
    is_root, simple, try_configured,
};

#[test]
fn ipv6_on_both_sides() {
    const NAME: &str = "ipv6_on_both_sides";
    let listener = match TcpListener::bind("[::1]:0") {
        Ok(listener) => listener,
        Err(error) => return zhaul_untested::skip(NAME, format_args!("no IPv6: {error}")),
    };
    let server = Servers::start_on(listener, |stream| answer_lines("six", &stream));
    let proxy = simple(&[server.address], &["--listen", "[::1]:0"]);
    proxy.wait_for(&["[::1]:"]);
    let stderr = proxy.stderr();
    let line = stderr.lines().find(|line| line.contains("[::1]:")).unwrap();
    let address = line.rsplit_once(" on ").unwrap().1.trim();
    let client = connect(address.parse().unwrap());
    assert_eq!(ask(&client, "1").unwrap(), "six 1");
    drop(client);
    let entry = &proxy.log(1)[0];
    assert!(
        entry["client"].as_str().unwrap().starts_with("[::1]:"),
        "{entry}"
    );
}

#[test]
fn connections_come_from_the_source_that_is_set() {
    let server = Servers::start(|stream: TcpStream| {
        let peer = stream.peer_addr().unwrap().ip().to_string();
        answer_lines(&peer, &stream);
    });
    let proxy = configured(&format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n\
         [pools.p]\nsource = \"127.0.0.99\"\nservers = [{{ address = \"{}\" }}]\n",
        server.address
    ));
    assert_eq!(ask(&proxy.connect(), "x").unwrap(), "127.0.0.99 x");
}

#[test]
fn a_server_that_never_answers_is_given_up_in_time() {
    // Its backlog is full: what else comes is dropped.
    let full = short_listener(Ipv4Addr::LOCALHOST, 0).unwrap();
    let address = full.local_addr().unwrap();
    let fillers: Vec<_> = (0..2)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let other = Servers::named("other");
    let proxy = configured(&format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n[pools.p]\nconnect_timeout = \"200ms\"\n\
         servers = [{{ address = \"{address}\" }}, {{ address = \"{}\", backup = true }}]\n",
        other.address
    ));
    assert_eq!(ask(&proxy.connect(), "x").unwrap(), "other x");
    proxy.wait_for(&["timed out"]);
    drop(fillers);
}

/// A listener with the shortest backlog there is, which holds two.
fn short_listener(ip: Ipv4Addr, port: u16) -> std::io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&fd, &SocketAddr::from((ip, port)))?;
    listen(&fd, 1)?;
    Ok(fd.into())
}

#[test]
fn each_worker_may_have_a_socket_of_its_own() {
    let server = Servers::named("s");
    let address = Servers::nobody();
    let proxy = configured(&format!(
        "workers = 2\n[listeners.l]\nlisten = \"{address}\"\nreuse_port = true\nto = \"p\"\n\
         [pools.p]\nservers = [{{ address = \"{}\" }}]\n",
        server.address
    ));
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    let listening = format!("0100007F:{:04X} 00000000:0000 0A", address.port());
    assert_eq!(sockets.matches(&listening).count(), 2);
    let clients: Vec<_> = (0..40).map(|_| proxy.connect()).collect();
    for (n, client) in clients.iter().enumerate() {
        assert_eq!(ask(client, &n.to_string()).unwrap(), format!("s {n}"));
    }
}

#[test]
fn nothing_listens_before_each_worker_does() {
    const NAME: &str = "nothing_listens_before_each_worker_does";
    let trace = tempfile::NamedTempFile::new().unwrap();
    let path = trace.path().to_str().unwrap();
    let strace = "strace -D -f -qq -yy -e trace=listen -e signal=none -o";
    let wrapper: Vec<_> = strace.split(' ').chain([path]).collect();
    let trial = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg("true")
        .output();
    if !trial.is_ok_and(|output| output.status.success()) {
        return zhaul_untested::skip(NAME, "strace is not installed or may not trace");
    }
    let address = Servers::nobody();
    let config = format!(
        "workers = 2\n[listeners.l]\nlisten = \"{address}\"\nreuse_port = true\nto = \"p\"\n\
         [pools.p]\nservers = [{{ address = \"192.0.2.1:1\" }}]\n",
    );
    let _proxy = try_configured(&config, &wrapper).unwrap();
    // strace writes behind. A socket that is closed again would reset whoever connected meanwhile.
    let socket = format!("<TCP:[{address}]>");
    let listens = || fs::read_to_string(path).unwrap().matches(&socket).count();
    eventually("both workers listen", || listens() >= 2);
    assert_eq!(listens(), 2, "{}", fs::read_to_string(path).unwrap());
}

/// A proxy for which `/etc/hosts` is the file `hosts` in its directory.
fn with_hosts(config: &str, hosts: &str) -> Option<(Proxy, tempfile::TempDir)> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hosts");
    fs::write(&file, hosts).unwrap();
    let path = file.display().to_string();
    let script = format!("mount --bind {path} /etc/hosts && exec \"$@\"");
    let wrapper = ["unshare", "-m", "sh", "-c", &script, "sh"];
    let can = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg("true")
        .output()
        .is_ok_and(|output| output.status.success());
    can.then(|| (try_configured(config, &wrapper).unwrap(), dir))
}

#[test]
fn a_name_with_several_addresses_is_served_by_those_that_listen() {
    const NAME: &str = "a_name_with_several_addresses_is_served_by_those_that_listen";
    let server = Servers::named("s");
    let config = format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n\
         [pools.p]\nservers = [{{ address = \"several.test:{}\" }}]\n\
         [pools.p.check]\ninterval = \"20ms\"\nfall = 1\n",
        server.address.port()
    );
    let hosts = "127.0.0.2 several.test\n127.0.0.1 several.test\n127.0.0.3 several.test\n";
    if !is_root() {
        return zhaul_untested::skip(NAME, "only root can have names of its own");
    }
    let Some((proxy, _hosts)) = with_hosts(&config, hosts) else {
        return zhaul_untested::skip(NAME, "no mount namespaces here");
    };
    for n in 0..20 {
        assert_eq!(
            ask(&proxy.connect(), &n.to_string()).unwrap(),
            format!("s {n}")
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!proxy.stderr().contains("is down"), "{}", proxy.stderr());
}

#[test]
fn names_are_looked_up_again_and_what_was_known_holds_while_that_fails() {
    const NAME: &str = "names_are_looked_up_again_and_what_was_known_holds_while_that_fails";
    let port = Servers::nobody().port();
    let at = |ip: [u8; 4], name: &'static str| {
        let listener = TcpListener::bind(SocketAddr::from((ip, port)))?;
        std::io::Result::Ok(Servers::start_on(listener, move |stream| {
            answer_lines(name, &stream);
        }))
    };
    let (Ok(_a), Ok(_b)) = (at([127, 0, 0, 1], "a"), at([127, 0, 0, 2], "b")) else {
        return zhaul_untested::skip(NAME, "somebody else took the port");
    };
    if !is_root() {
        return zhaul_untested::skip(NAME, "only root can have names of its own");
    }
    let config = format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n\
         [pools.p]\nresolve_every = \"50ms\"\nservers = [{{ address = \"moves.test:{port}\" }}]\n",
    );
    let Some((proxy, hosts)) = with_hosts(&config, "127.0.0.1 moves.test\n") else {
        return zhaul_untested::skip(NAME, "no mount namespaces here");
    };
    let old = proxy.connect();
    assert_eq!(ask(&old, "1").unwrap(), "a 1");
    let file = hosts.path().join("hosts");
    // In place: the mount shows this file, not whatever has its name.
    fs::write(&file, "127.0.0.2 moves.test\n").unwrap();
    eventually("the new address", || {
        ask(&proxy.connect(), "2").unwrap() == "b 2"
    });
    assert_eq!(ask(&old, "3").unwrap(), "a 3", "what there was goes on");
    fs::write(&file, "").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(ask(&proxy.connect(), "4").unwrap(), "b 4");
}

#[test]
fn an_address_that_never_answers_is_waited_for_once_and_not_long() {
    const NAME: &str = "an_address_that_never_answers_is_waited_for_once_and_not_long";
    if !is_root() {
        return zhaul_untested::skip(NAME, "only root can have names of its own");
    }
    let server = Servers::named("s");
    let port = server.address.port();
    let silent = [2, 3].map(|last| short_listener(Ipv4Addr::new(127, 0, 0, last), port));
    let [Ok(one), Ok(other)] = silent else {
        return zhaul_untested::skip(NAME, "somebody else took the port");
    };
    let fillers = [&one, &other, &one, &other]
        .map(|full| TcpStream::connect(full.local_addr().unwrap()).unwrap());
    let config = format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n[pools.p]\nconnect_timeout = \"15s\"\n\
         servers = [{{ name = \"s\", address = \"several.test:{port}\" }}]\n\
         check = {{ interval = \"100ms\", timeout = \"500ms\", fall = 1 }}\n",
    );
    let hosts = "127.0.0.1 several.test\n127.0.0.2 several.test\n127.0.0.3 several.test\n";
    let Some((proxy, _hosts)) = with_hosts(&config, hosts) else {
        return zhaul_untested::skip(NAME, "no mount namespaces here");
    };
    let began = Instant::now();
    for n in 0..12 {
        let answer = ask(&proxy.connect(), &n.to_string()).unwrap();
        assert_eq!(answer, format!("s {n}"));
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let stderr = proxy.stderr();
    assert!(
        !stderr.contains("cannot connect") && !stderr.contains("down"),
        "{stderr}"
    );
    drop(fillers);
}

#[test]
fn a_name_that_may_come_later_stops_nothing_and_is_served_when_it_is_there() {
    const NAME: &str = "a_name_that_may_come_later_stops_nothing_and_is_served_when_it_is_there";
    if !is_root() {
        return zhaul_untested::skip(NAME, "only root can have names of its own");
    }
    let (server, other) = (Servers::named("s"), Servers::named("other"));
    let config = format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n[pools.p]\nservers = [\
         {{ name = \"s\", address = \"later.test:{}\", init = \"later\" }},\
         {{ name = \"other\", address = \"{}\", backup = true }}]\n\
         check = {{ interval = \"50ms\", timeout = \"10s\", fall = 1 }}\n",
        server.address.port(),
        other.address
    );
    let Some((proxy, hosts)) = with_hosts(&config, "") else {
        return zhaul_untested::skip(NAME, "no mount namespaces here");
    };
    assert_eq!(ask(&proxy.connect(), "1").unwrap(), "other 1");
    assert!(proxy.admin("servers").contains("p/s unresolved "));
    proxy.wait_for(&["p/s", "cannot look up later.test", "down until"]);
    fs::write(hosts.path().join("hosts"), "127.0.0.1 later.test\n").unwrap();
    eventually("the server is there", || {
        ask(&proxy.connect(), "2").unwrap() == "s 2"
    });
    proxy.wait_for(&["p/s is there", "later.test was found"]);
}

#[test]
fn a_reload_looks_names_up() {
    const NAME: &str = "a_reload_looks_names_up";
    if !is_root() {
        return zhaul_untested::skip(NAME, "only root can have names of its own");
    }
    let server = Servers::named("s");
    let config = format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n\
         [pools.p]\nresolve_every = \"1h\"\nservers = [{{ address = \"moves.test:{}\" }}]\n",
        server.address.port(),
    );
    let Some((proxy, hosts)) = with_hosts(&config, "127.0.0.2 moves.test\n") else {
        return zhaul_untested::skip(NAME, "no mount namespaces here");
    };
    assert!(is_refused(proxy.address()));
    fs::write(hosts.path().join("hosts"), "127.0.0.1 moves.test\n").unwrap();
    proxy.reload(&config);
    // Until then clients are reset, perhaps before connect(2) has returned.
    eventually("the new address", || {
        let client = attempt(proxy.address());
        client.is_some_and(|c| ask(&c, "x").is_ok_and(|answer| answer == "s x"))
    });
}
