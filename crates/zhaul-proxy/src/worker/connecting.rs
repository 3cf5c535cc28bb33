//! Making a connection to a server.
//!
//! A server whose name stands for several addresses is tried at one after the other. The next is not
//! kept waiting until the kernel gives one up: it is tried a moment later, and the first that takes
//! the connection has it (RFC 8305, section 5). All of them together have `connect_timeout`.

use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use zhaul_service::Trouble;

use super::connect::{self, Failed};
use super::end::End;
use super::poller::Poller;
use super::session::{Attempt, Connected, Connecting, Next, Phase, Session};
use super::sessions::server_side;
use super::socket::{Unread, readiness_now, reset_on_close, unread};
use crate::pure::addresses::Endpoint;
use crate::state::pool::Place;
use crate::state::tcp_options::keepalive_waits;

/// How often a server on a UNIX socket is asked again that has no room for a connection.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// How long one address is waited for before the next is tried, too (RFC 8305, section 8).
const NEXT_ATTEMPT_AFTER: Duration = Duration::from_millis(250);

/// Makes connections for the sessions of one worker.
pub(super) struct Connector<'a> {
    pub(super) poller: &'a Poller,
    pub(super) trouble: &'a mut Trouble,
    pub(super) now: Duration,
    /// The batch of events that is being looked at.
    pub(super) batch: u64,
}

impl Connector<'_> {
    /// Begins to connect to the server whose place was taken.
    pub(super) fn connect(&mut self, session: &mut Session, place: Place) -> Next {
        session.phase = Phase::Over;
        let (server, config) = (place.server(), &place.pool.config);
        session.facts.pool = Some(place.pool.name.as_str().into());
        session.facts.server = Some(server.name.as_str().into());
        let mut untried = server.addresses(config.connect_timeout, self.now);
        untried.reverse();
        let timeout = config.connect_timeout / untried.len().max(1) as u32;
        let connecting = Connecting {
            deadline: self.now + config.connect_timeout,
            next_after: NEXT_ATTEMPT_AFTER.min(timeout),
            place,
            since: self.now,
            untried,
            attempts: Vec::new(),
            failed: None,
        };
        self.attempt(session, connecting)
    }

    /// Tries the server's next address, or those after it if it fails at once.
    fn attempt(&mut self, session: &mut Session, mut connecting: Connecting) -> Next {
        let pool = Arc::clone(&connecting.place.pool);
        let is_tcp = connecting.place.server().is_tcp();
        // Where it makes no difference the kernel is not asked.
        let waits = match is_tcp && pool.config.send_proxy.is_none() {
            true => unread(&session.client),
            false => Unread::Nothing,
        };
        if waits == Unread::Gone {
            session.phase = Phase::Connecting(connecting);
            return Next::End(End::ClientGone);
        }
        let source = session.source();
        let early_data = is_tcp && (pool.config.send_proxy.is_some() || waits == Unread::Bytes);
        let mut is_busy = false;
        while let Some(address) = connecting.untried.pop() {
            match connect::begin(&address, &pool.config, source, early_data) {
                Ok(socket) => {
                    let watched = self.poller.watch(&socket, server_side(session.name));
                    connecting.attempts.push(Attempt { address, socket });
                    if let Err(errno) = watched {
                        session.phase = Phase::Connecting(connecting);
                        return Next::End(End::exhausted(errno));
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
                    return Next::End(End::exhausted(errno));
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
            return self.failed(session, connecting);
        }
        let next = match (is_busy, connecting.untried.is_empty()) {
            (true, _) => self.now + ASK_AGAIN_AFTER,
            (false, true) => connecting.deadline,
            (false, false) => self.now + connecting.next_after,
        };
        let at = next.min(connecting.deadline);
        session.keepalive_due = is_tcp && keepalive_waits(&pool.config);
        session.phase = Phase::Connecting(connecting);
        session.wake_at = Some(at);
        Next::Wait
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
    pub(super) fn on_event(&mut self, session: &mut Session, flags: EventFlags) -> Next {
        if !flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP) {
            return Next::Wait;
        }
        let Phase::Connecting(mut connecting) = std::mem::replace(&mut session.phase, Phase::Over)
        else {
            return Next::Wait;
        };
        let mut made = None;
        let before = connecting.attempts.len();
        // The event does not say which of several it is about, or whether that is still there.
        let is_ambiguous = before > 1 || session.stale_in == Some(self.batch);
        for attempt in std::mem::take(&mut connecting.attempts) {
            let flags = match is_ambiguous {
                true => readiness_now(&attempt.socket),
                false => flags,
            };
            let result = match made {
                Some(_) => {
                    reset_on_close(&attempt.socket);
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
            session.stale_in = Some(self.batch);
        }
        match made {
            Some((attempt, flags)) => self.connected(session, connecting, attempt, flags),
            // The next need not wait any more. Without one, `attempt` says how all of it ends.
            None if connecting.attempts.len() < before => self.attempt(session, connecting),
            None => {
                session.phase = Phase::Connecting(connecting);
                Next::Wait
            }
        }
    }

    fn connected(
        &self,
        session: &mut Session,
        connecting: Connecting,
        made: Attempt,
        seen: EventFlags,
    ) -> Next {
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
            reset_on_close(&slower.socket);
        }
        session.facts.connect = Some(self.now.saturating_sub(since));
        server.counts.connected(true);
        place.pool.connected(place.index, true, self.now);
        Next::Relay(Connected {
            place,
            server: made.socket,
            seen,
        })
    }

    /// Time has passed: the next address is tried, or there is no more time.
    pub(super) fn on_timer(&mut self, session: &mut Session) -> Next {
        let Phase::Connecting(mut connecting) = std::mem::replace(&mut session.phase, Phase::Over)
        else {
            return Next::Wait;
        };
        if self.now >= connecting.deadline && !connecting.attempts.is_empty() {
            for Attempt { address, socket } in std::mem::take(&mut connecting.attempts) {
                reset_on_close(&socket);
                let failed = Failed::Theirs(Errno::TIMEDOUT);
                self.attempt_failed(&mut connecting, &address, failed);
            }
            return self.failed(session, connecting);
        }
        self.attempt(session, connecting)
    }

    /// A server did not take the connection: the next one may.
    fn failed(&mut self, session: &mut Session, connecting: Connecting) -> Next {
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
        session.facts.tried.push(place.index);
        // Before the next one is chosen, so that nobody holds two places.
        drop(place);
        if session.facts.tried.len() > pool.config.retries as usize {
            return Next::End(End::NoServer);
        }
        Next::Choose(pool)
    }
}
