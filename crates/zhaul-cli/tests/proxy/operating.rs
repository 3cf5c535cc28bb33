//! What an operator does to a running proxy: reload, drain, stop, ask, command.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::running::ignoring;
use crate::support::{
    PATIENCE, Proxy, Servers, ask, binary, configured, connect, eventually, has_program,
};

fn config(listen: &str, servers: &[(&str, SocketAddr)], more: &str) -> String {
    let servers: Vec<_> = servers
        .iter()
        .map(|(name, address)| format!("{{ name = \"{name}\", address = \"{address}\" }}"))
        .collect();
    format!(
        "{more}\n[listeners.l]\nlisten = \"{listen}\"\nto = \"p\"\n[pools.p]\nservers = [{}]\n",
        servers.join(", ")
    )
}

/// A port that was free a moment ago.
fn free_port() -> String {
    Servers::nobody().to_string()
}

#[test]
fn a_reload_changes_where_new_connections_go_and_keeps_old_ones() {
    let (a, b) = (Servers::named("a"), Servers::named("b"));
    let port = free_port();
    let proxy = configured(&config(&port, &[("s", a.address)], ""));
    let old = proxy.connect();
    assert_eq!(ask(&old, "1").unwrap(), "a 1");
    proxy.reload(&config(&port, &[("s", b.address)], ""));
    proxy.wait_for(&["is in force"]);
    assert_eq!(ask(&proxy.connect(), "2").unwrap(), "b 2");
    assert_eq!(ask(&old, "3").unwrap(), "a 3");
}

/// Seconds until the keepalive timer of the socket with these two addresses goes off, if it runs.
fn keepalive_in_s(local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let hex = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => {
            let ip = u32::from_le_bytes(v4.ip().octets());
            format!("{ip:08X}:{:04X}", v4.port())
        }
        SocketAddr::V6(_) => unreachable!("tests use IPv4"),
    };
    let (local, remote) = (hex(local), hex(remote));
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut lines = sockets
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = lines
        .find(|words| words[1] == local && words[2] == remote)
        .unwrap();
    // Kind of timer, and when it goes off, in hundredths of a second.
    let (kind, when) = found[5].split_once(':').unwrap();
    (kind == "02").then(|| u64::from_str_radix(when, 16).unwrap() / 100)
}

#[test]
fn keepalive_is_what_the_configuration_in_force_says() {
    let a = Servers::named("a");
    let port = free_port();
    let config = |keepalive: &str| {
        let text = config(&port, &[("s", a.address)], "");
        text.replace(
            "to = \"p\"",
            &format!("to = \"p\"\nkeepalive = {keepalive}"),
        )
    };
    let proxy = configured(&config("{ idle = \"500s\" }"));
    let running = |client: &TcpStream| {
        ask(client, "1").unwrap();
        keepalive_in_s(proxy.address(), client.local_addr().unwrap())
    };
    let first = proxy.connect();
    // An acknowledgement that is still out has a timer of its own.
    eventually("the listener's time", || {
        running(&first).is_some_and(|s| (400..=500).contains(&s))
    });
    proxy.reload(&config("{ idle = \"300s\" }"));
    proxy.wait_for(&["is in force"]);
    let second = proxy.connect();
    eventually("the new time", || {
        running(&second).is_some_and(|s| (200..=300).contains(&s))
    });
    proxy.reload(&config("false"));
    eventually("none", || running(&proxy.connect()).is_none());
    eventually("what there was goes on", || running(&first).is_some());
}

#[test]
fn keepalive_towards_servers_begins_once_a_connection_has_some_age() {
    let (send, peers) = std::sync::mpsc::channel();
    let server = Servers::start(move |stream: TcpStream| {
        let _ = send.send(stream.peer_addr().unwrap());
        crate::support::answer_lines("s", &stream);
    });
    for (connect_timeout, idle) in [("100ms", "500s"), ("1000s", "500s")] {
        let proxy = configured(&format!(
            "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n[pools.p]\n\
             connect_timeout = \"{connect_timeout}\"\nkeepalive = {{ idle = \"{idle}\" }}\n\
             servers = [{{ address = \"{}\" }}]\n",
            server.address
        ));
        let client = proxy.connect();
        ask(&client, "1").unwrap();
        let ours = peers.recv_timeout(PATIENCE).unwrap();
        eventually("it runs", || {
            keepalive_in_s(ours, server.address).is_some_and(|s| (400..=500).contains(&s))
        });
    }
}

#[test]
fn a_bad_reload_changes_nothing() {
    let a = Servers::named("a");
    let port = free_port();
    let proxy = configured(&config(&port, &[("s", a.address)], ""));
    let old = proxy.connect();
    ask(&old, "1").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (bad, expected) in [
        ("nonsense = 1".to_owned(), "unknown field"),
        (config(&port, &[("s", a.address)], "workers = 7"), "restart"),
        (config(&taken, &[("s", a.address)], ""), "in use"),
    ] {
        proxy.reload(&bad);
        proxy.wait_for(&[expected, "the configuration in force stays"]);
        assert_eq!(ask(&proxy.connect(), "2").unwrap(), "a 2");
        assert_eq!(ask(&old, "3").unwrap(), "a 3");
    }
}

#[test]
fn no_reload_ends_the_proxy_or_a_session_however_wrong_it_is() {
    let a = Servers::named("a");
    let port = free_port();
    let good = config(&port, &[("s", a.address)], "");
    let proxy = configured(&good);
    let old = proxy.connect();
    ask(&old, "1").unwrap();
    let number: u16 = port.rsplit_once(':').unwrap().1.parse().unwrap();
    let one_more =
        |listen: &str| format!("{good}[listeners.more]\nlisten = {listen}\nto = \"p\"\n");
    let twice = one_more(&format!("\"{port}\""));
    for (bad, expected) in [
        (twice.as_str(), "name it once"),
        (&one_more(&format!("\"0.0.0.0:{number}\"")), "a part of"),
        (
            &one_more("[\"127.0.0.1:1\", \"127.0.0.1:1\"]"),
            "name it once",
        ),
        (
            &one_more("\"unix:DIR/none/s\""),
            "create the socket's directory",
        ),
        (&one_more("\"unix:DIR/log\""), "in use"),
        (&one_more("\"unix:DIR/admin\""), "in admin already"),
        (
            &one_more("\"192.0.2.1:8443\""),
            "use an address of this machine",
        ),
        (
            &good.replace("to = \"p\"", "to = \"p\"\nbacklog = 7"),
            "restart",
        ),
        (
            &good.replace("to = \"p\"", "to = \"p\"\nreuse_port = true"),
            "restart",
        ),
        (
            &good.replace(&a.address.to_string(), "host.invalid:1"),
            "host.invalid",
        ),
    ] {
        let said = || {
            proxy
                .stderr()
                .matches("the configuration in force stays")
                .count()
        };
        let before = said();
        proxy.reload(bad);
        eventually("the refusal", || said() > before);
        proxy.wait_for(&[expected]);
        assert_eq!(ask(&proxy.connect(), "2").unwrap(), "a 2", "{bad}");
        assert_eq!(ask(&old, "3").unwrap(), "a 3", "{bad}");
    }
    // Ports that the kernel chooses are as many as are asked for, also the second time.
    let many = one_more("[\"127.0.0.1:0\", \"127.0.0.1:0\", \"unix:DIR/more\"]");
    for n in 1..=3 {
        proxy.reload(&many);
        eventually("the reload", || {
            proxy.stderr().matches("is in force").count() == n
        });
        assert_eq!(ask(&proxy.connect(), "2").unwrap(), "a 2");
        assert_eq!(ask(&old, "3").unwrap(), "a 3");
    }
}

#[test]
fn a_reload_without_descriptors_to_spare_is_refused() {
    use rustix::process::{Resource, Rlimit, prlimit};
    let a = Servers::named("a");
    let port = free_port();
    let good = config(&port, &[("s", a.address)], "");
    let proxy = configured(&good);
    let old = proxy.connect();
    ask(&old, "1").unwrap();
    let open = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid().as_raw_nonzero()))
        .unwrap()
        .count() as u64;
    let few = Rlimit {
        current: Some(open + 5),
        maximum: Some(open + 5),
    };
    prlimit(Some(proxy.pid()), Resource::Nofile, few).unwrap();
    let listen = vec!["127.0.0.1:0"; 40];
    proxy.reload(&format!(
        "{good}[listeners.more]\nlisten = {listen:?}\nto = \"p\"\n"
    ));
    proxy.wait_for(&["raise the limit on open files"]);
    proxy.wait_for(&["the configuration in force stays"]);
    assert_eq!(ask(&old, "2").unwrap(), "a 2");
    eventually("it serves as before", || {
        crate::support::attempt(proxy.address()).is_some_and(|c| ask(&c, "3").is_ok())
    });
}

#[test]
fn reloads_under_load_fail_no_connection() {
    let (a, b) = (Servers::named("a"), Servers::named("b"));
    let port = free_port();
    let proxy = configured(&config(&port, &[("s", a.address)], ""));
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let answer = ask(&connect(proxy.address()), "x");
                    if !answer.as_ref().is_ok_and(|answer| answer.ends_with(" x")) {
                        over.store(true, Ordering::Relaxed);
                        panic!("{answer:?}");
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for n in 0..20 {
            let to = if n % 2 == 0 { &b } else { &a };
            proxy.reload(&config(&port, &[("s", to.address)], ""));
            eventually("the reload", || {
                proxy.stderr().matches("is in force").count() > n
            });
            std::thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(asked.load(Ordering::Relaxed) > 100);
    assert!(a.accepted() > 0 && b.accepted() > 0);
}

#[test]
fn listeners_come_and_go_with_a_reload() {
    let a = Servers::named("a");
    let (first, second) = (free_port(), free_port());
    let proxy = configured(&config(&first, &[("s", a.address)], ""));
    proxy.reload(&config(&second, &[("s", a.address)], ""));
    proxy.wait_for(&["is in force"]);
    let second: SocketAddr = second.parse().unwrap();
    assert_eq!(ask(&connect(second), "x").unwrap(), "a x");
    eventually("the old port is closed", || {
        TcpStream::connect(proxy.address()).is_err()
    });
}

#[test]
fn stopping_lets_sessions_end() {
    let a = Servers::named("a");
    let mut proxy = configured(&config(
        "127.0.0.1:0",
        &[("s", a.address)],
        "drain = \"20s\"",
    ));
    let held = proxy.connect();
    ask(&held, "1").unwrap();
    proxy.signal(Signal::TERM);
    eventually("nobody is let in", || {
        TcpStream::connect(proxy.address()).is_err()
    });
    assert_eq!(ask(&held, "2").unwrap(), "a 2");
    assert!(proxy.wait(Duration::ZERO).is_none());
    drop(held);
    assert_eq!(proxy.wait(PATIENCE).unwrap().code(), Some(0));
    assert_eq!(proxy.log(1)[0]["cause"], "closed-by-client");
}

#[test]
fn what_it_was_started_to_ignore_stays_ignored() {
    let a = Servers::named("a");
    let to = a.address.to_string();
    for (name, signal) in [("HUP", Signal::HUP), ("INT", Signal::INT)] {
        let arguments = ["--listen", "127.0.0.1:0", "--to", &to];
        let dir = tempfile::tempdir().unwrap();
        let wrapper = ignoring(name);
        let wrapper = wrapper.each_ref().map(String::as_str);
        let mut proxy = Proxy::start(dir, &arguments, &wrapper).unwrap();
        for _ in 0..2 {
            proxy.signal(signal);
            assert!(
                proxy.wait(Duration::from_millis(300)).is_none(),
                "SIG{name} was ignored when it was started, and ended it"
            );
        }
        assert_eq!(ask(&proxy.connect(), "1").unwrap(), "a 1");
        let said = proxy.stderr();
        assert!(!said.contains("read again"), "{said}");
    }
}

#[test]
fn draining_has_an_end() {
    let a = Servers::named("a");
    for (drain, signals) in [("200ms", 1), ("60s", 2)] {
        let more = format!("drain = \"{drain}\"");
        let mut proxy = configured(&config("127.0.0.1:0", &[("s", a.address)], &more));
        let mut held = proxy.connect();
        ask(&held, "1").unwrap();
        for _ in 0..signals {
            proxy.signal(Signal::TERM);
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(proxy.wait(PATIENCE).unwrap().code(), Some(0), "{drain}");
        assert!(!matches!(held.read(&mut [0]), Ok(1..)));
        assert_eq!(proxy.log(1)[0]["cause"], "killed");
    }
}

#[test]
fn the_administrator_drains_weighs_lists_and_kills() {
    let (a, b) = (Servers::named("a"), Servers::named("b"));
    let servers = [("a", a.address), ("b", b.address)];
    let proxy = configured(&config("127.0.0.1:0", &servers, "workers = 2"));
    let who = || {
        let answer = ask(&proxy.connect(), "x").unwrap();
        answer.split(' ').next().unwrap().to_owned()
    };
    assert_eq!(proxy.admin("drain p/a"), "p/a is draining\n\n");
    assert!((0..6).all(|_| who() == "b"));
    assert!(proxy.admin("servers").contains("p/a drain "));
    assert_eq!(proxy.admin("ready p/a"), "p/a is ready\n\n");
    assert_eq!(proxy.admin("weight p/b 0"), "p/b has weight 0\n\n");
    assert!((0..6).all(|_| who() == "a"));
    proxy.admin("weight p/b default");
    let mut held = proxy.connect();
    ask(&held, "x").unwrap();
    let list = proxy.admin("sessions");
    let client = held.local_addr().unwrap().to_string();
    let line = list.lines().find(|line| line.contains(&client)).unwrap();
    assert!(line.contains(" relaying "), "{line}");
    let number = line.split(' ').next().unwrap();
    assert!(proxy.admin(&format!("kill {number}")).contains("is ended"));
    assert!(!matches!(held.read(&mut [0]), Ok(1..)));
    eventually("it is in the log", || {
        proxy.log(1).iter().any(|line| line["cause"] == "killed")
    });
    for (command, expected) in [
        ("drain p/c", "has no server \"c\""),
        ("drain q/a", "there is no pool \"q\""),
        ("drain a", "write POOL/SERVER"),
        ("weight p/a 1001", "0 to 1000"),
        ("kill 999999", "there is no session"),
        ("dance", "send help"),
    ] {
        let answer = proxy.admin(command);
        assert!(
            answer.starts_with("error: ") && answer.contains(expected),
            "{answer}"
        );
    }
    assert!(proxy.admin("help").contains("POOL/SERVER"));
    for done in ["p/a draining", "p/a ready", "p/b to 0", "p/b to default"] {
        proxy.wait_for(&["the administrator", done]);
    }
    proxy.wait_for(&["the administrator ended session", number]);
}

#[test]
fn who_is_silent_or_slow_holds_up_nobody_else() {
    let a = Servers::named("a");
    let port = free_port();
    let more = format!("metrics = \"{port}\"");
    let proxy = configured(&config("127.0.0.1:0", &[("a", a.address)], &more));
    let address: SocketAddr = port.parse().unwrap();
    let silent: Vec<_> = (0..100).map(|_| connect(address)).collect();
    let idle: Vec<_> = (0..100)
        .map(|_| UnixStream::connect(proxy.dir().join("admin")).unwrap())
        .collect();
    let began = std::time::Instant::now();
    let mut scraper = connect(address);
    scraper.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    scraper.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("# EOF\n"), "{answer}");
    assert!(proxy.admin("servers").contains("p/a up "));
    // The time that a silent one has.
    assert!(
        began.elapsed() < Duration::from_secs(9),
        "{:?}",
        began.elapsed()
    );
    drop((silent, idle));
}

#[test]
fn only_the_owner_may_command() {
    use std::os::unix::fs::PermissionsExt;
    let a = Servers::named("a");
    let proxy = configured(&config("127.0.0.1:0", &[("a", a.address)], ""));
    let mode = std::fs::metadata(proxy.dir().join("admin"))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

#[test]
fn metrics_count_what_happened() {
    let a = Servers::named("a");
    let port = free_port();
    let more = format!("metrics = \"{port}\"");
    let proxy = configured(&config("127.0.0.1:0", &[("a", a.address)], &more));
    for _ in 0..3 {
        ask(&proxy.connect(), "hello").unwrap();
    }
    proxy.log(3);
    let get = |path: &str| {
        let mut stream = connect(port.parse().unwrap());
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let metrics = get("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    for expected in [
        "zhaul_proxy_server_sessions_total{pool=\"p\",server=\"a\"} 3\n",
        "zhaul_proxy_server_up{pool=\"p\",server=\"a\"} 1\n",
        "zhaul_proxy_server_sent_bytes_total{pool=\"p\",server=\"a\"} 18\n",
        "zhaul_proxy_server_received_bytes_total{pool=\"p\",server=\"a\"} 24\n",
        "zhaul_proxy_listener_accepted_total{listener=\"l\"} 3\n",
        "zhaul_proxy_listener_connections{listener=\"l\"} 0\n",
        "zhaul_proxy_listener_ended_total{listener=\"l\",cause=\"closed-by-client\"} 3\n",
        "zhaul_proxy_listener_ended_total{listener=\"l\",cause=\"no-server\"} 0\n",
        "# EOF\n",
    ] {
        assert!(metrics.contains(expected), "{expected}\n{metrics}");
    }
    assert!(get("/").starts_with("HTTP/1.1 404"));
}

#[test]
fn the_log_is_opened_again_when_told() {
    let a = Servers::named("a");
    let proxy = configured(&config("127.0.0.1:0", &[("a", a.address)], ""));
    ask(&proxy.connect(), "x").unwrap();
    proxy.log(1);
    let (log, rotated) = (proxy.dir().join("log"), proxy.dir().join("log.1"));
    std::fs::rename(&log, &rotated).unwrap();
    proxy.signal(Signal::USR1);
    eventually("a new log", || log.exists());
    ask(&proxy.connect(), "x").unwrap();
    assert_eq!(proxy.log(1).len(), 1);
}

#[test]
fn the_service_manager_is_told_and_passes_sockets() {
    if !has_program("python3") {
        zhaul_untested::skip(
            "the_service_manager_is_told_and_passes_sockets",
            "python3 passes the socket and is not there",
        );
        return;
    }
    let a = Servers::named("a");
    let dir = tempfile::tempdir().unwrap();
    let notify = dir.path().join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = free_port();
    // What systemd does: the socket at descriptor 3, its number and our process id in variables.
    let script = "import os,socket,sys\n\
        s=socket.socket(); s.bind(('127.0.0.1',int(sys.argv[1]))); s.listen(8)\n\
        os.dup2(s.fileno(),3); os.set_inheritable(3,True)\n\
        os.environ['LISTEN_FDS']='1'; os.environ['LISTEN_PID']=str(os.getpid())\n\
        os.execv(sys.argv[2],sys.argv[2:])\n";
    let mut child = Command::new("python3")
        .args(["-c", script, port.rsplit(':').next().unwrap()])
        .arg(binary())
        .args(["proxy", "--listen", &port, "--to", &a.address.to_string()])
        .env("NOTIFY_SOCKET", &notify)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let told = || {
        let mut message = [0; 200];
        let n = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..n]).into_owned()
    };
    assert_eq!(told(), "READY=1\n");
    let address: SocketAddr = port.parse().unwrap();
    assert_eq!(ask(&connect(address), "x").unwrap(), "a x");
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(told(), "STOPPING=1\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_server_that_dies_under_a_transfer_ends_the_session_and_not_the_proxy() {
    let server = Servers::start(|mut stream| {
        // Not before the connection stands at both ends of the proxy.
        let _ = stream.read(&mut [0]);
        let _ = stream.write_all(&vec![7; 1_000_000]);
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    });
    let proxy: Proxy = configured(&config("127.0.0.1:0", &[("a", server.address)], ""));
    let mut got = Vec::new();
    let mut stream = proxy.connect();
    stream.write_all(b"x").unwrap();
    let ended = stream.read_to_end(&mut got);
    assert!(ended.is_err() || got.len() == 1_000_000);
    assert!(got.iter().all(|&byte| byte == 7));
    assert_eq!(proxy.log(1)[0]["cause"], "reset-by-server");
    eventually("others are served", || {
        let stream = TcpStream::connect(proxy.address());
        stream.is_ok_and(|mut stream| {
            stream.write_all(b"x").is_ok() && matches!(stream.read(&mut [0]), Ok(1))
        })
    });
}
