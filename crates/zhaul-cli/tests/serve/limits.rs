//! What one client may take: time, connections, requests, bandwidth.

use std::time::{Duration, Instant};

use crate::support::client::End;
use crate::support::{Client, Files, Serve, Server, eventually, has_program, pattern, skip};

#[test]
fn a_header_that_does_not_come_to_its_end_is_not_waited_for() {
    let files = Files::with(&[("a", b"a")]);
    let log = files.outside().join("log");
    let server = Serve::new(files.root())
        .args(["--header-timeout", "1"])
        .args(["--access-log".as_ref(), log.as_os_str()])
        .start();
    let began = Instant::now();
    let mut started = server.connect();
    started.send("GET /a HTTP/1.1\r\nHost: h\r\n");
    // A byte now and then does not help: what counts is the beginning of the request. Once told, it
    // has two more seconds to leave.
    let mut dripping = server.connect();
    dripping.send("GET /a HTTP/1.1\r\nHost: h\r\nX: ");
    let mut second = server.connect();
    second.get("/a").assert_status(200);
    second.send("GET");
    let mut dripped = 0;
    while dripping.try_send("x").is_ok() && began.elapsed() < Duration::from_secs(10) {
        dripped += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(
        (5..70).contains(&dripped),
        "{dripped} bytes at ten a second"
    );
    for client in [&mut started, &mut second] {
        let answer = client.answer();
        answer.assert_status(408);
        assert!(answer.closes());
        client.assert_ended();
    }
    eventually("lines in the access log", || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        log.contains("\"GET /a HTTP/1.1\" 408 ") && log.contains("\"GET\" 408 ")
    });
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn each_header_of_a_pipeline_has_its_own_time() {
    let files = Files::with(&[("a", b"a")]);
    let server = Server::of(files.root(), &["--header-timeout", "1"]);
    let mut client = server.connect();
    let request = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    let (front, back) = request.split_at(20);
    client.send(front);
    let began = Instant::now();
    // At no time is there nothing begun, and yet each request is complete within 0.2 s.
    while began.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(200));
        client.send([back, front].concat());
        client.answer().assert_status(200).assert_body(b"a");
    }
    let stopped = Instant::now();
    client.answer().assert_status(408);
    client.assert_ended();
    let took = stopped.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(4)).contains(&took),
        "a half header was kept for {took:?} at a limit of 1 s"
    );
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let files = Files::with(&[("a", b"a")]);
    let server = Server::of(files.root(), &["--idle-timeout", "1"]);
    let mut idle = server.connect();
    idle.get("/a").assert_status(200);
    let mut silent = server.connect();
    let mut busy = server.connect();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2500) {
        busy.get("/a").assert_status(200);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(idle.rest(), (Vec::new(), End::Closed));
    assert_eq!(silent.rest(), (Vec::new(), End::Closed));
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    busy.get("/a").assert_status(200);
}

/// Reads `bytes` every `pause` until the server cuts the answer or `most` has passed.
fn read_slowly(
    mut client: Client,
    bytes: usize,
    pause: Duration,
    most: Duration,
) -> (Client, bool) {
    let began = Instant::now();
    let mut buffer = vec![0; bytes];
    while began.elapsed() < most {
        std::thread::sleep(pause);
        // What arrived before the reset can still be read, for a long time at this pace.
        if client.was_reset() {
            return (client, true);
        }
        if bytes > 0 && !matches!(client.read_some(&mut buffer), Ok(1..)) {
            return (client, true);
        }
    }
    (client, false)
}

#[test]
fn a_client_that_takes_too_little_is_cut_off_and_a_slow_one_is_not() {
    let content = pattern(32 << 20);
    let files = Files::with(&[("large", &content), ("a", b"a")]);
    // What the kernels buffer counts as taken, hence the rate.
    let strict = Server::of(
        files.root(),
        &[
            "--min-send-rate",
            "2000000",
            "--send-window",
            "5",
            "--workers",
            "1",
        ],
    );
    let lenient = Server::of(files.root(), &["--workers", "1"]);
    let begin = |server: &Server| {
        let mut client = server.connect();
        client.ask("GET", "/large", &[]);
        client.head_of_answer().assert_status(200);
        client
    };
    let second = Duration::from_secs(1);
    std::thread::scope(|scope| {
        let reader = |server, bytes, pause, most| {
            let client = begin(server);
            scope.spawn(move || read_slowly(client, bytes, pause, most))
        };
        let stopped = reader(&strict, 0, second / 10, 30 * second);
        let dripping = reader(&strict, 1, second, 30 * second);
        // 60 kB/s are far above the default of 256 B/s, though the kernels buffer megabytes.
        let slow = reader(&lenient, 6000, second / 10, 23 * second);
        let began = Instant::now();
        assert!(
            stopped.join().unwrap().1,
            "a client that stopped reading was kept for 30 s"
        );
        assert!(
            dripping.join().unwrap().1,
            "a client that takes a byte a second was kept for 30 s"
        );
        assert!(
            began.elapsed() > 5 * second,
            "cut off long before the average is over"
        );
        strict.connect().get("/a").assert_status(200);
        let (_, was_cut) = slow.join().unwrap();
        assert!(
            !was_cut,
            "a client that took 60 kB/s was cut off at a minimum of 256 B/s"
        );
    });
}

#[test]
fn a_client_that_pauses_is_waited_for() {
    let content = pattern(32 << 20);
    let files = Files::with(&[("large", &content)]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    client.ask("GET", "/large", &[]);
    client.head_of_answer().assert_status(200);
    let front = client.take(1 << 20);
    // As long as a database needs for an index, or nearly.
    std::thread::sleep(Duration::from_secs(25));
    let rest = client.take(content.len() - front.len());
    assert!([front, rest].concat() == content);
}

#[test]
fn an_answer_that_is_wholly_in_the_sockets_buffer_is_under_way_until_it_is_acknowledged() {
    // More than a client with little room takes, less than the server's kernel buffers.
    let files = Files::with(&[("tail", &pattern(1 << 20)), ("a", b"a")]);
    let limits = ["--min-send-rate", "1000", "--send-window", "2"];
    let one = ["--max-connections-per-address", "2", "--workers", "1"];
    let server = Server::of(files.root(), &[limits, one].concat()[..]);
    for (fields, finishes) in [
        (&[][..], false),
        (&[("Connection", "close")], false),
        (&[], true),
    ] {
        let mut silent = Client::tcp_with_little_room(server.address());
        silent.ask("GET", "/tail", fields);
        if finishes {
            silent.finish_sending();
        }
        std::thread::sleep(Duration::from_millis(500));
        // It counts while it holds the kernel's memory, whatever the server's part in it.
        let mut other = server.connect();
        other.get("/a").assert_status(200);
        let mut third = server.connect();
        third.answer().assert_status(429);
        // And it is cut off like one that is still being sent.
        let began = Instant::now();
        eventually("a reset", || silent.was_reset());
        assert!(
            began.elapsed() > Duration::from_secs(1),
            "{fields:?}: cut off before the average is over"
        );
        drop((silent, other));
        eventually("a place for the address", || is_let_in(&server));
    }
}

#[test]
fn what_is_acknowledged_slowly_but_steadily_is_delivered() {
    let content = pattern(1 << 20);
    let files = Files::with(&[("tail", &content)]);
    let limits = ["--min-send-rate", "1000", "--send-window", "1"];
    let server = Server::of(files.root(), &limits);
    for fields in [&[][..], &[("Connection", "close")]] {
        let mut slow = Client::tcp_with_little_room(server.address());
        slow.ask("GET", "/tail", fields);
        slow.head_of_answer().assert_status(200);
        let mut received = Vec::new();
        while received.len() < content.len() {
            std::thread::sleep(Duration::from_millis(200));
            let next = (content.len() - received.len()).min(40_000);
            received.extend(slow.take(next));
        }
        assert!(received == content);
    }
}

/// Begins a download of which no more is read, so that the connection is busy.
fn busy(server: &Server) -> Client {
    let mut client = Client::tcp_with_little_room(server.address());
    client.ask("GET", "/large", &[]);
    client.head_of_answer().assert_status(200);
    client
}

#[test]
fn connections_beyond_the_limit_are_refused_and_told() {
    let files = Files::with(&[("a", b"a"), ("large", &pattern(32 << 20))]);
    let log = files.outside().join("log");
    for workers in ["1", "2"] {
        let _ = std::fs::remove_file(&log);
        let server = Serve::new(files.root())
            .args(["--max-connections", "3", "--workers", workers])
            .args(["--access-log".as_ref(), log.as_os_str()])
            .start();
        let mut held: Vec<Client> = (0..3).map(|_| busy(&server)).collect();
        let mut refused = server.connect();
        let answer = refused.answer();
        answer.assert_status(503);
        assert!(answer.closes());
        assert_eq!(answer.field("Retry-After"), Some("1"));
        refused.assert_ended();
        drop(refused);
        server.wait_for(&["WARN", "refused a connection"]);
        eventually("a line in the access log", || {
            std::fs::read_to_string(&log)
                .unwrap_or_default()
                .contains("\"-\" 503 ")
        });
        held.pop().unwrap().reset();
        eventually("a place for the next connection", || is_let_in(&server));
    }
}

#[test]
fn who_comes_when_all_places_are_taken_gets_that_of_who_rested_longest() {
    let files = Files::with(&[("a", b"a"), ("large", &pattern(32 << 20))]);
    let server = Server::of(files.root(), &["--max-connections", "3", "--workers", "1"]);
    let mut busy = busy(&server);
    let mut oldest = server.connect();
    oldest.get("/a").assert_status(200);
    // As long as the clock of a connection's rest needs to tell them apart.
    std::thread::sleep(Duration::from_millis(50));
    let mut silent = server.connect();
    std::thread::sleep(Duration::from_millis(50));
    let mut next = server.connect();
    next.get("/a").assert_status(200);
    oldest.assert_ended();
    let mut another = server.connect();
    another.get("/a").assert_status(200);
    silent.assert_ended();
    next.get("/a").assert_status(200);
    busy.take(1 << 20);
}

#[test]
fn silent_connections_lock_nobody_out() {
    let name = "silent_connections_lock_nobody_out";
    if !has_program("prlimit") {
        skip!(name, "prlimit is not installed");
    }
    let files = Files::with(&[("a", b"a")]);
    for workers in ["1", "2"] {
        let server = Serve::new(files.root())
            .under(["prlimit", "--nofile=256:256", "--"])
            .args(["--workers", workers])
            .start();
        let mut early = server.connect();
        early.get("/a").assert_status(200);
        let mut silent: Vec<Client> = Vec::new();
        for round in 0..400 {
            silent.push(server.connect());
            if round % 20 == 0 {
                // Whoever asks is let in, and whoever goes on asking stays.
                assert!(is_let_in(&server), "locked out by {round} silent ones");
                if early
                    .try_send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
                    .is_err()
                    || early.try_answer("GET").is_err()
                {
                    panic!("one that is in use was closed at {round}");
                }
            }
        }
    }
}

#[test]
fn one_address_does_not_take_the_last_places() {
    let files = Files::with(&[("a", b"a"), ("large", &pattern(32 << 20))]);
    let server = Server::of(files.root(), &["--max-connections", "40", "--workers", "1"]);
    // All of them busy, so that none can be closed in favour of another.
    let held: Vec<Client> = (0..35).map(|_| busy(&server)).collect();
    let mut refused = server.connect();
    refused.answer().assert_status(429);
    for _ in 0..3 {
        let mut other = from_address("127.0.0.2", &server).expect("127.0.0.0/8 is ours");
        other.get("/a").assert_status(200);
    }
    drop(held);
    eventually("a place for the address", || is_let_in(&server));
}

fn is_let_in(server: &Server) -> bool {
    let mut client = server.connect();
    client
        .try_send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
        .is_ok()
        && client
            .try_answer("GET")
            .is_ok_and(|answer| answer.status == 200)
}

#[test]
fn connections_of_one_address_are_counted() {
    let files = Files::with(&[("a", b"a")]);
    let server = Server::of(files.root(), &["--max-connections-per-address", "2"]);
    let mut held: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    for client in &mut held {
        client.get("/a").assert_status(200);
    }
    let mut refused = server.connect();
    refused.answer().assert_status(429);
    refused.assert_ended();
    // Another address of this machine.
    let other = from_address("127.0.0.2", &server);
    other
        .expect("127.0.0.0/8 is ours")
        .get("/a")
        .assert_status(200);
    drop(held);
    eventually("a place for the address", || is_let_in(&server));
}

fn from_address(address: &str, server: &Server) -> std::io::Result<Client> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    let ip: std::net::IpAddr = address.parse().unwrap();
    bind(&fd, &std::net::SocketAddr::new(ip, 0))?;
    connect(&fd, &server.address())?;
    Ok(Client::of_tcp_stream(fd.into()))
}

#[test]
fn the_last_request_of_a_connection_is_answered_and_closes_it() {
    let files = Files::with(&[("a", b"a"), ("large", &pattern(300_000))]);
    let server = Server::of(files.root(), &["--max-requests-per-connection", "3"]);
    for last in ["/a", "/large", "/missing"] {
        let mut client = server.connect();
        assert!(!client.get("/a").closes());
        assert!(!client.get("/missing").closes());
        client.ask("GET", last, &[]);
        client.ask("GET", "/a", &[]);
        assert!(client.answer().closes(), "{last}");
        client.assert_ended();
    }
}

/// What a connection may have received so long after it asked, at 1 MB/s: what the rate gives, and
/// what it may be ahead of it, in the server's count and in the engine's.
fn most_at_1_mb(elapsed: Duration) -> usize {
    usize::try_from(elapsed.as_micros()).unwrap() + 250_000
}

#[test]
fn a_connection_is_no_faster_than_its_rate() {
    let content = pattern(3_000_000);
    let small = pattern(60_000);
    let files = Files::with(&[("large", &content), ("small", &small)]);
    let socket = files.outside().join("s");
    let server = Serve::new(files.root())
        .args(["--rate", "1000000"])
        .listen([
            "127.0.0.1:0".to_owned(),
            format!("unix:{}", socket.display()),
        ])
        .start();
    // A file, from the first byte on; and as many bytes in small answers.
    for mut client in [server.connect(), Client::unix(&socket)] {
        let began = Instant::now();
        client.ask("GET", "/large", &[]);
        client.head_of_answer().assert_status(200);
        let mut received = Vec::new();
        while received.len() < content.len() {
            let next = (content.len() - received.len()).min(10_000);
            received.extend(client.take(next));
            let most = most_at_1_mb(began.elapsed());
            assert!(received.len() <= most, "{} of {most}", received.len());
        }
        assert!(received == content);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(8), "3 MB at 1 MB/s in {took:?}");
        let began = Instant::now();
        let mut received = 0;
        for _ in 0..30 {
            client.get("/small").assert_status(200).assert_body(&small);
            received += small.len();
            let most = most_at_1_mb(began.elapsed());
            assert!(received <= most, "{received} of {most} in small answers");
        }
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(6),
            "1.8 MB at 1 MB/s in {took:?}"
        );
    }
}

#[test]
fn connections_that_are_refused_keep_nobody_out() {
    let files = Files::with(&[("a", b"a")]);
    let server = Server::of(
        files.root(),
        &[
            "--max-connections",
            "64",
            "--max-connections-per-address",
            "10",
            "--workers",
            "1",
        ],
    );
    // They stay after they were told, and new ones come.
    let mut crowd = Vec::new();
    for _ in 0..10 {
        for _ in 0..40 {
            crowd.extend(from_address("127.0.0.1", &server));
        }
        std::thread::sleep(Duration::from_millis(20));
        let mut other = from_address("127.0.0.2", &server).expect("127.0.0.0/8 is ours");
        other
            .get_with("/a", &[("Connection", "close")])
            .assert_status(200);
        other.assert_ended();
    }
}

#[test]
fn who_takes_nothing_is_not_waited_for_without_a_minimum_rate_either() {
    let files = Files::with(&[("tail", &pattern(1 << 20))]);
    let server = Server::of(
        files.root(),
        &["--min-send-rate", "0", "--idle-timeout", "1"],
    );
    for fields in [&[][..], &[("Connection", "close")]] {
        let mut silent = Client::tcp_with_little_room(server.address());
        silent.ask("GET", "/tail", fields);
        eventually("a reset", || silent.was_reset());
    }
}
