//! How often the CPU copied each byte, estimated from samples where breakpoints are refused. Pure.
//!
//! The time that a thread spends in copy routines per byte moved, divided by the time that one copy
//! of a byte takes. The latter is not a constant of the machine: on the one where this was written
//! a copy from memory that lies in the cache took half the time of one that does not. So it is
//! taken, for each direction, from a bare loop in the same run over the same path, with the same
//! sizes, whose calls copy each byte once by their contract.

use std::ops::RangeInclusive;

use super::Samples;

/// How long the CPU takes to copy a byte once, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopyTime {
    to_user: Timed,
    from_user: Timed,
    /// From user memory that was not touched just before.
    from_user_cold: Option<Timed>,
}

/// A time and the samples that it rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Timed {
    ns_per_byte: f64,
    samples: u64,
}

/// An estimate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Copies of each byte.
    pub copies_per_byte: f64,
    /// The standard error that the number of samples leaves; what the caches do differently from
    /// the loop that it was calibrated with is not in it.
    pub error: f64,
}

impl CopyTime {
    /// From a loop that read `bytes` and wrote them, each byte once: `read(2)` copies it to user
    /// memory, `write(2)` from there. `None` if it was sampled too rarely.
    pub fn of_read_write(samples: &Samples, bytes: u64) -> Option<Self> {
        Some(Self {
            to_user: Timed::of(samples.copying.to_user, samples, bytes)?,
            from_user: Timed::of(samples.copying.from_user, samples, bytes)?,
            from_user_cold: None,
        })
    }

    /// Adds a loop that wrote `bytes` of memory larger than the caches, such as a mapped file: for
    /// routes that copy from user memory without reading it first.
    #[must_use]
    pub fn with_cold_write(mut self, samples: &Samples, bytes: u64) -> Self {
        self.from_user_cold = Timed::of(samples.copying.from_user, samples, bytes);
        self
    }

    /// How often each of `bytes` was copied in the time of `samples`.
    pub fn copies_per_byte(&self, samples: &Samples, bytes: u64) -> Estimate {
        let ns =
            |samples_in: u64| samples_in as f64 * samples.period_ns as f64 / bytes.max(1) as f64;
        let copying = samples.copying;
        let to_user = ns(copying.to_user) / self.to_user.ns_per_byte;
        // What was copied to user memory before lies in the cache.
        let from = match self.from_user_cold {
            Some(cold) if to_user < 0.5 => cold,
            _ => self.from_user,
        };
        let from_user = ns(copying.from_user) / from.ns_per_byte;
        let mean = f64::midpoint(self.to_user.ns_per_byte, from.ns_per_byte);
        let other = ns(copying.other) / mean;
        let errors = [
            error(to_user, copying.to_user, self.to_user.samples),
            error(from_user, copying.from_user, from.samples),
            error(other, copying.other, self.to_user.samples),
        ];
        Estimate {
            copies_per_byte: to_user + from_user + other,
            error: errors.iter().map(|error| error * error).sum::<f64>().sqrt(),
        }
    }

    /// Nanoseconds for a byte, to user memory and from it.
    pub fn ns_per_byte(&self) -> (f64, f64) {
        (self.to_user.ns_per_byte, self.from_user.ns_per_byte)
    }
}

/// The least that may be behind an estimate with this error. The loop that it is measured against
/// finds its data in the caches, and a copy that does not may take three times as long: splice from
/// TCP to a file, which copies once, was estimated at 3.1. Upwards there is no bound: samples miss
/// what runs with interrupts off.
pub fn least(copies_per_byte: f64, plus_minus: f64) -> f64 {
    (copies_per_byte / CACHES - plus_minus.max(LEAST_ERROR)).max(0.0)
}

const CACHES: f64 = 3.0;
/// However many samples it rests on.
const LEAST_ERROR: f64 = 0.25;

impl Timed {
    fn of(in_routine: u64, samples: &Samples, bytes: u64) -> Option<Self> {
        (in_routine >= FEWEST && bytes > 0).then(|| Self {
            ns_per_byte: in_routine as f64 * samples.period_ns as f64 / bytes as f64,
            samples: in_routine,
        })
    }
}

impl Estimate {
    /// What lies within two standard errors.
    pub fn range(&self) -> RangeInclusive<f64> {
        (self.copies_per_byte - 2.0 * self.error).max(0.0)..=self.copies_per_byte + 2.0 * self.error
    }
}

/// The standard error of a ratio of two counts of samples.
fn error(ratio: f64, over: u64, under: u64) -> f64 {
    let share = |samples: u64| 1.0 / samples.max(1) as f64;
    ratio * (share(over) + share(under)).sqrt()
}

/// Samples below which a time is a guess: 10 % standard error.
const FEWEST: u64 = 100;

#[cfg(test)]
mod tests {
    use super::super::Copying;
    use super::*;

    fn samples(to_user: u64, from_user: u64, other: u64) -> Samples {
        Samples {
            period_ns: 100,
            copying: Copying {
                to_user,
                from_user,
                other,
            },
            ..Samples::default()
        }
    }

    #[test]
    fn the_loop_it_was_calibrated_with_copies_twice() {
        let loop_ = samples(1000, 400, 0);
        let time = CopyTime::of_read_write(&loop_, 1_000_000).unwrap();
        let estimate = time.copies_per_byte(&loop_, 1_000_000);
        assert!(
            (estimate.copies_per_byte - 2.0).abs() < 1e-9,
            "{estimate:?}"
        );
        assert!(estimate.range().contains(&2.0) && estimate.error < 0.1);
        assert_eq!(time.ns_per_byte(), (0.1, 0.04));
    }

    #[test]
    fn no_sample_in_a_copy_routine_is_no_copy() {
        let time = CopyTime::of_read_write(&samples(1000, 400, 0), 1_000_000).unwrap();
        assert_eq!(
            time.copies_per_byte(&samples(0, 0, 0), 1_000_000)
                .copies_per_byte,
            0.0
        );
    }

    #[test]
    fn what_was_not_read_before_is_copied_from_cold_memory() {
        let time = CopyTime::of_read_write(&samples(1000, 400, 0), 1_000_000)
            .unwrap()
            .with_cold_write(&samples(0, 800, 0), 1_000_000);
        let mapped = time.copies_per_byte(&samples(0, 1600, 0), 2_000_000);
        assert!((mapped.copies_per_byte - 1.0).abs() < 1e-9, "{mapped:?}");
        let read = time.copies_per_byte(&samples(1000, 400, 0), 1_000_000);
        assert!((read.copies_per_byte - 2.0).abs() < 1e-9, "{read:?}");
    }

    #[test]
    fn an_estimate_excludes_only_what_neither_error_nor_caches_explain() {
        assert!(least(3.1, 0.2) < 1.0, "one copy of cold memory");
        assert!(least(1.0, 0.1) > 0.0, "not none");
        assert!(least(0.5, 0.1) <= 0.0);
        assert!(least(1.0, 0.5) <= 0.0, "too few samples");
    }

    #[test]
    fn few_samples_calibrate_nothing() {
        assert_eq!(
            CopyTime::of_read_write(&samples(99, 400, 0), 1_000_000),
            None
        );
        assert_eq!(CopyTime::of_read_write(&samples(1000, 400, 0), 0), None);
    }
}
