//! `mmap(2)` of one window after another, `write(2)` or `send(2)` out of it.
//!
//! The window bounds address space and resident memory, whatever the size of the file. What is
//! written never reaches past the last size seen: past the end of a file the last page reads as
//! zeros. A lease or a seal keeps the file from being cut. A lease ends when its holder takes too
//! long to let an editor in; so unless a seal rules the cut out nothing counts as moved before the
//! size was compared again. Zeros that went out are then not counted, but out they are.

use crate::errno::Errno;
use crate::error::Cause;
use crate::facts::HostFacts;
use crate::op::{Interest, Op, Operation};
use crate::summary::Why;

use super::guard::{Check, Guard};
use super::ledger::Ledger;
use super::settle::{Outcome, failure, foreign};

#[derive(Debug)]
pub(super) struct MmapWrite {
    window_bytes: u64,
    page_bytes: u64,
    window_start: u64,
    window_end: u64,
    /// Where the file ended at the last look.
    file_end: u64,
}

impl MmapWrite {
    pub(super) fn new(host: &HostFacts, guard: &Guard) -> Self {
        let page_bytes = (host.page_bytes.max(1)) as u64;
        let window_bytes = (host.mmap_window_bytes as u64).max(page_bytes);
        Self {
            window_bytes: window_bytes - window_bytes % page_bytes,
            page_bytes,
            window_start: 0,
            window_end: 0,
            file_end: guard.size().unwrap_or(0),
        }
    }

    pub(super) fn sees_file_end(&mut self, size: u64) {
        self.file_end = size;
        self.window_end = self.window_end.min(size);
    }

    /// True if the file ends here, as far as the last look tells.
    pub(super) fn is_at_file_end(&self, ledger: &Ledger) -> bool {
        ledger.offset() >= self.file_end
    }

    pub(super) fn next(&self, ledger: &Ledger) -> Op {
        let offset = ledger.offset();
        if !(self.window_start..self.window_end).contains(&offset) {
            let start = offset - offset % self.page_bytes;
            let end = start.saturating_add(self.window_bytes).min(self.file_end);
            return Op::Map {
                offset: start,
                len: bytes(end - start),
            };
        }
        let len = ledger.take_len().min(bytes(self.window_end - offset));
        Op::WriteMapped {
            offset,
            len,
            sink_offset: ledger.sink_offset(),
            more: ledger.is_more_certain_after(len as u64),
        }
    }

    pub(super) fn complete(
        &mut self,
        ledger: &mut Ledger,
        guard: &Guard,
        op: Op,
        result: Result<usize, Errno>,
    ) -> Outcome {
        match op {
            Op::Map { offset, len } => match result {
                Ok(_) => {
                    self.window_start = offset;
                    self.window_end = offset + len as u64;
                    Outcome::Progress
                }
                // EAGAIN from mmap is about locked memory, not about readiness.
                Err(errno) if errno == Errno::EAGAIN => Outcome::Fall(Why::Refused {
                    operation: Operation::Map,
                    errno,
                }),
                Err(errno) => failure(Operation::Map, errno),
            },
            Op::WriteMapped { offset, len, .. } => Self::wrote(ledger, guard, offset, len, result),
            op => foreign(op),
        }
    }

    fn wrote(
        ledger: &mut Ledger,
        guard: &Guard,
        offset: u64,
        len: usize,
        result: Result<usize, Errno>,
    ) -> Outcome {
        match result {
            Ok(0) => Outcome::Fail(Cause::SinkStalled),
            Ok(written) if guard.checks_mapped_writes() => Outcome::Ask(Check::AfterMappedWrite {
                len: written.min(len),
            }),
            Ok(written) => {
                ledger.pass(written.min(len));
                Outcome::Progress
            }
            Err(errno) if errno.is_would_block() => Outcome::Blocked(Interest::SINK),
            // The page is gone: cut off, or unreadable. The size tells; a read tells the rest.
            Err(Errno::EFAULT) => Outcome::Ask(Check::MappedFault {
                end: offset + len as u64,
                why: Why::Refused {
                    operation: Operation::Write,
                    errno: Errno::EFAULT,
                },
            }),
            Err(errno) => Outcome::Fail(Cause::Io {
                operation: Operation::Write,
                errno,
            }),
        }
    }
}

fn bytes(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
