//! Making a connection to a server.
//!
//! A server whose name stands for several addresses is tried at one after the other. The next is not
//! kept waiting until the kernel gives one up: it is tried a moment later, and the first that takes
//! the connection has it (RFC 8305, section 5). All of them together have `connect_timeout`.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Worker;
use super::accepting::zhaul_errno;
use super::ending::reset;
use super::serving::{Waiting, waiting};
use crate::addresses::Endpoint;
use crate::connect::{self, Failed};
use crate::pool::Place;
use crate::session::{Attempt, Connecting, End, Phase};

/// How often a server on a UNIX socket is asked again that has no room for a connection.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// How long one address is waited for before the next is tried, too (RFC 8305, section 8).
const NEXT_ATTEMPT_AFTER: Duration = Duration::from_millis(250);

impl Worker {
    /// Begins to connect to the server whose place was taken.
    pub(super) fn connect(&mut self, key: usize, place: Place) {
        let session = &mut self.sessions[key];
        let (server, config) = (place.server(), &place.pool.config);
        session.story.pool = Some(place.pool.name.as_str().into());
        session.story.server = Some(server.name.as_str().into());
        let mut untried = server.addresses(config.connect_timeout, self.now);
        untried.reverse();
        let patience = config.connect_timeout / untried.len().max(1) as u32;
        let connecting = Connecting {
            deadline: self.now + config.connect_timeout,
            next_after: NEXT_ATTEMPT_AFTER.min(patience),
            place,
            since: self.now,
            untried,
            attempts: Vec::new(),
            failed: None,
        };
        self.attempt(key, connecting);
    }

    /// Tries the server's next address, or those after it if it fails at once.
    fn attempt(&mut self, key: usize, mut connecting: Connecting) {
        let pool = Arc::clone(&connecting.place.pool);
        let is_tcp = connecting.place.server().is_tcp();
        // Where it makes no difference the kernel is not asked.
        let waits = match is_tcp && pool.config.send_proxy.is_none() {
            true => waiting(&self.sessions[key].client),
            false => Waiting::Nothing,
        };
        if waits == Waiting::Gone {
            self.sessions[key].phase = Phase::Connecting(connecting);
            return self.end(key, &End::ClientGone);
        }
        let source = self.sessions[key].source();
        let early_data = is_tcp && (pool.config.send_proxy.is_some() || waits == Waiting::Bytes);
        let mut is_busy = false;
        while let Some(address) = connecting.untried.pop() {
            match connect::begin(&address, &pool.config, source, early_data) {
                Ok(socket) => {
                    let watched = self.watch(&socket, self.name(key) | 1);
                    connecting.attempts.push(Attempt { address, socket });
                    if let Err(errno) = watched {
                        self.sessions[key].phase = Phase::Connecting(connecting);
                        return self.end(key, &End::Exhausted(zhaul_errno(errno)));
                    }
                    break;
                }
                // Not the server's fault; and there may be an attempt that is as good.
                Err(Failed::Exhausted(_)) if !connecting.attempts.is_empty() => break,
                Err(Failed::Exhausted(errno)) => {
                    self.trouble.warn(|| {
                        format!(
                            "cannot connect to a server: {errno} (raise the limit on open files)"
                        )
                    });
                    return self.end(key, &End::Exhausted(zhaul_errno(errno)));
                }
                // Its backlog has no room, and nobody tells when it has.
                Err(Failed::Busy) if self.now < connecting.deadline => {
                    connecting.untried.push(address);
                    is_busy = true;
                    break;
                }
                Err(failed) => self.attempt_failed(&mut connecting, &address, failed),
            }
        }
        if connecting.attempts.is_empty() && !is_busy {
            return self.connect_failed(key, connecting);
        }
        let next = match (is_busy, connecting.untried.is_empty()) {
            (true, _) => self.now + ASK_AGAIN_AFTER,
            (false, true) => connecting.deadline,
            (false, false) => self.now + connecting.next_after,
        };
        let at = next.min(connecting.deadline);
        let session = &mut self.sessions[key];
        session.keepalive_due = is_tcp && connect::keepalive_waits(&pool.config);
        session.phase = Phase::Connecting(connecting);
        self.wake_at(key, at);
    }

    fn attempt_failed(&self, connecting: &mut Connecting, address: &Endpoint, failed: Failed) {
        if failed.is_the_servers_fault() {
            connecting.place.server().learn(address, false, self.now);
        }
        // What says something about the server counts more than what went wrong on this side.
        if connecting
            .failed
            .is_none_or(|before| !before.is_the_servers_fault())
        {
            connecting.failed = Some(failed);
        }
    }

    /// Something happened on a socket that is being connected.
    pub(super) fn connecting(&mut self, key: usize, flags: EventFlags) {
        if !flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP) {
            return;
        }
        let session = &mut self.sessions[key];
        let Phase::Connecting(mut connecting) = std::mem::replace(&mut session.phase, Phase::Over)
        else {
            return;
        };
        let mut made = None;
        let before = connecting.attempts.len();
        // The event does not say which of several it is about, or whether that is still there.
        let is_ambiguous = before > 1 || session.stale_in == Some(self.batch);
        for attempt in std::mem::take(&mut connecting.attempts) {
            let flags = match is_ambiguous {
                true => state(&attempt.socket),
                false => flags,
            };
            let result = match made {
                Some(_) => {
                    reset(&attempt.socket);
                    continue;
                }
                None if flags.intersects(EventFlags::ERR | EventFlags::HUP) => {
                    connect::result(&attempt.socket)
                }
                // Writable and no error: then there is none to be asked for.
                None if flags.contains(EventFlags::OUT) => Ok(()),
                None => {
                    connecting.attempts.push(attempt);
                    continue;
                }
            };
            match result {
                Ok(()) => made = Some((attempt, flags)),
                Err(errno) => {
                    self.attempt_failed(&mut connecting, &attempt.address, Failed::Theirs(errno));
                }
            }
        }
        if before > 1 && (made.is_some() || connecting.attempts.len() < before) {
            self.sessions[key].stale_in = Some(self.batch);
        }
        match made {
            Some((attempt, flags)) => self.connected(key, connecting, attempt, flags),
            // The next need not wait any more. Without one, `attempt` says how all of it ends.
            None if connecting.attempts.len() < before => self.attempt(key, connecting),
            None => self.sessions[key].phase = Phase::Connecting(connecting),
        }
    }

    fn connected(&mut self, key: usize, connecting: Connecting, made: Attempt, flags: EventFlags) {
        let Connecting {
            place,
            since,
            attempts,
            ..
        } = connecting;
        let server = place.server();
        server.learn(&made.address, true, self.now);
        // Those that were tried before it are slower.
        for slower in attempts {
            server.learn(&slower.address, false, self.now);
            reset(&slower.socket);
        }
        self.sessions[key].story.connect = Some(self.now.saturating_sub(since));
        server.counts.connected(true);
        place.pool.connected(place.index, true, self.now);
        self.start_relay(key, place, made.socket, flags);
    }

    /// Time has passed: the next address is tried, or there is no more time.
    pub(super) fn connecting_timer(&mut self, key: usize) {
        let phase = &mut self.sessions[key].phase;
        let Phase::Connecting(mut connecting) = std::mem::replace(phase, Phase::Over) else {
            return;
        };
        if self.now >= connecting.deadline && !connecting.attempts.is_empty() {
            for Attempt { address, socket } in std::mem::take(&mut connecting.attempts) {
                reset(&socket);
                let failed = Failed::Theirs(Errno::TIMEDOUT);
                self.attempt_failed(&mut connecting, &address, failed);
            }
            return self.connect_failed(key, connecting);
        }
        self.attempt(key, connecting);
    }

    /// A server did not take the connection: the next one may.
    fn connect_failed(&mut self, key: usize, connecting: Connecting) {
        let Connecting { place, failed, .. } = connecting;
        // Without an address there was nothing to be tried.
        let failed = failed.unwrap_or(Failed::Theirs(Errno::ADDRNOTAVAIL));
        let (pool, server) = (Arc::clone(&place.pool), place.server());
        server.counts.connected(false);
        if failed.is_the_servers_fault() {
            pool.connected(place.index, false, self.now);
        }
        let (pool_name, server_name) = (&pool.name, &server.name);
        self.trouble
            .warn(|| format!("cannot connect to server {pool_name}/{server_name}: {failed}"));
        let session = &mut self.sessions[key];
        session.story.tried.push(place.index);
        // Before the next one is chosen, so that nobody holds two places.
        drop(place);
        if session.story.tried.len() > pool.config.retries as usize {
            return self.end(key, &End::NoServer);
        }
        self.choose(key, &pool);
    }
}

/// What epoll would report of a socket now.
pub(super) fn state(socket: &OwnedFd) -> EventFlags {
    let wanted = PollFlags::IN | PollFlags::PRI | PollFlags::OUT | PollFlags::RDHUP;
    let mut sockets = [PollFd::from_borrowed_fd(socket.as_fd(), wanted)];
    // Nothing can be said against it, and nothing is waited for.
    let _ = poll(&mut sockets, Some(&Timespec::default()));
    let of_epoll = |flag: PollFlags| match flag {
        PollFlags::IN => EventFlags::IN,
        PollFlags::PRI => EventFlags::PRI,
        PollFlags::OUT => EventFlags::OUT,
        PollFlags::RDHUP => EventFlags::RDHUP,
        PollFlags::ERR => EventFlags::ERR,
        PollFlags::HUP => EventFlags::HUP,
        _ => EventFlags::empty(),
    };
    sockets[0].revents().iter().map(of_epoll).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use rustix::net::{AddressFamily, SocketType};
    use zhaul::relay::{Side, Way};
    use zhaul_service::Bound;

    use super::*;
    use crate::worker::tests::{site, worker};

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
        let Bound::Tcp(address) = worker.sockets[0].socket.listening.address else {
            panic!("not TCP");
        };
        let client = TcpStream::connect(address).unwrap();
        worker.accept(0);
        let newest = worker.sessions.iter().max_by_key(|(_, s)| s.generation);
        (client, newest.unwrap().0)
    }

    fn connecting(worker: &mut Worker, key: usize) -> &mut Connecting {
        match &mut worker.sessions[key].phase {
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
        reset(&peer);
        drop(peer);
        let attempt = attempt(server, stream);
        assert!(state(&attempt.socket).contains(EventFlags::ERR));
        attempt
    }

    /// An attempt that its server took and of which nothing is known here yet, and the server's end:
    /// what is not writable looks like that.
    fn taken_unseen(server: &Silent) -> (Attempt, TcpStream) {
        let (mut stream, peer) = pair();
        while stream.write(&[0; 1 << 16]).is_ok() {}
        let attempt = attempt(server, stream);
        assert_eq!(state(&attempt.socket), EventFlags::empty());
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
            worker.event(key, Side::B, FAILED);
            let all = connecting(&mut worker, key);
            assert_eq!((all.attempts.len(), all.untried.len()), (1, 0));
        }
        // What fails later is heard of, without asking.
        worker.batch += 1;
        connecting(&mut worker, key).attempts = vec![dead(&silent)];
        worker.event(key, Side::B, FAILED);
        assert!(!worker.sessions.contains(key));
    }

    #[test]
    fn events_of_attempts_that_failed_do_not_end_a_session_in_the_queue() {
        let silent = Silent::new();
        let mut worker = worker_before(&silent);
        let (_first, _) = client(&mut worker);
        let (_second, key) = client(&mut worker);
        assert_eq!(worker.sessions[key].phase.name(), "queued");
        worker.event(key, Side::B, FAILED);
        assert!(worker.sessions.contains(key), "the client is still there");
    }

    #[test]
    fn events_of_attempts_that_failed_are_not_told_the_relay() {
        let silent = Silent::new();
        let mut worker = worker_before(&silent);
        let (mut client, key) = client(&mut worker);
        let (stream, mut server) = pair();
        let attempts = vec![dead(&silent), attempt(&silent, stream)];
        connecting(&mut worker, key).attempts = attempts;
        worker.event(key, Side::B, EventFlags::OUT);
        assert_eq!(worker.sessions[key].phase.name(), "relaying");
        worker.event(key, Side::B, FAILED | EventFlags::IN | EventFlags::RDHUP);
        worker.batch += 1;
        let calls = |worker: &Worker| match &worker.sessions[key].phase {
            Phase::Relaying { relay, .. } => relay.stats().way(Way::BToA).calls,
            phase => panic!("{}", phase.name()),
        };
        let before = calls(&worker);
        server.write_all(b"word").unwrap();
        worker.event(key, Side::B, EventFlags::IN);
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
        worker.event(key, Side::B, EventFlags::OUT);
        assert_eq!(worker.sessions[key].phase.name(), "relaying");
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
        worker.now = all.deadline;
        worker.connecting_timer(key);
        assert!(!worker.sessions.contains(key) && is_reset(its_server));
    }
}
