//! Figures derived from the samples of a cell, the same for tables, comparisons and pages.
//!
//! A GB is 1e9 bytes. A figure that was not measured is `None`, never 0.

use super::results::{Cell, Contender, Cost, Found, Results, Sample};
use crate::figure::Method;
use crate::stats::Spread;

/// A figure that every cell may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Figure {
    /// Bytes moved per wall-clock time, in GB/s.
    Throughput,
    /// CPU-seconds of the mover for a GB.
    MoverCpu,
    /// CPU-seconds of the receiver for a GB.
    ReceiverCpu,
    /// CPU-seconds of whoever feeds a stream source, for a GB.
    FeederCpu,
    /// System calls of the mover for a GB.
    Calls,
    /// Context switches of the mover for a GB.
    ContextSwitches,
    /// Page faults of the mover for a GB.
    Faults,
    /// Times the CPU copied each byte at the mover's end.
    Copies,
    /// The same, estimated from samples of the copy routines.
    SampledCopies,
}

impl Figure {
    /// All, in the order they are shown.
    pub const ALL: [Self; 9] = [
        Self::Throughput,
        Self::MoverCpu,
        Self::ReceiverCpu,
        Self::FeederCpu,
        Self::Calls,
        Self::ContextSwitches,
        Self::Faults,
        Self::Copies,
        Self::SampledCopies,
    ];

    /// The words people see.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::MoverCpu => "CPU time of the mover",
            Self::ReceiverCpu => "CPU time of the receiver",
            Self::FeederCpu => "CPU time of the feeder",
            Self::Calls => "system calls",
            Self::ContextSwitches => "context switches",
            Self::Faults => "page faults",
            Self::Copies => "CPU copies",
            Self::SampledCopies => "CPU copies (sampled)",
        }
    }

    /// Its unit.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Throughput => "GB/s",
            Self::MoverCpu | Self::ReceiverCpu | Self::FeederCpu => "s/GB",
            Self::Calls | Self::ContextSwitches | Self::Faults => "per GB",
            Self::Copies | Self::SampledCopies => "per byte",
        }
    }

    /// The name under which [`Results::methods`] and [`Results::missing`] speak of it.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Throughput => "wall_s",
            Self::MoverCpu | Self::ReceiverCpu | Self::FeederCpu => "system_s",
            Self::Calls => "calls",
            Self::ContextSwitches => "voluntary_switches",
            Self::Faults => "minor_faults",
            Self::Copies => "copied_bytes",
            Self::SampledCopies => "sampled_copies_per_byte",
        }
    }

    /// True if more is better.
    pub const fn is_gain(self) -> bool {
        matches!(self, Self::Throughput)
    }

    /// How it was found in this run, if it was.
    pub fn found(self, results: &Results) -> Option<&Found> {
        results.methods.get(self.key())
    }

    /// By which kind of method.
    pub fn method(self, results: &Results) -> Option<Method> {
        self.found(results).map(|found| found.method)
    }

    /// Its values with their rounds. Counted passes are numbered as they were made.
    pub fn values(self, cell: &Cell) -> Vec<(u32, f64)> {
        match self {
            Self::Calls | Self::Copies | Self::SampledCopies => self.counted(cell),
            _ => {
                let samples = cell.samples.iter().filter(|sample| sample.bytes > 0);
                samples
                    .filter_map(|sample| Some((sample.round, self.of_sample(sample)?)))
                    .collect()
            }
        }
    }

    /// Its median and range.
    pub fn of(self, cell: &Cell) -> Option<Spread> {
        Spread::of(self.values(cell).into_iter().map(|(_, value)| value))
    }

    /// The library's figure divided by the floor's, for the lane and size of `cell`: of the
    /// medians, with the range within the rounds.
    pub fn to_floor(self, results: &Results, cell: &Cell) -> Option<Spread> {
        let by = |contender| {
            let found = results.cells.iter().find(|other| {
                other.contender == contender
                    && (other.path, other.bytes) == (cell.path, cell.bytes)
                    && other.route == cell.route
            });
            found.map(|cell| self.values(cell))
        };
        Spread::ratio(&by(Contender::Zhaul)?, &by(Contender::Floor)?)
    }

    fn of_sample(self, sample: &Sample) -> Option<f64> {
        let gb = sample.bytes as f64 / 1e9;
        let cpu = |cost: Option<Cost>| cost.map(|cost| cost.cpu_s() / gb);
        let mover = &sample.mover;
        match self {
            Self::Throughput => (sample.wall_s > 0.0).then(|| gb / sample.wall_s),
            Self::MoverCpu => cpu(Some(*mover)),
            Self::ReceiverCpu => cpu(sample.receiver),
            Self::FeederCpu => cpu(sample.feeder),
            Self::ContextSwitches => {
                Some((mover.voluntary_switches + mover.involuntary_switches) as f64 / gb)
            }
            Self::Faults => Some((mover.minor_faults + mover.major_faults) as f64 / gb),
            Self::Calls | Self::Copies | Self::SampledCopies => None,
        }
    }

    fn counted(self, cell: &Cell) -> Vec<(u32, f64)> {
        let counted = cell.counted.iter().filter(|counted| counted.bytes > 0);
        let values = counted.zip(0..).filter_map(|(counted, round)| {
            let bytes = counted.bytes as f64;
            let value = match self {
                Self::Calls => counted.calls? as f64 / (bytes / 1e9),
                Self::Copies => counted.copied_bytes? as f64 / bytes,
                _ => counted.sampled_copies_per_byte?,
            };
            Some((round, value))
        });
        values.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::{Counted, Expected, Path};
    use super::*;

    fn cell(contender: Contender, walls: &[f64]) -> Cell {
        let samples = walls.iter().zip(0..).map(|(&wall_s, round)| Sample {
            round,
            bytes: 2_000_000_000,
            wall_s,
            mover: Cost {
                user_s: 0.25,
                system_s: wall_s,
                voluntary_switches: 3,
                involuntary_switches: 1,
                minor_faults: 10,
                major_faults: 0,
            },
            receiver: None,
            feeder: None,
            machine: crate::machine::Machine::default(),
        });
        Cell {
            path: Path::FileToFile,
            route: "sendfile".to_owned(),
            contender,
            bytes: 1 << 20,
            expected: Expected {
                mode_switches: 2,
                cpu_copies: 1,
                dma_copies: 0,
            },
            verified: true,
            samples: samples.collect(),
            counted: vec![Counted {
                bytes: 500_000_000,
                calls: Some(477),
                copied_bytes: None,
                sampled_copies_per_byte: Some(0.97),
                sampled_plus_minus: Some(0.05),
                copied_after_all: None,
            }],
        }
    }

    #[test]
    fn figures_are_per_gigabyte_of_ten_to_the_nine() {
        let cell = cell(Contender::Zhaul, &[1.0]);
        let median = |figure: Figure| figure.of(&cell).map(|spread| spread.median);
        assert_eq!(median(Figure::Throughput), Some(2.0));
        assert_eq!(median(Figure::MoverCpu), Some(0.625));
        assert_eq!(median(Figure::ContextSwitches), Some(2.0));
        assert_eq!(median(Figure::Faults), Some(5.0));
        assert_eq!(median(Figure::Calls), Some(954.0));
        assert_eq!(median(Figure::SampledCopies), Some(0.97));
    }

    #[test]
    fn what_was_not_measured_is_none() {
        let cell = cell(Contender::Zhaul, &[1.0]);
        for figure in [Figure::Copies, Figure::ReceiverCpu, Figure::FeederCpu] {
            assert_eq!(figure.of(&cell), None, "{figure:?}");
        }
    }

    #[test]
    fn the_floor_is_compared_round_by_round() {
        let cells = vec![
            cell(Contender::Zhaul, &[2.0, 4.0, 3.0]),
            cell(Contender::Floor, &[2.0, 2.0, 2.0]),
        ];
        let results = crate::bench::compare::results_of(cells);
        let ratio = Figure::Throughput.to_floor(&results, &results.cells[1]);
        let ratio = ratio.unwrap();
        assert!((ratio.median - 2.0 / 3.0).abs() < 1e-9, "{ratio:?}");
        assert_eq!((ratio.min, ratio.max), (0.5, 1.0));
    }
}
