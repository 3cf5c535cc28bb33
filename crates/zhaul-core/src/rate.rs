//! What bytes cost at a rate.
//!
//! The arithmetic of every limit there is: the throttle of a transfer, the limits that relays share,
//! the pace of a server's connection. Each keeps one moment, the one at which everything taken so far is
//! paid for (the generic cell rate algorithm), where its clock and its threads want it kept.

use std::num::NonZeroU64;
use std::time::Duration;

/// So many bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(NonZeroU64);

impl Rate {
    /// So many bytes a second.
    pub const fn new(bytes_per_second: NonZeroU64) -> Self {
        Self(bytes_per_second)
    }

    /// Bytes a second.
    pub const fn bytes_per_second(self) -> NonZeroU64 {
        self.0
    }

    /// How long so many bytes take. Saturates at 584 years.
    pub fn price(self, bytes: u64) -> Duration {
        Duration::from_nanos(self.price_ns(bytes))
    }

    /// The same in nanoseconds.
    pub fn price_ns(self, bytes: u64) -> u64 {
        let nanoseconds = u128::from(bytes) * NANOSECONDS / u128::from(self.0.get());
        u64::try_from(nanoseconds).unwrap_or(u64::MAX)
    }

    /// How many bytes so much time is worth.
    pub fn bytes_in(self, time: Duration) -> u64 {
        // 64 bits each: the product has room.
        let nanoseconds = time.as_nanos().min(u128::from(u64::MAX));
        let bytes = nanoseconds * u128::from(self.0.get()) / NANOSECONDS;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

const NANOSECONDS: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn price_and_worth_are_inverse_and_neither_overflows() {
        for rate in [1, 1_000, 1_000_000_000_000, u64::MAX] {
            let rate = Rate::new(NonZeroU64::new(rate).unwrap());
            for bytes in [0, 1, 1_448, 1 << 30, u64::MAX] {
                let price = rate.price(bytes);
                assert!(rate.bytes_in(price) <= bytes, "{rate:?} {bytes}");
            }
            assert!(rate.bytes_in(Duration::MAX) >= rate.bytes_per_second().get());
        }
        let rate = Rate::new(NonZeroU64::new(1_000).unwrap());
        assert_eq!(rate.price(500), Duration::from_millis(500));
        assert_eq!(rate.bytes_in(Duration::from_secs(2)), 2_000);
    }
}
