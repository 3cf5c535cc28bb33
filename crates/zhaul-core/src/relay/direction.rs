//! One direction of a relay: from a source socket, through a buffer or a pipe, to a sink socket.
//!
//! Through a buffer: receive, send to the last byte, receive again. Through a pipe: fill, drain to
//! the last byte, fill again. Because the pipe is empty at every fill, EAGAIN there can only mean
//! that the source has nothing; and the route changes only then. Bytes in the pipe are counted and
//! never compared with its size, which is in slots.
//!
//! Splice never has the last word about a source: at an urgent mark it answers EAGAIN although
//! there is more, or 0 although the stream has not ended. A receive gets past the mark, but ends at
//! it; on a UNIX socket it ends at descriptors that were sent along, too.

mod complete;

use std::time::Duration;

use crate::errno::Errno;

use super::ending::WayStats;
use super::flow::Flow;
use super::options::RelayOptions;
use super::side::Way;
use super::step::{Call, Readiness, RelayStep};

#[derive(Debug)]
pub(super) struct Direction {
    way: Way,
    stats: WayStats,
    flow: Flow,
    source: Source,
    sink: Sink,
    source_ready: bool,
    sink_ready: bool,
    /// The sink was told of the end and has not taken that yet. A socket takes it at once.
    shut_pending: bool,
    /// Something was reported of the source and no byte was taken since.
    fresh: bool,
    /// The source has had urgent data, or is no TCP socket: that a read got less than it asked for
    /// does not mean that it got everything.
    has_marks: bool,
    /// The end of the source's stream was reported.
    end_reported: bool,
    /// Before anything else is believed of the source, it is received from.
    confirm: bool,
    /// The sink does not take from pipes: the pipe is read out.
    rescue: bool,
    /// What the buffer holds: from, to. Equal if nothing.
    held: (usize, usize),
    /// Size of the buffer at hand, 0 for none.
    buffer_bytes: usize,
    buffer_refused: bool,
    /// Bytes in the pipe.
    in_pipe: u64,
    has_pipe: bool,
    /// Bytes that may be taken, if a limit is to be asked.
    allowance: Option<usize>,
    not_before: Duration,
    /// Bytes taken and calls made in this turn.
    turn_bytes: usize,
    turn_calls: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Open,
    /// Open, but its connection is known to be broken: what it still holds is the last.
    Failing,
    /// Its stream came to its end.
    Ended,
    /// It has given all that there will be, and that was not all there was.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sink {
    Open,
    /// It was told that everything is said.
    Shut,
    Broken,
}

/// What a direction does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    RelayStep(RelayStep),
    /// Waits for the source.
    Source,
    /// Waits for the sink.
    Sink,
    /// Waits for a buffer.
    Buffer,
    /// Waits for its limit.
    Pause(Duration),
    /// Has had its share of this turn.
    Spent,
    /// Will never do anything again.
    Over,
}

/// What the result of a call means to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Bytes moved.
    Moved,
    Nothing,
    /// The source ended its stream.
    Ended,
    ReadFailed(Errno),
    WriteFailed(Errno),
}

impl Direction {
    pub(super) const fn new(way: Way, options: &RelayOptions) -> Self {
        Self {
            way,
            stats: WayStats::START,
            flow: Flow::new(options.splice),
            source: Source::Open,
            sink: Sink::Open,
            source_ready: false,
            // Sockets mostly are; one that is not says so.
            sink_ready: true,
            shut_pending: false,
            fresh: false,
            has_marks: false,
            end_reported: false,
            confirm: false,
            rescue: false,
            held: (0, 0),
            buffer_bytes: 0,
            buffer_refused: false,
            in_pipe: 0,
            has_pipe: false,
            allowance: None,
            not_before: Duration::ZERO,
            turn_bytes: 0,
            turn_calls: 0,
        }
    }

    pub(super) const fn stats(&self) -> &WayStats {
        &self.stats
    }

    pub(super) const fn pipe_bytes(&self) -> u64 {
        self.in_pipe
    }

    pub(super) const fn has_pipe(&self) -> bool {
        self.has_pipe
    }

    pub(super) const fn is_bulk(&self) -> bool {
        self.flow.is_bulk()
    }

    pub(super) const fn has_buffer(&self) -> bool {
        self.buffer_bytes > 0
    }

    pub(super) fn is_paused(&self, now: Duration) -> bool {
        self.not_before > now
    }

    /// When its limit lets it go on, if that is what it waits for.
    pub(super) fn pause_end(&self) -> Option<Duration> {
        let waits = self.not_before > Duration::ZERO && self.source_ready && !self.is_over();
        waits.then_some(self.not_before)
    }

    pub(super) fn begin_turn(&mut self) {
        self.turn_bytes = 0;
        self.turn_calls = 0;
        self.buffer_refused = false;
    }

    /// Lets go of what holds nothing. The driver gives it back.
    pub(super) fn end_turn(&mut self) {
        if self.held.0 == self.held.1 {
            self.buffer_bytes = 0;
        }
        if self.in_pipe == 0 {
            self.has_pipe = false;
        }
    }

    /// Takes in what was reported of the source.
    pub(super) fn note_source(&mut self, readiness: Readiness) {
        let readable =
            Readiness::READABLE | Readiness::ENDED | Readiness::ERROR | Readiness::URGENT;
        if readiness.intersects(readable) {
            self.source_ready = true;
            self.fresh = true;
        }
        self.has_marks |= readiness.intersects(Readiness::URGENT);
        self.end_reported |= readiness.intersects(Readiness::ENDED);
    }

    /// Takes in what was reported of the sink.
    pub(super) fn note_sink(&mut self, readiness: Readiness) {
        if readiness.intersects(Readiness::WRITABLE | Readiness::ERROR) {
            self.sink_ready = true;
            self.shut_pending = false;
        }
    }

    /// The source is of a kind whose reads may end early.
    pub(super) const fn source_has_marks(&mut self) {
        self.has_marks = true;
    }

    /// The source's connection is broken. What its socket holds is still good.
    pub(super) fn source_is_failing(&mut self) {
        if self.source == Source::Open {
            self.source = Source::Failing;
            self.source_ready = true;
        }
    }

    /// The source is left alone from now on, as if its stream had ended here.
    pub(super) fn take_no_more(&mut self) {
        if self.source == Source::Open {
            self.source = Source::Ended;
        }
    }

    /// Nothing reaches the sink any more.
    pub(super) const fn sink_is_broken(&mut self) {
        self.sink = Sink::Broken;
    }

    pub(super) const fn is_over(&self) -> bool {
        // A source is asked only when nothing is under way, so what it gave is delivered.
        !matches!(self.sink, Sink::Open) || matches!(self.source, Source::Broken)
    }

    /// Nothing can follow what was delivered, and the sink does not know yet.
    pub(super) const fn may_be_shut(&self) -> bool {
        matches!(self.sink, Sink::Open) && self.stats.in_transit() == 0
    }

    pub(super) fn next(&self, budget_bytes: usize, now: Duration) -> Next {
        if self.is_over() {
            return Next::Over;
        }
        if self.turn_calls >= CALLS_PER_TURN {
            return Next::Spent;
        }
        if self.stats.in_transit() > 0 {
            return self.next_out();
        }
        match self.source {
            Source::Ended if self.shut_pending => Next::Sink,
            Source::Ended => {
                let way = self.way;
                Next::RelayStep(RelayStep::Call(Call::ShutdownWrite { way }))
            }
            Source::Broken => Next::Over,
            Source::Open | Source::Failing => self.next_in(budget_bytes, now),
        }
    }

    fn next_out(&self) -> Next {
        let way = self.way;
        let (start, end) = self.held;
        if start < end {
            let len = end - start;
            return self.if_sink_is_ready(Call::Send { way, start, len });
        }
        let in_pipe = usize::try_from(self.in_pipe).unwrap_or(usize::MAX);
        if self.rescue {
            return self.with_buffer(|room| Call::ReadPipe {
                way,
                len: in_pipe.min(room),
            });
        }
        let len = in_pipe.min(MAX_SPLICE_BYTES);
        self.if_sink_is_ready(Call::SpliceOut { way, len })
    }

    fn next_in(&self, budget_bytes: usize, now: Duration) -> Next {
        let way = self.way;
        if !self.source_ready {
            return Next::Source;
        }
        let wanted = budget_bytes.clamp(1, MAX_SPLICE_BYTES);
        if self.turn_bytes >= wanted {
            return Next::Spent;
        }
        if self.is_paused(now) {
            return Next::Pause(self.not_before);
        }
        let allowed = match self.allowance {
            Some(0) => return Next::RelayStep(RelayStep::NeedGrant { way, wanted }),
            Some(bytes) => bytes,
            None => usize::MAX,
        };
        if self.confirm || !self.flow.splices() {
            return self.with_buffer(|room| Call::Recv {
                way,
                len: room.min(allowed),
            });
        }
        if !self.has_pipe {
            return Next::RelayStep(RelayStep::NeedPipe(way));
        }
        let len = wanted.min(allowed);
        Next::RelayStep(RelayStep::Call(Call::SpliceIn { way, len }))
    }

    const fn if_sink_is_ready(&self, call: Call) -> Next {
        if self.sink_ready {
            Next::RelayStep(RelayStep::Call(call))
        } else {
            Next::Sink
        }
    }

    fn with_buffer(&self, call: impl FnOnce(usize) -> Call) -> Next {
        match self.buffer_bytes {
            0 if self.buffer_refused => Next::Buffer,
            0 => Next::RelayStep(RelayStep::NeedBuffer(self.way)),
            room => Next::RelayStep(RelayStep::Call(call(room))),
        }
    }

    pub(super) const fn buffer(&mut self, bytes: Option<usize>) {
        match bytes {
            Some(bytes) if bytes > 0 => self.buffer_bytes = bytes,
            _ => self.buffer_refused = true,
        }
    }

    pub(super) const fn pipe(&mut self, found: bool, options: &RelayOptions) {
        if found {
            self.has_pipe = true;
        } else {
            self.flow.pipe_refused(&options.thresholds);
        }
    }

    /// From now on a limit is asked before bytes are taken, or no more.
    pub(super) const fn limit(&mut self, limited: bool) {
        self.allowance = if limited { Some(0) } else { None };
        self.not_before = Duration::ZERO;
    }

    pub(super) const fn grant(&mut self, bytes: usize, not_before: Duration) {
        if self.allowance.is_some() {
            self.allowance = Some(bytes);
            self.not_before = not_before;
        }
    }

    /// Granted and not used.
    pub(super) const fn unused_grant(&self) -> usize {
        match self.allowance {
            Some(bytes) => bytes,
            None => 0,
        }
    }

    /// The buffer was filled by the caller.
    pub(super) fn preload(&mut self, buffer_bytes: usize, len: usize) {
        self.buffer_bytes = buffer_bytes;
        self.held.1 += len;
        self.stats.taken += len as u64;
    }
}

/// `splice(2)` answers EINVAL to `usize::MAX`; this much in one call is never short of work.
const MAX_SPLICE_BYTES: usize = 1 << 30;

/// Tiny segments must not hold up others for as long as their budget of bytes lasts.
const CALLS_PER_TURN: u32 = 64;
