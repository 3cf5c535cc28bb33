//! What the plan expects of each mechanism, held against what was measured.

use super::view::{Count, PathView, name};
use super::words;
use crate::bench::results::{Cell, Contender, Results};
use crate::figure::Method;
use crate::perf::least;
use crate::stats::Spread;

/// Transfers up to this size take one chunk on every route: its buffers and pipes are no smaller.
pub(super) const ONE_CHUNK_BYTES: u64 = 16 << 10;

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Mode switches of one chunk.
    Switches,
    /// CPU copies of each byte.
    Cpu,
    /// DMA copies of each byte.
    Dma,
}

/// One mechanism on one path.
pub(super) struct Row<'a> {
    pub(super) route: &'a str,
    /// In the order of [`What::ALL`].
    pub(super) entries: [Entry; 3],
    /// System calls of the library besides those of the bare loop.
    pub(super) own_calls: OwnCalls,
}

/// An expectation and what became of it.
pub(super) struct Entry {
    pub(super) what: What,
    pub(super) expected: u32,
    pub(super) measured: Option<Measured>,
    /// An estimate beside a count.
    pub(super) estimate: Option<Measured>,
    /// The other contender's figure.
    pub(super) other: Option<Measured>,
}

/// A figure with what is needed to judge it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) value: f64,
    /// What it may be, by the passes and the method.
    low: f64,
    high: f64,
    pub(super) method: Option<Method>,
    pub(super) of: Contender,
    /// The size of the transfers.
    pub(super) bytes: u64,
}

/// What the library adds.
#[derive(Clone, Copy, Default)]
pub(super) struct OwnCalls {
    pub(super) per_transfer: Option<f64>,
    pub(super) per_mib: Option<f64>,
}

impl What {
    pub(super) const ALL: [Self; 3] = [Self::Switches, Self::Cpu, Self::Dma];

    pub(super) const fn heading(self) -> &'static str {
        match self {
            Self::Switches => "Mode switches",
            Self::Cpu => "CPU copies",
            Self::Dma => "DMA copies",
        }
    }

    /// The counts that tell, the best first.
    const fn counts(self) -> &'static [Count] {
        match self {
            Self::Switches => &[Count::CallsPerTransfer],
            Self::Cpu => &[Count::Copies, Count::SampledCopies],
            Self::Dma => &[Count::Dma],
        }
    }

    /// Who shows the mechanism best: the calls of the bare loop are those that move bytes; copies
    /// are what the library makes claims about.
    const fn contenders(self) -> [Contender; 2] {
        match self {
            Self::Switches => [Contender::Floor, Contender::Zhaul],
            Self::Cpu | Self::Dma => [Contender::Zhaul, Contender::Floor],
        }
    }

    const fn at_most_bytes(self) -> u64 {
        match self {
            Self::Switches => ONE_CHUNK_BYTES,
            Self::Cpu | Self::Dma => u64::MAX,
        }
    }

    pub(super) fn in_words(self, value: f64) -> String {
        match self {
            Self::Switches => words::number(value),
            Self::Cpu | Self::Dma => words::copies(value),
        }
    }

    /// How far from what is expected a figure may be that is as expected.
    fn tolerance(self, expected: f64) -> f64 {
        match self {
            // Starting and stopping the instruments takes calls, too.
            Self::Switches => expected * 0.05,
            // Nothing is off: the plan is for a disk and a network device.
            Self::Dma => f64::INFINITY,
            Self::Cpu => (expected * 0.01).max(0.01),
        }
    }
}

impl<'a> Row<'a> {
    /// `None` for a route that is not on the path.
    pub(super) fn of(results: &Results, view: &PathView<'a>, route: &'a str) -> Option<Self> {
        let planned = view.cells().find(|cell| cell.route == route)?.expected;
        let entry = |what: What| {
            let by = |contender, counts: &[Count]| {
                let lane = (route, contender);
                let found = view.largest(results, lane, counts, what.at_most_bytes())?;
                let (cell, spread, method) = found;
                // Each call goes into the kernel and back.
                let for_each = if what == What::Switches { 2.0 } else { 1.0 };
                Some(Measured::of(cell, spread, method, for_each))
            };
            let [first, second] = what
                .contenders()
                .map(|contender| by(contender, what.counts()));
            let measured = first.or(second);
            let is_estimate = measured.is_some_and(|m| m.method == Some(Method::Sampled));
            let estimate = measured
                .filter(|_| what == What::Cpu && !is_estimate)
                .and_then(|measured| by(measured.of, &[Count::SampledCopies]));
            Entry {
                what,
                expected: match what {
                    What::Switches => planned.mode_switches,
                    What::Cpu => planned.cpu_copies,
                    What::Dma => planned.dma_copies,
                },
                measured,
                estimate,
                other: first.and(second),
            }
        };
        Some(Self {
            route,
            entries: What::ALL.map(entry),
            own_calls: OwnCalls::of(results, view, route),
        })
    }
}

impl Entry {
    pub(super) fn is_off(&self, measured: &Measured) -> bool {
        measured.excludes(self.what, f64::from(self.expected))
    }

    pub(super) fn deviates(&self) -> bool {
        self.measured
            .as_ref()
            .is_some_and(|measured| self.is_off(measured))
    }

    /// The other contender's figure, where it is another one.
    pub(super) fn other_if_telling(&self) -> Option<&Measured> {
        let measured = self.measured.as_ref()?;
        self.other.as_ref().filter(|other| {
            let tolerance = self.what.tolerance(measured.value);
            other.low > measured.high + tolerance || other.high < measured.low - tolerance
        })
    }

    /// What the figures themselves say about a deviation; they do not say why.
    pub(super) fn explanation(&self) -> &'static str {
        match (self.what, self.measured.map(|measured| measured.of)) {
            (What::Switches, Some(Contender::Floor)) => {
                "Mode switches of the bare calls: mapping and unmapping, waiting, and calls that \
                 moved only a part count too"
            }
            (What::Switches, _) => {
                "Mode switches of zhaul, as the bare calls were not counted: calls that move no \
                 bytes count too"
            }
            _ if self.other.is_none() => {
                "CPU copies, counted for one side only, so that nothing can be compared with it"
            }
            _ if self.other_if_telling().is_none() => {
                "CPU copies that the bare calls show as well, so it is the kernel that makes them"
            }
            _ => "CPU copies in which zhaul and the bare calls differ",
        }
    }
}

impl Measured {
    pub(super) fn of(cell: &Cell, spread: Spread, method: Option<Method>, for_each: f64) -> Self {
        let (low, high) = match method {
            Some(Method::Sampled) => {
                let errors = cell.counted.iter().filter_map(|c| c.sampled_plus_minus);
                let plus_minus = errors.fold(0.0, f64::max);
                (least(spread.min, plus_minus), f64::INFINITY)
            }
            _ => (spread.min * for_each, spread.max * for_each),
        };
        Self {
            value: spread.median * for_each,
            low,
            high,
            method,
            of: cell.contender,
            bytes: cell.bytes,
        }
    }

    /// Whether it cannot be what is expected, by all passes and whatever the method leaves open.
    pub(super) fn excludes(&self, what: What, expected: f64) -> bool {
        let tolerance = what.tolerance(expected);
        expected < self.low - tolerance || expected > self.high + tolerance
    }

    /// How it was found, of whom if not of the library, and at which size if not the usual one.
    pub(super) fn in_words(&self, usual_bytes: Option<u64>) -> String {
        let mut text = self
            .method
            .map_or("method not recorded", Method::name)
            .to_owned();
        if self.of == Contender::Floor {
            text = format!("{text}, {}", name(self.of));
        }
        if usual_bytes != Some(self.bytes) {
            let size = words::size(self.bytes).replace(' ', "\u{a0}");
            text = format!("{text}, at {size}");
        }
        text
    }
}

impl OwnCalls {
    fn of(results: &Results, view: &PathView<'_>, route: &str) -> Self {
        let calls = |contender, at_most_bytes| {
            let counts = [Count::CallsPerTransfer];
            let found = view.largest(results, (route, contender), &counts, at_most_bytes)?;
            Some((found.0.bytes, found.1.median))
        };
        let more = |at_most_bytes| {
            let (bytes, ours) = calls(Contender::Zhaul, at_most_bytes)?;
            let (same_bytes, bare) = calls(Contender::Floor, at_most_bytes)?;
            (bytes == same_bytes).then_some((bytes, (ours - bare).max(0.0)))
        };
        let per_transfer = more(ONE_CHUNK_BYTES).map(|(_, calls)| calls);
        let per_mib = more(u64::MAX)
            .filter(|&(bytes, _)| bytes >= 16 << 20)
            .map(|(bytes, calls)| calls / (bytes as f64 / f64::from(1 << 20)));
        Self {
            per_transfer,
            per_mib,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(values: &[f64], method: Method) -> Measured {
        let spread = Spread::of(values.iter().copied()).unwrap();
        let (low, high) = match method {
            Method::Sampled => (least(spread.min, 0.1), f64::INFINITY),
            _ => (spread.min, spread.max),
        };
        Measured {
            value: spread.median,
            low,
            high,
            method: Some(method),
            of: Contender::Zhaul,
            bytes: 1,
        }
    }

    #[test]
    fn a_deviation_is_one_in_every_pass() {
        let off = |values: &[f64], expected| {
            measured(values, Method::Exact).excludes(What::Cpu, expected)
        };
        assert!(!off(&[2.015], 2.0));
        assert!(off(&[2.03, 2.04], 2.0));
        assert!(!off(&[1.99, 2.03, 2.04], 2.0), "one pass was as expected");
        assert!(off(&[1.0, 1.1], 2.0));
    }

    #[test]
    fn samples_speak_only_against_fewer_copies() {
        let off =
            |value, expected| measured(&[value], Method::Sampled).excludes(What::Cpu, expected);
        assert!(!off(1.0, 2.0), "they are known to be too low");
        assert!(!off(3.1, 1.0), "nor does a slow copy speak for several");
        assert!(off(1.0, 0.0));
    }

    #[test]
    fn calls_of_the_instruments_are_no_deviation() {
        let off =
            |value, expected| measured(&[value], Method::Exact).excludes(What::Switches, expected);
        assert!(!off(4.14, 4.0));
        assert!(off(4.3, 4.0));
    }

    #[test]
    fn what_stays_on_the_machine_is_no_deviation_from_a_plan_for_devices() {
        assert!(!measured(&[0.0], Method::Exact).excludes(What::Dma, 2.0));
    }
}
