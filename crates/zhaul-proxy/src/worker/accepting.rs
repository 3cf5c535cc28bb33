//! Letting clients in: the listening sockets of a worker, and those of them that rest.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use zhaul_service::{AcceptBatch, AcceptError, Peer, Trouble};

use super::poller::Poller;
use super::socket::reset_on_close;
use crate::state::gate::{self, Admission};
use crate::state::listener::Listener;
use crate::state::site::Site;
use crate::state::sockets::Socket;
use crate::state::tcp_options;

/// How long accepting rests when the machine, or a limit, has nothing to give.
const REST: Duration = Duration::from_millis(50);

/// The sockets that a worker accepts on.
#[derive(Debug, Default)]
pub(super) struct Acceptors(Vec<Acceptor>);

/// A socket that a worker accepts on.
#[derive(Debug)]
struct Acceptor {
    socket: Socket,
    /// Not looked at until then: there was nothing to be done about whoever waits there.
    rests_until: Option<Duration>,
    /// Whether its connections are TCP, which they inherit.
    is_tcp: bool,
    /// Connections may wait there from before it had the options of this configuration.
    has_older: bool,
    batch: AcceptBatch,
}

/// A client that was let in.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) fd: OwnedFd,
    pub(super) peer: Peer,
    pub(super) is_tcp: bool,
    pub(super) listener: Arc<Listener>,
    pub(super) admission: Admission,
}

/// What accepting once came to.
#[derive(Debug)]
pub(super) enum Accepted {
    Client(Client),
    /// Somebody was there and has gone, or may not come.
    Gone,
    /// There is nobody, or nothing to be done about whoever waits.
    Nobody,
}

impl Acceptors {
    /// Accepts on these from now on. What cannot be watched rests, as a socket does that nothing could
    /// be done about, and says so.
    pub(super) fn replace(
        &mut self,
        sockets: impl Iterator<Item = Socket>,
        poller: &Poller,
        trouble: &mut Trouble,
        now: Duration,
    ) {
        // Taken out and in again: their numbers are their places in the list.
        for old in self.0.drain(..) {
            if old.rests_until.is_none() {
                // It is not watched any more in any case: whoever has it closes it.
                let _ = poller.forget(&old.socket.listening.fd);
            }
        }
        for socket in sockets {
            let watched = poller.watch_listening(&socket.listening.fd, self.0.len());
            if let Err(errno) = watched {
                let (name, address) = (&socket.listener.name, &socket.listening.address);
                trouble.error(|| {
                    format!("listener {name}: {address} rests: it cannot be watched: {errno}")
                });
            }
            self.0.push(Acceptor {
                is_tcp: tcp_options::is_tcp(&socket.listening.fd),
                socket,
                rests_until: watched.err().map(|_| now + REST),
                has_older: true,
                batch: AcceptBatch::default(),
            });
        }
    }

    /// How many connections are accepted at the next report; none on a socket that is not there any
    /// more.
    pub(super) fn batch_size(&self, index: usize) -> usize {
        self.0
            .get(index)
            .map_or(0, |acceptor| acceptor.batch.size())
    }

    /// As many were there as were expected in this round.
    pub(super) fn filled(&mut self, index: usize, round: u64) {
        if let Some(acceptor) = self.0.get_mut(index) {
            acceptor.batch.filled(round);
        }
    }

    /// Accepts one of those who wait.
    pub(super) fn accept(
        &mut self,
        index: usize,
        site: &Site,
        poller: &Poller,
        trouble: &mut Trouble,
        now: Duration,
    ) -> Accepted {
        let Some(acceptor) = self.0.get_mut(index) else {
            return Accepted::Nobody;
        };
        let listener = Arc::clone(&acceptor.socket.listener);
        let admission = match reserve(&listener, site, now) {
            Ok(admission) => admission,
            Err(wait) => {
                acceptor.rest(poller, now + wait);
                return Accepted::Nobody;
            }
        };
        match zhaul_service::accept(&acceptor.socket.listening.fd) {
            Ok((fd, peer)) => {
                if matches!(peer, Peer::Ip(_)) && acceptor.has_older {
                    // It may have gone again, which is found out soon enough.
                    let _ = tcp_options::set_inherited(&fd, &listener.config);
                }
                let client = Client {
                    fd,
                    peer,
                    is_tcp: acceptor.is_tcp,
                    listener,
                    admission,
                };
                judge(client, trouble)
            }
            Err(error) => {
                listener.gate.give_token_back();
                match error {
                    AcceptError::Connection(_) => Accepted::Gone,
                    AcceptError::Nobody => {
                        acceptor.batch.found_nobody();
                        acceptor.has_older = false;
                        Accepted::Nobody
                    }
                    AcceptError::Exhausted(_) | AcceptError::Listener(_) => {
                        trouble.warn(|| error.to_string());
                        acceptor.rest(poller, now + REST);
                        Accepted::Nobody
                    }
                }
            }
        }
    }

    /// When the next one that rests is looked at again.
    pub(super) fn next_end_of_rest(&self) -> Option<Duration> {
        self.0.iter().filter_map(|a| a.rests_until).min()
    }

    /// Looks again at those that have rested long enough.
    pub(super) fn end_rests_due(&mut self, poller: &Poller, now: Duration) {
        self.end_rests_where(|until| until <= now, poller, now);
    }

    /// A place has become free: those who wait for one need not wait for the clock.
    pub(super) fn end_rests(&mut self, poller: &Poller, now: Duration) {
        self.end_rests_where(|_| true, poller, now);
    }

    fn end_rests_where(
        &mut self,
        is_over: impl Fn(Duration) -> bool,
        poller: &Poller,
        now: Duration,
    ) {
        for (index, acceptor) in self.0.iter_mut().enumerate() {
            if acceptor.rests_until.is_some_and(&is_over) {
                let watched = poller.watch_listening(&acceptor.socket.listening.fd, index);
                // Without memory for it now, there may be a little later.
                acceptor.rests_until = watched.err().map(|_| now + REST);
            }
        }
    }

    /// Which of them rest, and where they listen.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = (bool, &zhaul_service::Bound)> {
        let acceptors = self.0.iter();
        acceptors.map(|a| (a.rests_until.is_some(), &a.socket.listening.address))
    }
}

impl Acceptor {
    /// Takes a listening socket out for a while: it would be reported in each round, and nothing
    /// could be done about it.
    fn rest(&mut self, poller: &Poller, until: Duration) {
        if poller.forget(&self.socket.listening.fd).is_ok() {
            self.rests_until = Some(until);
        }
    }
}

/// Takes a place and a token for a connection before it is accepted, so that workers that accept at
/// the same moment do not let in too many; or says how long whoever waits stays in the backlog.
fn reserve(listener: &Listener, site: &Site, now: Duration) -> Result<Admission, Duration> {
    let gate = &listener.gate;
    let admission = gate
        .enter(&site.door, site.max_connections, &listener.config)
        .ok_or(REST)?;
    gate.take_token(listener.config.accept_rate, now)?;
    Ok(admission)
}

/// Whether a client may come.
fn judge(mut client: Client, trouble: &mut Trouble) -> Accepted {
    let rules = &client.listener.config;
    // Behind another proxy it is the client that counts, and who that is is not known yet.
    let judged = match rules.proxy_from {
        Some(_) => Ok(()),
        None => {
            let who = gate::Client::new(client.peer.ip(), &client.fd);
            client.admission.judge(rules, who)
        }
    };
    client.listener.gate.counts.arrived(judged.is_ok());
    let Err(refused) = judged else {
        return Accepted::Client(client);
    };
    let (name, peer, why) = (&client.listener.name, client.peer, refused.why());
    trouble.warn(|| format!("listener {name}: refused a connection from {peer}: {why}"));
    // The client sees a reset rather than a server that says nothing.
    reset_on_close(&client.fd);
    Accepted::Gone
}
