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
                    if let Err(errno) = self.watch(&socket, self.name(key) | 1) {
                        return self.end(key, &End::Exhausted(zhaul_errno(errno)));
                    }
                    connecting.attempts.push(Attempt { address, socket });
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
        let phase = &mut self.sessions[key].phase;
        let Phase::Connecting(mut connecting) = std::mem::replace(phase, Phase::Over) else {
            return;
        };
        let mut made = None;
        let before = connecting.attempts.len();
        for attempt in std::mem::take(&mut connecting.attempts) {
            // The event does not say which of several it is about.
            let flags = if before > 1 {
                state(&attempt.socket)
            } else {
                flags
            };
            let result = match made {
                Some(_) => continue,
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
            for Attempt { address, .. } in std::mem::take(&mut connecting.attempts) {
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
fn state(socket: &OwnedFd) -> EventFlags {
    let wanted = PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP;
    let mut sockets = [PollFd::from_borrowed_fd(socket.as_fd(), wanted)];
    // Nothing can be said against it, and nothing is waited for.
    let _ = poll(&mut sockets, Some(&Timespec::default()));
    let of_epoll = |flag: PollFlags| match flag {
        PollFlags::IN => EventFlags::IN,
        PollFlags::OUT => EventFlags::OUT,
        PollFlags::RDHUP => EventFlags::RDHUP,
        PollFlags::ERR => EventFlags::ERR,
        PollFlags::HUP => EventFlags::HUP,
        _ => EventFlags::empty(),
    };
    sockets[0].revents().iter().map(of_epoll).collect()
}
