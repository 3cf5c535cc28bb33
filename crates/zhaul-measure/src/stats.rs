//! Medians, their spread, and ratios of medians. Pure.

use serde::{Deserialize, Serialize};

/// A figure over the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The value in the middle, or the mean of the two there.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// `None` without values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let upper = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[upper]
        } else {
            f64::midpoint(values[upper - 1], values[upper])
        };
        Some(Self { median, min, max })
    }

    /// The ratio of two figures: of their medians, with the range of the ratios within a round.
    ///
    /// Both sides hold `(round, value)`. Rounds that one side lacks count for its median only.
    pub fn ratio(numerator: &[(u32, f64)], denominator: &[(u32, f64)]) -> Option<Self> {
        let over = Self::of(numerator.iter().map(|&(_, value)| value))?;
        let under = Self::of(denominator.iter().map(|&(_, value)| value))?;
        let pairs = numerator.iter().filter_map(|&(round, value)| {
            let &(_, other) = denominator
                .iter()
                .find(|&&(candidate, _)| candidate == round)?;
            (other > 0.0).then_some(value / other)
        });
        let within = Self::of(pairs)?;
        (under.median > 0.0).then(|| Self {
            median: over.median / under.median,
            min: within.min,
            max: within.max,
        })
    }
}

/// The value that `fraction` of `sorted` do not exceed (nearest rank). `None` without values.
pub fn percentile(sorted: &[u64], fraction: f64) -> Option<u64> {
    let rank = (fraction * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even_counts() {
        let odd = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!(
            odd,
            Spread {
                median: 2.0,
                min: 1.0,
                max: 3.0
            }
        );
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratio_is_of_medians_with_the_range_within_rounds() {
        let ours = [(0, 10.0), (1, 30.0), (2, 20.0)];
        let theirs = [(2, 10.0), (0, 10.0), (1, 10.0)];
        let ratio = Spread::ratio(&ours, &theirs).unwrap();
        assert_eq!(
            ratio,
            Spread {
                median: 2.0,
                min: 1.0,
                max: 3.0
            }
        );
    }

    #[test]
    fn ratio_pairs_rounds_by_number_not_by_position() {
        let ratio = Spread::ratio(&[(0, 1.0), (1, 8.0)], &[(1, 8.0), (0, 1.0)]).unwrap();
        assert_eq!((ratio.min, ratio.max), (1.0, 1.0));
    }

    #[test]
    fn ratio_to_zero_or_to_nothing_is_none() {
        assert_eq!(Spread::ratio(&[(0, 1.0)], &[(0, 0.0)]), None);
        assert_eq!(Spread::ratio(&[(0, 1.0)], &[]), None);
        assert_eq!(Spread::ratio(&[(0, 1.0)], &[(1, 1.0)]), None);
    }

    #[test]
    fn percentile_takes_the_nearest_rank() {
        let sorted: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&sorted, 0.50), Some(50));
        assert_eq!(percentile(&sorted, 0.99), Some(99));
        assert_eq!(percentile(&sorted, 1.0), Some(100));
        assert_eq!(percentile(&[7], 0.99), Some(7));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
