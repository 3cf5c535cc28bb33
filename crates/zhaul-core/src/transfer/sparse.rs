//! Holes of a sparse file, from file to file: they stay holes.
//!
//! Before data is moved, the source is asked where it is (`lseek(2)` with SEEK_DATA and SEEK_HOLE);
//! what lies before it is made a hole of the sink and counts as moved. What cannot be asked or made
//! a hole is copied as the zeros that it reads as.

use crate::errno::Errno;
use crate::error::Cause;
use crate::facts::{SinkFacts, SinkKind, SourceFacts, SourceKind};
use crate::op::{Op, Operation};

use super::ledger::Ledger;
use super::settle::Outcome;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sparse {
    /// Everything is data.
    Off,
    /// Is there a hole here?
    AskHole,
    /// There is data here; up to where?
    AskData,
    /// So much of a hole is left.
    Hole(u64),
}

impl Sparse {
    pub(super) const fn of(source: &SourceFacts, sink: &SinkFacts) -> Self {
        let from_file = matches!(source.kind, SourceKind::Regular | SourceKind::Memfd);
        let to_file = matches!(sink.kind, SinkKind::Regular) && !sink.append;
        if source.sparse && source.seekable && from_file && to_file {
            Self::AskHole
        } else {
            Self::Off
        }
    }

    /// What has to be done before data is moved, with nothing in transit.
    pub(super) fn next(self, ledger: &Ledger) -> Option<Op> {
        if self == Self::Off || ledger.has_data() {
            return None;
        }
        let offset = ledger.offset();
        Some(match self {
            Self::Off | Self::AskHole => Op::SeekData { offset },
            Self::AskData => Op::SeekHole { offset },
            Self::Hole(left) => Op::PunchHole {
                offset: ledger.sink_offset(),
                len: usize::try_from(left).unwrap_or(usize::MAX),
            },
        })
    }

    /// Whether this operation found the hole that is to be made next.
    pub(super) const fn has_found_hole(self, op: Op) -> bool {
        matches!((op, self), (Op::SeekData { .. }, Self::Hole(_)))
    }

    pub(super) fn complete(
        &mut self,
        ledger: &mut Ledger,
        op: Op,
        result: Result<usize, Errno>,
    ) -> Outcome {
        *self = match (op, result) {
            (Op::SeekData { .. }, Ok(0)) => Self::AskData,
            (Op::SeekData { .. }, Ok(hole)) => {
                Self::Hole((hole as u64).min(ledger.remaining().unwrap_or(u64::MAX)))
            }
            (Op::SeekHole { .. }, Ok(data)) if data > 0 => {
                ledger.expect_data(data as u64);
                Self::AskHole
            }
            (Op::PunchHole { len, .. }, Ok(done)) if done > 0 => {
                let done = done.min(len) as u64;
                ledger.skip(done);
                match self {
                    Self::Hole(left) if *left > done => Self::Hole(*left - done),
                    _ => Self::AskHole,
                }
            }
            (Op::PunchHole { .. }, Err(errno)) if errno.is_about_room() || errno == Errno::EIO => {
                return Outcome::Fail(Cause::Io {
                    operation: Operation::PunchHole,
                    errno,
                });
            }
            _ => Self::Off,
        };
        Outcome::Progress
    }
}
