//! The results as the page looks at them: by path, route and size, as figures per gigabyte.
//!
//! Whatever cannot be computed (nothing moved, no time passed, a number that is none) is missing,
//! so that nothing else on the page has to think of it.

use std::cmp::Ordering;

pub(super) use crate::bench::compare::FEWEST_ROUNDS;
use crate::bench::results::{Cell, Contender, Cost, Counted, Path, Profile, Results, Sample};
use crate::figure::Method;
use crate::stats::Spread;

/// The route every other one is compared with.
pub(super) const BASELINE: &str = "read+write";

const GB: f64 = 1e9;

/// What was measured on one path.
pub(super) struct PathView<'a> {
    pub(super) path: Path,
    /// In the order they are shown.
    pub(super) routes: Vec<&'a str>,
    /// Ascending.
    pub(super) sizes: Vec<u64>,
    cells: Vec<&'a Cell>,
}

/// A figure over the rounds, and the rounds it was made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) spread: Spread,
    pub(super) rounds: usize,
}

/// How one figure compares with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every round of the one is below every round of the other.
    Less,
    /// Every round of the one is above every round of the other.
    More,
    /// The ranges overlap.
    Same,
    /// Too few rounds to say anything about noise.
    Unjudged,
}

/// Figures of timed samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    GbPerSecond,
    MoverCpu,
    ReceiverCpu,
    FeederCpu,
    VoluntarySwitches,
    InvoluntarySwitches,
    MinorFaults,
    MajorFaults,
    /// These are of the whole machine.
    DmaPerByte,
    Interrupts,
    Softirqs,
}

/// Figures of counted samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    CallsPerGb,
    CallsPerTransfer,
    Copies,
    SampledCopies,
    /// Moved by devices, of the whole machine, for each byte: of the timed samples.
    Dma,
}

/// All paths on which anything ran, in the order they are shown.
pub(super) fn paths(results: &Results) -> Vec<PathView<'_>> {
    Path::ALL
        .into_iter()
        .filter_map(|path| PathView::of(results, path))
        .collect()
}

impl<'a> PathView<'a> {
    fn of(results: &'a Results, path: Path) -> Option<Self> {
        let cells: Vec<&Cell> = results.cells.iter().filter(|c| c.path == path).collect();
        let mut routes: Vec<&str> = cells.iter().map(|cell| cell.route.as_str()).collect();
        routes.sort_by(|a, b| in_order(a, b));
        routes.dedup();
        let mut sizes: Vec<u64> = cells.iter().map(|cell| cell.bytes).collect();
        sizes.sort_unstable();
        sizes.dedup();
        (!cells.is_empty()).then_some(Self {
            path,
            routes,
            sizes,
            cells,
        })
    }

    pub(super) fn cell(&self, route: &str, contender: Contender, bytes: u64) -> Option<&'a Cell> {
        self.cells
            .iter()
            .copied()
            .find(|cell| cell.route == route && cell.contender == contender && cell.bytes == bytes)
    }

    /// The figure of one cell, if it was measured.
    pub(super) fn figure(
        &self,
        route: &str,
        contender: Contender,
        bytes: u64,
        metric: Metric,
    ) -> Option<Figure> {
        Figure::of(&values(self.cell(route, contender, bytes)?, metric))
    }

    /// The moving end's CPU-seconds per GB by size, for the sizes that were measured.
    pub(super) fn curve(&self, route: &str, contender: Contender) -> Vec<(u64, Figure)> {
        self.sizes
            .iter()
            .filter_map(|&bytes| {
                let figure = self.figure(route, contender, bytes, Metric::MoverCpu)?;
                (figure.spread.median > 0.0).then_some((bytes, figure))
            })
            .collect()
    }

    /// Whom comparisons between routes are about: the library, or the bare loops where it did not
    /// run.
    pub(super) fn subject(&self) -> Contender {
        let ran = |contender| {
            self.cells
                .iter()
                .any(|cell| cell.contender == contender && !cell.samples.is_empty())
        };
        if ran(Contender::Zhaul) || !ran(Contender::Floor) {
            Contender::Zhaul
        } else {
            Contender::Floor
        }
    }

    /// The largest size that as many routes as possible were timed at.
    pub(super) fn reference_size(&self) -> Option<u64> {
        let subject = self.subject();
        let timed = |bytes: u64| {
            self.routes
                .iter()
                .filter(|route| {
                    self.figure(route, subject, bytes, Metric::MoverCpu)
                        .is_some()
                })
                .count()
        };
        self.sizes
            .iter()
            .copied()
            .filter(|&bytes| timed(bytes) > 0)
            .max_by_key(|&bytes| (timed(bytes), bytes))
    }

    /// The first of these counts that was made of a route, at the largest size up to
    /// `at_most_bytes` that has it.
    pub(super) fn largest(
        &self,
        results: &Results,
        (route, contender): (&str, Contender),
        counts: &[Count],
        at_most_bytes: u64,
    ) -> Option<(&'a Cell, Spread, Option<Method>)> {
        counts.iter().find_map(|counted| {
            let method = method(results, counted.name());
            // What comes from the plan is no measurement.
            if method == Some(Method::Plan) {
                return None;
            }
            let sizes = self.sizes.iter().rev();
            sizes
                .filter(|&&bytes| bytes <= at_most_bytes)
                .find_map(|&bytes| {
                    let cell = self.cell(route, contender, bytes)?;
                    let spread = count(cell, *counted)?;
                    Some((cell, spread, method))
                })
        })
    }

    pub(super) fn cells(&self) -> impl Iterator<Item = &'a Cell> + '_ {
        self.cells.iter().copied()
    }
}

impl Figure {
    /// `None` without values.
    pub(super) fn of(values: &[(u32, f64)]) -> Option<Self> {
        Some(Self {
            spread: Spread::of(values.iter().map(|&(_, value)| value))?,
            rounds: values.len(),
        })
    }

    /// Whether this is less or more than `other` beyond the noise: all of it apart from all of the
    /// other.
    pub(super) fn against(&self, other: &Self) -> Verdict {
        if self.rounds.min(other.rounds) < FEWEST_ROUNDS {
            Verdict::Unjudged
        } else if self.spread.max < other.spread.min {
            Verdict::Less
        } else if self.spread.min > other.spread.max {
            Verdict::More
        } else {
            Verdict::Same
        }
    }
}

/// The values of a cell by round.
pub(super) fn values(cell: &Cell, metric: Metric) -> Vec<(u32, f64)> {
    cell.samples
        .iter()
        .filter_map(|sample| Some((sample.round, usable(metric.of(sample)?)?)))
        .collect()
}

/// The figure of a cell's counted passes.
pub(super) fn count(cell: &Cell, count: Count) -> Option<Spread> {
    if count == Count::Dma {
        return Figure::of(&values(cell, Metric::DmaPerByte)).map(|figure| figure.spread);
    }
    Spread::of(
        cell.counted
            .iter()
            .filter_map(|counted| usable(count.of(cell, counted)?)),
    )
}

/// How a figure was found, by its name in the results.
pub(super) fn method(results: &Results, name: &str) -> Option<Method> {
    results.methods.get(name).map(|found| found.method)
}

/// The profile of one route and contender.
pub(super) fn profiles(results: &Results, path: Path) -> Vec<&Profile> {
    let mut profiles: Vec<&Profile> = results
        .profiles
        .iter()
        .filter(|profile| profile.path == path)
        .collect();
    profiles
        .sort_by(|a, b| in_order(&a.route, &b.route).then_with(|| a.contender.cmp(&b.contender)));
    profiles
}

/// The name of a contender on the page.
pub(super) const fn name(contender: Contender) -> &'static str {
    match contender {
        Contender::Zhaul => "zhaul",
        Contender::Floor => "bare calls",
    }
}

impl Metric {
    fn of(self, sample: &Sample) -> Option<f64> {
        let gigabytes = sample.bytes as f64 / GB;
        let mover = &sample.mover;
        let cpu = |cost: &Cost| cost.cpu_s() / gigabytes;
        Some(match self {
            Self::GbPerSecond => gigabytes / sample.wall_s,
            Self::MoverCpu => cpu(mover),
            Self::ReceiverCpu => cpu(sample.receiver.as_ref()?),
            Self::FeederCpu => cpu(sample.feeder.as_ref()?),
            Self::VoluntarySwitches => mover.voluntary_switches as f64 / gigabytes,
            Self::InvoluntarySwitches => mover.involuntary_switches as f64 / gigabytes,
            Self::MinorFaults => mover.minor_faults as f64 / gigabytes,
            Self::MajorFaults => mover.major_faults as f64 / gigabytes,
            Self::DmaPerByte => sample.machine.dma_bytes? as f64 / sample.bytes as f64,
            Self::Interrupts => sample.machine.interrupts? as f64 / gigabytes,
            Self::Softirqs => sample.machine.softirqs? as f64 / gigabytes,
        })
    }
}

impl Count {
    /// The name in the results of what is counted.
    const fn name(self) -> &'static str {
        match self {
            Self::CallsPerGb | Self::CallsPerTransfer => "calls",
            Self::Copies => "copied_bytes",
            Self::SampledCopies => "sampled_copies_per_byte",
            Self::Dma => "dma_bytes",
        }
    }

    fn of(self, cell: &Cell, counted: &Counted) -> Option<f64> {
        let bytes = counted.bytes as f64;
        Some(match self {
            Self::CallsPerGb => counted.calls? as f64 / (bytes / GB),
            Self::CallsPerTransfer => {
                let transfers = bytes / cell.bytes as f64;
                counted.calls? as f64 / transfers
            }
            Self::Copies => counted.copied_bytes? as f64 / bytes,
            Self::SampledCopies => counted.sampled_copies_per_byte?,
            Self::Dma => return None,
        })
    }
}

fn usable(value: f64) -> Option<f64> {
    (value.is_finite() && value >= 0.0).then_some(value)
}

/// Known routes first, dearest first as the literature tells the story; others by name.
fn in_order(a: &str, b: &str) -> Ordering {
    const ORDER: [&str; 5] = [
        BASELINE,
        "mmap+write",
        "sendfile",
        "splice",
        "copy_file_range",
    ];
    let rank = |route: &str| {
        ORDER
            .iter()
            .position(|&known| known == route)
            .unwrap_or(ORDER.len())
    };
    rank(a).cmp(&rank(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(values: &[f64]) -> Figure {
        let values: Vec<(u32, f64)> = (0..).zip(values.iter().copied()).collect();
        Figure::of(&values).unwrap()
    }

    #[test]
    fn ranges_that_overlap_are_no_difference() {
        let low = figure(&[1.0, 2.0, 3.0]);
        let high = figure(&[3.0, 4.0, 5.0]);
        let apart = figure(&[3.1, 4.0, 5.0]);
        assert_eq!(low.against(&high), Verdict::Same);
        assert_eq!(low.against(&apart), Verdict::Less);
        assert_eq!(apart.against(&low), Verdict::More);
    }

    #[test]
    fn two_rounds_prove_nothing() {
        let few = figure(&[1.0, 1.1]);
        assert_eq!(few.against(&figure(&[5.0, 6.0, 7.0])), Verdict::Unjudged);
    }

    #[test]
    fn numbers_that_are_none_are_missing() {
        let sample = Sample {
            round: 0,
            bytes: 0,
            wall_s: 0.0,
            mover: Cost::default(),
            receiver: None,
            feeder: None,
            machine: crate::machine::Machine::default(),
        };
        assert!(Metric::GbPerSecond.of(&sample).and_then(usable).is_none());
        assert!(Metric::MoverCpu.of(&sample).and_then(usable).is_none());
        assert!(Metric::ReceiverCpu.of(&sample).is_none());
    }

    #[test]
    fn routes_are_shown_from_the_baseline_on_and_strangers_last() {
        let mut routes = ["zip", "splice", "read+write", "abc", "sendfile"];
        routes.sort_by(|a, b| in_order(a, b));
        assert_eq!(routes, ["read+write", "sendfile", "splice", "abc", "zip"]);
    }
}
