//! Whom a listener lets in: rules by address, limits on how many and how fast.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zhaul_service::{Sources, counted_address};

use super::counts::ListenerCounts;
use crate::config::{self, Clients};

/// What is open, over all listeners and reloads.
#[derive(Debug, Default)]
pub(crate) struct Door {
    open: AtomicUsize,
}

/// What is open at one listener; kept over reloads.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: AtomicUsize,
    by_source: Sources<Client>,
    /// Whether the configuration in force has a limit on one source's connections.
    counts_sources: AtomicBool,
    tokens: Mutex<Tokens>,
    pub(crate) counts: ListenerCounts,
}

/// A place among the open connections; given back on drop.
#[derive(Debug)]
pub(crate) struct Admission {
    door: Arc<Door>,
    gate: Arc<Gate>,
    source: Option<Client>,
}

/// A client as rules and limits see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// On the network.
    Ip(IpAddr),
    /// A program on this machine, and the user that it runs as.
    Unix { user: u32 },
}

impl Client {
    /// The client of this address; one without comes through the UNIX socket `fd`.
    pub(crate) fn new(ip: Option<IpAddr>, fd: &OwnedFd) -> Self {
        match ip {
            Some(ip) => Self::Ip(ip),
            None => {
                let credentials = rustix::net::sockopt::socket_peercred(fd);
                let user = credentials.map_or(NOBODY, |c| c.uid.as_raw());
                Self::Unix { user }
            }
        }
    }

    const fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(ip),
            Self::Unix { .. } => None,
        }
    }

    /// What stands for everybody who is counted together with it.
    fn counted(self) -> Self {
        match self {
            Self::Ip(ip) => Self::Ip(counted_address(ip)),
            user => user,
        }
    }
}

/// The user that nobody is.
const NOBODY: u32 = u32::MAX;

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// By `allow` or `deny`.
    Rule,
    /// The source has all it may have.
    Source,
}

impl Refused {
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::Rule => "its address is not allowed",
            Self::Source => "its address or user has too many connections",
        }
    }
}

impl Door {
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Gate {
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Takes a place, if the proxy and the listener have one.
    pub(crate) fn enter(
        self: &Arc<Self>,
        door: &Arc<Door>,
        max_open: usize,
        config: &config::Listener,
    ) -> Option<Admission> {
        if !enter(&door.open, max_open) {
            return None;
        }
        if !enter(&self.open, config.max_connections) {
            door.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Admission {
            door: Arc::clone(door),
            gate: Arc::clone(self),
            source: None,
        })
    }

    /// Takes a token for one more connection, or says how long to wait for it.
    pub(crate) fn take_token(&self, per_second: u32, now: Duration) -> Result<(), Duration> {
        if per_second == 0 {
            return Ok(());
        }
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.take(per_second, now)
    }

    /// The connection for which a token was taken did not come.
    pub(crate) fn give_token_back(&self) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a rate nobody looks at it.
        tokens.left += 1.0;
    }

    /// Has connections counted by source from now on, or no longer. Those that are there already are
    /// not: [`Admission::count`] does that.
    pub(crate) fn count_sources(&self, on: bool) {
        self.counts_sources.store(on, Ordering::Relaxed);
    }
}

/// Whether the client may come at all.
fn permits(config: &config::Listener, client: Client) -> bool {
    let listed = |list: &[Clients]| list.iter().any(|some| some.contain(client.ip()));
    (config.allow.is_empty() || listed(&config.allow)) && !listed(&config.deny)
}

impl Admission {
    /// Whether this client may stay: by the rules, and by how many its source has already.
    pub(crate) fn judge(
        &mut self,
        config: &config::Listener,
        client: Client,
    ) -> Result<(), Refused> {
        if !permits(config, client) {
            return Err(Refused::Rule);
        }
        self.count(config.max_connections_per_source, client)
    }

    /// Counts this client among the connections of its source, if somebody asks for that count and
    /// it is not among them already; not beyond `max` (0 is no limit).
    pub(crate) fn count(&mut self, max: usize, client: Client) -> Result<(), Refused> {
        let is_asked_for = max > 0 || self.gate.counts_sources.load(Ordering::Relaxed);
        if !is_asked_for || self.source.is_some() {
            return Ok(());
        }
        let source = client.counted();
        let has_room = |count| match max > 0 && count >= max {
            true => Err(Refused::Source),
            false => Ok(()),
        };
        self.gate.by_source.enter(source, has_room)?;
        self.source = Some(source);
        Ok(())
    }
}

fn enter(open: &AtomicUsize, max: usize) -> bool {
    let enter = |open| (max == 0 || open < max).then_some(open + 1);
    open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter)
        .is_ok()
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.door.open.fetch_sub(1, Ordering::Relaxed);
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(source) = &self.source {
            self.gate.by_source.leave(source);
        }
    }
}

/// A bucket that holds the tokens of one second at most.
#[derive(Debug, Default)]
struct Tokens {
    left: f64,
    seen: Option<Duration>,
}

impl Tokens {
    fn take(&mut self, per_second: u32, now: Duration) -> Result<(), Duration> {
        let rate = f64::from(per_second);
        self.left = match self.seen {
            Some(seen) => (self.left + now.saturating_sub(seen).as_secs_f64() * rate).min(rate),
            None => rate,
        };
        self.seen = Some(now);
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.left) / rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> config::Listener {
        config::Listener::default()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn rules_say_who_may_come() {
        let listener = config::Listener {
            allow: vec![
                "10.0.0.0/8".parse().unwrap(),
                "2001:db8::/32".parse().unwrap(),
            ],
            deny: vec!["10.1.0.0/16".parse().unwrap()],
            ..config()
        };
        for (address, expected) in [
            ("10.2.3.4", true),
            ("::ffff:10.2.3.4", true),
            ("10.1.3.4", false),
            ("192.0.2.1", false),
            ("2001:db8::1", true),
        ] {
            let client = Client::Ip(ip(address));
            assert_eq!(permits(&listener, client), expected, "{address}");
        }
        assert!(!permits(&listener, Client::Unix { user: 0 }));
    }

    #[test]
    fn clients_of_unix_sockets_are_meant_by_a_word() {
        let unix = Client::Unix { user: 0 };
        let word = vec!["unix".parse().unwrap()];
        let networks: Vec<Clients> = ["0.0.0.0/0", "::/0"].map(|n| n.parse().unwrap()).to_vec();
        for (allow, deny, expected) in [
            (&[][..], &[][..], true),
            (&networks, &[], false),
            (&word, &[], true),
            (&[], &word, false),
            (&[], &networks, true),
        ] {
            let (allow, deny) = (allow.to_vec(), deny.to_vec());
            let rules = config::Listener {
                allow,
                deny,
                ..config()
            };
            assert_eq!(permits(&rules, unix), expected, "{rules:?}");
        }
        let allow = word;
        let rules = config::Listener { allow, ..config() };
        assert!(!permits(&rules, Client::Ip(ip("127.0.0.1"))));
    }

    #[test]
    fn limits_hold_and_what_is_refused_leaves_nothing_behind() {
        let (gate, door) = (Arc::new(Gate::default()), Arc::default());
        let listener = config::Listener {
            max_connections: 3,
            max_connections_per_source: 2,
            ..config()
        };
        let admit = |client| {
            let mut admission = gate.enter(&door, 0, &listener).unwrap();
            admission.judge(&listener, client).map(|()| admission)
        };
        let at = |address| Client::Ip(ip(address));
        for (one, another) in [
            (at("192.0.2.1"), at("192.0.2.2")),
            (Client::Unix { user: 7 }, Client::Unix { user: 8 }),
        ] {
            let first = admit(one).unwrap();
            let second = admit(one).unwrap();
            assert_eq!(admit(one).unwrap_err(), Refused::Source);
            let other = admit(another).unwrap();
            assert!(gate.enter(&door, 0, &listener).is_none());
            drop((first, second, other));
            assert_eq!((gate.open(), door.open()), (0, 0));
            assert!(gate.by_source.is_empty());
        }
    }

    #[test]
    fn a_limit_that_is_new_counts_who_was_there_before() {
        let (gate, door) = (Arc::new(Gate::default()), Arc::default());
        let [free, limited] = [0, 1].map(|max| config::Listener {
            max_connections_per_source: max,
            ..config()
        });
        let mut old = gate.enter(&door, 0, &free).unwrap();
        old.judge(&free, Client::Ip(ip("192.0.2.1"))).unwrap();
        assert!(gate.by_source.is_empty(), "nobody asks");
        gate.count_sources(true);
        for _ in 0..2 {
            old.count(0, Client::Ip(ip("192.0.2.1"))).unwrap();
        }
        let mut new = gate.enter(&door, 0, &limited).unwrap();
        let judged = new.judge(&limited, Client::Ip(ip("192.0.2.1")));
        assert_eq!(judged, Err(Refused::Source));
        drop((old, new));
        assert!(gate.by_source.is_empty());
    }

    #[test]
    fn the_whole_proxy_has_a_limit_too() {
        let (gate, door) = (Arc::new(Gate::default()), Arc::default());
        let held = gate.enter(&door, 1, &config()).unwrap();
        assert!(gate.enter(&door, 1, &config()).is_none());
        drop(held);
        assert_eq!(door.open(), 0);
    }

    #[test]
    fn a_token_that_was_not_used_is_there_for_the_next() {
        let gate = Gate::default();
        let now = Duration::from_secs(1);
        for _ in 0..50 {
            assert_eq!(gate.take_token(2, now), Ok(()));
            gate.give_token_back();
        }
    }

    #[test]
    fn tokens_come_back_with_time() {
        let mut tokens = Tokens::default();
        let second = Duration::from_secs(1);
        for _ in 0..10 {
            assert_eq!(tokens.take(10, second), Ok(()));
        }
        let wait = tokens.take(10, second).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(tokens.take(10, second + wait), Ok(()));
        assert!(tokens.take(10, second + wait).is_err());
        // A long rest gives no more than a second's worth.
        let later = second * 100;
        let taken = (0..20).filter(|_| tokens.take(10, later).is_ok()).count();
        assert_eq!(taken, 10);
    }
}
