//! `splice(2)`: directly if one end is a pipe, otherwise through a pipe between.
//!
//! Through a pipe: fill, drain to the last byte, fill again. Because the pipe is empty at every
//! fill, `EAGAIN` there can only mean that the source has nothing. Bytes in the pipe are counted
//! here and never compared with its capacity, which is in slots: 32 one-byte segments may fill
//! it, and one large folio may put more into it than its nominal size.
//!
//! On a socket splice never has the last word. It stops at TCP's urgent mark and at that of a UNIX
//! socket: `EAGAIN` while data is there, 0 once the peer closed. So before a transfer waits or
//! ends there, one `recv(2)` is tried, which gets past the mark. What it brings is written before
//! splicing goes on.
//!
//! If the sink turns out not to take from a pipe, the bytes that are in it already are read out
//! and written before the route is left.

use crate::errno::Errno;
use crate::error::Cause;
use crate::op::{End, Interest, Op, Operation};
use crate::summary::Why;

use super::ledger::Ledger;
use super::read_write::{BUFFER_BYTES, Buffered, read_len};
use super::settle::{Outcome, failure, foreign};

#[derive(Debug)]
pub(super) struct Splice {
    direct: bool,
    /// Bytes in the pipe between.
    in_pipe: u64,
    /// Set once the sink refused to take from the pipe.
    rescue: Option<Why>,
    /// What splice said about a socket is confirmed by a read next.
    confirm: bool,
    /// Both ends were waited for since the last byte was moved directly.
    waited: bool,
    /// Bytes read, out of the pipe during a rescue or from the source past an urgent mark.
    buffered: Buffered,
}

impl Splice {
    pub(super) fn new(ledger: &Ledger) -> Self {
        let direct = ledger.source_is_pipe || ledger.sink_is_pipe;
        Self {
            direct,
            in_pipe: 0,
            rescue: None,
            confirm: false,
            waited: false,
            buffered: Buffered::default(),
        }
    }

    pub(super) const fn pipe_bytes(&self) -> u64 {
        self.in_pipe
    }

    pub(super) fn next(&self, ledger: &Ledger) -> Op {
        if self.buffered.len() > 0 {
            return self.buffered.write(ledger);
        }
        if self.confirm {
            return Op::Read {
                from: End::Source,
                offset: None,
                len: read_len(ledger),
            };
        }
        if self.rescue.is_some() {
            return self.next_of_rescue();
        }
        if self.in_pipe > 0 {
            return Op::Splice {
                from: End::Pipe,
                to: End::Sink,
                source_offset: None,
                sink_offset: ledger.sink_offset(),
                len: usize::try_from(self.in_pipe)
                    .unwrap_or(usize::MAX)
                    .min(MAX_SPLICE_BYTES),
                more: ledger.is_more_certain_after(self.in_pipe),
            };
        }
        Op::Splice {
            from: End::Source,
            to: if self.direct { End::Sink } else { End::Pipe },
            source_offset: ledger.source_offset(),
            sink_offset: if self.direct {
                ledger.sink_offset()
            } else {
                None
            },
            len: ledger.take_len().min(MAX_SPLICE_BYTES),
            more: false,
        }
    }

    fn next_of_rescue(&self) -> Op {
        let len = usize::try_from(self.in_pipe)
            .unwrap_or(usize::MAX)
            .min(BUFFER_BYTES);
        Op::Read {
            from: End::Pipe,
            offset: None,
            len,
        }
    }

    pub(super) fn complete(
        &mut self,
        ledger: &mut Ledger,
        op: Op,
        result: Result<usize, Errno>,
    ) -> Outcome {
        match op {
            Op::Splice {
                from: End::Source,
                to: End::Sink,
                len,
                ..
            } => self.passed(ledger, len, result),
            Op::Splice {
                from: End::Source,
                len,
                ..
            } => self.filled(ledger, len, result),
            Op::Splice { len, .. } => self.drained(ledger, len, result),
            Op::Read {
                from: End::Source,
                len,
                ..
            } => self.confirmed(ledger, len, result),
            Op::Read { len, .. } => self.rescued(len, result),
            Op::Write { .. } => {
                let outcome = self.buffered.wrote(ledger, result);
                match (self.rescue, outcome) {
                    (Some(why), Outcome::Progress) if ledger.in_transit() == 0 => {
                        Outcome::Fall(why)
                    }
                    (_, outcome) => outcome,
                }
            }
            op => foreign(op),
        }
    }

    fn passed(&mut self, ledger: &mut Ledger, len: usize, result: Result<usize, Errno>) -> Outcome {
        match result {
            Ok(0) => self.ended(ledger),
            Ok(spliced) => {
                self.waited = false;
                ledger.pass(spliced.min(len));
                Outcome::Progress
            }
            // A file never makes anybody wait, so the sink did. Between two streams the kernel
            // does not say which end it was.
            Err(errno) if errno.is_would_block() && ledger.is_seekable() => {
                Outcome::Blocked(Interest::SINK)
            }
            Err(errno) if errno.is_would_block() => {
                if self.waited && ledger.source_is_socket {
                    // Both were ready, and still nothing moves.
                    self.waited = false;
                    self.confirm = true;
                    return Outcome::Progress;
                }
                self.waited = true;
                Outcome::Blocked(Interest::EITHER)
            }
            // A pipe without a reader says EPIPE; whatever else fails then is the source.
            Err(errno) if ledger.sink_is_pipe && errno != Errno::EPIPE => failed_source(errno),
            Err(errno) => failure(Operation::Splice, errno),
        }
    }

    fn filled(&mut self, ledger: &mut Ledger, len: usize, result: Result<usize, Errno>) -> Outcome {
        match result {
            Ok(0) => self.ended(ledger),
            Ok(spliced) => {
                let spliced = spliced.min(len);
                self.in_pipe = spliced as u64;
                ledger.take(spliced);
                Outcome::Progress
            }
            Err(errno) if errno.is_would_block() && ledger.source_is_socket => {
                self.confirm = true;
                Outcome::Progress
            }
            Err(errno) if errno.is_would_block() => Outcome::Blocked(Interest::SOURCE),
            Err(errno) => failed_source(errno),
        }
    }

    fn ended(&mut self, ledger: &Ledger) -> Outcome {
        if !ledger.source_is_socket {
            return Outcome::SourceEnded;
        }
        self.confirm = true;
        Outcome::Progress
    }

    /// What the socket itself says after splice had nothing.
    fn confirmed(
        &mut self,
        ledger: &mut Ledger,
        len: usize,
        result: Result<usize, Errno>,
    ) -> Outcome {
        self.confirm = false;
        self.buffered.read(ledger, len, result)
    }

    fn drained(
        &mut self,
        ledger: &mut Ledger,
        len: usize,
        result: Result<usize, Errno>,
    ) -> Outcome {
        match result {
            Ok(0) => Outcome::Fail(Cause::SinkStalled),
            Ok(spliced) => {
                let spliced = spliced.min(len);
                self.in_pipe -= spliced as u64;
                ledger.deliver(spliced);
                Outcome::Progress
            }
            Err(errno) if errno.is_would_block() => Outcome::Blocked(Interest::SINK),
            Err(errno) if errno.is_refusal() => {
                self.rescue = Some(Why::Refused {
                    operation: Operation::Splice,
                    errno,
                });
                Outcome::Progress
            }
            Err(errno) => Outcome::Fail(Cause::Io {
                operation: Operation::Splice,
                errno,
            }),
        }
    }

    fn rescued(&mut self, len: usize, result: Result<usize, Errno>) -> Outcome {
        match result {
            Ok(0) => Outcome::Fail(Cause::Io {
                operation: Operation::Read,
                errno: Errno::EIO,
            }),
            Ok(read) => {
                let read = read.min(len);
                self.in_pipe -= read as u64;
                self.buffered = Buffered::filled(read);
                Outcome::Progress
            }
            Err(errno) => Outcome::Fail(Cause::Io {
                operation: Operation::Read,
                errno,
            }),
        }
    }
}

/// A refusal is nobody's fault; anything else is that of the source.
fn failed_source(errno: Errno) -> Outcome {
    match failure(Operation::Splice, errno) {
        Outcome::Fail(_) => Outcome::Fail(Cause::Io {
            operation: Operation::SpliceIn,
            errno,
        }),
        refused => refused,
    }
}

/// `splice(2)` answers EINVAL to `usize::MAX`; this much in one call is never short of work.
const MAX_SPLICE_BYTES: usize = 1 << 30;
