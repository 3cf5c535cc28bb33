//! One client's way through the proxy, from accept to the last byte.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use zhaul::relay::{Relay, Stats};
use zhaul_service::Peer;

use super::accepting::Client;
use super::connect::Failed;
use super::end::End;
use super::socket::reset_on_close;
use crate::pure::addresses::Endpoint;
use crate::pure::proxy_header::Introduction;
use crate::state::gate::{self, Admission};
use crate::state::listener::Listener;
use crate::state::pool::{Place, Pool};

/// A client's connection, and the server's once there is one.
#[derive(Debug)]
pub(super) struct Session {
    /// Unique in this process.
    pub(super) number: u64,
    /// What epoll, timers and queues call its client's side.
    pub(super) name: u64,
    pub(super) client: OwnedFd,
    pub(super) peer: Peer,
    /// Whether the client's connection is known to be TCP.
    pub(super) is_tcp: bool,
    pub(super) listener: Arc<Listener>,
    /// Gives the place among the open connections back.
    pub(super) admission: Admission,
    /// What a PROXY header said.
    pub(super) introduction: Option<Introduction>,
    pub(super) phase: Phase,
    /// The batch of events in which an attempt to connect was given up: what is left of that batch
    /// may be about its socket, as all of them have one name.
    pub(super) stale_in: Option<u64>,
    /// What was reported of the client while there was no relay to be told.
    pub(super) seen: EventFlags,
    pub(super) facts: Facts,
    /// When to look at it even if nothing happens.
    pub(super) wake_at: Option<Duration>,
    /// The earliest entry of the worker's timers that is its.
    pub(super) armed: Option<Duration>,
    /// Keepalive towards the server is still to be set.
    pub(super) keepalive_due: bool,
    /// Bytes that the counts know of.
    pub(super) reported: [u64; 2],
    /// It is in the list of those that had no time to finish their turn.
    pub(super) is_queued_for_turn: bool,
    /// It is in the list of those that wait for a buffer.
    pub(super) is_starved: bool,
}

/// How far a session has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// The client has not said yet what has to be known.
    Hello {
        /// It is reported when it has said so many bytes.
        low_water: usize,
    },
    /// All servers are full.
    Queued {
        pool: Arc<Pool>,
        since: Duration,
        ticket: u64,
    },
    /// A connection to a server is being made.
    Connecting(Connecting),
    /// Bytes flow.
    Relaying {
        place: Place,
        server: OwnedFd,
        relay: Box<Relay>,
    },
    /// It is being taken apart.
    Over,
}

/// How far making a connection to a server has come.
#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) place: Place,
    pub(super) since: Duration,
    pub(super) deadline: Duration,
    /// How long an address is waited for before the next is tried, too.
    pub(super) next_after: Duration,
    /// Addresses that were not tried yet, the next one last.
    pub(super) untried: Vec<Endpoint>,
    /// In the order in which they began.
    pub(super) attempts: Vec<Attempt>,
    /// What became of one that failed.
    pub(super) failed: Option<Failed>,
}

/// A connection to one address of a server that is being made.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) address: Endpoint,
    pub(super) socket: OwnedFd,
}

/// What the log will tell.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) began: Duration,
    pub(super) server_name: Option<String>,
    pub(super) pool: Option<Arc<str>>,
    pub(super) server: Option<Arc<str>>,
    /// Until what had to be known was known.
    pub(super) hello: Option<Duration>,
    /// In the queue.
    pub(super) queued: Duration,
    /// Making the connection that served.
    pub(super) connect: Option<Duration>,
    /// Servers that did not take the connection, by index.
    pub(super) tried: Vec<usize>,
}

/// What follows for a session.
#[derive(Debug)]
pub(super) enum Next {
    /// It waits: for an event, or for its time to be looked at.
    Wait,
    /// It is known where it is to go: a place at one of these servers is to be taken.
    Choose(Arc<Pool>),
    /// A place was taken: a connection to its server is to be made.
    Connect(Place),
    /// The connection to the server stands.
    Relay(Connected),
    /// It is over.
    End(End),
}

/// A connection to a server.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) place: Place,
    pub(super) server: OwnedFd,
    /// What was reported of it.
    pub(super) seen: EventFlags,
}

/// A session as the administrator sees it.
#[derive(Clone, Debug)]
pub(crate) struct SessionView {
    pub(crate) number: u64,
    pub(crate) phase: &'static str,
    pub(crate) client: String,
    pub(crate) listener: String,
    pub(crate) pool: Option<Arc<str>>,
    pub(crate) server: Option<Arc<str>>,
    pub(crate) age: Duration,
    pub(crate) stats: Option<Stats>,
}

impl Session {
    /// One that begins now.
    pub(super) fn new(client: Client, number: u64, name: u64, now: Duration) -> Self {
        Self {
            number,
            name,
            client: client.fd,
            peer: client.peer,
            is_tcp: client.is_tcp,
            listener: client.listener,
            admission: client.admission,
            introduction: None,
            phase: Phase::Hello { low_water: 1 },
            stale_in: None,
            seen: EventFlags::empty(),
            facts: Facts {
                began: now,
                ..Facts::default()
            },
            wake_at: None,
            armed: None,
            keepalive_due: false,
            reported: [0; 2],
            is_queued_for_turn: false,
            is_starved: false,
        }
    }

    /// The client: the one that a PROXY header names, or whoever connected.
    pub(super) fn source(&self) -> Option<SocketAddr> {
        let introduced = self.introduction.as_ref().and_then(|i| i.addresses);
        match (introduced, self.peer) {
            (Some(addresses), _) => Some(addresses.source),
            (None, Peer::Ip(address)) => Some(address),
            (None, Peer::Unix) => None,
        }
    }

    /// The client's address, to tell clients apart by.
    pub(super) fn source_ip(&self) -> Option<IpAddr> {
        self.source().map(|source| source.ip())
    }

    /// The client as rules and limits see it.
    pub(super) fn counted(&self) -> gate::Client {
        gate::Client::new(self.source_ip(), &self.client)
    }

    /// The client as text.
    pub(super) fn source_text(&self) -> String {
        self.source().map_or_else(
            || "unix:".to_owned(),
            |source| SocketAddr::new(source.ip().to_canonical(), source.port()).to_string(),
        )
    }

    /// Gives back what its phase holds: a place in the queue or at a server, and connections.
    pub(super) fn leave_phase(&mut self, now: Duration) {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Queued {
                pool,
                since,
                ticket,
            } => {
                self.facts.queued += now.saturating_sub(since);
                pool.queue.forget(ticket);
            }
            Phase::Connecting(Connecting {
                place, attempts, ..
            }) => {
                let sockets = attempts.iter().map(|attempt| &attempt.socket);
                sockets.for_each(reset_on_close);
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
    }

    /// What the administrator sees of it.
    pub(super) fn view(&self, now: Duration) -> SessionView {
        SessionView {
            number: self.number,
            phase: self.phase.name(),
            client: self.source_text(),
            listener: self.listener.name.clone(),
            pool: self.facts.pool.clone(),
            server: self.facts.server.clone(),
            age: now.saturating_sub(self.facts.began),
            stats: match &self.phase {
                Phase::Relaying { relay, .. } => Some(relay.stats()),
                _ => None,
            },
        }
    }
}

impl Phase {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Queued { .. } => "queued",
            Self::Connecting(_) => "connecting",
            Self::Relaying { .. } => "relaying",
            Self::Over => "over",
        }
    }
}
