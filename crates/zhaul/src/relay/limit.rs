//! Bandwidth limits, shared by as many relays as one likes.

use std::fmt::Debug;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use zhaul_core::Rate;

/// Decides when bytes may be taken from a source.
///
/// Readings of the clock are those that [`Relay::turn`](super::Relay::turn) is given; relays that
/// share a limit need clocks that agree, such as [`now`].
pub trait Limit: Debug + Send + Sync {
    /// Reserves at most `wanted` bytes, which may be taken from the returned time on.
    fn reserve(&self, wanted: usize, now: Duration) -> (usize, Duration);

    /// Gives back what was reserved and not taken.
    fn refund(&self, bytes: usize);
}

/// The clock of the tokio driver: `CLOCK_MONOTONIC`.
pub fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(time).unwrap_or_default()
}

/// So many bytes a second; clones share the allowance.
///
/// One moment is kept: the one at which everything reserved so far is paid for. A reservation
/// begins then, so relays that share a limit are served in the order in which they asked, and each
/// waits once. Time in which nobody asked is not saved up.
#[derive(Clone, Debug)]
pub struct RateLimit {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bytes_per_second: AtomicU64,
    paid_at_ns: AtomicU64,
}

impl RateLimit {
    /// A limit of so many bytes a second.
    pub fn new(bytes_per_second: NonZeroU64) -> Self {
        Self {
            shared: Arc::new(Shared {
                bytes_per_second: AtomicU64::new(bytes_per_second.get()),
                paid_at_ns: AtomicU64::new(0),
            }),
        }
    }

    /// Changes the rate for what is reserved from now on.
    pub fn set(&self, bytes_per_second: NonZeroU64) {
        self.shared
            .bytes_per_second
            .store(bytes_per_second.get(), Ordering::Relaxed);
    }

    fn rate(&self) -> Rate {
        let bytes_per_second = self.shared.bytes_per_second.load(Ordering::Relaxed);
        Rate::new(NonZeroU64::new(bytes_per_second).unwrap_or(NonZeroU64::MIN))
    }
}

impl Limit for RateLimit {
    fn reserve(&self, wanted: usize, now: Duration) -> (usize, Duration) {
        let rate = self.rate();
        // What the rate gives in a hundredth of a second, so that the sink sees a stream and
        // those who share the limit take short turns.
        let quantum = rate
            .bytes_in(QUANTUM)
            .clamp(MIN_QUANTUM_BYTES, MAX_QUANTUM_BYTES);
        let bytes = (wanted as u64).min(quantum).max(1);
        let now_ns = nanoseconds(now);
        let price = rate.price_ns(bytes);
        let after = |paid_at: u64| paid_at.max(now_ns).saturating_add(price);
        let paid_at = &self.shared.paid_at_ns;
        let mut before = paid_at.load(Ordering::Relaxed);
        while let Err(seen) = paid_at.compare_exchange_weak(
            before,
            after(before),
            Ordering::Relaxed,
            Ordering::Relaxed,
        ) {
            before = seen;
        }
        let at = Duration::from_nanos(before.max(now_ns));
        (usize::try_from(bytes).unwrap_or(usize::MAX), at)
    }

    fn refund(&self, bytes: usize) {
        let price = self.rate().price_ns(bytes as u64);
        let paid_at = &self.shared.paid_at_ns;
        let mut before = paid_at.load(Ordering::Relaxed);
        while let Err(seen) = paid_at.compare_exchange_weak(
            before,
            before.saturating_sub(price),
            Ordering::Relaxed,
            Ordering::Relaxed,
        ) {
            before = seen;
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

const QUANTUM: Duration = Duration::from_millis(10);

/// A segment.
const MIN_QUANTUM_BYTES: u64 = 1448;
const MAX_QUANTUM_BYTES: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(rate: u64) -> RateLimit {
        RateLimit::new(NonZeroU64::new(rate).unwrap())
    }

    #[test]
    fn the_rate_is_kept_however_many_share_it() {
        let limit = limit(1_000_000);
        let sharers = [limit.clone(), limit.clone(), limit];
        let mut ready_at = [Duration::ZERO; 3];
        let mut taken = 0;
        for millisecond in 0..10_000 {
            let now = Duration::from_millis(millisecond);
            for (sharer, ready_at) in sharers.iter().zip(&mut ready_at) {
                if *ready_at <= now {
                    let (bytes, at) = sharer.reserve(100_000, now);
                    taken += bytes as u64;
                    *ready_at = at;
                }
            }
        }
        assert!((9_900_000..=10_100_000).contains(&taken), "{taken}");
    }

    #[test]
    fn what_was_not_taken_is_given_back() {
        let limit = limit(1000);
        let (bytes, at) = limit.reserve(1000, Duration::from_secs(5));
        assert_eq!((bytes, at), (1000, Duration::from_secs(5)));
        limit.refund(1000);
        assert_eq!(
            limit.reserve(1, Duration::from_secs(5)).1,
            Duration::from_secs(5)
        );
    }

    #[test]
    fn time_in_which_nobody_asked_is_not_saved_up() {
        let limit = limit(1000);
        let (_, first) = limit.reserve(500, Duration::from_secs(100));
        let (_, second) = limit.reserve(500, Duration::from_secs(100));
        assert_eq!(second - first, Duration::from_millis(500));
    }
}
