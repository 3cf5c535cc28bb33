//! From a client's arrival to a connection with a server.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use zhaul_service::Peer;
use zhaul_sys::setsockopt::{self, IntOption};

use super::Worker;
use super::serving::{Waiting, waiting};
use crate::client_hello::{self, Beginning};
use crate::pool::{Chosen, Pool, Waiter};
use crate::proxy_header::{self, Parsed};
use crate::session::{End, Phase, Session};

impl Worker {
    /// Starts a session: at its first bytes if something has to be known, else at its server.
    pub(super) fn begin(&mut self, key: usize) {
        let session = &self.sessions[key];
        let listener = Arc::clone(&session.listener);
        if listener.config.proxy_from.is_some() || listener.wants_hello() {
            if let Err(end) = check_trust(&listener.config, session.peer) {
                return self.end(key, &end);
            }
            // Registering has reported whatever is there already.
            let config = &listener.config;
            let patience = config.hello_timeout.min(config.hello_wait);
            return self.wake_at(key, self.now + patience);
        }
        match listener.default_pool() {
            Some(pool) => self.choose(key, &Arc::clone(pool)),
            None => self.end(key, &End::NoRoute),
        }
    }

    /// Looks at what the client has said so far.
    pub(super) fn hello(&mut self, key: usize) {
        match self.read_hello(key) {
            Ok(Some(pool)) => self.hello_is_over(key, &pool),
            // There will be no more of it.
            Ok(None) if self.sessions[key].seen.contains(EventFlags::RDHUP) => {
                self.end(key, &End::ClientGone);
            }
            Ok(None) => {}
            Err(end) => self.end(key, &end),
        }
    }

    /// Time has passed, and what had to be known is not. A client that has said nothing at all may wait
    /// for its server to speak first.
    pub(super) fn hello_timer(&mut self, key: usize) {
        let session = &self.sessions[key];
        let listener = Arc::clone(&session.listener);
        let config = &listener.config;
        let waited = self.now.saturating_sub(session.story.began);
        let is_introduced = config.proxy_from.is_none() || session.introduction.is_some();
        if waited >= config.hello_wait
            && is_introduced
            && waiting(&session.client) == Waiting::Nothing
            && let Some(pool) = listener.default_pool()
        {
            return self.hello_is_over(key, &Arc::clone(pool));
        }
        match waited >= config.hello_timeout {
            true => self.end(key, &End::HelloTimeout),
            false => self.wake_at(key, session.story.began + config.hello_timeout),
        }
    }

    /// It is known where the client is to go.
    fn hello_is_over(&mut self, key: usize, pool: &Arc<Pool>) {
        let session = &mut self.sessions[key];
        // The relay wants every byte at once.
        wait_for_bytes(session, 1);
        let story = &mut session.story;
        story.hello = Some(self.now.saturating_sub(story.began));
        self.choose(key, pool);
    }

    /// The pool, once it is known.
    fn read_hello(&mut self, key: usize) -> Result<Option<Arc<Pool>>, End> {
        let session = &mut self.sessions[key];
        let listener = Arc::clone(&session.listener);
        if listener.config.proxy_from.is_some() && session.introduction.is_none() {
            let Some(seen) = peek(&session.client, &mut self.peek[..proxy_header::MAX_BYTES])?
            else {
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
                    discard(&session.client, &mut self.peek[..bytes])?;
                    judge(session)?;
                    // What follows may be shorter.
                    wait_for_bytes(session, 1);
                }
            }
        }
        if !listener.wants_hello() {
            return found(listener.default_pool());
        }
        let Some(seen) = peek(&session.client, &mut self.peek)? else {
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
                session.story.server_name = hello.server_name;
                pool
            }
        }
    }

    /// Takes a place at a server and connects, or waits for one.
    pub(super) fn choose(&mut self, key: usize, pool: &Arc<Pool>) {
        // Nobody overtakes those who wait.
        if !pool.has_queue() {
            match self.try_choose(key, pool) {
                Chosen::Place(place) => return self.connect(key, place),
                Chosen::Nobody => return self.end(key, &End::NoServer),
                Chosen::Wait => {}
            }
        }
        let waiter = self.waiter(key);
        let session = &mut self.sessions[key];
        session.story.pool = Some(pool.name.as_str().into());
        let Some(ticket) = pool.wait(waiter) else {
            return self.end(key, &End::QueueFull);
        };
        session.phase = Phase::Queued {
            pool: Arc::clone(pool),
            since: self.now,
            ticket,
        };
        self.wait_for_place(key, pool, self.now);
        // A place that became free before we stood in line was offered to nobody; to give it back
        // offers it to the first.
        if let Chosen::Nobody = self.try_choose(key, pool) {
            self.end(key, &End::NoServer);
        }
    }

    /// Sets the clock of a session that stands in the queue.
    fn wait_for_place(&mut self, key: usize, pool: &Pool, since: Duration) {
        let deadline = since + pool.config.when_full.timeout;
        let back_at = pool.back_at(self.now).unwrap_or(deadline);
        self.wake_at(key, deadline.min(back_at));
    }

    fn waiter(&self, key: usize) -> Waiter {
        Waiter {
            worker: self.mailbox.clone(),
            session: self.name(key),
        }
    }

    fn try_choose(&mut self, key: usize, pool: &Arc<Pool>) -> Chosen {
        let session = &self.sessions[key];
        let (source, tried) = (session.source_ip(), &session.story.tried);
        pool.choose(source, tried, &mut self.random, self.now)
    }

    /// The clock of a session in the queue: its time is up, or a server may be tried again.
    pub(super) fn queue_timer(&mut self, key: usize) {
        let Phase::Queued {
            pool,
            since,
            ticket,
        } = &self.sessions[key].phase
        else {
            return;
        };
        if self.now >= *since + pool.config.when_full.timeout {
            return self.end(key, &End::QueueTimeout);
        }
        pool.forget(*ticket);
        self.leave_queue(key);
    }

    /// Somebody has left: tries again.
    pub(super) fn leave_queue(&mut self, key: usize) {
        let session = &mut self.sessions[key];
        let Phase::Queued {
            pool: its,
            since,
            ticket,
        } = &mut session.phase
        else {
            return;
        };
        // After a reload the servers of the new configuration count; those that were tried are
        // known by their place in the old one.
        if session.story.tried.is_empty()
            && let Some(pool) = self.site.pools.get(&its.name)
            && pool.shares_queue_with(its)
        {
            *its = Arc::clone(pool);
        }
        let (pool, since, ticket) = (Arc::clone(its), *since, *ticket);
        match self.try_choose(key, &pool) {
            Chosen::Place(place) => {
                self.sessions[key].story.queued += self.now.saturating_sub(since);
                self.connect(key, place);
            }
            // Somebody else was faster, or it is a server that was tried before.
            Chosen::Wait | Chosen::Nobody => {
                pool.wait_on(ticket, self.waiter(key));
                self.wait_for_place(key, &pool, since);
                if !self.sessions[key].story.tried.is_empty() {
                    pool.call_behind(ticket);
                }
                // As in `choose`: what was given back meanwhile was offered to nobody.
                drop(self.try_choose(key, &pool));
            }
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
fn check_trust(config: &crate::config::Listener, peer: Peer) -> Result<(), End> {
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
