//! Which server takes a connection.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};

use crate::support::{Proxy, Servers, ask, configured, is_refused, simple};

/// How often each server answered.
fn spread(proxy: &Proxy, connections: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..connections {
        *counts.entry(who(&proxy.connect())).or_insert(0) += 1;
    }
    counts
}

fn who(stream: &TcpStream) -> String {
    let answer = ask(stream, "?").unwrap();
    answer.split(' ').next().unwrap().to_owned()
}

fn config(servers: &[(&str, SocketAddr, &str)], more: &str) -> String {
    let servers: Vec<_> = servers
        .iter()
        .map(|(name, address, more)| {
            format!("{{ name = \"{name}\", address = \"{address}\" {more} }}")
        })
        .collect();
    format!(
        "workers = 1\n[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n\
         [pools.p]\nservers = [{}]\n{more}\n",
        servers.join(", ")
    )
}

#[test]
fn round_robin_keeps_weights() {
    let (a, b) = (Servers::named("a"), Servers::named("b"));
    let proxy = configured(&config(
        &[("a", a.address, ", weight = 3"), ("b", b.address, "")],
        "",
    ));
    assert_eq!(
        spread(&proxy, 40),
        BTreeMap::from([("a".into(), 30), ("b".into(), 10)])
    );
}

#[test]
fn least_connections_goes_where_fewest_are() {
    let (a, b) = (Servers::named("a"), Servers::named("b"));
    let proxy = configured(&config(
        &[("a", a.address, ""), ("b", b.address, "")],
        "balance = \"least-connections\"",
    ));
    let held: Vec<_> = (0..6).map(|_| proxy.connect()).collect();
    let whos: Vec<_> = held.iter().map(who).collect();
    assert_eq!(whos.iter().filter(|who| *who == "a").count(), 3);
    // All of a's leave; the next three go there.
    for (stream, who) in held.iter().zip(&whos) {
        if who == "a" {
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
    }
    proxy.log(3);
    let next: Vec<_> = (0..3).map(|_| proxy.connect()).collect();
    assert!(next.iter().all(|stream| who(stream) == "a"));
}

#[test]
fn a_client_keeps_its_server_by_its_address() {
    let servers: Vec<_> = ["a", "b", "c", "d"].map(Servers::named).into();
    let to: Vec<_> = servers.iter().map(|server| server.address).collect();
    let proxy = simple(&to, &["--balance", "source-hash"]);
    assert_eq!(spread(&proxy, 20).len(), 1);
}

#[test]
fn two_at_random_are_enough() {
    let (a, b) = (Servers::named("a"), Servers::named("b"));
    let proxy = simple(&[a.address, b.address], &["--balance", "random-of-two"]);
    // Held open, so that the fuller of the two is never chosen for long.
    let held: Vec<_> = (0..40).map(|_| proxy.connect()).collect();
    let of_a = held.iter().filter(|stream| who(stream) == "a").count();
    assert!((18..=22).contains(&of_a), "{of_a}");
}

#[test]
fn the_next_server_is_tried_when_one_does_not_answer() {
    let (a, b) = (Servers::named("a"), Servers::named("b"));
    let gone = Servers::nobody();
    let proxy = configured(&config(
        &[
            ("gone", gone, ""),
            ("a", a.address, ""),
            ("b", b.address, ""),
        ],
        "passive = false",
    ));
    let counts = spread(&proxy, 30);
    assert_eq!(counts.values().sum::<usize>(), 30, "{counts:?}");
    let retried = proxy
        .log(30)
        .iter()
        .filter(|line| line["retries"] == 1)
        .count();
    assert!((8..=20).contains(&retried), "{retried}");
}

#[test]
fn a_pool_that_is_down_refuses_at_once_and_says_why() {
    let proxy = simple(&[Servers::nobody(), Servers::nobody()], &[]);
    assert!(is_refused(proxy.address()));
    let line = &proxy.log(1)[0];
    assert_eq!(
        (&line["cause"], &line["retries"]),
        (&"no-server".into(), &2.into())
    );
    proxy.wait_for(&["cannot connect to server", "refused"]);
}

#[test]
fn failed_connections_count_a_server_out_and_it_comes_back() {
    let a = Servers::named("a");
    let gone = Servers::nobody();
    let proxy = configured(&config(
        &[("gone", gone, ""), ("a", a.address, "")],
        "passive = { failures = 2, out_for = \"300ms\" }",
    ));
    spread(&proxy, 10);
    proxy.wait_for(&["p/gone", "counted out"]);
    let tried = |line: &serde_json::Value| line["retries"] == 1;
    let retried = proxy.log(10).iter().filter(|l| tried(l)).count();
    assert!(
        retried <= 4,
        "{retried} connections were tried with a server that is out"
    );
    let back = Servers::start_on(std::net::TcpListener::bind(gone).unwrap(), |stream| {
        crate::support::answer_lines("back", &stream);
    });
    crate::support::eventually("it is tried again", || {
        spread(&proxy, 2).contains_key("back")
    });
    assert!(back.accepted() > 0);
    proxy.wait_for(&["p/gone", "up again"]);
}

#[test]
fn backups_serve_while_no_other_server_is_up() {
    let (a, spare) = (Servers::named("a"), Servers::named("spare"));
    let text = config(
        &[
            ("a", a.address, ""),
            ("spare", spare.address, ", backup = true"),
        ],
        "check = { interval = \"50ms\", timeout = \"500ms\", fall = 1, rise = 1 }",
    );
    let proxy = configured(&text);
    assert_eq!(spread(&proxy, 5), BTreeMap::from([("a".into(), 5)]));
    let address = a.address;
    drop(a);
    proxy.wait_for(&["p/a", "down"]);
    assert_eq!(spread(&proxy, 5), BTreeMap::from([("spare".into(), 5)]));
    let _a = Servers::start_on(std::net::TcpListener::bind(address).unwrap(), |stream| {
        crate::support::answer_lines("a", &stream);
    });
    proxy.wait_for(&["p/a", "up again"]);
    assert_eq!(spread(&proxy, 5), BTreeMap::from([("a".into(), 5)]));
}

#[test]
fn servers_with_nothing_to_do_take_turns() {
    let servers = ["a", "b", "c"].map(Servers::named);
    let [a, b, c] = servers.each_ref().map(|server| server.address);
    let proxy = configured(&config(
        &[("a", a, ""), ("b", b, ""), ("c", c, "")],
        "balance = \"least-connections\"",
    ));
    // One that is not free again at once is passed over, so it need not be 20 each.
    let counts = spread(&proxy, 60);
    assert!(counts.values().all(|n| (12..=28).contains(n)), "{counts:?}");
    assert_eq!(counts.len(), 3, "{counts:?}");
}
