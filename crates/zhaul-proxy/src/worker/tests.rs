//! What comes late for attempts that were given up, and sockets that cannot be watched.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketType};
use zhaul::PipePool;
use zhaul::relay::{BufferPool, Way};
use zhaul_service::Bound;

use rustix::event::epoll::EventFlags;
use zhaul::relay::Side;

use super::session::{Attempt, Connecting, Phase};
use super::socket::{readiness_now, reset_on_close};
use super::*;
use crate::config;
use crate::pure::addresses::Endpoint;

fn site(text: &str) -> Site {
    let config = config::file::parse("test", text).unwrap();
    Site::new(config, None, &mut Vec::new(), 1, 10).unwrap()
}

fn worker(site: Arc<Site>) -> Worker {
    let parts = Parts {
        index: 0,
        mailbox: Mailbox::new().unwrap(),
        site,
        resources: Resources {
            pipes: PipePool::new(1, 1 << 16),
            buffers: BufferPool::new(1, 1 << 16),
        },
        zero: Instant::now(),
        log: None,
    };
    Worker::new(parts).unwrap()
}

const FAILED: EventFlags = EventFlags::ERR
    .union(EventFlags::HUP)
    .union(EventFlags::OUT);

/// A server that answers no SYN, as its backlog is full, with what fills it.
struct Silent {
    address: SocketAddr,
    _held: (OwnedFd, [TcpStream; 2]),
}

impl Silent {
    fn new() -> Self {
        let fd = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&fd, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        rustix::net::listen(&fd, 1).unwrap();
        let bound = rustix::net::getsockname(&fd).unwrap();
        let address = SocketAddr::try_from(bound).unwrap();
        let fill = || TcpStream::connect(address).unwrap();
        let fillers = [fill(), fill()];
        Self {
            address,
            _held: (fd, fillers),
        }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(self.address)
    }
}

/// A worker whose only server, which takes one connection, is this.
fn worker_before(server: &Silent) -> Worker {
    let text = format!(
        "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\n[pools.p]\nretries = 0\n\
         servers = [{{ address = \"{}\", max_connections = 1 }}]\n",
        server.address
    );
    worker(Arc::new(site(&text)))
}

/// A client of this worker, and its session.
fn client(worker: &mut Worker) -> (TcpStream, usize) {
    let Some((_, &Bound::Tcp(address))) = worker.acceptors.all().next() else {
        panic!("not TCP");
    };
    let client = TcpStream::connect(address).unwrap();
    worker.accept(0);
    let newest = worker.driver.sessions.iter().max_by_key(|(_, s)| s.number);
    (client, newest.unwrap().0)
}

/// Whether the session is still there.
fn holds(worker: &Worker, key: usize) -> bool {
    worker.driver.sessions.iter().any(|(its, _)| its == key)
}

fn connecting(worker: &mut Worker, key: usize) -> &mut Connecting {
    match &mut worker.driver.sessions[key].phase {
        Phase::Connecting(connecting) => connecting,
        phase => panic!("{}", phase.name()),
    }
}

/// A connection, and its other end.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    stream.set_nonblocking(true).unwrap();
    (stream, listener.accept().unwrap().0)
}

fn attempt(server: &Silent, stream: TcpStream) -> Attempt {
    Attempt {
        address: server.endpoint(),
        socket: stream.into(),
    }
}

fn dead(server: &Silent) -> Attempt {
    let (stream, peer) = pair();
    let peer = OwnedFd::from(peer);
    reset_on_close(&peer);
    drop(peer);
    let attempt = attempt(server, stream);
    assert!(readiness_now(&attempt.socket).contains(EventFlags::ERR));
    attempt
}

/// An attempt that its server took and of which nothing is known here yet, and the server's end:
/// what is not writable looks like that.
fn taken_unseen(server: &Silent) -> (Attempt, TcpStream) {
    let (mut stream, peer) = pair();
    while stream.write(&[0; 1 << 16]).is_ok() {}
    let attempt = attempt(server, stream);
    assert_eq!(readiness_now(&attempt.socket), EventFlags::empty());
    (attempt, peer)
}

fn is_reset(mut stream: TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    // What came before it is there all the same.
    let read = stream.read_to_end(&mut Vec::new());
    read.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn events_of_attempts_that_failed_are_not_taken_for_the_next() {
    let silent = Silent::new();
    let mut worker = worker_before(&silent);
    let (_client, key) = client(&mut worker);
    let attempts = vec![dead(&silent), dead(&silent)];
    let all = connecting(&mut worker, key);
    all.attempts = attempts;
    all.untried = vec![silent.endpoint()];
    for _ in 0..2 {
        worker.driver.event(key, Side::B, FAILED);
        let all = connecting(&mut worker, key);
        assert_eq!((all.attempts.len(), all.untried.len()), (1, 0));
    }
    // What fails later is heard of, without asking.
    worker.driver.batch += 1;
    connecting(&mut worker, key).attempts = vec![dead(&silent)];
    worker.driver.event(key, Side::B, FAILED);
    assert!(!holds(&worker, key));
}

#[test]
fn events_of_attempts_that_failed_do_not_end_a_session_in_the_queue() {
    let silent = Silent::new();
    let mut worker = worker_before(&silent);
    let (_first, _) = client(&mut worker);
    let (_second, key) = client(&mut worker);
    assert_eq!(worker.driver.sessions[key].phase.name(), "queued");
    worker.driver.event(key, Side::B, FAILED);
    assert!(holds(&worker, key), "the client is still there");
}

#[test]
fn events_of_attempts_that_failed_are_not_told_the_relay() {
    let silent = Silent::new();
    let mut worker = worker_before(&silent);
    let (mut client, key) = client(&mut worker);
    let (stream, mut server) = pair();
    let attempts = vec![dead(&silent), attempt(&silent, stream)];
    connecting(&mut worker, key).attempts = attempts;
    worker.driver.event(key, Side::B, EventFlags::OUT);
    assert_eq!(worker.driver.sessions[key].phase.name(), "relaying");
    worker
        .driver
        .event(key, Side::B, FAILED | EventFlags::IN | EventFlags::RDHUP);
    worker.driver.batch += 1;
    let calls = |worker: &Worker| match &worker.driver.sessions[key].phase {
        Phase::Relaying { relay, .. } => relay.stats().way(Way::BToA).calls,
        phase => panic!("{}", phase.name()),
    };
    let before = calls(&worker);
    server.write_all(b"word").unwrap();
    worker.driver.event(key, Side::B, EventFlags::IN);
    let mut seen = [0; 4];
    client.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"word");
    // From a server that is said to have ended, it would be read once more.
    assert_eq!(calls(&worker) - before, 2, "a read and a write");
}

#[test]
fn attempts_that_are_not_needed_are_reset() {
    let silent = Silent::new();
    let mut worker = worker_before(&silent);
    let (_client, key) = client(&mut worker);
    let (slower, its_server) = taken_unseen(&silent);
    let (quick, mut server) = pair();
    let (quick_too, other_server) = pair();
    let attempts = vec![slower, attempt(&silent, quick), attempt(&silent, quick_too)];
    connecting(&mut worker, key).attempts = attempts;
    worker.driver.event(key, Side::B, EventFlags::OUT);
    assert_eq!(worker.driver.sessions[key].phase.name(), "relaying");
    assert!(is_reset(its_server) && is_reset(other_server));
    server.set_nonblocking(true).unwrap();
    let read = server.read(&mut [0]).map_err(|e| e.kind());
    assert_eq!(read, Err(ErrorKind::WouldBlock), "this one serves");
}

#[test]
fn attempts_that_took_too_long_are_reset() {
    let silent = Silent::new();
    let mut worker = worker_before(&silent);
    let (_client, key) = client(&mut worker);
    let (late, its_server) = taken_unseen(&silent);
    let all = connecting(&mut worker, key);
    all.attempts = vec![late];
    worker.driver.now = all.deadline;
    worker.driver.overdue(key);
    assert!(!holds(&worker, key) && is_reset(its_server));
}

#[test]
fn a_socket_that_cannot_be_watched_rests_and_the_worker_goes_on() {
    let text = r#"
        [listeners.l]
        listen = ["127.0.0.1:0", "127.0.0.1:0"]
        to = "p"
        [pools.p]
        servers = [{ address = "192.0.2.1:1" }]
    "#;
    let mut site = site(text);
    // The kernel does not watch one descriptor twice.
    let first = site.sockets[0].clone();
    site.sockets.insert(1, first);
    let site = Arc::new(site);
    let mut worker = worker(Arc::clone(&site));
    let rests = |worker: &Worker| {
        let rests = worker.acceptors.all().map(|(rests, _)| rests);
        rests.collect::<Vec<_>>()
    };
    assert_eq!(rests(&worker), [false, true, false]);
    worker
        .acceptors
        .end_rests(&worker.driver.poller, worker.driver.now);
    assert_eq!(rests(&worker), [false, true, false]);
    // What rested, and what the kernel was never told of, is taken out as well as the rest.
    worker.take_site(Arc::new(site.without_sockets()));
    assert!(rests(&worker).is_empty());
    worker.take_site(site);
    assert_eq!(rests(&worker), [false, true, false]);
}
