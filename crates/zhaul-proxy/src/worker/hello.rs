//! The beginning of a session: what has to be seen of a client before it is known where it is to go.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use zhaul_service::Peer;
use zhaul_sys::setsockopt::{self, IntOption};

use super::end::End;
use super::session::{Next, Phase, Session};
use super::socket::{Unread, unread};
use crate::config::Listener;
use crate::pure::client_hello::{self, Beginning};
use crate::pure::proxy_header::{self, Parsed};
use crate::state::pool::Pool;

/// Starts a session: at its first bytes if something has to be known, else at its server.
pub(super) fn begin(session: &mut Session, now: Duration) -> Next {
    let listener = &session.listener;
    if listener.config.proxy_from.is_some() || listener.wants_hello() {
        if let Err(end) = check_trust(&listener.config, session.peer) {
            return Next::End(end);
        }
        // Registering has reported whatever is there already.
        let config = &listener.config;
        let timeout = config.hello_timeout.min(config.hello_wait);
        session.wake_at = Some(now + timeout);
        return Next::Wait;
    }
    match listener.default_pool() {
        Some(pool) => Next::Choose(Arc::clone(pool)),
        None => Next::End(End::NoRoute),
    }
}

/// Looks at what the client has said so far; `buffer` has room for all that is looked at.
pub(super) fn on_bytes(session: &mut Session, buffer: &mut [u8], now: Duration) -> Next {
    match read(session, buffer) {
        Ok(Some(pool)) => over(session, pool, now),
        // There will be no more of it.
        Ok(None) if session.seen.contains(EventFlags::RDHUP) => Next::End(End::ClientGone),
        Ok(None) => Next::Wait,
        Err(end) => Next::End(end),
    }
}

/// Time has passed, and what had to be known is not. A client that has said nothing at all may wait
/// for its server to speak first.
pub(super) fn on_timer(session: &mut Session, now: Duration) -> Next {
    let config = &session.listener.config;
    let waited = now.saturating_sub(session.facts.began);
    let is_introduced = config.proxy_from.is_none() || session.introduction.is_some();
    if waited >= config.hello_wait
        && is_introduced
        && unread(&session.client) == Unread::Nothing
        && let Some(pool) = session.listener.default_pool()
    {
        let pool = Arc::clone(pool);
        return over(session, pool, now);
    }
    if waited >= config.hello_timeout {
        return Next::End(End::HelloTimeout);
    }
    session.wake_at = Some(session.facts.began + config.hello_timeout);
    Next::Wait
}

/// It is known where the client is to go.
fn over(session: &mut Session, pool: Arc<Pool>, now: Duration) -> Next {
    // The relay wants every byte at once.
    wait_for_bytes(session, 1);
    session.facts.hello = Some(now.saturating_sub(session.facts.began));
    Next::Choose(pool)
}

/// The pool, once it is known.
fn read(session: &mut Session, buffer: &mut [u8]) -> Result<Option<Arc<Pool>>, End> {
    let listener = Arc::clone(&session.listener);
    if listener.config.proxy_from.is_some() && session.introduction.is_none() {
        let Some(seen) = peek(&session.client, &mut buffer[..proxy_header::MAX_BYTES])? else {
            return Ok(None);
        };
        match proxy_header::parse(seen) {
            Parsed::Incomplete { more } => {
                let wanted = seen.len() + more;
                wait_for_bytes(session, wanted);
                return Ok(None);
            }
            Parsed::Malformed(why) => return Err(End::BadHeader(why)),
            Parsed::Header(introduction, bytes) => {
                session.introduction = Some(introduction);
                discard(&session.client, &mut buffer[..bytes])?;
                judge(session)?;
                // What follows may be shorter.
                wait_for_bytes(session, 1);
            }
        }
    }
    if !listener.wants_hello() {
        return found(listener.default_pool());
    }
    let Some(seen) = peek(&session.client, buffer)? else {
        return Ok(None);
    };
    match client_hello::inspect(seen) {
        Beginning::Incomplete { more } => {
            let wanted = seen.len() + more;
            wait_for_bytes(session, wanted);
            Ok(None)
        }
        Beginning::NotTls => found(listener.default_pool()),
        Beginning::Malformed(why) => Err(End::BadHello(why)),
        Beginning::Hello(hello) => {
            let pool = found(listener.pool_for(&hello));
            session.facts.server_name = hello.server_name;
            pool
        }
    }
}

fn found(pool: Option<&Arc<Pool>>) -> Result<Option<Arc<Pool>>, End> {
    pool.map(|pool| Some(Arc::clone(pool))).ok_or(End::NoRoute)
}

/// Whether the client that was introduced may come.
fn judge(session: &mut Session) -> Result<(), End> {
    let client = session.counted();
    let listener = &session.listener;
    let judged = session.admission.judge(&listener.config, client);
    judged.map_err(|refused| {
        listener.gate.counts.refused();
        End::Refused(refused.why())
    })
}

/// Only those who may speak for others are listened to.
fn check_trust(config: &Listener, peer: Peer) -> Result<(), End> {
    let Some(trusted) = &config.proxy_from else {
        return Ok(());
    };
    match trusted.iter().any(|some| some.contain(peer.ip())) {
        true => Ok(()),
        false => Err(End::BadHeader(format!(
            "{peer} is not among those who may send one{}",
            match peer {
                Peer::Ip(_) => "",
                Peer::Unix => " (list \"unix\" in proxy_from)",
            }
        ))),
    }
}

/// What has arrived, without taking it; `None` if nothing has.
fn peek<'a>(client: &OwnedFd, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, End> {
    loop {
        match rustix::net::recv(client, &mut *buffer, RecvFlags::PEEK) {
            Ok((0, _)) => return Err(End::ClientGone),
            Ok((n, _)) => return Ok(Some(&buffer[..n])),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(_) => return Err(End::ClientGone),
        }
    }
}

/// Has the kernel report the client only when it has sent so much that nobody has taken, or ended:
/// one that sends its hello byte by byte would have it looked at as often. UNIX sockets do not know
/// this. The kernel may report it earlier, and does so at once if there is enough already.
///
/// To set it again would report the client again if the kernel takes it for readable all the same:
/// there are bytes behind an urgent mark, or memory is short.
fn wait_for_bytes(session: &mut Session, bytes: usize) {
    let Phase::Hello { low_water } = &mut session.phase else {
        return;
    };
    if *low_water != bytes && matches!(session.peer, Peer::Ip(_)) {
        *low_water = bytes;
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        let _ = setsockopt::set(session.client.as_fd(), IntOption::ReceiveLowWater, bytes);
    }
}

/// Takes bytes that were seen before.
fn discard(client: &OwnedFd, mut buffer: &mut [u8]) -> Result<(), End> {
    while !buffer.is_empty() {
        match rustix::net::recv(client, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => return Err(End::ClientGone),
            Ok((n, _)) => buffer = &mut buffer[n..],
            Err(Errno::INTR) => {}
            Err(_) => return Err(End::ClientGone),
        }
    }
    Ok(())
}
