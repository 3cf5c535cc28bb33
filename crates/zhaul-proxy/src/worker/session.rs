//! One client's way through the proxy, from accept to the last byte.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use zhaul::relay::{Relay, RelayEnding, Stats};
use zhaul_core::Errno;
use zhaul_service::Peer;

use crate::addresses::Endpoint;
use crate::connect::Failed;
use crate::gate::{Admission, Client};
use crate::pool::{Place, Pool};
use crate::proxy_header::Introduction;
use crate::site::Listener;

/// A client's connection, and the server's once there is one.
#[derive(Debug)]
pub(crate) struct Session {
    /// Unique in this process.
    pub(crate) number: u64,
    /// Told from sessions that had the same place in the list.
    pub(crate) generation: u32,
    pub(crate) client: OwnedFd,
    pub(crate) peer: Peer,
    /// Whether the client's connection is known to be TCP.
    pub(crate) is_tcp: bool,
    pub(crate) listener: Arc<Listener>,
    /// Gives the place among the open connections back.
    pub(crate) admission: Admission,
    /// What a PROXY header said.
    pub(crate) introduction: Option<Introduction>,
    pub(crate) phase: Phase,
    /// The batch of events in which an attempt to connect was given up: what is left of that batch
    /// may be about its socket, as all of them have one name.
    pub(crate) stale_in: Option<u64>,
    /// What was reported of the client while there was no relay to be told.
    pub(crate) seen: EventFlags,
    pub(crate) story: Story,
    /// When to look at it even if nothing happens.
    pub(crate) wake_at: Option<Duration>,
    /// The earliest entry of the worker's timers that is its.
    pub(crate) armed: Option<Duration>,
    /// Keepalive towards the server is still to be set.
    pub(crate) keepalive_due: bool,
    /// Bytes that the counts know of.
    pub(crate) reported: [u64; 2],
    /// It is in the list of those that had no time to finish their turn.
    pub(crate) in_line: bool,
    /// It is in the list of those that wait for a buffer.
    pub(crate) is_starved: bool,
}

/// How far a session has come.
#[derive(Debug)]
pub(crate) enum Phase {
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
pub(crate) struct Connecting {
    pub(crate) place: Place,
    pub(crate) since: Duration,
    pub(crate) deadline: Duration,
    /// How long an address is waited for before the next is tried, too.
    pub(crate) next_after: Duration,
    /// Addresses that were not tried yet, the next one last.
    pub(crate) untried: Vec<Endpoint>,
    /// In the order in which they began.
    pub(crate) attempts: Vec<Attempt>,
    /// What became of one that failed.
    pub(crate) failed: Option<Failed>,
}

/// A connection to one address of a server that is being made.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) address: Endpoint,
    pub(crate) socket: OwnedFd,
}

/// What the log will tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    pub(crate) began: Duration,
    pub(crate) server_name: Option<String>,
    pub(crate) pool: Option<Arc<str>>,
    pub(crate) server: Option<Arc<str>>,
    /// Until what had to be known was known.
    pub(crate) hello: Option<Duration>,
    /// In the queue.
    pub(crate) queued: Duration,
    /// Making the connection that served.
    pub(crate) connect: Option<Duration>,
    /// Servers that did not take the connection, by index.
    pub(crate) tried: Vec<usize>,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The relay did.
    Relay(RelayEnding),
    /// The client went away before it was relayed.
    ClientGone,
    /// The client did not say in time what has to be known.
    HelloTimeout,
    /// The client that a PROXY header names may not come.
    Refused(&'static str),
    /// The PROXY header is missing or wrong.
    BadHeader(String),
    /// The beginning of TLS is wrong.
    BadHello(&'static str),
    /// No route claims it, and there is no default.
    NoRoute,
    /// No server is up, or none could be reached.
    NoServer,
    /// Too many wait for a server already.
    QueueFull,
    /// It waited for a server long enough.
    QueueTimeout,
    /// The machine has run out of something.
    Exhausted(Errno),
    /// The proxy was told to stop, or the session to end.
    Killed,
    /// A defect of ours.
    Defect,
}

/// All the words that [`End::word`] has.
pub(crate) const CAUSES: [&str; 24] = [
    "closed-by-client",
    "closed-by-server",
    "reset-by-client",
    "reset-by-server",
    "idle-timeout",
    "fin-timeout",
    "session-timeout",
    "client-read-error",
    "server-read-error",
    "client-write-error",
    "server-write-error",
    "client-gone",
    "hello-timeout",
    REFUSED,
    "bad-proxy-header",
    "bad-client-hello",
    "no-route",
    "no-server",
    "queue-full",
    "queue-timeout",
    "exhausted",
    "killed",
    "defect",
    OTHER,
];

/// The word for clients that may not come.
pub(crate) const REFUSED: &str = "refused";
/// The word for what has no other.
pub(crate) const OTHER: &str = "other";

impl End {
    /// The word in the log.
    pub(crate) fn word(&self) -> &'static str {
        use zhaul::relay::{RelayCause, Side};
        match self {
            Self::Relay(ending) => match ending.cause {
                RelayCause::Closed { first: Side::A } => "closed-by-client",
                RelayCause::Closed { first: Side::B } => "closed-by-server",
                RelayCause::Reset { by: Side::A } => "reset-by-client",
                RelayCause::Reset { by: Side::B } => "reset-by-server",
                RelayCause::Idle => "idle-timeout",
                RelayCause::HalfClosed { .. } => "fin-timeout",
                RelayCause::Deadline => "session-timeout",
                RelayCause::Cancelled => "killed",
                RelayCause::Read { side: Side::A, .. } => "client-read-error",
                RelayCause::Read { side: Side::B, .. } => "server-read-error",
                RelayCause::Write { side: Side::A, .. } => "client-write-error",
                RelayCause::Write { side: Side::B, .. } => "server-write-error",
                _ => OTHER,
            },
            Self::ClientGone => "client-gone",
            Self::HelloTimeout => "hello-timeout",
            Self::Refused(_) => REFUSED,
            Self::BadHeader(_) => "bad-proxy-header",
            Self::BadHello(_) => "bad-client-hello",
            Self::NoRoute => "no-route",
            Self::NoServer => "no-server",
            Self::QueueFull => "queue-full",
            Self::QueueTimeout => "queue-timeout",
            Self::Exhausted(_) => "exhausted",
            Self::Killed => "killed",
            Self::Defect => "defect",
        }
    }

    /// More about it, where there is more.
    pub(crate) fn detail(&self) -> Option<String> {
        use zhaul::relay::RelayCause;
        match self {
            Self::Relay(ending) => match ending.cause {
                RelayCause::Read { errno, .. } | RelayCause::Write { errno, .. } => {
                    Some(errno.to_string())
                }
                _ => None,
            },
            Self::BadHeader(why) => Some(why.clone()),
            Self::BadHello(why) | Self::Refused(why) => Some((*why).to_owned()),
            Self::Exhausted(errno) => Some(errno.to_string()),
            _ => None,
        }
    }
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
    /// The client: the one that a PROXY header names, or whoever connected.
    pub(crate) fn source(&self) -> Option<SocketAddr> {
        let introduced = self.introduction.as_ref().and_then(|i| i.addresses);
        match (introduced, self.peer) {
            (Some(addresses), _) => Some(addresses.source),
            (None, Peer::Ip(address)) => Some(address),
            (None, Peer::Unix) => None,
        }
    }

    /// The client's address, to tell clients apart by.
    pub(crate) fn source_ip(&self) -> Option<IpAddr> {
        self.source().map(|source| source.ip())
    }

    /// The client as rules and limits see it.
    pub(crate) fn counted(&self) -> Client {
        Client::new(self.source_ip(), &self.client)
    }

    /// The client as text.
    pub(crate) fn source_text(&self) -> String {
        self.source().map_or_else(
            || "unix:".to_owned(),
            |source| SocketAddr::new(source.ip().to_canonical(), source.port()).to_string(),
        )
    }

    pub(crate) fn view(&self, now: Duration) -> SessionView {
        SessionView {
            number: self.number,
            phase: self.phase.name(),
            client: self.source_text(),
            listener: self.listener.name.clone(),
            pool: self.story.pool.clone(),
            server: self.story.server.clone(),
            age: now.saturating_sub(self.story.began),
            stats: match &self.phase {
                Phase::Relaying { relay, .. } => Some(relay.stats()),
                _ => None,
            },
        }
    }
}

impl Phase {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Queued { .. } => "queued",
            Self::Connecting(_) => "connecting",
            Self::Relaying { .. } => "relaying",
            Self::Over => "over",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_counted() {
        let mut words = std::collections::BTreeSet::new();
        for end in [
            End::ClientGone,
            End::HelloTimeout,
            End::Refused(""),
            End::BadHeader(String::new()),
            End::BadHello(""),
            End::NoRoute,
            End::NoServer,
            End::QueueFull,
            End::QueueTimeout,
            End::Exhausted(Errno::from_raw(24)),
            End::Killed,
            End::Defect,
        ] {
            assert!(CAUSES.contains(&end.word()), "{end:?}");
            words.insert(end.word());
        }
        assert_eq!(words.len(), 12);
        let distinct: std::collections::BTreeSet<_> = CAUSES.iter().collect();
        assert_eq!(distinct.len(), CAUSES.len());
    }
}
