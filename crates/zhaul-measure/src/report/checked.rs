//! What the plan expects of each mechanism, held against what was measured.

use super::view::{Count, PathView, name};
use super::words;
use crate::bench::results::{Contender, Results};
use crate::figure::Method;

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

    /// The counts that tell, the best first. No instrument of the bench sees devices.
    const fn counts(self) -> &'static [Count] {
        match self {
            Self::Switches => &[Count::CallsPerTransfer],
            Self::Cpu => &[Count::Copies, Count::SampledCopies],
            Self::Dma => &[],
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

    /// Apart by more than the method allows.
    fn is_off(self, value: f64, from: f64, method: Option<Method>) -> bool {
        let tolerance = match (self, method) {
            (_, Some(Method::Sampled)) => 0.25,
            // Starting and stopping the instruments takes calls, too.
            (Self::Switches, _) => from * 0.05,
            _ => (from * 0.01).max(0.01),
        };
        (value - from).abs() > tolerance
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
                Some(Measured {
                    value: spread.median * for_each,
                    method,
                    of: contender,
                    bytes: cell.bytes,
                })
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
        let expected = f64::from(self.expected);
        self.what.is_off(measured.value, expected, measured.method)
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
            self.what
                .is_off(other.value, measured.value, measured.method)
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

    #[test]
    fn tolerance_is_that_of_the_method() {
        let off = |value, from, method| What::Cpu.is_off(value, from, Some(method));
        assert!(!off(2.015, 2.0, Method::Exact));
        assert!(off(2.03, 2.0, Method::Exact));
        assert!(!off(2.2, 2.0, Method::Sampled));
        assert!(off(0.02, 0.0, Method::ByCall));
        assert!(!off(0.005, 0.0, Method::ByCall));
    }

    #[test]
    fn calls_of_the_instruments_are_no_deviation() {
        let off = |value, from| What::Switches.is_off(value, from, Some(Method::Exact));
        assert!(!off(4.14, 4.0));
        assert!(off(4.3, 4.0));
    }
}
