//! Active checks: a server is up or down by what it says.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Proxy, Servers, configured, eventually, is_refused};

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
