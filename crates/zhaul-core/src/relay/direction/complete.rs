//! What the results of a direction's calls mean.

use crate::errno::{Errno, ErrnoClass};
use crate::route::Route;

use super::{Direction, Outcome, Sink, Source};
use crate::relay::options::{RelayOptions, Trigger};
use crate::relay::step::Call;

impl Direction {
    /// Takes in what a call returned.
    pub(in crate::relay) fn complete(
        &mut self,
        call: Call,
        result: Result<usize, Errno>,
        options: &RelayOptions,
    ) -> Outcome {
        self.stats.calls += 1;
        self.turn_calls += 1;
        match call {
            Call::Recv { len, .. } => self.received(len, result, options),
            Call::SpliceIn { len, .. } => self.filled(len, result, options),
            Call::Send { len, .. } => self.sent(len, result),
            Call::SpliceOut { len, .. } => self.drained(len, result, options),
            Call::ReadPipe { len, .. } => self.rescued(len, result),
            Call::ShutdownWrite { .. } => self.shut(result),
            // Of a side, not of a way: the relay answers them itself.
            Call::TakeError { .. }
            | Call::Unsent { .. }
            | Call::Unacknowledged { .. }
            | Call::Reset { .. } => Outcome::Nothing,
        }
    }

    /// The call was not made: as if it had answered EAGAIN.
    pub(in crate::relay) fn not_ready(&mut self, call: Call, options: &RelayOptions) {
        match call {
            Call::Send { .. } | Call::SpliceOut { .. } => self.sink_ready = false,
            Call::Recv { len, .. } => {
                self.received(len, Err(Errno::EAGAIN), options);
            }
            Call::SpliceIn { .. } => {
                self.filled(0, Err(Errno::EAGAIN), options);
            }
            Call::ReadPipe { .. }
            | Call::ShutdownWrite { .. }
            | Call::TakeError { .. }
            | Call::Unsent { .. }
            | Call::Unacknowledged { .. }
            | Call::Reset { .. } => {}
        }
    }

    fn received(
        &mut self,
        len: usize,
        result: Result<usize, Errno>,
        options: &RelayOptions,
    ) -> Outcome {
        let confirmed = std::mem::take(&mut self.confirm);
        match result {
            Ok(0) => self.source_ended(),
            Ok(read) => {
                let read = read.min(len);
                self.take(read, Route::ReadWrite);
                self.held = (0, read);
                // A read that a limit cut short, or a mark, says nothing about the flow.
                if !confirmed && len == self.buffer_bytes {
                    self.flow.received(read, len, &options.thresholds);
                }
                if read < len && !confirmed && self.is_empty_after_short_read(options.trigger) {
                    self.source_ready = false;
                }
                Outcome::Moved
            }
            Err(errno) if errno.is_would_block() => {
                self.flow.paused();
                self.source_has_nothing()
            }
            Err(errno) => self.source_failed(errno),
        }
    }

    fn filled(
        &mut self,
        len: usize,
        result: Result<usize, Errno>,
        options: &RelayOptions,
    ) -> Outcome {
        match result {
            Ok(0) => {
                self.confirm = true;
                Outcome::Nothing
            }
            Ok(spliced) => {
                let spliced = spliced.min(len);
                self.take(spliced, Route::Splice);
                self.in_pipe = spliced as u64;
                if len >= options.thresholds.short_splice_bytes {
                    self.flow.spliced(spliced, &options.thresholds);
                }
                // Either the source is empty or the pipe was full.
                if spliced < len && options.trigger == Trigger::Level && !self.end_reported {
                    self.source_ready = false;
                }
                Outcome::Moved
            }
            Err(errno) if errno.is_would_block() => {
                if self.may_hide_bytes(options.trigger) {
                    self.confirm = true;
                    Outcome::Nothing
                } else {
                    self.source_has_nothing()
                }
            }
            Err(errno) if errno.is_refusal() => {
                self.leave_splicing(errno, options);
                Outcome::Nothing
            }
            Err(errno) => self.source_failed(errno),
        }
    }

    fn sent(&mut self, len: usize, result: Result<usize, Errno>) -> Outcome {
        match result {
            Ok(0) => self.sink_failed(Errno::EIO),
            Ok(sent) => {
                let sent = sent.min(len);
                self.held.0 += sent;
                self.stats.delivered += sent as u64;
                Outcome::Moved
            }
            Err(errno) if errno.is_would_block() => self.sink_is_full(),
            Err(errno) => self.sink_failed(errno),
        }
    }

    fn drained(
        &mut self,
        len: usize,
        result: Result<usize, Errno>,
        options: &RelayOptions,
    ) -> Outcome {
        match result {
            Ok(0) => self.sink_failed(Errno::EIO),
            Ok(spliced) => {
                let spliced = spliced.min(len) as u64;
                self.in_pipe -= spliced;
                self.stats.delivered += spliced;
                self.stats.spliced += spliced;
                Outcome::Moved
            }
            Err(errno) if errno.is_would_block() => self.sink_is_full(),
            Err(errno) if errno.is_refusal() => {
                self.rescue = true;
                self.leave_splicing(errno, options);
                Outcome::Nothing
            }
            Err(errno) => self.sink_failed(errno),
        }
    }

    /// For good if the kernel does not do it between these two, for a while if it is short of memory.
    fn leave_splicing(&mut self, errno: Errno, options: &RelayOptions) {
        match errno.class() {
            ErrnoClass::Shortage => self.flow.pipe_refused(&options.thresholds),
            _ => self.flow.not_spliceable(),
        }
    }

    fn rescued(&mut self, len: usize, result: Result<usize, Errno>) -> Outcome {
        match result {
            // The pipe is known to hold more: it gives at once.
            Ok(0) => self.sink_failed(Errno::EIO),
            Ok(read) => {
                let read = read.min(len);
                self.in_pipe -= read as u64;
                self.rescue = self.in_pipe > 0;
                self.held = (0, read);
                Outcome::Nothing
            }
            Err(errno) => self.sink_failed(errno),
        }
    }

    const fn shut(&mut self, result: Result<usize, Errno>) -> Outcome {
        match result {
            Ok(_) => {
                self.sink = Sink::Shut;
                Outcome::Nothing
            }
            Err(errno) if errno.is_would_block() => {
                self.shut_pending = true;
                Outcome::Nothing
            }
            Err(errno) => self.sink_failed(errno),
        }
    }

    fn take(&mut self, bytes: usize, route: Route) {
        self.fresh = false;
        self.turn_bytes += bytes;
        self.stats.taken += bytes as u64;
        if self.stats.route != route {
            self.stats.route = route;
            self.stats.switches += 1;
        }
        if let Some(allowance) = &mut self.allowance {
            *allowance = allowance.saturating_sub(bytes);
        }
    }

    /// Whether a read that got less than it asked for emptied the socket for sure.
    fn is_empty_after_short_read(&self, trigger: Trigger) -> bool {
        let is_known = match trigger {
            Trigger::Level => true,
            Trigger::Edge => !self.has_marks,
            Trigger::EdgeWithoutUrgent => false,
        };
        is_known && !self.end_reported && self.source == Source::Open
    }

    /// Whether there may be bytes although splice, into an empty pipe, had none.
    const fn may_hide_bytes(&self, trigger: Trigger) -> bool {
        match trigger {
            // What is not taken is reported again.
            Trigger::Level => self.fresh,
            Trigger::Edge => self.has_marks,
            Trigger::EdgeWithoutUrgent => true,
        }
    }

    const fn source_has_nothing(&mut self) -> Outcome {
        self.source_ready = false;
        self.fresh = false;
        Outcome::Nothing
    }

    fn source_ended(&mut self) -> Outcome {
        if self.source == Source::Failing {
            // The error was reported to another call, and this is what is left of it.
            self.source = Source::Broken;
            return Outcome::Nothing;
        }
        self.source = Source::Ended;
        self.stats.ended = true;
        Outcome::Ended
    }

    const fn source_failed(&mut self, errno: Errno) -> Outcome {
        self.source = Source::Broken;
        Outcome::ReadFailed(errno)
    }

    const fn sink_is_full(&mut self) -> Outcome {
        self.sink_ready = false;
        Outcome::Nothing
    }

    const fn sink_failed(&mut self, errno: Errno) -> Outcome {
        self.sink = Sink::Broken;
        Outcome::WriteFailed(errno)
    }
}
