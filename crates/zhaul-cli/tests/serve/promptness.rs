//! Nobody waits because of what another one does or does not do: a stalled download, connections
//! that say nothing, a worker that sleeps.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Client, EndsOnDrop, Files, Server, pattern};

/// More than both ends' kernels buffer.
const LARGE: usize = 48 << 20;
/// A worker sleeps for half a second when nothing wakes it; what it answers sooner woke it.
const AT_ONCE: Duration = Duration::from_millis(300);

/// Begins a download of which no more is read: an answer that waits.
fn stall(server: &Server) -> Client {
    let mut client = server.connect();
    client.ask("GET", "/large", &[]);
    client.head_of_answer().assert_status(200);
    client
}

#[test]
fn silent_connections_in_the_backlog_do_not_hide_a_request_behind_them() {
    let files = Files::with(&[("large", &pattern(LARGE)), ("a", b"a")]);
    let server = Server::of(files.root(), &["--workers", "1"]);
    server.connect().get("/a").assert_status(200);
    // With an answer that waits, the worker leaves the sleeping to its runtime.
    let _stalled = stall(&server);
    for silent in [17, 40] {
        // All come in one piece, as after a pause of the machine.
        server.signal(Signal::STOP);
        let _silent: Vec<Client> = (0..silent).map(|_| server.connect()).collect();
        let mut client = server.connect();
        client.ask("GET", "/a", &[]);
        std::thread::sleep(Duration::from_millis(50));
        let began = Instant::now();
        server.signal(Signal::CONT);
        client.set_patience(Duration::from_secs(3));
        client.answer().assert_status(200).assert_body(b"a");
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "behind {silent} silent connections: {:?}",
            began.elapsed()
        );
    }
}

/// Makes a worker wait for another thread, and then have nothing left to wait for: the directory is
/// read elsewhere, and no socket has a part in how that ends.
fn list_root(client: &mut Client) {
    client.get("/").assert_status(200);
}

#[test]
fn a_connection_that_comes_as_a_worker_falls_asleep_wakes_it() {
    // A worker that sleeps over a wake-up does so in about one try of five hundred.
    const TRIES: u64 = 2000;
    let files = Files::with(&[("a", b"a")]);
    let server = Server::of(files.root(), &["--workers", "2"]);
    // The worker with least to do gets the next connection: one each, and then the first again.
    let mut first = server.connect();
    first.get("/a").assert_status(200);
    let mut second = server.connect();
    second.get("/a").assert_status(200);
    let meet = Barrier::new(2);
    let late = std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..TRIES {
                list_root(&mut first);
                std::thread::sleep(Duration::from_millis(1));
                meet.wait();
                // Wakes the worker from elsewhere while the connection is handed to it. The moment
                // that matters is a few microseconds long.
                let until = Instant::now() + Duration::from_micros(n % 50 * 4);
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
                first.get("/a").assert_status(200);
                meet.wait();
            }
        });
        let mut late = 0;
        for _ in 0..TRIES {
            meet.wait();
            let began = Instant::now();
            server.connect().get("/a").assert_status(200);
            late += u32::from(began.elapsed() > AT_ONCE);
            meet.wait();
        }
        late
    });
    assert!(
        late < 2,
        "{late} of {TRIES} connections waited longer than {AT_ONCE:?}"
    );
}

#[test]
fn an_idle_server_hears_a_signal_at_once() {
    let files = Files::with(&[("a", b"a")]);
    for workers in ["1", "2"] {
        let time = || {
            let mut server = Server::of(files.root(), &["--workers", workers]);
            let mut client = server.connect();
            list_root(&mut client);
            std::thread::sleep(Duration::from_millis(30));
            let began = Instant::now();
            server.signal(Signal::TERM);
            assert!(server.wait(Duration::from_secs(5)).is_some());
            client.assert_ended();
            began.elapsed()
        };
        // The machine may be busy, so that the first is late.
        let took = time().min(time());
        assert!(took < AT_ONCE, "{workers} workers took {took:?} to end");
    }
}

#[test]
fn each_of_many_clients_one_after_the_other_is_let_in_at_once() {
    let files = Files::with(&[("a", b"a")]);
    let server = Server::of(files.root(), &["--workers", "2"]);
    let mut listing = server.connect();
    for n in 0..200 {
        if n % 10 == 0 {
            list_root(&mut listing);
        }
        let began = Instant::now();
        server
            .connect()
            .get("/a")
            .assert_status(200)
            .assert_body(b"a");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(1), "number {n} waited {took:?}");
    }
}

#[test]
fn a_signal_is_heard_under_steady_traffic() {
    let files = Files::with(&[("a", b"a")]);
    for workers in ["1", "2"] {
        let mut server = Server::of(files.root(), &["--workers", workers]);
        let answered = AtomicUsize::new(0);
        let over = AtomicBool::new(false);
        let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
        std::thread::scope(|scope| {
            let _ends = EndsOnDrop(&over);
            for mut client in clients.drain(..) {
                let (answered, over) = (&answered, &over);
                scope.spawn(move || {
                    let request = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
                    while !over.load(Ordering::Relaxed) && client.try_send(request).is_ok() {
                        let Ok(answer) = client.try_answer("GET") else {
                            return;
                        };
                        answer.assert_status(200).assert_body(b"a");
                        answered.fetch_add(1, Ordering::Relaxed);
                        if answer.closes() {
                            return client.assert_ended();
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(300));
            let began = Instant::now();
            server.signal(Signal::TERM);
            let status = server.wait(Duration::from_secs(5)).expect("it ends");
            let took = began.elapsed();
            assert_eq!(status.code(), Some(0));
            assert!(took < Duration::from_millis(1200), "it took {took:?}");
        });
        assert!(answered.load(Ordering::Relaxed) > 100, "no steady traffic");
    }
}
