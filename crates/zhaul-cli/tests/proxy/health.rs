//! Active checks: a server is up or down by what it says.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::{Proxy, Servers, ask, configured, eventually, is_refused, simple};

fn checked(server: &Servers, check: &str) -> Proxy {
    configured(&format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n\
         [pools.p]\nservers = [{{ name = \"s\", address = \"{}\" }}]\npassive = false\n\
         check = {{ {check}, interval = \"50ms\", timeout = \"300ms\", fall = 2, rise = 2 }}\n",
        server.address
    ))
}

/// What the administrator is told of the server `p/s`, by the name of its column.
fn told(proxy: &Proxy, column: &str) -> String {
    let answer = proxy.admin("servers");
    let mut lines = answer.lines();
    let names = lines.next().unwrap().split(' ');
    let values = lines.find(|line| line.starts_with("p/s ")).unwrap();
    let mut told = names.zip(values.split(' '));
    told.find(|&(name, _)| name == column).unwrap().1.to_owned()
}

fn status(proxy: &Proxy) -> String {
    told(proxy, "status")
}

/// A server that answers a line by another, while it is told to.
fn moody(good: &Arc<AtomicBool>) -> Servers {
    let good = Arc::clone(good);
    Servers::start(move |mut stream| {
        let mut line = [0; 6];
        if stream.read_exact(&mut line).is_err() {
            return;
        }
        let answer = if &line == b"PING\r\n" && good.load(Ordering::Relaxed) {
            &b"*hello*\r\n+PONG\r\n"[..]
        } else {
            b"-LOADING\r\n"
        };
        let _ = stream.write_all(answer);
    })
}

#[test]
fn a_server_is_down_while_it_gives_another_answer() {
    let good = Arc::new(AtomicBool::new(true));
    let server = moody(&good);
    let proxy = checked(&server, "send = \"PING\\r\\n\", expect = \"+PONG\"");
    eventually("a few checks", || server.accepted() >= 3);
    assert_eq!(status(&proxy), "up");
    good.store(false, Ordering::Relaxed);
    eventually("it is down", || status(&proxy) == "down");
    proxy.wait_for(&["p/s", "down", "not the expected one"]);
    assert!(is_refused(proxy.address()));
    good.store(true, Ordering::Relaxed);
    eventually("it is up", || status(&proxy) == "up");
}

#[test]
fn without_its_check_a_server_is_up_again() {
    let good = Arc::new(AtomicBool::new(false));
    let server = moody(&good);
    let port = Servers::nobody();
    let pool = |check: &str| {
        format!(
            "[listeners.l]\nlisten = \"{port}\"\nto = \"p\"\n\
             [pools.p]\nservers = [{{ name = \"s\", address = \"{}\" }}]\n{check}",
            server.address
        )
    };
    let check = "check = { send = \"PING\\r\\n\", expect = \"+PONG\", interval = \"20ms\" }\n";
    let proxy = configured(&pool(check));
    eventually("it is down", || status(&proxy) == "down");
    proxy.reload(&pool(""));
    proxy.wait_for(&["is up: no checks"]);
    proxy.wait_for(&["is in force"]);
    assert_eq!(status(&proxy), "up");
    let mut client = proxy.connect();
    client.write_all(b"PING\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "-LOADING\r\n");
}

#[test]
fn a_server_that_came_back_starts_slowly() {
    let good = Arc::new(AtomicBool::new(true));
    let (steady, back) = (moody(&Arc::new(AtomicBool::new(true))), moody(&good));
    let config = |balance: &str| {
        format!(
            "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n\
             [pools.p]\nbalance = \"{balance}\"\nslow_start = \"1h\"\npassive = false\n\
             servers = [{{ name = \"steady\", address = \"{}\" }}, {{ name = \"s\", address = \"{}\" }}]\n\
             check = {{ send = \"PING\\r\\n\", expect = \"+PONG\", interval = \"20ms\", timeout = \"20s\", fall = 1, rise = 1 }}\n",
            steady.address, back.address
        )
    };
    for balance in ["round-robin", "random-of-two"] {
        let proxy = configured(&config(balance));
        let sessions = || told(&proxy, "sessions").parse::<u64>().unwrap();
        let forty = || {
            let before = sessions();
            for _ in 0..40 {
                let mut client = proxy.connect();
                client.write_all(b"PING\r\n").unwrap();
                client.read_to_string(&mut String::new()).unwrap();
            }
            sessions() - before
        };
        // Nothing is slow that was never away.
        assert!(forty() >= 5, "{balance}");
        good.store(false, Ordering::Relaxed);
        eventually("it is down", || status(&proxy) == "down");
        good.store(true, Ordering::Relaxed);
        eventually("it is up", || status(&proxy) == "up");
        assert_eq!(told(&proxy, "weight"), "0.01", "{balance}");
        // One connection may be due from before.
        assert!(forty() <= 4, "{balance}");
    }
}

#[test]
fn a_server_that_says_nothing_fails_its_check_in_time() {
    let server = Servers::start(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let proxy = checked(&server, "expect = \"hello\"");
    eventually("it is down", || status(&proxy) == "down");
    proxy.wait_for(&["p/s", "no answer in time"]);
}

#[test]
fn tls_servers_answer_the_hello() {
    for (answer, expected) in [
        (&[22, 3, 3, 0, 2, 0, 0][..], "up"),
        (&[21, 3, 3, 0, 2, 2, 40], "up"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "down"),
    ] {
        let server = Servers::start(move |mut stream| {
            let mut header = [0; 5];
            if stream.read_exact(&mut header).is_err() || header[0] != 22 {
                return;
            }
            let mut rest = vec![0; usize::from(header[3]) << 8 | usize::from(header[4])];
            if stream.read_exact(&mut rest).is_ok() {
                let _ = stream.write_all(answer);
            }
        });
        let proxy = checked(&server, "kind = \"tls\"");
        eventually("a few checks", || server.accepted() >= 4);
        eventually("the verdict", || status(&proxy) == expected);
    }
}

#[test]
fn checks_leave_no_connections_behind() {
    let server = Servers::start(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let proxy = checked(&server, "kind = \"connect\"");
    eventually("many checks", || server.accepted() >= 20);
    let kinds = crate::support::process::descriptors(proxy.pid());
    assert!(kinds["socket"] < 10, "{kinds:?}");
}

#[test]
fn checks_of_servers_that_want_a_proxy_header_have_one() {
    const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for (version, header) in [("v1", &b"PROXY UNKNOWN\r\n"[..]), ("v2", LOCAL)] {
        for check in [
            "kind = \"connect\"",
            "send = \"PING\", expect = \"+PONG\"",
            "kind = \"tls\"",
        ] {
            let wrong = Arc::new(AtomicBool::new(false));
            let theirs = Arc::clone(&wrong);
            let server = Servers::start(move |mut stream| {
                let mut said = vec![0; header.len()];
                let is_header = stream.read_exact(&mut said).is_ok() && said == header;
                theirs.fetch_or(!is_header, Ordering::Relaxed);
                let mut next = [0; 1];
                let answer = match stream.read(&mut next) {
                    Ok(1) if next == *b"P" => &b"+PONG"[..],
                    _ => &[21, 3, 3, 0, 2, 2, 40],
                };
                let _ = stream.write_all(answer);
                let _ = stream.read_to_end(&mut Vec::new());
            });
            let proxy = configured(&format!(
                "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n\
                 [pools.p]\nservers = [{{ name = \"s\", address = \"{}\" }}]\nsend_proxy = \"{version}\"\n\
                 check = {{ {check}, interval = \"30ms\", timeout = \"10s\", fall = 1 }}\n",
                server.address
            ));
            eventually("a few checks", || server.accepted() >= 4);
            assert_eq!(status(&proxy), "up", "{version} {check}");
            assert!(!wrong.load(Ordering::Relaxed), "{version} {check}");
        }
    }
}

#[test]
fn checks_end_like_a_client_that_leaves() {
    let (ends, resets) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for check in ["kind = \"connect\"", "expect = \"hello\"", "kind = \"tls\""] {
        let counts = [&ends, &resets].map(Arc::clone);
        let server = Servers::start(move |mut stream| {
            let _ = stream.write_all(&[&b"hello"[..], &[b'.'; 10_000]].concat());
            let count = match stream.read_to_end(&mut Vec::new()) {
                // It says goodbye as long as it likes.
                Ok(_) if stream.write_all(&[b'.'; 10_000]).is_ok() => &counts[0],
                _ => &counts[1],
            };
            count.fetch_add(1, Ordering::Relaxed);
        });
        let before = ends.load(Ordering::Relaxed);
        let _proxy = checked(&server, check);
        eventually("a few checks", || {
            ends.load(Ordering::Relaxed) >= before + 4
        });
        assert_eq!(resets.load(Ordering::Relaxed), 0, "{check}");
    }
}

#[test]
fn the_hello_of_a_check_asks_for_a_name() {
    let seen = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&seen);
    let server = Servers::start(move |mut stream| {
        let mut hello = vec![0; 500];
        let n = stream.read(&mut hello).unwrap_or(0);
        let is_named = hello[..n].windows(9).any(|part| part == b"a.example");
        theirs.store(is_named, Ordering::Relaxed);
        let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, 40]);
    });
    let proxy = checked(&server, "kind = \"tls\", sni = \"a.example\"");
    eventually("a check by name", || seen.load(Ordering::Relaxed));
    assert_eq!(status(&proxy), "up");
}

/// Two servers that are not there yet, one of which connections count out.
#[test]
fn the_last_server_standing_is_not_counted_out() {
    let addresses = [Servers::nobody(), Servers::nobody()];
    for back in 0..2 {
        let proxy = configured(&format!(
            "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n\
             [pools.p]\nservers = [{{ name = \"a\", address = \"{}\" }}, {{ name = \"s\", address = \"{}\" }}]\n\
             passive = {{ failures = 2, out_for = \"1h\" }}\n",
            addresses[0], addresses[1]
        ));
        for _ in 0..8 {
            assert!(is_refused(proxy.address()));
        }
        let servers = proxy.admin("servers");
        assert_eq!(servers.matches(" out ").count(), 1, "{servers}");
        assert_eq!(servers.matches(" up ").count(), 1, "{servers}");
        // Whoever of them is back is found.
        let listener = std::net::TcpListener::bind(addresses[back]).unwrap();
        let _server = Servers::start_on(listener, |stream| {
            crate::support::answer_lines("s", &stream);
        });
        for _ in 0..4 {
            assert_eq!(ask(&proxy.connect(), "x").unwrap(), "s x");
        }
    }
}

#[test]
fn a_lone_server_is_served_from_as_soon_as_it_is_back() {
    let gone = Servers::nobody();
    let proxy = simple(&[gone], &[]);
    for _ in 0..20 {
        assert!(is_refused(proxy.address()));
    }
    let listener = std::net::TcpListener::bind(gone).unwrap();
    let _server = Servers::start_on(listener, |stream| {
        crate::support::answer_lines("s", &stream);
    });
    assert_eq!(ask(&proxy.connect(), "x").unwrap(), "s x");
    assert!(
        !proxy.stderr().contains("counted out"),
        "{}",
        proxy.stderr()
    );
}

#[test]
fn checks_that_pass_bring_back_what_connections_counted_out() {
    let (address, spare) = (Servers::nobody(), Servers::named("spare"));
    let proxy = configured(&format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n\
         [pools.p]\nservers = [{{ name = \"s\", address = \"{address}\" }}, {{ address = \"{}\", backup = true }}]\n\
         passive = {{ failures = 1, out_for = \"1h\" }}\n\
         check = {{ interval = \"50ms\", timeout = \"10s\", fall = 1000000, rise = 2 }}\n",
        spare.address
    ));
    assert_eq!(ask(&proxy.connect(), "x").unwrap(), "spare x");
    assert_eq!(status(&proxy), "out");
    let _server = Servers::start_on(std::net::TcpListener::bind(address).unwrap(), |stream| {
        crate::support::answer_lines("s", &stream);
    });
    eventually("it is up", || status(&proxy) == "up");
    assert_eq!(ask(&proxy.connect(), "x").unwrap(), "s x");
}

#[test]
fn reloads_put_no_check_off() {
    let good = Arc::new(AtomicBool::new(true));
    let (other, server) = (moody(&Arc::new(AtomicBool::new(true))), moody(&good));
    let config = format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n\
         [pools.p]\nservers = [{{ name = \"other\", address = \"{}\" }}, {{ name = \"s\", address = \"{}\" }}]\n\
         check = {{ send = \"PING\\r\\n\", expect = \"+PONG\", interval = \"1s\", timeout = \"10s\", fall = 1, rise = 1 }}\n",
        other.address, server.address
    );
    let proxy = configured(&config);
    good.store(false, Ordering::Relaxed);
    eventually("it is down", || {
        // Far more often than checks are made.
        proxy.reload(&config);
        std::thread::sleep(std::time::Duration::from_millis(20));
        status(&proxy) == "down"
    });
    assert!(proxy.stderr().matches("is in force").count() > 1);
}
