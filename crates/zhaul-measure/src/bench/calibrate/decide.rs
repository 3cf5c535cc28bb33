//! From ratios to a threshold. Pure.

use crate::stats::Spread;

/// What one size says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// The route costs less in every round.
    Pays,
    /// It costs more in every round.
    Costs,
    /// Neither.
    Nothing,
}

impl Says {
    /// What a ratio says.
    pub fn of(ratio: Spread) -> Self {
        if ratio.max < 1.0 {
            Self::Pays
        } else if ratio.min > 1.0 {
            Self::Costs
        } else {
            Self::Nothing
        }
    }

    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Pays => "pays",
            Self::Costs => "costs more",
            Self::Nothing => "no difference",
        }
    }
}

/// The threshold that the fewest sizes speak against: sizes below it at which the route pays, and
/// sizes from it on at which it costs. Between equals the default stays, or else the nearest.
///
/// `u64::MAX`, never, is an extrapolation beyond what was measured, so the two largest sizes have
/// to speak for it.
pub fn decide(default: u64, ratios: &[(u64, Spread)]) -> u64 {
    let against = |threshold: u64| {
        let speaks = |&&(bytes, ratio): &&(u64, Spread)| match Says::of(ratio) {
            Says::Pays => bytes < threshold,
            Says::Costs => bytes >= threshold,
            Says::Nothing => false,
        };
        ratios.iter().filter(speaks).count()
    };
    let distance = |threshold: u64| {
        let log = |bytes: u64| f64::from(bytes.max(1).ilog2());
        (log(threshold) - log(default)).abs()
    };
    let mut best = (against(default), 0.0, default);
    for &(bytes, _) in ratios {
        let candidate = (against(bytes), distance(bytes), bytes);
        if (candidate.0, candidate.1) < (best.0, best.1) {
            best = candidate;
        }
    }
    let last_two = ratios.len().saturating_sub(2)..;
    let still_costs = ratios.len() >= 2
        && ratios[last_two]
            .iter()
            .all(|&(_, ratio)| Says::of(ratio) == Says::Costs);
    if still_costs && against(u64::MAX) < best.0 {
        return u64::MAX;
    }
    best.2
}

/// The median of the ratios within the rounds, and the range that holds it with confidence.
pub(super) fn ratio(costs: &[(u32, f64)], of: &[(u32, f64)]) -> Option<Spread> {
    let mut ratios: Vec<f64> = costs
        .iter()
        .filter_map(|&(round, cost)| {
            let &(_, other) = of.iter().find(|&&(candidate, _)| candidate == round)?;
            (other > 0.0).then_some(cost / other)
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let median = Spread::of(ratios.iter().copied())?.median;
    let cut = confident_cut(ratios.len());
    let (min, max) = (ratios[cut], ratios[ratios.len() - 1 - cut]);
    Some(Spread { median, min, max })
}

/// How many values may be cut off at either end, so that the rest still holds the median with 95 %
/// confidence: the chance that the median lies outside is that of so few heads, or tails, in as
/// many throws of a coin.
pub(super) fn confident_cut(values: usize) -> usize {
    let mut cut = 0;
    let mut chance = 2.0 * 0.5_f64.powi(i32::try_from(values).unwrap_or(i32::MAX));
    let mut outside = chance;
    loop {
        chance *= (values - cut) as f64 / (cut + 1) as f64;
        outside += chance;
        if outside > 0.05 {
            return cut;
        }
        cut += 1;
    }
}
