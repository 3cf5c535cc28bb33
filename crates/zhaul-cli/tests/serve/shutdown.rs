//! SIGTERM: in-flight answers finish, new connections are refused, the exit is clean and in time.

use std::fs::File;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::support::client::End;
use crate::support::http::assert_same;
use crate::support::running::ignoring;
use crate::support::{Client, Files, Serve, Server, eventually, pattern};

const LARGE: usize = 48 << 20;
/// Less than a server's kernel buffers, more than a client's with little room.
const TAIL: usize = 1 << 20;
const SOON: Duration = Duration::from_secs(5);

fn refuses_connections(server: &Server) -> bool {
    TcpStream::connect_timeout(&server.address(), Duration::from_secs(1)).is_err()
}

#[test]
fn an_answer_in_flight_is_finished_before_it_ends() {
    let content = pattern(LARGE);
    let files = Files::with(&[("large", &content)]);
    for workers in ["1", "3"] {
        for signal in [Signal::TERM, Signal::INT] {
            let mut server = Server::of(files.root(), &["--workers", workers]);
            let mut client = server.connect();
            client.ask("GET", "/large", &[]);
            client.head_of_answer().assert_status(200);
            let mut received = client.take(10_000);
            server.signal(signal);
            eventually("refusing new connections", || refuses_connections(&server));
            assert!(
                server.wait(Duration::from_millis(300)).is_none(),
                "it did not wait"
            );
            received.extend(client.take(LARGE - received.len()));
            assert!(received == content, "another file than before the signal");
            client.assert_ended();
            let status = server.wait(SOON).expect("it ends when the answer is out");
            assert_eq!(status.code(), Some(0));
        }
    }
}

#[test]
fn idle_connections_do_not_hold_it_up() {
    let files = Files::with(&[("a", b"a")]);
    let mut server = Server::of(files.root(), &["--workers", "2"]);
    let mut idle: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut idle {
        client.get("/a").assert_status(200);
    }
    let began = Instant::now();
    server.signal(Signal::TERM);
    let status = server.wait(SOON).expect("nothing is in flight");
    assert_eq!(status.code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    for client in &mut idle {
        client.assert_ended();
    }
}

#[test]
fn a_pipeline_in_flight_is_answered_in_part_and_says_so() {
    let files = Files::with(&[("a", b"a"), ("large", &pattern(LARGE))]);
    let mut server = Server::of(files.root(), &["--workers", "1"]);
    let mut client = server.connect();
    client.ask("GET", "/large", &[]);
    client.ask("GET", "/a", &[]);
    client.head_of_answer();
    server.signal(Signal::TERM);
    eventually("refusing new connections", || refuses_connections(&server));
    client.take(LARGE);
    // The second was on its way before the signal: answered or not, but never half.
    if let Ok(answer) = client.try_answer("GET") {
        answer.assert_status(200).assert_body(b"a");
        assert!(answer.closes());
    }
    assert_eq!(server.wait(SOON).expect("it ends").code(), Some(0));
}

#[test]
fn what_comes_behind_the_last_answer_does_not_destroy_it() {
    let content = pattern(LARGE);
    let files = Files::with(&[("a", b"a"), ("large", &content)]);
    for workers in ["1", "2"] {
        let mut server = Server::of(files.root(), &["--workers", workers]);
        // The tail of the answer is still with the server when that has done its part.
        let mut client = Client::tcp_with_little_room(server.address());
        client.ask("GET", "/large", &[]);
        client.head_of_answer().assert_status(200);
        server.signal(Signal::TERM);
        eventually("refusing new connections", || refuses_connections(&server));
        for _ in 0..100 {
            client.ask("GET", "/a", &[]);
        }
        let mut received = client.take(LARGE - TAIL);
        std::thread::sleep(Duration::from_millis(500));
        received.extend(client.try_take(TAIL));
        assert_same(&received, &content, "the answer in flight");
        // Some of the others may be answered, but whole, and then it ends without a reset.
        let (rest, end) = client.rest();
        assert_eq!(end, End::Closed);
        if !rest.is_empty() {
            let last = rest.windows(4).rposition(|four| four == b"\r\n\r\n");
            assert_eq!(last.map(|at| &rest[at + 4..]), Some(&b"a"[..]));
        }
        assert_eq!(server.wait(SOON).expect("it ends").code(), Some(0));
    }
}

/// A FIFO that nobody reads, and what holds it open for both, so that neither side waits for the other.
fn unread_fifo(files: &Files) -> (PathBuf, File) {
    let fifo = files.outside().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    let held = File::options().read(true).write(true).open(&fifo);
    (fifo, held.unwrap())
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_it_up_for_long() {
    let files = Files::with(&[("a", b"a")]);
    let (fifo, _held) = unread_fifo(&files);
    let mut server = Serve::new(files.root())
        .args(["--drain-timeout", "2", "--log-format", "json"])
        .args(["--access-log".as_ref(), fifo.as_os_str()])
        .start();
    let mut client = server.connect();
    // Several times what a pipe holds.
    for _ in 0..2000 {
        client.get("/a").assert_status(200);
    }
    drop(client);
    server.signal(Signal::TERM);
    let status = server.wait(2 * SOON);
    let status = status.expect("lines that cannot be written are given up");
    assert_eq!(status.code(), Some(0));
    server.wait_for(&["access log"]);
}

#[test]
fn the_deadline_ends_what_does_not_end_itself() {
    let files = Files::with(&[("large", &pattern(LARGE))]);
    let mut server = Server::of(files.root(), &["--drain-timeout", "1"]);
    let mut stuck = server.connect();
    stuck.ask("GET", "/large", &[]);
    stuck.head_of_answer();
    let began = Instant::now();
    server.signal(Signal::TERM);
    let status = server.wait(SOON).expect("the deadline is one second");
    assert_eq!(status.code(), Some(0));
    assert!(
        began.elapsed() > Duration::from_millis(900),
        "it did not wait: {:?}",
        began.elapsed()
    );
    let (rest, _) = stuck.rest();
    assert!(rest.len() < LARGE);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let files = Files::with(&[("large", &pattern(LARGE))]);
    let mut server = Server::of(files.root(), &[]);
    let mut stuck = server.connect();
    stuck.ask("GET", "/large", &[]);
    stuck.head_of_answer();
    server.signal(Signal::TERM);
    eventually("refusing new connections", || refuses_connections(&server));
    assert!(
        server.wait(Duration::from_millis(500)).is_none(),
        "it did not wait"
    );
    let began = Instant::now();
    server.signal(Signal::TERM);
    assert!(
        server.wait(SOON).is_some(),
        "the second signal was not heard"
    );
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_client_that_has_not_asked_yet_does_not_hold_it_up_for_long() {
    // Browsers open connections ahead of need.
    let files = Files::with(&[("a", b"a")]);
    let mut server = Server::of(files.root(), &["--workers", "1"]);
    server.connect().get("/a").assert_status(200);
    let mut silent = server.connect();
    std::thread::sleep(Duration::from_millis(100));
    server.signal(Signal::TERM);
    assert!(
        server.wait(SOON).is_some(),
        "a silent connection held it up for more than {SOON:?}"
    );
    silent.assert_ended();
}

#[test]
fn what_it_was_started_to_ignore_stays_ignored() {
    let files = Files::with(&[("a", b"a")]);
    for (name, signal) in [("HUP", Signal::HUP), ("INT", Signal::INT)] {
        let mut server = Serve::new(files.root()).under(ignoring(name)).start();
        for _ in 0..2 {
            server.signal(signal);
            assert!(
                server.wait(Duration::from_millis(300)).is_none(),
                "SIG{name} was ignored when it was started, and ended it"
            );
        }
        server.connect().get("/a").assert_status(200);
        server.signal(Signal::TERM);
        assert_eq!(server.wait(SOON).expect("SIGTERM").code(), Some(0));
    }
}

#[test]
fn hanging_up_does_not_mean_to_stop() {
    let files = Files::with(&[("large", &pattern(LARGE))]);
    let mut server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    client.ask("GET", "/large", &[]);
    client.head_of_answer();
    for _ in 0..3 {
        server.signal(Signal::HUP);
        assert!(server.wait(Duration::from_millis(200)).is_none());
    }
    client.take(LARGE);
    client.get("/").assert_status(200);
}

#[test]
fn a_second_signal_does_not_wait_for_a_log_that_nobody_reads() {
    let files = Files::with(&[("a", b"a")]);
    let (fifo, _held) = unread_fifo(&files);
    let mut server = Serve::new(files.root())
        .args(["--access-log".as_ref(), fifo.as_os_str()])
        .start();
    let mut client = server.connect();
    for _ in 0..2000 {
        client.get("/a").assert_status(200);
    }
    drop(client);
    let began = Instant::now();
    server.signal(Signal::TERM);
    eventually("refusing new connections", || refuses_connections(&server));
    server.signal(Signal::TERM);
    // The log alone has five seconds.
    assert!(server.wait(2 * SOON).is_some());
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_time_to_drain_without_a_bound_is_one() {
    let files = Files::with(&[("a", b"a"), ("large", &pattern(LARGE))]);
    let forever = u64::MAX.to_string();
    let mut server = Server::of(files.root(), &["--drain-timeout", &forever]);
    let mut client = server.connect();
    client.ask("GET", "/large", &[]);
    client.head_of_answer().assert_status(200);
    server.signal(Signal::TERM);
    eventually("refusing new connections", || refuses_connections(&server));
    client.take(LARGE);
    assert_eq!(server.wait(2 * SOON).expect("it ends").code(), Some(0));
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
}
