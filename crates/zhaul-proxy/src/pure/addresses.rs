//! What a server's name stands for: its addresses, how each of them is, and in which order a
//! connection tries them.
//!
//! Families alternate, as RFC 8305 has it (section 4), and addresses take turns in being the first.
//! One that failed, or was slower than another, is tried last for a while; then the next whose turn
//! it is finds out.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use zhaul_service::UnixAddr;

/// Something that can be connected to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    Unix(UnixAddr),
}

/// All that a server's address stands for; empty while a name does not resolve.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Vec<Address>);

#[derive(Debug)]
struct Address {
    endpoint: Endpoint,
    /// Tried last until then, in milliseconds of the proxy's clock; 0 if it is as good as any.
    avoided_until: AtomicU64,
}

/// Addresses of one name that a connection tries.
const MOST_ADDRESSES: usize = 4;

/// How long an address that failed is tried last.
const AVOIDED_FOR: Duration = Duration::from_secs(10);

impl Addresses {
    /// These, and what was known of them before.
    pub(crate) fn new(mut endpoints: Vec<Endpoint>, before: &Self) -> Self {
        endpoints.sort();
        endpoints.dedup();
        let address = |endpoint| {
            let known = before.find(&endpoint);
            let avoided_until = known.map_or(0, |old| old.avoided_until.load(Ordering::Relaxed));
            Address {
                endpoint,
                avoided_until: avoided_until.into(),
            }
        };
        Self(endpoints.into_iter().map(address).collect())
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both name the same.
    pub(crate) fn are(&self, other: &Self) -> bool {
        self.0
            .iter()
            .map(|a| &a.endpoint)
            .eq(other.0.iter().map(|a| &a.endpoint))
    }

    /// Those that a connection tries, one after the other. `turn` says who is the first; to find out
    /// how one is that has failed takes `timeout` at most, and nobody else tries meanwhile.
    pub(crate) fn order(&self, turn: usize, timeout: Duration, now: Duration) -> Vec<Endpoint> {
        if let [only] = &self.0[..] {
            return vec![only.endpoint.clone()];
        }
        let count = self.0.len();
        let (mut good, mut avoided) = (Vec::with_capacity(count), Vec::new());
        for place in 0..count {
            let address = &self.0[(turn % count + place) % count];
            match address.is_avoided(place == 0, timeout, now) {
                true => avoided.push(address),
                false => good.push(address),
            }
        }
        let ordered = families_in_turn(good)
            .into_iter()
            .chain(families_in_turn(avoided));
        let endpoints = ordered.map(|address| address.endpoint.clone());
        endpoints.take(MOST_ADDRESSES).collect()
    }

    /// Takes in that an address took a connection, or that it did not, or not as soon as another.
    pub(crate) fn learn(&self, endpoint: &Endpoint, is_good: bool, now: Duration) {
        let until = if is_good { 0 } else { ms(now + AVOIDED_FOR) };
        match self.find(endpoint) {
            // Nothing is written in most cases: all workers read it.
            Some(address) if address.avoided_until.load(Ordering::Relaxed) != until => {
                address.avoided_until.store(until, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    fn find(&self, endpoint: &Endpoint) -> Option<&Address> {
        self.0.iter().find(|address| address.endpoint == *endpoint)
    }
}

impl Address {
    /// Whether it is tried after others. Its time over, it is not for the one who comes first to it.
    fn is_avoided(&self, is_its_turn: bool, timeout: Duration, now: Duration) -> bool {
        let until = self.avoided_until.load(Ordering::Relaxed);
        if until == 0 {
            return false;
        }
        let may_try = is_its_turn && until <= ms(now);
        let try_it = |until| {
            let relaxed = Ordering::Relaxed;
            self.avoided_until
                .compare_exchange(until, ms(now + timeout), relaxed, relaxed)
        };
        !(may_try && try_it(until).is_ok())
    }

    const fn is_ipv6(&self) -> bool {
        matches!(self.endpoint, Endpoint::Tcp(SocketAddr::V6(_)))
    }
}

/// One of the first's family, one of the other, and so on.
fn families_in_turn(addresses: Vec<&Address>) -> Vec<&Address> {
    let first = addresses.first().is_some_and(|address| address.is_ipv6());
    let mut out = Vec::with_capacity(addresses.len());
    let (same, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first);
    let mut other = other.into_iter();
    for address in same {
        out.push(address);
        out.extend(other.next());
    }
    out.extend(other);
    out
}

/// Never 0, which means something else.
fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);
    const TIMEOUT: Duration = Duration::from_secs(5);

    fn tcp(text: &str) -> Endpoint {
        Endpoint::Tcp(text.parse().unwrap())
    }

    fn addresses(list: &[&str]) -> Addresses {
        Addresses::new(list.iter().map(|a| tcp(a)).collect(), &Addresses::default())
    }

    fn order(addresses: &Addresses, turn: usize, now: Duration) -> Vec<String> {
        let text = |endpoint| match endpoint {
            Endpoint::Tcp(address) => address.ip().to_string(),
            Endpoint::Unix(addr) => addr.to_string(),
        };
        addresses
            .order(turn, TIMEOUT, now)
            .into_iter()
            .map(text)
            .collect()
    }

    #[test]
    fn addresses_take_turns() {
        let two = addresses(&["192.0.2.2:1", "192.0.2.1:1", "192.0.2.2:1"]);
        assert_eq!(order(&two, 0, NOW), ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(order(&two, 1, NOW), ["192.0.2.2", "192.0.2.1"]);
        assert_eq!(order(&two, usize::MAX, NOW), ["192.0.2.2", "192.0.2.1"]);
        assert!(order(&Addresses::default(), 3, NOW).is_empty());
    }

    #[test]
    fn families_alternate_and_not_all_are_tried() {
        let mixed = [
            "192.0.2.1:1",
            "192.0.2.2:1",
            "192.0.2.3:1",
            "[2001:db8::1]:1",
            "[2001:db8::2]:1",
        ];
        let mixed = addresses(&mixed);
        let expected = ["192.0.2.2", "2001:db8::1", "192.0.2.3", "2001:db8::2"];
        assert_eq!(order(&mixed, 1, NOW), expected);
        let expected = ["2001:db8::2", "192.0.2.1", "2001:db8::1", "192.0.2.2"];
        assert_eq!(order(&mixed, 4, NOW), expected);
    }

    #[test]
    fn one_that_failed_comes_last_until_somebody_finds_it_well() {
        let two = addresses(&["192.0.2.1:1", "192.0.2.2:1"]);
        let (bad, good) = (tcp("192.0.2.1:1"), ["192.0.2.2", "192.0.2.1"]);
        two.learn(&bad, false, NOW);
        for turn in 0..4 {
            assert_eq!(order(&two, turn, NOW), good);
        }
        let later = NOW + AVOIDED_FOR;
        assert_eq!(order(&two, 1, later), good, "it is the other's turn");
        assert_eq!(order(&two, 0, later), ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(order(&two, 0, later), good, "somebody tries already");
        // It was not heard of.
        assert_eq!(order(&two, 0, later + TIMEOUT), ["192.0.2.1", "192.0.2.2"]);
        two.learn(&bad, true, later + TIMEOUT);
        assert_eq!(order(&two, 0, later + TIMEOUT), ["192.0.2.1", "192.0.2.2"]);
    }

    #[test]
    fn what_is_known_of_an_address_outlives_a_look_up() {
        let before = addresses(&["192.0.2.1:1", "192.0.2.2:1"]);
        before.learn(&tcp("192.0.2.1:1"), false, NOW);
        let list = ["192.0.2.1:1", "192.0.2.3:1"].map(tcp).to_vec();
        let after = Addresses::new(list, &before);
        assert!(!after.are(&before));
        assert_eq!(order(&after, 0, NOW), ["192.0.2.3", "192.0.2.1"]);
    }

    #[test]
    fn when_all_failed_all_are_tried() {
        let two = addresses(&["192.0.2.1:1", "192.0.2.2:1"]);
        for bad in ["192.0.2.1:1", "192.0.2.2:1"] {
            two.learn(&tcp(bad), false, NOW);
        }
        assert_eq!(order(&two, 1, NOW), ["192.0.2.2", "192.0.2.1"]);
    }
}
