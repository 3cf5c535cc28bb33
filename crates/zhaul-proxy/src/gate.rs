//! Whom a listener lets in: rules by address, limits on how many and how fast.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use zhaul_service::counted_address;

use crate::config;
use crate::counts::ListenerCounts;

/// What is open, over all listeners and reloads.
#[derive(Debug, Default)]
pub(crate) struct Door {
    open: AtomicUsize,
}

/// What is open at one listener; kept over reloads.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: AtomicUsize,
    by_source: Mutex<HashMap<IpAddr, usize>>,
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
    source: Option<IpAddr>,
}

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
            Self::Source => "its address has too many connections",
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

    fn by_source(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_source
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the address may come at all.
fn permits(config: &config::Listener, address: IpAddr) -> bool {
    let ip = address.to_canonical();
    let listed = |networks: &[IpNet]| networks.iter().any(|net| net.contains(&ip));
    (config.allow.is_empty() || listed(&config.allow)) && !listed(&config.deny)
}

impl Admission {
    /// Whether this client may stay: by the rules, and by how many its address has already.
    pub(crate) fn judge(
        &mut self,
        config: &config::Listener,
        client: IpAddr,
    ) -> Result<(), Refused> {
        if !permits(config, client) {
            return Err(Refused::Rule);
        }
        self.count(config.max_connections_per_source, client)
    }

    /// Counts this client among the connections of its source, if somebody asks for that count and
    /// it is not among them already; not beyond `max` (0 is no limit).
    pub(crate) fn count(&mut self, max: usize, client: IpAddr) -> Result<(), Refused> {
        let is_asked_for = max > 0 || self.gate.counts_sources.load(Ordering::Relaxed);
        if !is_asked_for || self.source.is_some() {
            return Ok(());
        }
        let source = counted_address(client);
        let mut by_source = self.gate.by_source();
        let count = by_source.entry(source).or_insert(0);
        if max > 0 && *count >= max {
            return Err(Refused::Source);
        }
        *count += 1;
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
        let Some(source) = self.source else { return };
        let mut by_source = self.gate.by_source();
        if let Some(count) = by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                by_source.remove(&source);
            }
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
            assert_eq!(permits(&listener, ip(address)), expected, "{address}");
        }
    }

    #[test]
    fn limits_hold_and_what_is_refused_leaves_nothing_behind() {
        let (gate, door) = (Arc::new(Gate::default()), Arc::default());
        let listener = config::Listener {
            max_connections: 3,
            max_connections_per_source: 2,
            ..config()
        };
        let admit = |address: &str| {
            let mut admission = gate.enter(&door, 0, &listener).unwrap();
            admission.judge(&listener, ip(address)).map(|()| admission)
        };
        let first = admit("192.0.2.1").unwrap();
        let second = admit("192.0.2.1").unwrap();
        assert_eq!(admit("192.0.2.1").unwrap_err(), Refused::Source);
        let other = admit("192.0.2.2").unwrap();
        assert!(gate.enter(&door, 0, &listener).is_none());
        drop((first, second, other));
        assert_eq!((gate.open(), door.open()), (0, 0));
        assert!(gate.by_source().is_empty());
    }

    #[test]
    fn a_limit_that_is_new_counts_who_was_there_before() {
        let (gate, door) = (Arc::new(Gate::default()), Arc::default());
        let [free, limited] = [0, 1].map(|max| config::Listener {
            max_connections_per_source: max,
            ..config()
        });
        let mut old = gate.enter(&door, 0, &free).unwrap();
        old.judge(&free, ip("192.0.2.1")).unwrap();
        assert!(gate.by_source().is_empty(), "nobody asks");
        gate.count_sources(true);
        for _ in 0..2 {
            old.count(0, ip("192.0.2.1")).unwrap();
        }
        let mut new = gate.enter(&door, 0, &limited).unwrap();
        let judged = new.judge(&limited, ip("192.0.2.1"));
        assert_eq!(judged, Err(Refused::Source));
        drop((old, new));
        assert!(gate.by_source().is_empty());
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
