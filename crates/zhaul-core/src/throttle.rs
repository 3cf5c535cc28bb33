//! A rate limit without a clock of its own.
//!
//! Generic cell rate algorithm: one moment is kept, the one at which everything taken so far
//! would have been paid for at the rate. Taking is allowed once it has passed.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::rate::Rate;

#[derive(Debug)]
pub(crate) struct Throttle {
    rate: Rate,
    now: Duration,
    paid_at: Duration,
}

impl Throttle {
    pub(crate) const fn new(bytes_per_second: NonZeroU64) -> Self {
        Self {
            rate: Rate::new(bytes_per_second),
            now: Duration::ZERO,
            paid_at: Duration::ZERO,
        }
    }

    pub(crate) fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// Largest amount to take at once: what the rate gives in a tenth of a second, so that the
    /// sink sees a stream and not bursts.
    pub(crate) fn quantum_bytes(&self) -> u64 {
        self.rate.bytes_in(QUANTUM).max(1)
    }

    pub(crate) fn pause_until(&self) -> Option<Duration> {
        (self.paid_at > self.now).then_some(self.paid_at)
    }

    pub(crate) fn take(&mut self, bytes: u64) {
        let price = self.rate.price(bytes);
        self.paid_at = self.paid_at.max(self.now).saturating_add(price);
    }
}

const QUANTUM: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_over_any_pattern_of_takes() {
        let mut throttle = Throttle::new(NonZeroU64::new(1000).unwrap());
        let mut taken = 0;
        for millisecond in 0..10_000_u64 {
            throttle.tick(Duration::from_millis(millisecond));
            while throttle.pause_until().is_none() {
                let bytes = 1 + millisecond % throttle.quantum_bytes();
                throttle.take(bytes);
                taken += bytes;
            }
        }
        assert!(
            (9_900..=10_100).contains(&taken),
            "10 s at 1000 B/s moved {taken}"
        );
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let mut throttle = Throttle::new(NonZeroU64::new(1000).unwrap());
        throttle.tick(Duration::from_secs(100));
        throttle.take(100);
        assert_eq!(throttle.pause_until(), Some(Duration::from_millis(100_100)));
    }
}
