//! `copy_file_range(2)`: from file to file inside the kernel.

use crate::errno::Errno;
use crate::op::{Op, Operation};

use super::ledger::Ledger;
use super::settle::{Outcome, failure, foreign};

pub(super) fn next(ledger: &Ledger) -> Op {
    Op::CopyFileRange {
        source_offset: ledger.offset(),
        sink_offset: ledger.sink_offset(),
        len: ledger.take_len(),
    }
}

pub(super) fn complete(ledger: &mut Ledger, op: Op, result: Result<usize, Errno>) -> Outcome {
    let Op::CopyFileRange { len, .. } = op else {
        return foreign(op);
    };
    match result {
        Ok(0) => Outcome::SourceEnded,
        Ok(copied) => {
            ledger.pass(copied.min(len));
            Outcome::Progress
        }
        Err(errno) => failure(Operation::CopyFileRange, errno),
    }
}
