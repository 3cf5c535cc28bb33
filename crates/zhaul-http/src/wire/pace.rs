//! How fast a connection is given bytes, where that is limited.
//!
//! The kernel paces by itself what it is given (`SO_MAX_PACING_RATE`), but not the first ten segments,
//! which on loopback are 64 KiB each, and it is given as much as its buffer takes. So what is handed
//! over is counted by time as well: for peers on the same machine, such as a reverse proxy, and for UNIX
//! sockets that is the only limit.
//!
//! Generic cell rate algorithm, as in the engine's throttle, which counts the bytes of files: one moment
//! is kept, the one at which everything given so far would have been paid for at the rate.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use zhaul::Rate;

/// So far ahead of the rate bytes may be given, so that a connection sees a stream and not crumbs.
const AHEAD: Duration = Duration::from_millis(100);

/// The limit of one connection.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Rate,
    paid_at: Cell<Instant>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: NonZeroU64) -> Self {
        Self {
            rate: Rate::new(bytes_per_second),
            paid_at: Cell::new(Instant::now()),
        }
    }

    pub(crate) fn bytes_per_second(&self) -> NonZeroU64 {
        self.rate.bytes_per_second()
    }

    /// Whether an answer of so many bytes may be given at `now` in one go.
    pub(crate) fn allows(&self, bytes: u64, now: Instant) -> bool {
        self.rate.bytes_in(AHEAD.saturating_sub(self.debt(now))) >= bytes
    }

    /// How long after `now` an answer of so many bytes may begin: at once if it may be given in one
    /// go, else when all that was given is paid for. From then on it is for the engine's throttle,
    /// which begins with what may be given ahead.
    pub(crate) fn wait(&self, bytes: u64, now: Instant) -> Duration {
        if self.allows(bytes, now) {
            Duration::ZERO
        } else {
            self.debt(now)
        }
    }

    /// Notes that bytes were given at `now`.
    fn take(&self, bytes: u64, now: Instant) {
        let price = self.rate.price(bytes);
        let paid_at = self.paid_at.get().max(now).checked_add(price);
        self.paid_at.set(paid_at.unwrap_or(now));
    }

    /// Notes what the engine's throttle gave ahead of the rate when it came to the end of `bytes`,
    /// before which all was paid for; or all of it, if that is less.
    pub(crate) fn take_last_of(&self, bytes: u64, now: Instant) {
        let quantum = self.rate.bytes_in(AHEAD).max(1);
        self.take(bytes.min(quantum), now);
    }

    fn debt(&self, now: Instant) -> Duration {
        self.paid_at.get().saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_stays_within_the_rate_and_one_burst() {
        for rate in [1_u64, 300, 1_000_000, 10_000_000_000] {
            let pace = Pace::new(NonZeroU64::new(rate).unwrap());
            let quantum = pace.rate.bytes_in(AHEAD).max(1);
            let began = Instant::now();
            let (mut now, mut given) = (began, 0_u64);
            for step in 0..1000_u64 {
                let answer = 1 + step * 7919 % quantum;
                now += pace.wait(answer, now);
                pace.take_last_of(answer, now);
                given += answer;
                let elapsed = (now - began) + AHEAD;
                let most = elapsed.as_nanos() * u128::from(rate) / 1_000_000_000 + 1;
                assert!(u128::from(given) <= most, "{given} of {most} at {rate}");
            }
        }
    }

    #[test]
    fn a_pause_is_not_saved_up() {
        let pace = Pace::new(NonZeroU64::new(1000).unwrap());
        let later = Instant::now() + Duration::from_secs(100);
        assert!(pace.wait(100, later).is_zero());
        pace.take_last_of(100, later);
        assert!(!pace.wait(1, later).is_zero());
    }

    #[test]
    fn what_no_burst_holds_begins_when_all_is_paid_for() {
        let pace = Pace::new(NonZeroU64::new(1000).unwrap());
        let now = Instant::now();
        pace.take_last_of(50, now);
        assert!(pace.wait(50, now).is_zero());
        let wait = pace.wait(1_000_000, now);
        assert!(!wait.is_zero());
        assert!(pace.wait(1_000_000, now + wait).is_zero());
    }
}
