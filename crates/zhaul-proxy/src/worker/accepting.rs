//! Letting clients in.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use zhaul_service::Peer;

use super::{FIRST_SOCKET, Worker, name_of};
use crate::connect;
use crate::gate::{self, Admission};
use crate::session::{End, Phase, Session, Story};
use crate::site::Listener;

/// How long accepting rests when the machine, or a limit, has nothing to give.
pub(super) const REST: Duration = Duration::from_millis(50);

/// Numbers of sessions, over all workers.
static NUMBER: AtomicU64 = AtomicU64::new(1);

impl Worker {
    /// Accepts some of those who wait.
    pub(super) fn accept(&mut self, index: usize) {
        let Some(listening) = self.sockets.get(index) else {
            return;
        };
        for _ in 0..listening.batch.size() {
            let Some(listening) = self.sockets.get(index) else {
                return;
            };
            let (is_tcp, has_older) = (listening.is_tcp, listening.has_older);
            let listener = Arc::clone(&listening.socket.listener);
            let admission = match self.reserve(&listener) {
                Ok(admission) => admission,
                Err(wait) => return self.rest(index, wait),
            };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::acceptfrom_with(&listening.socket.listening.fd, flags) {
                Ok((fd, address)) => {
                    let ip = address.and_then(|any| SocketAddr::try_from(any).ok());
                    if ip.is_some() && has_older {
                        // It may have gone again, which is found out soon enough.
                        let _ = connect::bequeath(&fd, &listener.config);
                    }
                    let client = Client {
                        fd,
                        peer: ip.map_or(Peer::Unix, Peer::Ip),
                        is_tcp,
                    };
                    self.welcome(client, listener, admission);
                    continue;
                }
                Err(Errno::AGAIN) => {
                    let listening = &mut self.sockets[index];
                    listening.batch.found_nobody();
                    listening.has_older = false;
                    return listener.gate.give_token_back();
                }
                // Whoever it was has left.
                Err(errno) if is_about_the_connection(errno) => {}
                Err(errno) => {
                    self.trouble.warn(|| {
                        let hint = match is_exhaustion(errno) {
                            true => " (raise the limit on open files)",
                            false => "",
                        };
                        format!("cannot accept a connection: {errno}{hint}")
                    });
                    listener.gate.give_token_back();
                    return self.rest(index, REST);
                }
            }
            listener.gate.give_token_back();
        }
        if let Some(listening) = self.sockets.get_mut(index) {
            listening.batch.filled(self.round);
        }
    }

    /// Takes a place and a token for a connection before it is accepted, so that workers that accept
    /// at the same moment do not let in too many; or says how long whoever waits stays in the
    /// backlog.
    fn reserve(&self, listener: &Listener) -> Result<Admission, Duration> {
        let max_open = self.site.max_connections;
        let gate = &listener.gate;
        let admission = gate
            .enter(&self.site.door, max_open, &listener.config)
            .ok_or(REST)?;
        gate.take_token(listener.config.accept_rate, self.now)?;
        Ok(admission)
    }

    /// Takes a listening socket out for a while: it would be reported in each round, and nothing
    /// could be done about it.
    fn rest(&mut self, index: usize, wait: Duration) {
        let listening = &mut self.sockets[index];
        if epoll::delete(&self.epoll, &listening.socket.listening.fd).is_ok() {
            listening.rests_until = Some(self.now + wait);
        }
    }

    pub(super) fn end_rest(&mut self, index: usize) {
        // Without memory for it now, there may be a little later.
        self.sockets[index].rests_until = match self.watch_socket(index) {
            Ok(()) => None,
            Err(_) => Some(self.now + REST),
        };
    }

    /// A place has become free: those who wait for one need not wait for the clock.
    pub(super) fn end_rests(&mut self) {
        for index in 0..self.sockets.len() {
            if self.sockets[index].rests_until.is_some() {
                self.end_rest(index);
            }
        }
    }

    /// Level-triggered: what is left in the backlog is reported again. Exclusive: of several workers
    /// that share the socket not all are woken for each connection.
    pub(super) fn watch_socket(&self, index: usize) -> Result<(), Errno> {
        let name = EventData::new_u64(FIRST_SOCKET + index as u64);
        let flags = EventFlags::IN | EventFlags::EXCLUSIVE;
        epoll::add(
            &self.epoll,
            &self.sockets[index].socket.listening.fd,
            name,
            flags,
        )
    }

    fn welcome(&mut self, client: Client, listener: Arc<Listener>, mut admission: Admission) {
        let Client { fd, peer, .. } = &client;
        // Behind another proxy it is the client that counts, and who that is is not known yet.
        let judged = match listener.config.proxy_from {
            Some(_) => Ok(()),
            None => admission.judge(&listener.config, gate::Client::new(peer.ip(), fd)),
        };
        listener.gate.counts.arrived(judged.is_ok());
        match judged {
            Ok(()) => self.adopt(client, listener, admission),
            Err(refused) => {
                let name = &listener.name;
                self.trouble.warn(|| {
                    let why = refused.why();
                    format!("listener {name}: refused a connection from {peer}: {why}")
                });
                // The client sees a reset rather than a server that says nothing.
                let _ = rustix::net::sockopt::set_socket_linger(fd, Some(Duration::ZERO));
            }
        }
    }

    fn adopt(&mut self, client: Client, listener: Arc<Listener>, admission: Admission) {
        self.generation = (self.generation + 1) % (u32::MAX - 1);
        let entry = self.sessions.vacant_entry();
        let key = entry.key();
        entry.insert(Session {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            generation: self.generation,
            client: client.fd,
            peer: client.peer,
            is_tcp: client.is_tcp,
            listener,
            admission,
            introduction: None,
            phase: Phase::Hello { low_water: 1 },
            stale_in: None,
            seen: EventFlags::empty(),
            story: Story {
                began: self.now,
                ..Story::default()
            },
            wake_at: None,
            armed: None,
            keepalive_due: false,
            reported: [0; 2],
            in_line: false,
            is_starved: false,
        });
        let name = name_of(self.generation, key);
        if let Err(errno) = self.watch(&self.sessions[key].client, name) {
            return self.end(key, &End::Exhausted(zhaul_errno(errno)));
        }
        self.guarded(name, Self::begin);
    }
}

/// Somebody who was accepted.
struct Client {
    fd: OwnedFd,
    peer: Peer,
    is_tcp: bool,
}

/// The same number, as the engine has it.
pub(super) fn zhaul_errno(errno: Errno) -> zhaul_core::Errno {
    zhaul_core::Errno::from_raw(errno.raw_os_error())
}

/// accept(2) reports what is pending on the new connection as its own error, as its manual says.
/// Anything else would be reported for ever.
fn is_about_the_connection(errno: Errno) -> bool {
    use Errno as E;
    [
        E::CONNABORTED,
        E::INTR,
        E::PROTO,
        E::NOPROTOOPT,
        E::OPNOTSUPP,
        E::PERM,
        E::NETDOWN,
        E::NETUNREACH,
        E::HOSTDOWN,
        E::HOSTUNREACH,
        E::NONET,
        E::TIMEDOUT,
        E::CONNRESET,
    ]
    .contains(&errno)
}

/// accept(2) also reports errors that were pending on the new connection; only these say that we or
/// the machine have run out.
fn is_exhaustion(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM
    )
}
