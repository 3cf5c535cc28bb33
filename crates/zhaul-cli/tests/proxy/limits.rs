//! Who may come, and how many.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::support::try_configured;
use crate::support::{Proxy, Servers, ask, configured, connect, eventually, is_refused};

fn proxy(server: &Servers, top: &str, listener: &str, of_server: &str, pool: &str) -> Proxy {
    configured(&format!(
        "workers = 2\n{top}\n[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n{listener}\n\
         [pools.p]\nservers = [{{ name = \"s\", address = \"{}\" {of_server} }}]\n{pool}\n",
        server.address
    ))
}

/// Connects and has itself answered.
fn served(proxy: &Proxy) -> TcpStream {
    let stream = proxy.connect();
    ask(&stream, "x").unwrap();
    stream
}

/// Whether a connection is neither served nor ended within a moment.
fn waits(stream: &TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut stream = stream;
    std::io::Write::write_all(&mut stream, b"x\n").unwrap();
    let read = stream.read(&mut [0; 1]);
    stream
        .set_read_timeout(Some(crate::support::PATIENCE))
        .unwrap();
    read.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
}

#[test]
fn addresses_that_are_not_allowed_are_refused() {
    let server = Servers::named("s");
    for (rules, refused) in [
        ("allow = [\"127.0.0.0/8\"]", false),
        ("allow = [\"10.0.0.0/8\"]", true),
        ("deny = [\"127.0.0.1\"]", true),
        ("allow = [\"127.0.0.0/8\"]\ndeny = [\"127.0.0.0/24\"]", true),
    ] {
        let proxy = proxy(&server, "", rules, "", "");
        assert_eq!(is_refused(proxy.address()), refused, "{rules}");
        if refused {
            proxy.wait_for(&["listener l", "refused", "not allowed"]);
        }
    }
}

#[test]
fn one_address_gets_so_many_connections() {
    let server = Servers::named("s");
    let proxy = proxy(&server, "", "max_connections_per_source = 2", "", "");
    let held = [served(&proxy), served(&proxy)];
    assert!(is_refused(proxy.address()));
    drop(held);
    eventually("there is room again", || !is_refused(proxy.address()));
}

#[test]
fn beyond_the_limit_of_a_listener_or_the_proxy_clients_wait_in_the_backlog() {
    let server = Servers::named("s");
    for (top, listener) in [("max_connections = 2", ""), ("", "max_connections = 2")] {
        let proxy = proxy(&server, top, listener, "", "");
        let held = [served(&proxy), served(&proxy)];
        let third = proxy.connect();
        assert!(waits(&third), "{top}{listener}");
        drop(held);
        assert_eq!(crate::support::read_line(&third).unwrap(), "s x");
    }
}

#[test]
fn beyond_the_limit_of_a_server_clients_wait_in_its_queue() {
    let server = Servers::named("s");
    let proxy = proxy(&server, "", "", ", max_connections = 2", "queue = 1");
    let held = [served(&proxy), served(&proxy)];
    let third = proxy.connect();
    assert!(waits(&third));
    // The queue is full.
    assert!(is_refused(proxy.address()));
    let [first, _second] = held;
    drop(first);
    assert_eq!(crate::support::read_line(&third).unwrap(), "s x");
    drop(third);
    let lines = proxy.log(3);
    assert_eq!(
        lines
            .iter()
            .filter(|line| line["cause"] == "queue-full")
            .count(),
        1
    );
    let waited = lines
        .iter()
        .filter(|line| line["queue_ms"].as_f64().unwrap() > 100.0);
    assert_eq!(waited.count(), 1);
}

#[test]
fn nobody_waits_in_the_queue_for_ever() {
    let server = Servers::named("s");
    let proxy = proxy(
        &server,
        "",
        "",
        ", max_connections = 1",
        "queue_timeout = \"200ms\"",
    );
    let _held = served(&proxy);
    assert!(is_refused(proxy.address()));
    assert_eq!(proxy.log(1)[0]["cause"], "queue-timeout");
}

#[test]
fn many_pass_through_a_narrow_place_in_turn() {
    let server = Servers::named("s");
    let proxy = proxy(
        &server,
        "",
        "",
        ", max_connections = 3",
        "queue_timeout = \"20s\"",
    );
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                let stream = connect(proxy.address());
                assert_eq!(ask(&stream, "me").unwrap(), "s me");
                std::thread::sleep(Duration::from_millis(5));
            });
        }
    });
    let lines = proxy.log(40);
    assert!(
        lines.iter().all(|line| line["cause"] == "closed-by-client"),
        "{lines:?}"
    );
}

#[test]
fn a_pool_that_is_down_may_be_waited_for() {
    let gone = Servers::nobody();
    let proxy = configured(&format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n\
         [pools.p]\nservers = [{{ name = \"s\", address = \"{gone}\" }}]\nwhen_down = \"queue\"\n\
         queue_timeout = \"20s\"\n\
         check = {{ interval = \"50ms\", timeout = \"500ms\", fall = 1, rise = 1 }}\n"
    ));
    proxy.wait_for(&["p/s", "down"]);
    let stream = proxy.connect();
    assert!(waits(&stream));
    let _server = Servers::start_on(std::net::TcpListener::bind(gone).unwrap(), |stream| {
        crate::support::answer_lines("s", &stream);
    });
    assert_eq!(crate::support::read_line(&stream).unwrap(), "s x");
}

#[test]
fn new_connections_come_at_the_rate_that_is_set() {
    let server = Servers::named("s");
    let proxy = proxy(&server, "", "accept_rate = 20", "", "");
    let began = Instant::now();
    for _ in 0..40 {
        served(&proxy);
    }
    // 20 at once, 20 more within a second.
    assert!(
        began.elapsed() > Duration::from_millis(800),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn without_descriptors_clients_wait_and_are_served_later() {
    let server = Servers::named("s");
    let config = format!(
        "workers = 1\n[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n\
         [pools.p]\nservers = [{{ address = \"{}\" }}]\n",
        server.address
    );
    let proxy = try_configured(&config, &["prlimit", "--nofile=240:240"]);
    let Ok(proxy) = proxy else {
        panic!("it did not start");
    };
    let held: Vec<_> = (0..60).map(|_| proxy.connect()).collect();
    let answered = held.iter().filter(|stream| !waits(stream)).count();
    assert!((1..60).contains(&answered), "{answered}");
    drop(held);
    eventually("everybody is served again", || {
        ask(&proxy.connect(), "x").is_ok_and(|answer| answer == "s x")
    });
}

#[test]
fn a_server_that_is_taken_out_and_comes_back_has_the_connections_it_still_has() {
    let (server, other) = (Servers::named("s"), Servers::named("other"));
    let config = |servers: &[(&str, &Servers)], more: &str| {
        let servers: Vec<_> = servers
            .iter()
            .map(|(name, s)| {
                let address = s.address;
                format!("{{ name = \"{name}\", address = \"{address}\", max_connections = 1 }}")
            })
            .collect();
        format!(
            "workers = 2\n[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n{more}\n\
             [pools.p]\nqueue = 0\nservers = [{}]\n",
            servers.join(", ")
        )
    };
    let reload = |proxy: &Proxy, n: usize, config: &str| {
        proxy.reload(config);
        eventually("the reload", || {
            proxy.stderr().matches("is in force").count() == n
        });
    };
    let proxy = configured(&config(&[("s", &server)], ""));
    let held = served(&proxy);
    reload(&proxy, 1, &config(&[("o", &other)], ""));
    assert_eq!(ask(&proxy.connect(), "x").unwrap(), "other x");
    reload(&proxy, 2, &config(&[("s", &server)], ""));
    assert!(is_refused(proxy.address()), "its only place is taken");
    // A limit that is new counts those who were there before, on whatever worker they are.
    let free = config(&[("s", &server), ("o", &other)], "");
    let limited = config(
        &[("s", &server), ("o", &other)],
        "max_connections_per_source = 1",
    );
    reload(&proxy, 3, &limited);
    eventually("all workers have counted", || is_refused(proxy.address()));
    reload(&proxy, 4, &free);
    assert_eq!(ask(&proxy.connect(), "x").unwrap(), "other x");
    drop(held);
    reload(&proxy, 5, &limited);
    eventually("there is room", || !is_refused(proxy.address()));
}

/// Whether a program on this machine is served that comes through the UNIX socket.
fn unix_is_served(proxy: &Proxy) -> Option<UnixStream> {
    let mut client = UnixStream::connect(proxy.dir().join("in")).ok()?;
    client
        .set_read_timeout(Some(crate::support::PATIENCE))
        .unwrap();
    std::io::Write::write_all(&mut client, b"x\n").ok()?;
    matches!(client.read(&mut [0; 4]), Ok(1..)).then_some(client)
}

#[test]
fn unix_clients_are_meant_by_their_word_and_by_no_network() {
    let server = Servers::named("s");
    for (rules, served, of_network) in [
        ("", true, true),
        ("allow = [\"0.0.0.0/0\", \"::/0\"]", false, true),
        ("allow = [\"unix\"]", true, false),
        ("deny = [\"unix\"]", false, true),
        ("deny = [\"0.0.0.0/0\", \"::/0\"]", true, false),
        ("deny = [\"::ffff:127.0.0.1\"]", true, false),
        ("allow = [\"::ffff:127.0.0.0/104\"]", false, true),
    ] {
        let proxy = proxy(
            &server,
            "",
            &format!("{rules}\n[listeners.u]\nlisten = \"unix:DIR/in\"\nto = \"p\"\n{rules}"),
            "",
            "",
        );
        assert_eq!(unix_is_served(&proxy).is_some(), served, "{rules}");
        assert_eq!(!is_refused(proxy.address()), of_network, "{rules}");
    }
}

#[test]
fn unix_clients_of_one_user_are_counted_together() {
    let server = Servers::named("s");
    let listener =
        "[listeners.u]\nlisten = \"unix:DIR/in\"\nto = \"p\"\nmax_connections_per_source = 2";
    let proxy = proxy(&server, "", listener, "", "");
    let held = [0; 2].map(|_| unix_is_served(&proxy).unwrap());
    assert!(unix_is_served(&proxy).is_none());
    drop(held);
    eventually("there is room again", || unix_is_served(&proxy).is_some());
}
