//! How fast a connection is given bytes, where that is limited.
//!
//! The kernel paces by itself what it is given (`SO_MAX_PACING_RATE`), but not the first ten segments,
//! which on loopback are 64 KiB each, and it is given as much as its buffer takes. So what is handed
//! over is counted by time as well: for peers on the same machine, such as a reverse proxy, and for UNIX
//! sockets that is the only limit.
//!
//! Generic cell rate algorithm, as in the engine's throttle, which counts the bytes of files: one moment
//! is kept, the one at which everything given so far would have been paid for at the rate.

use std::num::NonZeroU64;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use zhaul::Rate;

/// So far ahead of the rate bytes may be given, so that a connection sees a stream and not crumbs.
const AHEAD: Duration = Duration::from_millis(100);

/// The limit of one connection.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Rate,
    paid_at: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: NonZeroU64) -> Self {
        Self {
            rate: Rate::new(bytes_per_second),
            paid_at: Mutex::new(Instant::now()),
        }
    }

    pub(crate) fn bytes_per_second(&self) -> NonZeroU64 {
        self.rate.bytes_per_second()
    }

    /// How many of `wanted` bytes may be given at `now`; 0 asks for a [wait](Self::wait).
    pub(crate) fn allows(&self, wanted: usize, now: Instant) -> usize {
        let room = AHEAD.saturating_sub(self.debt(now));
        let bytes = usize::try_from(self.rate.bytes_in(room)).unwrap_or(usize::MAX);
        if bytes >= wanted {
            wanted
        } else if room < AHEAD / 2 {
            0
        } else {
            bytes.max(1)
        }
    }

    /// How long after `now` something may be given.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        self.debt(now).saturating_sub(AHEAD / 2)
    }

    /// Notes that bytes were given at `now`.
    pub(crate) fn take(&self, bytes: u64, now: Instant) {
        let price = self.rate.price(bytes);
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        *paid_at = (*paid_at).max(now).checked_add(price).unwrap_or(now);
    }

    /// Notes what the engine's throttle gave ahead of the rate when it came to the end of `bytes`.
    pub(crate) fn take_last_of(&self, bytes: u64, now: Instant) {
        let quantum = self.rate.bytes_in(AHEAD).max(1);
        self.take(bytes.min(quantum), now);
    }

    fn debt(&self, now: Instant) -> Duration {
        let paid_at = *self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        paid_at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_stays_within_the_rate_and_one_burst() {
        for rate in [1_u64, 300, 1_000_000, 10_000_000_000] {
            let pace = Pace::new(NonZeroU64::new(rate).unwrap());
            let began = Instant::now();
            let (mut now, mut given) = (began, 0_u64);
            for step in 0..1000_u64 {
                let wanted = 1 + (step as usize * 7919) % 100_000;
                let allowed = pace.allows(wanted, now) as u64;
                pace.take(allowed, now);
                given += allowed;
                if allowed == 0 {
                    let wait = pace.wait(now);
                    now += wait.max(Duration::from_nanos(1));
                    assert!(pace.allows(1, now) > 0, "waited in vain at {rate}");
                }
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
        assert_eq!(pace.allows(1_000_000, later), 100);
        pace.take(100, later);
        assert_eq!(pace.allows(1, later), 0);
    }
}
