//! A session whose bytes flow.

use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use zhaul::relay::{RateLimit, Relay, Resources, Side, Turn, Way, readiness};

use super::end::End;
use super::session::{Connected, Phase, Session};
use super::socket::readiness_now;
use crate::config::ProxyVersion;
use crate::pure::proxy_header::{self, Addresses, Introduction};
use crate::state::tcp_options;

/// The counts learn of bytes in portions of this size, and of the rest at the end.
const REPORT_BYTES: u64 = 256 << 10;

/// The connection to the server stands: bytes flow from now on.
pub(super) fn start(session: &mut Session, connected: Connected, now: Duration) {
    let Connected {
        place,
        server,
        seen,
    } = connected;
    let pool = &place.pool.config;
    let mut relay = Relay::new(&place.pool.relay_options, now);
    if let Some(bandwidth) = NonZeroU64::new(session.listener.config.bandwidth) {
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
    relay.note(Side::B, readiness(seen.bits()));
    session.wake_at = None;
    session.phase = Phase::Relaying {
        place,
        server,
        relay: Box::new(relay),
    };
}

/// Tells the relay what was reported of a side, and says whether it carries bulk; `None` if there is
/// no relay. Where events may be about a socket that was given up (`is_stale`), the server's is asked.
pub(super) fn note(
    session: &mut Session,
    side: Side,
    flags: EventFlags,
    is_stale: bool,
) -> Option<bool> {
    let Phase::Relaying { relay, server, .. } = &mut session.phase else {
        return None;
    };
    let flags = match side {
        Side::B if is_stale => readiness_now(server),
        _ => flags,
    };
    relay.note(side, readiness(flags.bits()));
    Some(relay.is_bulk())
}

/// Moves what can be moved, of bulk as much as `budget` says of the configured one; `None` if there is
/// no relay.
pub(super) fn turn(
    session: &mut Session,
    resources: &Resources,
    budget: impl FnOnce(usize) -> usize,
    now: Duration,
) -> Option<Turn> {
    let Phase::Relaying { relay, server, .. } = &mut session.phase else {
        return None;
    };
    relay.set_budget(budget(relay.options().budget_bytes));
    let turn = relay.turn(session.client.as_fd(), server.as_fd(), resources, now);
    report(session, REPORT_BYTES);
    if let Turn::Wait(wants) = &turn {
        session.wake_at = wants.wake_at;
    }
    Some(turn)
}

/// Ends a session from our side, and says how it ended.
pub(super) fn kill(session: &mut Session, resources: &Resources, now: Duration) -> End {
    let Phase::Relaying { relay, server, .. } = &mut session.phase else {
        return End::Killed;
    };
    relay.cancel();
    match relay.turn(session.client.as_fd(), server.as_fd(), resources, now) {
        Turn::Done(ending) => End::Relay(ending),
        Turn::Wait(_) | Turn::Again => End::Killed,
    }
}

/// Sets what the connection to the server is to have once it has lived a while.
pub(super) fn keep_alive_if_due(session: &mut Session) {
    if let Phase::Relaying { place, server, .. } = &session.phase
        && std::mem::take(&mut session.keepalive_due)
    {
        // Of a connection that is broken by now the relay hears by itself.
        let _ = tcp_options::keep_alive(server, place.pool.config.keepalive);
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
