//! What happens when there is too little of something: places, room in a backlog, privileges.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};

use crate::support::answer_lines;
use crate::support::try_configured;
use crate::support::{PATIENCE, Servers, ask, configured, connect, eventually, is_root, read_line};

fn full_pool(server: &Servers, places: usize) -> String {
    format!(
        "workers = 2\n[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n[pools.p]\n\
         servers = [{{ name = \"s\", address = \"{}\", max_connections = {places} }}]\n\
         queue_timeout = \"20s\"\n",
        server.address
    )
}

#[test]
fn places_that_a_reload_adds_are_for_those_who_wait() {
    let server = Servers::named("s");
    let proxy = configured(&full_pool(&server, 1));
    let held = proxy.connect();
    ask(&held, "x").unwrap();
    let mut second = proxy.connect();
    second.write_all(b"y\n").unwrap();
    eventually("it waits", || proxy.admin("sessions").contains(" queued "));
    proxy.reload(&full_pool(&server, 2));
    assert_eq!(read_line(&second).unwrap(), "s y");
    assert_eq!(ask(&held, "z").unwrap(), "s z");
}

#[test]
fn places_that_become_free_after_reloads_are_found() {
    let server = Servers::named("s");
    let proxy = configured(&full_pool(&server, 1));
    let mut held = proxy.connect();
    ask(&held, "x").unwrap();
    for n in 0..4 {
        let mut next = proxy.connect();
        next.write_all(b"y\n").unwrap();
        eventually("it waits", || proxy.admin("sessions").contains(" queued "));
        proxy.reload(&full_pool(&server, 1));
        eventually("the reload", || {
            proxy.stderr().matches("is in force").count() > n
        });
        drop(held);
        assert_eq!(read_line(&next).unwrap(), "s y");
        held = next;
    }
}

#[test]
fn those_who_wait_are_served_in_the_order_in_which_they_came() {
    let server = Servers::named("s");
    let proxy = configured(&full_pool(&server, 1));
    let mut held = proxy.connect();
    ask(&held, "x").unwrap();
    let mut line = Vec::new();
    for n in 0..6 {
        let mut stream = proxy.connect();
        stream.write_all(b"me\n").unwrap();
        eventually("it waits", || {
            proxy.admin("sessions").matches(" queued ").count() > n
        });
        line.push(stream);
    }
    for next in line {
        drop(held);
        assert_eq!(read_line(&next).unwrap(), "s me");
        held = next;
    }
}

#[test]
fn a_server_that_was_counted_out_is_tried_again_for_those_who_wait() {
    let gone = Servers::nobody();
    let proxy = configured(&format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n[pools.p]\n\
         servers = [{{ name = \"s\", address = \"{gone}\" }}]\nwhen_down = \"queue\"\n\
         queue_timeout = \"20s\"\npassive = {{ failures = 1, out_for = \"1s\" }}\n"
    ));
    assert!(crate::support::is_refused(proxy.address()));
    let mut stream = proxy.connect();
    stream.write_all(b"x\n").unwrap();
    eventually("it waits", || proxy.admin("sessions").contains(" queued "));
    let listener = TcpListener::bind(gone).unwrap();
    let _server = Servers::start_on(listener, |stream| answer_lines("s", &stream));
    // No check and no other client tells it.
    assert_eq!(read_line(&stream).unwrap(), "s x");
}

#[test]
fn a_backup_serves_those_whom_no_other_server_took() {
    let backup = Servers::named("b");
    let proxy = configured(&format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n[pools.p]\npassive = false\n\
         servers = [{{ name = \"a\", address = \"{}\" }},\n\
         {{ name = \"b\", address = \"{}\", backup = true }}]\n",
        Servers::nobody(),
        backup.address
    ));
    for _ in 0..5 {
        assert_eq!(ask(&proxy.connect(), "x").unwrap(), "b x");
    }
}

#[test]
fn a_unix_server_whose_backlog_is_full_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let (family, kind) = (
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
    );
    let socket = rustix::net::socket_with(family, kind, flags, None).unwrap();
    let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
    rustix::net::bind(&socket, &address).unwrap();
    rustix::net::listen(&socket, 1).unwrap();
    let listener = UnixListener::from(socket);
    let proxy = configured(&format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n[pools.p]\n\
         servers = [{{ name = \"s\", address = \"unix:{}\" }}]\nconnect_timeout = \"20s\"\n",
        path.display()
    ));
    let clients: Vec<_> = (0..12).map(|_| proxy.connect()).collect();
    eventually("some wait", || {
        proxy.admin("sessions").matches(" connecting ").count() >= 8
    });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..12 {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(b"hello\n").unwrap();
            }
        });
        for client in &clients {
            assert_eq!(read_line(client).unwrap(), "hello");
        }
    });
    drop(clients);
    for line in proxy.log(12) {
        assert_eq!(line["retries"], 0, "{line}");
    }
    let servers = proxy.admin("servers");
    assert!(servers.contains("p/s up 1 0 12 0 0 "), "{servers}");
}

#[test]
fn what_a_unix_client_sent_before_it_closed_is_delivered() {
    let (tell, told) = std::sync::mpsc::channel();
    let server = Servers::start(move |mut stream| {
        let mut got = Vec::new();
        let _ = stream.read_to_end(&mut got);
        let _ = tell.send(got);
    });
    let proxy = configured(&format!(
        "[listeners.l]\nlisten = [\"127.0.0.1:0\", \"unix:DIR/in\"]\nto = \"p\"\n[pools.p]\n\
         servers = [{{ address = \"{}\" }}]\n",
        server.address
    ));
    for n in 0..20 {
        let mut client = UnixStream::connect(proxy.dir().join("in")).unwrap();
        let sent = format!("a line that nobody answers, {n}");
        client.write_all(sent.as_bytes()).unwrap();
        drop(client);
        let got = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(String::from_utf8_lossy(&got), sent);
    }
}

#[test]
fn behind_another_proxy_limits_are_for_the_client_it_names() {
    let server = Servers::named("s");
    let proxy = configured(&format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\nproxy_from = [\"127.0.0.0/8\"]\n\
         max_connections_per_source = 1\ndeny = [\"192.0.2.9\"]\n\
         [pools.p]\nservers = [{{ address = \"{}\" }}]\n",
        server.address
    ));
    let come = |client: &str| {
        let mut stream = connect(proxy.address());
        let header = format!("PROXY TCP4 {client} 192.0.2.100 4000 443\r\n");
        stream.write_all(header.as_bytes()).unwrap();
        (ask(&stream, "x").ok(), stream)
    };
    let one = come("192.0.2.1");
    let two = come("192.0.2.2");
    assert_eq!(
        (one.0.as_deref(), two.0.as_deref()),
        (Some("s x"), Some("s x"))
    );
    assert_eq!(come("192.0.2.1").0, None);
    assert_eq!(come("192.0.2.9").0, None);
    let causes: Vec<_> = proxy
        .log(2)
        .iter()
        .map(|line| line["cause"].clone())
        .collect();
    assert_eq!(causes, ["refused", "refused"]);
    drop(one);
    eventually("it may come again", || come("192.0.2.1").0.is_some());
}

#[test]
fn clients_addresses_without_the_privilege_are_an_error_at_the_start() {
    let config = "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n[pools.p]\n\
         source = \"client\"\nservers = [{ address = \"127.0.0.1:9\" }]\n";
    let unprivileged = ["setpriv", "--bounding-set", "-net_admin,-net_raw"];
    if is_root() && !crate::support::has_program("setpriv") {
        zhaul_untested::skip(
            "clients_addresses_without_the_privilege_are_an_error_at_the_start",
            "no setpriv",
        );
        return;
    }
    let wrapper = if is_root() { &unprivileged[..] } else { &[] };
    let Err(refusal) = try_configured(config, wrapper) else {
        panic!("it started");
    };
    assert_eq!(refusal.status.code(), Some(2), "{refusal:?}");
    assert!(refusal.stderr.contains("CAP_NET_ADMIN"), "{refusal:?}");
}
