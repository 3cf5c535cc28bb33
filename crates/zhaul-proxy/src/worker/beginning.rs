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
use super::accepting::zhaul_errno;
use super::serving::has_bytes;
use crate::client_hello::{self, Beginning};
use crate::connect::{self, Failed};
use crate::health::Change;
use crate::pool::{Chosen, Place, Pool, Waiter};
use crate::proxy_header::{self, Parsed};
use crate::server::MOST_ADDRESSES;
use crate::session::{End, Phase, Session};

/// How often a server on a UNIX socket is asked again that has no room for a connection.
const KNOCK_EVERY: Duration = Duration::from_millis(5);

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
            self.wake_at(key, self.now + listener.config.hello_timeout);
            return;
        }
        match listener.default_pool() {
            Some(pool) => self.choose(key, &Arc::clone(pool)),
            None => self.end(key, &End::NoRoute),
        }
    }

    /// Looks at what the client has said so far.
    pub(super) fn hello(&mut self, key: usize) {
        match self.read_hello(key) {
            Ok(Some(pool)) => {
                let session = &mut self.sessions[key];
                if matches!(session.phase, Phase::Hello { low_water: 1.. }) {
                    // The relay wants every byte at once.
                    set_low_water(&session.client, 1);
                }
                let story = &mut session.story;
                story.hello = Some(self.now.saturating_sub(story.began));
                self.choose(key, &pool);
            }
            // There will be no more of it.
            Ok(None) if self.sessions[key].seen.contains(EventFlags::RDHUP) => {
                self.end(key, &End::ClientGone);
            }
            Ok(None) => {}
            Err(end) => self.end(key, &end),
        }
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
                Parsed::Incomplete => return Ok(None),
                Parsed::Malformed(why) => return Err(End::BadHeader(why)),
                Parsed::Header(introduction, bytes) => {
                    session.introduction = Some(introduction);
                    discard(&session.client, &mut self.peek[..bytes])?;
                    judge(session)?;
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
                // To set it again would report the client again if the kernel takes it for readable
                // all the same: there are bytes behind an urgent mark, or memory is short.
                if matches!(session.peer, Peer::Ip(_))
                    && !matches!(session.phase, Phase::Hello { low_water } if low_water == wanted)
                {
                    set_low_water(&session.client, wanted);
                    session.phase = Phase::Hello { low_water: wanted };
                }
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

    /// Begins to connect to the server whose place was taken.
    fn connect(&mut self, key: usize, place: Place) {
        let session = &mut self.sessions[key];
        let server = place.server();
        session.story.pool = Some(place.pool.name.as_str().into());
        session.story.server = Some(server.name.as_str().into());
        session.story.address = (server.turn(), 0);
        self.knock(key, place, self.now);
    }

    /// Asks the server for a connection.
    fn knock(&mut self, key: usize, place: Place, since: Duration) {
        let server = place.server();
        let source = self.sessions[key].source();
        let session = &self.sessions[key];
        let says_something = || has_bytes(&session.client);
        let early_data =
            server.is_tcp() && (place.pool.config.send_proxy.is_some() || says_something());
        let deadline = since + place.pool.config.connect_timeout;
        let begun = match server.endpoint(session.story.address.0) {
            Some(endpoint) => connect::begin(&endpoint, &place.pool.config, source, early_data),
            None => Err(Failed::Theirs(Errno::ADDRNOTAVAIL)),
        };
        let fd = match begun {
            Ok(fd) => fd,
            // Not the server's fault.
            Err(Failed::Exhausted(errno)) => {
                self.trouble.warn(|| {
                    format!("cannot connect to a server: {errno} (raise the limit on open files)")
                });
                return self.end(key, &End::Exhausted(zhaul_errno(errno)));
            }
            // Its backlog has no room, and nobody tells when it has.
            Err(Failed::Busy) if self.now < deadline => {
                self.sessions[key].phase = Phase::Knocking { place, since };
                return self.wake_at(key, deadline.min(self.now + KNOCK_EVERY));
            }
            Err(failed) => return self.connect_failed(key, place, failed),
        };
        if let Err(errno) = self.watch(&fd, self.name(key) | 1) {
            return self.end(key, &End::Exhausted(zhaul_errno(errno)));
        }
        let is_tcp = place.server().is_tcp();
        self.sessions[key].keepalive_due = is_tcp && connect::keepalive_waits(&place.pool.config);
        self.sessions[key].phase = Phase::Connecting {
            place,
            server: fd,
            since,
        };
        self.wake_at(key, deadline);
    }

    /// Some time has passed since the server's backlog had no room.
    pub(super) fn knock_again(&mut self, key: usize) {
        let phase = &mut self.sessions[key].phase;
        if let Phase::Knocking { place, since } = std::mem::replace(phase, Phase::Over) {
            self.knock(key, place, since);
        }
    }

    /// A server did not take the connection: the next one may.
    pub(super) fn connect_failed(&mut self, key: usize, place: Place, failed: Failed) {
        let pool = Arc::clone(&place.pool);
        let server = place.server();
        server.counts.connected(false);
        // A name may stand for addresses where nobody listens; the server is there if one answers.
        let (next, failures) = &mut self.sessions[key].story.address;
        (*next, *failures) = (next.wrapping_add(1), *failures + 1);
        let addresses = server.endpoints().len().min(MOST_ADDRESSES);
        if *failures < addresses && matches!(failed, Failed::Theirs(_) | Failed::Ours(_)) {
            return self.knock(key, place, self.now);
        }
        if failed.is_the_servers_fault() {
            let change = server.connected(false, &pool.config, self.now);
            debug_assert_ne!(change, Some(Change::CameUp));
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

    /// Something happened on either socket while the server's is being connected.
    pub(super) fn connecting(&mut self, key: usize, flags: EventFlags) {
        if !flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP) {
            return;
        }
        let session = &mut self.sessions[key];
        let Phase::Connecting {
            place,
            server,
            since,
        } = std::mem::replace(&mut session.phase, Phase::Over)
        else {
            return;
        };
        // Writable and no error: then there is none to be asked for.
        let made = match flags.intersects(EventFlags::ERR | EventFlags::HUP) {
            true => connect::result(&server),
            false => Ok(()),
        };
        match made {
            Ok(()) => {
                session.story.connect = Some(self.now.saturating_sub(since));
                place.server().counts.connected(true);
                let config = &place.pool.config;
                if place.server().connected(true, config, self.now) == Some(Change::CameUp) {
                    place.pool.call_all();
                }
                self.start_relay(key, place, server, flags);
            }
            Err(errno) => {
                drop(server);
                self.connect_failed(key, place, Failed::Theirs(errno));
            }
        }
    }

    /// The time to connect is up.
    pub(super) fn connect_timed_out(&mut self, key: usize) {
        let phase = &mut self.sessions[key].phase;
        if let Phase::Connecting { place, server, .. } = std::mem::replace(phase, Phase::Over) {
            drop(server);
            self.connect_failed(key, place, Failed::Theirs(Errno::TIMEDOUT));
        }
    }
}

fn found(pool: Option<&Arc<Pool>>) -> Result<Option<Arc<Pool>>, End> {
    pool.map(|pool| Some(Arc::clone(pool))).ok_or(End::NoRoute)
}

/// Whether the client that was introduced may come.
fn judge(session: &mut Session) -> Result<(), End> {
    let Some(client) = session.source_ip() else {
        return Ok(());
    };
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
    let is_trusted = match peer {
        Peer::Ip(address) => {
            let ip = address.ip().to_canonical();
            trusted.iter().any(|net| net.contains(&ip))
        }
        // Who may connect to a UNIX socket is said by its file's mode.
        Peer::Unix => true,
    };
    match is_trusted {
        true => Ok(()),
        false => Err(End::BadHeader(format!(
            "{peer} is not among those who may send one"
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
fn set_low_water(client: &OwnedFd, bytes: usize) {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    let _ = setsockopt::set(client.as_fd(), IntOption::ReceiveLowWater, bytes);
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
