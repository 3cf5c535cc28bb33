//! `read(2)` into a buffer, `write(2)` out of it: the route that always exists.
//!
//! The buffer is the driver's; the machine says which part of it holds bytes. It reads only into
//! an empty buffer, so every byte read is written before the next read.

use crate::errno::Errno;
use crate::error::Cause;
use crate::op::{End, Interest, Op, Operation};

use super::ledger::Ledger;
use super::settle::{Outcome, foreign};

#[derive(Debug, Default)]
pub(super) struct ReadWrite {
    buffered: Buffered,
}

/// The part of the buffer that holds bytes not yet written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Buffered {
    start: usize,
    end: usize,
}

impl Buffered {
    pub(super) const fn filled(len: usize) -> Self {
        Self { start: 0, end: len }
    }

    pub(super) const fn len(&self) -> usize {
        self.end - self.start
    }

    pub(super) fn write(&self, ledger: &Ledger) -> Op {
        Op::Write {
            start: self.start,
            len: self.len(),
            offset: ledger.sink_offset(),
            more: ledger.is_more_certain_after(self.len() as u64),
        }
    }

    /// Takes in what a read into the empty buffer returned.
    pub(super) fn read(
        &mut self,
        ledger: &mut Ledger,
        len: usize,
        result: Result<usize, Errno>,
    ) -> Outcome {
        match result {
            Ok(0) => Outcome::SourceEnded,
            Ok(read) => {
                let read = read.min(len);
                *self = Self::filled(read);
                ledger.take(read);
                Outcome::Progress
            }
            Err(errno) if errno.is_would_block() => Outcome::Blocked(Interest::SOURCE),
            Err(errno) => Outcome::Fail(Cause::Io {
                operation: Operation::Read,
                errno,
            }),
        }
    }

    /// Takes in what a write out of the buffer returned.
    pub(super) fn wrote(&mut self, ledger: &mut Ledger, result: Result<usize, Errno>) -> Outcome {
        match result {
            Ok(0) => Outcome::Fail(Cause::SinkStalled),
            Ok(written) => {
                let written = written.min(self.len());
                self.start += written;
                ledger.deliver(written);
                Outcome::Progress
            }
            Err(errno) if errno.is_would_block() => Outcome::Blocked(Interest::SINK),
            Err(errno) => Outcome::Fail(Cause::Io {
                operation: Operation::Write,
                errno,
            }),
        }
    }
}

impl ReadWrite {
    pub(super) fn next(&self, ledger: &Ledger) -> Op {
        if self.buffered.len() > 0 {
            return self.buffered.write(ledger);
        }
        Op::Read {
            from: End::Source,
            offset: ledger.source_offset(),
            len: read_len(ledger),
        }
    }

    pub(super) fn complete(
        &mut self,
        ledger: &mut Ledger,
        op: Op,
        result: Result<usize, Errno>,
    ) -> Outcome {
        match op {
            Op::Read { len, .. } => self.buffered.read(ledger, len, result),
            Op::Write { .. } => self.buffered.wrote(ledger, result),
            op => foreign(op),
        }
    }
}

/// What a driver's buffer must hold. It stays in the second-level cache between the two copies,
/// and a thousand slow receivers cost 64 MiB.
pub(super) const BUFFER_BYTES: usize = 64 << 10;

pub(super) fn read_len(ledger: &Ledger) -> usize {
    ledger.take_len().min(BUFFER_BYTES)
}
