//! Taking sessions apart, and telling of them.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use zhaul::relay::Turn;

use super::serving::report;
use super::{FLUSH_EVERY, Worker};
use crate::session::{Connecting, End, Phase};

impl Worker {
    /// Ends a session, for whatever reason; both sockets are closed, and its place is free.
    pub(super) fn end(&mut self, key: usize, end: &End) {
        report(&mut self.sessions[key], 1);
        let mut session = self.sessions.remove(key);
        let stats = match (end, &session.phase) {
            (End::Relay(ending), _) => Some(ending.stats),
            (_, Phase::Relaying { relay, .. }) => Some(relay.stats()),
            _ => None,
        };
        match std::mem::replace(&mut session.phase, Phase::Over) {
            Phase::Queued {
                pool,
                since,
                ticket,
            } => {
                session.story.queued += self.now.saturating_sub(since);
                pool.forget(ticket);
            }
            Phase::Connecting(Connecting {
                place, attempts, ..
            }) => {
                attempts.iter().for_each(|attempt| reset(&attempt.socket));
                drop(attempts);
                drop(place);
            }
            Phase::Relaying { place, server, .. } => {
                // The server is free of this connection before somebody else takes its place.
                drop(server);
                drop(place);
            }
            Phase::Hello { .. } | Phase::Over => {}
        }
        if !matches!(end, End::Relay(_)) {
            reset(&session.client);
        }
        if let End::BadHeader(why) = end {
            let (name, peer) = (&session.listener.name, session.peer);
            self.trouble
                .warn(|| format!("listener {name}: bad PROXY header from {peer}: {why}"));
        }
        session.listener.gate.counts.ended(end.word());
        if self.log.is_some() {
            self.lines.push(&session, end, stats.as_ref(), self.now);
            if self.lines.are_many() {
                self.flush();
            } else {
                self.flush_at.get_or_insert(self.now + FLUSH_EVERY);
            }
        }
        drop(session);
        self.end_rests();
    }

    /// Ends a session from our side.
    pub(super) fn kill(&mut self, key: usize) {
        let session = &mut self.sessions[key];
        let Phase::Relaying { relay, server, .. } = &mut session.phase else {
            return self.end(key, &End::Killed);
        };
        relay.cancel();
        let turn = relay.turn(
            session.client.as_fd(),
            server.as_fd(),
            &self.resources,
            self.now,
        );
        match turn {
            Turn::Done(ending) => self.end(key, &End::Relay(ending)),
            Turn::Wait(_) | Turn::Again => self.end(key, &End::Killed),
        }
    }

    /// Hands the lines that are there to the log.
    pub(super) fn flush(&mut self) {
        self.flush_at = None;
        if let Some(log) = &self.log
            && let Some(lines) = self.lines.take()
        {
            log.send(lines);
        }
    }
}

/// Whoever is closed without having been served sees a reset: a client not the end of an empty
/// answer, a server not an empty request.
pub(super) fn reset(socket: &OwnedFd) {
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}
