//! Many requests, many of them broken off: nothing is left behind.
//!
//! `ZHAUL_SOAK=100000` makes it that many requests; otherwise it takes a few seconds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::process::{descriptors, threads};
use crate::support::{Client, Files, Server, eventually, pattern};

const LARGE: usize = 2_000_000;

/// A small generator of our own: the same requests in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What one client does before it leaves; says how many requests it made.
fn misbehave(server: &Server, dice: &mut Dice, large: &[u8]) -> u64 {
    let mut client = server.connect();
    match dice.roll(11) {
        0 => 0,
        1 => {
            let _ = client.try_send("GET /sm");
            1
        }
        2 => {
            client.ask("GET", "/large", &[]);
            client.reset();
            1
        }
        3 => {
            client.ask("GET", "/large", &[]);
            client.take(1 + dice.roll(500_000) as usize);
            client.reset();
            1
        }
        4 => {
            client.ask(
                "GET",
                "/large",
                &[("Range", "bytes=0-99999,500000-,200000-300000")],
            );
            client.head_of_answer().assert_status(206);
            1
        }
        5 => {
            // Many requests at once, and nobody to read the answers.
            client.send("GET /large HTTP/1.1\r\nHost: h\r\n\r\n".repeat(8));
            client.finish_sending();
            client.reset();
            8
        }
        6 => {
            client.send("GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 500000\r\n\r\nabc");
            1
        }
        7 => {
            client.get("/dir/").assert_status(200);
            client.ask("GET", "/dir/", &[]);
            client.reset();
            2
        }
        8 => {
            client.send("\x16\x03\x01 nonsense\r\n\r\n");
            1
        }
        _ => well_behaved(&mut client, dice, large),
    }
}

fn well_behaved(client: &mut Client, dice: &mut Dice, large: &[u8]) -> u64 {
    let requests = 1 + dice.roll(40);
    for _ in 0..requests {
        match dice.roll(20) {
            0 => drop(client.get("/large").assert_status(200).assert_body(large)),
            1 => drop(client.get("/missing").assert_status(404)),
            2 => {
                let range = [("Range", "bytes=1000000-1000999")];
                client
                    .get_with("/large", &range)
                    .assert_body(&large[1_000_000..1_001_000]);
            }
            3 => drop(client.request("HEAD", "/large", &[]).assert_status(200)),
            _ => drop(client.get("/a").assert_status(200).assert_body(b"small")),
        }
    }
    requests
}

#[test]
fn nothing_is_left_of_clients_that_come_and_go() {
    let target = std::env::var("ZHAUL_SOAK")
        .ok()
        .map(|count| count.parse::<u64>().unwrap());
    let large = pattern(LARGE);
    let files = Files::with(&[("a", b"small"), ("large", &large), ("dir/x", b"")]);
    for mode in ["immutable", "lease", "copy"] {
        let log = files.outside().join("log");
        let arguments = [
            "--workers",
            "2",
            "--stability",
            mode,
            "--header-timeout",
            "2",
        ];
        let log = ["--access-log", log.to_str().unwrap()];
        let server = Server::of(files.root(), &[&arguments[..], &log].concat());
        // Everything that is made once and kept: cache entries, threads of the pool.
        let mut dice = Dice(7);
        for _ in 0..60 {
            misbehave(&server, &mut dice, &large);
        }
        let baseline = settled(&server);
        let (most_requests, most_time) = match target {
            Some(count) => (count / 3, Duration::from_secs(3600)),
            None => (u64::MAX, Duration::from_millis(2500)),
        };
        let done = AtomicU64::new(0);
        let until = Instant::now() + most_time;
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (server, done, large) = (&server, &done, &large[..]);
                scope.spawn(move || {
                    let mut dice = Dice(seed);
                    while Instant::now() < until && done.load(Ordering::Relaxed) < most_requests {
                        let requests = misbehave(server, &mut dice, large);
                        done.fetch_add(requests, Ordering::Relaxed);
                    }
                });
            }
        });
        let done = done.into_inner();
        assert!(done > 300, "{done} requests are no soak");
        server
            .connect()
            .get("/a")
            .assert_status(200)
            .assert_body(b"small");
        eventually(
            &format!("{mode}: the descriptors of before, {baseline:?}"),
            || count(&server) <= baseline,
        );
        // Threads of the pool may have been started since, up to its size, and no more.
        assert!(
            threads(server.pid()) <= 2 + 3 + 16 + 2,
            "{}",
            threads(server.pid())
        );
    }
}

/// Sockets, pipes and reactor descriptors. Files are the cache's, which closes them by itself.
fn count(server: &Server) -> [usize; 3] {
    let kinds = descriptors(server.pid());
    ["socket", "pipe", "anon_inode"].map(|kind| kinds.get(kind).copied().unwrap_or_default())
}

/// The count when it has not changed for a while.
fn settled(server: &Server) -> [usize; 3] {
    let mut last = count(server);
    let mut since = Instant::now();
    let deadline = Instant::now() + Duration::from_secs(20);
    while since.elapsed() < Duration::from_millis(700) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
        let now = count(server);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

#[test]
fn memory_does_not_grow_with_requests() {
    let large = pattern(LARGE);
    let files = Files::with(&[("a", b"small"), ("large", &large), ("dir/x", b"")]);
    let server = Server::of(files.root(), &["--workers", "1"]);
    let mut dice = Dice(3);
    let mut client = server.connect();
    let resident = || crate::support::process::resident_bytes(server.pid());
    for _ in 0..40 {
        well_behaved(&mut client, &mut dice, &large);
    }
    let before = resident();
    for n in 0..4000 {
        client.get(&format!("/missing-{n}")).assert_status(404);
        if n % 40 == 0 {
            well_behaved(&mut client, &mut dice, &large);
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more after 4000 requests");
}
