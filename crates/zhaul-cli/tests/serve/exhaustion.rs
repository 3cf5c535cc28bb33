//! What happens when the machine has no more descriptors: the server goes on, and does not spin.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, prlimit};

use crate::support::files::settle;
use crate::support::process::{cpu_time, descriptors, resident_bytes};
use crate::support::{Client, Files, Serve, Server, eventually, has_program, pattern, skip};

/// Takes all descriptors away: no new one can be had until the returned limit is set again.
fn take_descriptors_away(server: &Server) -> Rlimit {
    let none = |was: &Rlimit| Rlimit {
        current: Some(0),
        maximum: was.maximum,
    };
    let was = rustix::process::getrlimit(Resource::Nofile);
    prlimit(Some(server.pid()), Resource::Nofile, none(&was)).unwrap()
}

#[test]
fn without_descriptors_it_rests_and_then_serves_again() {
    let large = pattern(300_000);
    let files = Files::with(&[("a", b"a"), ("large", &large), ("b", b"b")]);
    for workers in ["1", "2"] {
        let server = Server::of(files.root(), &["--workers", workers]);
        let mut old = server.connect();
        old.get("/a").assert_status(200);
        old.get("/large").assert_status(200);
        // Each connection is on another worker; one that is still starting needs descriptors.
        server.connect().get("/a").assert_status(200);
        let before = take_descriptors_away(&server);
        // These wait in the backlog; what is there already needs no descriptor.
        let mut waiting: Vec<Client> = (0..5).map(|_| server.connect()).collect();
        for client in &mut waiting {
            client.ask("GET", "/b", &[]);
        }
        let cpu_before = cpu_time(server.pid());
        let answer = old.get("/b");
        assert!(matches!(answer.status, 503 | 500), "{}", answer.head);
        old.request("OPTIONS", "*", &[]).assert_status(204);
        assert!(waiting[0].is_silent_for(Duration::from_millis(1500)));
        let used = cpu_time(server.pid()) - cpu_before;
        assert!(
            used < Duration::from_millis(300),
            "{used:?} of CPU time for nothing"
        );
        server.wait_for(&["WARN", "cannot accept"]);

        prlimit(Some(server.pid()), Resource::Nofile, before).unwrap();
        for client in &mut waiting {
            client.answer().assert_status(200).assert_body(b"b");
        }
        old.get("/large").assert_status(200).assert_body(&large);
        old.get("/b").assert_status(200);
    }
}

#[test]
fn a_low_limit_on_open_files_is_lived_with() {
    if !has_program("prlimit") {
        skip!(
            "a_low_limit_on_open_files_is_lived_with",
            "prlimit is not installed"
        );
    }
    let files = Files::new();
    for n in 0..200 {
        files.write(format!("{n}"), pattern(70_000 + n));
    }
    for limit in [32, 96, 256] {
        let server = Serve::new(files.root())
            .under([
                "prlimit".to_owned(),
                format!("--nofile={limit}:{limit}"),
                "--".to_owned(),
            ])
            .args(["--workers", "1"])
            .start();
        // More clients than it can have, and more files than it can keep open.
        for round in 0..3 {
            let clients: Vec<Client> = (0..limit + 20).map(|_| server.connect()).collect();
            drop(clients);
            eventually("a place for one client", || {
                let mut client = server.connect();
                let asked = client.try_send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
                asked.is_ok()
                    && client
                        .try_answer("GET")
                        .is_ok_and(|answer| answer.status == 200)
            });
            let mut served = 0;
            for n in 0..200 {
                let mut client = server.connect();
                let _ = client.try_send(format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n"));
                // Refused while the one before is not quite gone.
                let Ok(answer) = client.try_answer("GET") else {
                    continue;
                };
                if answer.status == 200 {
                    answer.assert_body(&pattern(70_000 + n));
                    served += 1;
                }
            }
            assert!(
                served > 100,
                "{served} of 200 with {limit} files in round {round}"
            );
        }
        let open: usize = descriptors(server.pid()).values().sum();
        assert!(open <= limit);
    }
}

#[test]
fn files_with_siblings_are_kept_open_only_as_far_as_descriptors_go() {
    let name = "files_with_siblings_are_kept_open_only_as_far_as_descriptors_go";
    if !has_program("prlimit") {
        skip!(name, "prlimit is not installed");
    }
    const FILES: usize = 200;
    let files = Files::new();
    for n in 0..FILES {
        for suffix in ["", ".br", ".zst", ".gz"] {
            files.write(format!("{n}{suffix}"), format!("{n}{suffix}"));
        }
    }
    settle();
    let server = Serve::new(files.root())
        .under(["prlimit", "--nofile=256:256", "--"])
        .args(["--workers", "1"])
        .start();
    let mut client = server.connect();
    for n in 0..FILES {
        let answer = client.get_with(&format!("/{n}"), &[("Accept-Encoding", "br")]);
        answer
            .assert_status(200)
            .assert_body(format!("{n}.br").as_bytes());
    }
    let held = descriptors(server.pid());
    // What is kept leaves room for those who come.
    let clients: Vec<Client> = (0..100)
        .map(|n| {
            let mut client = server.connect();
            let answer = client.get(&format!("/{}", n % FILES));
            answer.assert_status(200);
            client
        })
        .collect();
    drop(clients);
    let open: usize = held.values().sum();
    assert!(open < 140, "{open} of 256 descriptors: {held:?}");
    let said = server.stderr();
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
}

#[test]
fn listings_for_slow_clients_take_bounded_memory() {
    const CLIENTS: usize = 30;
    const MOST: usize = 64 << 20;
    let files = Files::new();
    // Each byte of these names takes several in a page.
    for n in 0..9000 {
        let name = format!("{n:04}{}", "&".repeat(52));
        std::fs::File::create(files.path(name)).unwrap();
    }
    let server = Server::of(files.root(), &["--workers", "1"]);
    let page = server.connect().get("/").body.len();
    assert!(
        page > 5 << 20,
        "{page} bytes, which the kernel might buffer for the client"
    );
    let before = resident_bytes(server.pid());
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = Client::tcp_with_little_room(server.address());
            client.ask("GET", "/", &[]);
            client
        })
        .collect();
    let statuses: Vec<u16> = clients
        .iter_mut()
        .map(|client| client.head_of_answer().status)
        .collect();
    let count = |wanted| statuses.iter().filter(|s| **s == wanted).count();
    let (listed, refused) = (count(200), count(503));
    assert_eq!(listed + refused, CLIENTS, "{statuses:?}");
    assert!(
        listed >= 4 && listed * page <= MOST,
        "{listed} listings of {page} bytes wait"
    );
    let grown = resident_bytes(server.pid()).saturating_sub(before);
    // The allocator keeps what rendering them took.
    let bound = 4 * MOST as u64;
    assert!(grown < bound, "{grown} bytes more for {listed} listings");
    server.wait_for(&["WARN", "listings"]);
    // The pages are smaller than what was reserved for each.
    while clients.len() < 2 * CLIENTS {
        let mut client = Client::tcp_with_little_room(server.address());
        client.ask("GET", "/", &[]);
        let full = client.head_of_answer().status == 503;
        clients.push(client);
        if full {
            break;
        }
    }
    // A refusal has no body either where none was asked for.
    let mut client = server.connect();
    client.request("HEAD", "/", &[]).assert_status(503);
    client.assert_ended();
    drop(clients);
    eventually("a listing after they are gone", || {
        server.connect().get("/").status == 200
    });
}

#[test]
fn thousands_of_idle_connections_cost_little_memory() {
    const CLIENTS: usize = 3000;
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let enough = CLIENTS as u64 + 500;
    if limit.current.is_some_and(|current| current < enough) {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    }
    if rustix::process::getrlimit(Resource::Nofile)
        .current
        .is_some_and(|now| now < enough)
    {
        skip!(
            "thousands_of_idle_connections_cost_little_memory",
            "the limit on open files is low"
        );
    }
    let files = Files::with(&[("a", b"a")]);
    let server = Server::of(files.root(), &["--workers", "1"]);
    server.connect().get("/a").assert_status(200);
    let before = resident_bytes(server.pid());
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.get("/a").assert_status(200);
    }
    let grown = resident_bytes(server.pid()).saturating_sub(before);
    // 10,000 are to fit into 100 MiB.
    assert!(
        grown < (CLIENTS as u64) * 6000,
        "{} bytes for each",
        grown / CLIENTS as u64
    );
    drop(clients);
    eventually("closing all of them", || {
        descriptors(server.pid())
            .get("socket")
            .copied()
            .unwrap_or_default()
            < 20
    });
}
