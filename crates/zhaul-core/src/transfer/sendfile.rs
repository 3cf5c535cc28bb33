//! `sendfile(2)`: from a file-like source straight into the sink.
//!
//! It never waits for the source, so `EAGAIN` can only mean that the sink is full. 0 means that
//! the source ends there.

use crate::errno::Errno;
use crate::op::{Interest, Op, Operation};

use super::ledger::Ledger;
use super::settle::{Outcome, failure, foreign};

pub(super) fn next(ledger: &Ledger) -> Op {
    Op::Sendfile {
        offset: ledger.offset(),
        len: ledger.take_len(),
    }
}

pub(super) fn complete(ledger: &mut Ledger, op: Op, result: Result<usize, Errno>) -> Outcome {
    let Op::Sendfile { len, .. } = op else {
        return foreign(op);
    };
    match result {
        Ok(0) => Outcome::SourceEnded,
        Ok(sent) => {
            ledger.pass(sent.min(len));
            Outcome::Progress
        }
        Err(errno) if errno.is_would_block() => Outcome::Blocked(Interest::SINK),
        Err(errno) => failure(Operation::Sendfile, errno),
    }
}
