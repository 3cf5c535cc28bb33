//! Relaying: events, turns, timers.

use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use zhaul::relay::{RateLimit, Relay, Side, Turn, Way, readiness};

use super::Worker;
use super::connecting::state;
use crate::config::ProxyVersion;
use crate::connect;
use crate::pool::Place;
use crate::proxy_header::{self, Addresses, Introduction};
use crate::session::{End, Phase, Session};

/// The counts learn of bytes in portions of this size, and of the rest at the end.
const REPORT_BYTES: u64 = 256 << 10;

/// Turns of bulk, one after the other, before events are looked at again; beside chatter it is after
/// each. One of 1 MiB takes about twice as long; to look costs a five-hundredth of it.
const LOOK_AGAIN_AFTER: Duration = Duration::from_micros(100);

/// What bulk takes in a turn while there is somebody whose messages would have to wait for it: a
/// message and its answer wait for a turn each. Measured beside four streams, a message waited at p99
/// 2.9 times as long as alone with 128 KiB, and 1.9 times with this, while bulk moved as much for as
/// much. With 40 KiB it is 1.7 times, and a tenth of the bulk is lost: more calls, and splices that
/// end within a segment. Bulk among itself has the whole budget.
const BUDGET_BESIDE_CHATTER: usize = 48 << 10;

/// How long after a message more are expected.
const CHATTER_LASTS: Duration = Duration::from_millis(20);

impl Worker {
    /// Something happened on a socket of a session.
    pub(super) fn event(&mut self, key: usize, side: Side, flags: EventFlags) {
        let session = &mut self.sessions[key];
        if side == Side::A {
            session.seen |= flags;
        }
        match (&mut session.phase, side) {
            (Phase::Relaying { relay, server, .. }, _) => {
                let flags = match side {
                    Side::B if session.stale_in == Some(self.batch) => state(server),
                    _ => flags,
                };
                relay.note(side, readiness(flags.bits()));
                // Those for whom latency counts go first.
                if relay.is_bulk() {
                    self.stand_in_line(key);
                } else {
                    self.chatted_at = self.now;
                    if !session.in_line {
                        self.turn(key);
                    }
                }
            }
            (Phase::Connecting(_), Side::B) => self.connecting(key, flags),
            // About a socket that was given up earlier in this batch.
            (_, Side::B) => {}
            // A client that ended its stream may still want an answer; one that is gone does not,
            // unless it left something to be delivered (closing a UNIX socket is a hang-up at once).
            _ if flags.contains(EventFlags::ERR)
                || flags.contains(EventFlags::HUP)
                    && waiting(&session.client) != Waiting::Bytes =>
            {
                self.end(key, &End::ClientGone);
            }
            (Phase::Hello { .. }, _) => self.hello(key),
            _ => {}
        }
    }

    /// The connection to the server stands.
    pub(super) fn start_relay(
        &mut self,
        key: usize,
        place: Place,
        server: OwnedFd,
        of_server: EventFlags,
    ) {
        let session = &mut self.sessions[key];
        let pool = &place.pool.config;
        let mut relay = Relay::new(&place.pool.relay_options, self.now);
        let bandwidth = session.listener.config.bandwidth;
        if let Some(bandwidth) = NonZeroU64::new(bandwidth) {
            for way in Way::BOTH {
                relay.limit(way, Arc::new(RateLimit::new(bandwidth)));
            }
        }
        if let Some(version) = pool.send_proxy {
            let header = introduce(session, version);
            relay.preload(Way::AToB, &header);
        }
        if let Some(introduction) = &mut session.introduction {
            // They have had their use.
            introduction.tlvs = Vec::new();
        }
        if session.is_tcp {
            relay.set_tcp(Side::A);
        }
        if place.server().is_tcp() {
            relay.set_tcp(Side::B);
        }
        // What happened before there was a relay was told to nobody.
        relay.note(Side::A, readiness(session.seen.bits()));
        relay.note(Side::B, readiness(of_server.bits()));
        session.wake_at = None;
        session.phase = Phase::Relaying {
            place,
            server,
            relay: Box::new(relay),
        };
        self.turn(key);
    }

    /// Moves what can be moved.
    pub(super) fn turn(&mut self, key: usize) {
        let (name, has_chatter) = (self.name(key), self.has_chatter());
        let session = &mut self.sessions[key];
        let Phase::Relaying { relay, server, .. } = &mut session.phase else {
            return;
        };
        relay.set_budget(match has_chatter {
            true => BUDGET_BESIDE_CHATTER,
            false => relay.options().budget_bytes,
        });
        let turn = relay.turn(
            session.client.as_fd(),
            server.as_fd(),
            &self.resources,
            self.now,
        );
        report(session, REPORT_BYTES);
        match turn {
            Turn::Wait(wants) => {
                if wants.buffer && !session.is_starved {
                    session.is_starved = true;
                    self.starved.push_back(name);
                }
                match wants.wake_at {
                    Some(at) => self.wake_at(key, at),
                    None => session.wake_at = None,
                }
            }
            Turn::Done(ending) => self.end(key, &End::Relay(ending)),
            Turn::Again => self.stand_in_line(key),
        }
    }

    /// Whether somebody may send a message at any moment.
    fn has_chatter(&self) -> bool {
        self.now <= self.chatted_at + CHATTER_LASTS
    }

    /// Puts a session behind the others that wait for their turn.
    fn stand_in_line(&mut self, key: usize) {
        let name = self.name(key);
        let session = &mut self.sessions[key];
        if !session.in_line {
            session.in_line = true;
            self.line.push_back(name);
        }
    }

    /// Gives those their turn who carry bulk or used up their last one: each of them one, but no more
    /// than fit into the time for which everybody else can be kept waiting. That is at least as long
    /// as everybody else took, so that many messages do not leave bulk less than half of the time.
    pub(super) fn serve_line(&mut self) {
        let began = self.zero.elapsed();
        let patience = match self.has_chatter() {
            true => Duration::ZERO,
            false => LOOK_AGAIN_AFTER,
        };
        let until = began + patience.max(began.saturating_sub(self.now));
        for _ in 0..self.line.len() {
            let Some(name) = self.line.pop_front() else {
                return;
            };
            self.guarded(name, |worker, key| {
                worker.sessions[key].in_line = false;
                worker.turn(key);
            });
            self.now = self.zero.elapsed();
            if self.now >= until {
                return;
            }
        }
    }

    /// Gives those their turn who found no buffer, while there are some. No event tells of it.
    pub(super) fn serve_starved(&mut self) {
        for _ in 0..self.starved.len() {
            if !self.resources.buffers.is_available() {
                return;
            }
            let Some(name) = self.starved.pop_front() else {
                return;
            };
            self.guarded(name, |worker, key| {
                worker.sessions[key].is_starved = false;
                if !worker.sessions[key].in_line {
                    worker.turn(key);
                }
            });
        }
    }

    /// Sets the time at which a session is looked at even if nothing happens.
    pub(super) fn wake_at(&mut self, key: usize, at: Duration) {
        let name = self.name(key);
        let session = &mut self.sessions[key];
        session.wake_at = Some(at);
        self.timers.arm(name, at, &mut session.armed);
    }

    /// An entry of the timers came up; the session may have put its time off since.
    pub(super) fn timer(&mut self, key: usize, at: Duration) {
        let session = &mut self.sessions[key];
        if session.armed == Some(at) {
            session.armed = None;
        }
        // The entry for the end of connecting comes up here, long after that in most cases.
        if let Phase::Relaying { place, server, .. } = &session.phase
            && std::mem::take(&mut session.keepalive_due)
        {
            // Of a connection that is broken by now the relay hears by itself.
            let _ = connect::keep_alive(server, place.pool.config.keepalive);
        }
        match session.wake_at {
            Some(wake_at) if wake_at <= self.now => {
                session.wake_at = None;
                self.overdue(key);
            }
            Some(wake_at) => self.wake_at(key, wake_at),
            None => {}
        }
    }

    fn overdue(&mut self, key: usize) {
        match &self.sessions[key].phase {
            Phase::Hello { .. } => self.hello_timer(key),
            Phase::Queued { .. } => self.queue_timer(key),
            Phase::Connecting(_) => self.connecting_timer(key),
            Phase::Relaying { .. } => self.turn(key),
            Phase::Over => {}
        }
    }
}

/// Tells the counts what has moved, if that is `at_least` so much.
pub(super) fn report(session: &mut Session, at_least: u64) {
    let Phase::Relaying { relay, place, .. } = &session.phase else {
        return;
    };
    let stats = relay.stats();
    let delivered = Way::BOTH.map(|way| stats.way(way).delivered);
    let [up, down] = [0, 1].map(|i| delivered[i] - session.reported[i]);
    if up + down >= at_least.max(1) {
        session.reported = delivered;
        place.server().counts.moved(up, down);
        session.listener.gate.counts.moved(up, down);
    }
}

/// What a client has sent that nobody has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    Nothing,
    Bytes,
    /// The end of its stream.
    End,
    /// A reset. The kernel tells of it once, and afterwards it looks like an end.
    Gone,
}

pub(super) fn waiting(client: &OwnedFd) -> Waiting {
    match rustix::net::recv(client, &mut [0_u8; 1][..], RecvFlags::PEEK) {
        Ok((0, _)) => Waiting::End,
        Ok(_) => Waiting::Bytes,
        Err(Errno::AGAIN | Errno::INTR) => Waiting::Nothing,
        Err(_) => Waiting::Gone,
    }
}

/// The header that introduces a client to its server.
fn introduce(session: &Session, version: ProxyVersion) -> Vec<u8> {
    if let Some(introduction) = &session.introduction {
        return proxy_header::write(version, introduction);
    }
    let mut introduction = Introduction::default();
    if let Some(source) = session.source() {
        let local = rustix::net::getsockname(&session.client).ok();
        let destination = local.and_then(|any| any.try_into().ok());
        introduction.addresses = destination.map(|destination| Addresses {
            source,
            destination,
        });
    }
    proxy_header::write(version, &introduction)
}
