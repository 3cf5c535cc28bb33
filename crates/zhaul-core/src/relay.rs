//! Two streams between two sockets, as a state machine without sockets, clock or runtime.
//!
//! ```text
//!            note(side, readiness)  begin_turn(now)
//!                      │                 │
//! RelayMachine ── next() ─▶ Call(..) ──driver──▶ complete(call, result), then next() again
//!                           NeedBuffer / NeedPipe / NeedGrant ─▶ buffer() / pipe() / grant()
//!                           Wait(wants) / Yield: the turn is over
//!                           Done(ending)
//! ```
//!
//! Each direction copies through a buffer while its traffic is small, and is spliced through a
//! pipe while it is bulk ([`FlowThresholds`]); it holds either only while it contains bytes.
//!
//! What is kept, whatever the kernel answers:
//! - What a sink was given is a prefix of what the source sent. A FIN is passed on as a FIN, after
//!   the last byte; the other direction goes on. A relay whose streams both ended is
//!   [`RelayCause::Closed`]; every other cause resets what is left, so that nobody takes a part
//!   for the whole ([`Abort`]).
//! - A reset is passed on as a reset, after what was sent before it was delivered as far as the
//!   other side takes it within [`RelayOptions::reset_grace`].
//! - A turn is bounded, and between two turns without an event nothing is called.
//!
//! What it does not do: it opens, closes and waits for nothing, and it does not retry EINTR.

mod direction;
mod drain;
mod ending;
mod flow;
mod options;
mod side;
mod step;
mod times;

pub use ending::{RelayCause, RelayEnding, Stats, WayStats};
pub use options::{Abort, FlowThresholds, RelayOptions, Trigger};
pub use side::{Side, Way};
pub use step::{Call, Readiness, RelayInterest, RelayStep, Wants};

use std::sync::Arc;
use std::time::Duration;

use crate::errno::Errno;

use direction::{Direction, Next, Outcome};
use drain::Unsettled;
use times::{IdleCheck, earlier};

/// A relay between side A and side B.
#[derive(Debug)]
pub struct RelayMachine {
    options: Arc<RelayOptions>,
    ways: [Direction; 2],
    phase: Phase,
    /// The way that begins the next turn.
    turn: Way,
    began: Duration,
    now: Duration,
    last_moved: Duration,
    /// The side whose stream ended first.
    first: Option<Side>,
    broken: Option<Broken>,
    /// Sides that were reported to have an error.
    suspects: [bool; 2],
    /// When a graceful stop is to be done.
    drain_end: Option<Duration>,
    idle_check: IdleCheck,
    /// The calls that are left to make before it is over, by side.
    last_calls: [Option<Call>; 2],
    budget_bytes: usize,
}

/// The first connection that broke.
#[derive(Clone, Copy, Debug)]
struct Broken {
    side: Side,
    cause: RelayCause,
    since: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Running,
    /// Everything is delivered to this side's kernel; its peer should have it before the reset.
    Lingering {
        side: Side,
        look_at: Duration,
        pause: Duration,
    },
    /// Both streams were ended before they ended by themselves.
    Settling(Unsettled),
    /// Leaving the connections as they should be.
    Closing(RelayCause),
    Over(RelayCause),
}

impl RelayMachine {
    /// A relay that begins at this reading of the clock.
    ///
    /// Both sides count as writable and as not readable: [`note`](Self::note) what is known.
    pub fn new(options: Arc<RelayOptions>, now: Duration) -> Self {
        let ways = Way::BOTH.map(|way| Direction::new(way, &options));
        Self {
            budget_bytes: options.budget_bytes,
            options,
            ways,
            phase: Phase::Running,
            turn: Way::AToB,
            began: now,
            now,
            last_moved: now,
            first: None,
            broken: None,
            suspects: [false; 2],
            drain_end: None,
            idle_check: IdleCheck::default(),
            last_calls: [None; 2],
        }
    }

    /// Takes in what was reported of a side.
    pub fn note(&mut self, side: Side, readiness: Readiness) {
        self.ways[side.outward().index()].note_source(readiness);
        self.ways[side.inward().index()].note_sink(readiness);
        self.suspects[side.index()] |= readiness.intersects(Readiness::ERROR);
    }

    /// Says that reads from this side may end before its queue does, for reasons other than urgent
    /// data: it is no TCP socket. Matters with [`Trigger::Edge`].
    pub fn reads_end_early(&mut self, side: Side) {
        self.ways[side.outward().index()].source_has_marks();
    }

    /// Sets how much is taken in one direction in a turn, from now on: less while there are others
    /// whom a long turn would hold up, which costs more calls. It was
    /// [`RelayOptions::budget_bytes`].
    pub const fn set_budget(&mut self, bytes: usize) {
        self.budget_bytes = bytes;
    }

    /// Begins a turn at this reading of the clock.
    pub fn begin_turn(&mut self, now: Duration) {
        self.now = self.now.max(now);
        self.turn = match self.turn {
            Way::AToB => Way::BToA,
            Way::BToA => Way::AToB,
        };
        for direction in &mut self.ways {
            direction.begin_turn();
        }
    }

    /// Stops the relay: [`RelayCause::Cancelled`], unless it is over.
    pub fn cancel(&mut self) {
        match self.phase {
            Phase::Running | Phase::Settling(_) => self.cut(RelayCause::Cancelled),
            Phase::Lingering { .. } => self.finish_broken(),
            Phase::Closing(_) | Phase::Over(_) => {}
        }
    }

    /// What to do next in this turn. The step is to be answered before the next one is asked for.
    // No iterator: it does not end with None, and each step wants an answer.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> RelayStep {
        let step = match self.phase {
            Phase::Running => self.run(),
            Phase::Lingering { .. } => self.linger(),
            Phase::Settling(_) => self.next_of_settling(),
            Phase::Closing(_) | Phase::Over(_) => None,
        };
        let step = step.unwrap_or_else(|| self.close());
        if matches!(
            step,
            RelayStep::Wait(_) | RelayStep::Yield | RelayStep::Done(_)
        ) {
            for direction in &mut self.ways {
                direction.end_turn();
            }
        }
        step
    }

    /// `None` once it no longer runs.
    fn run(&mut self) -> Option<RelayStep> {
        if let Some(side) = self.take_suspect() {
            return Some(RelayStep::Call(Call::TakeError { side }));
        }
        if let Some(step) = self.check_times() {
            return step;
        }
        let mut wants = Wants::default();
        let (mut over, mut spent) = (true, false);
        for way in [self.turn, self.turn.source().inward()] {
            if self.options.one_way && way == Way::BToA {
                continue;
            }
            let next = self.ways[way.index()].next(self.budget_bytes, self.now);
            over &= next == Next::Over;
            match next {
                Next::RelayStep(step) => return Some(step),
                Next::Source => wants.of_mut(way.source()).readable = true,
                Next::Sink => wants.of_mut(way.sink()).writable = true,
                Next::Buffer => wants.buffer = true,
                Next::Pause(until) => wants.wake_at = earlier(wants.wake_at, Some(until)),
                Next::Spent => spent = true,
                Next::Over => {}
            }
        }
        if over {
            return self.all_said();
        }
        if spent {
            return Some(RelayStep::Yield);
        }
        wants.wake_at = earlier(wants.wake_at, self.next_limit());
        Some(RelayStep::Wait(wants))
    }

    /// Reports what a call returned.
    pub fn complete(&mut self, call: Call, result: Result<usize, Errno>) {
        match call {
            Call::TakeError { side } => {
                let errno = i32::try_from(result.unwrap_or(0)).unwrap_or(0);
                if errno != 0 {
                    self.broke(side, RelayCause::of_read(side, Errno::from_raw(errno)));
                }
            }
            Call::Unsent { side } => self.idle_check.saw(side, result.unwrap_or(0)),
            Call::Unacknowledged { side } => {
                let bytes = result.unwrap_or(0);
                self.saw_unacknowledged(bytes);
                self.saw_unsettled(side, bytes);
            }
            Call::Reset { .. } => {}
            Call::Recv { way, .. }
            | Call::Send { way, .. }
            | Call::SpliceIn { way, .. }
            | Call::SpliceOut { way, .. }
            | Call::ReadPipe { way, .. }
            | Call::ShutdownWrite { way } => self.complete_of_way(way, call, result),
        }
    }

    fn complete_of_way(&mut self, way: Way, call: Call, result: Result<usize, Errno>) {
        match self.ways[way.index()].complete(call, result, &self.options) {
            Outcome::Moved => self.moved(),
            Outcome::Nothing => {}
            Outcome::Ended => {
                self.first.get_or_insert(way.source());
                self.moved();
            }
            Outcome::ReadFailed(errno) => {
                self.broke(way.source(), RelayCause::of_read(way.source(), errno));
            }
            Outcome::WriteFailed(errno) => {
                self.broke(way.sink(), RelayCause::of_write(way.sink(), errno));
            }
        }
    }

    /// The call was not made, because the side is known not to be ready.
    pub fn not_ready(&mut self, call: Call) {
        if let Some(way) = call.way() {
            self.ways[way.index()].not_ready(call, &self.options);
        }
    }

    /// Answers [`RelayStep::NeedBuffer`] with the size of the buffer; `None` if there is none.
    pub fn buffer(&mut self, way: Way, bytes: Option<usize>) {
        self.ways[way.index()].buffer(bytes);
    }

    /// Answers [`RelayStep::NeedPipe`].
    pub fn pipe(&mut self, way: Way, found: bool) {
        self.ways[way.index()].pipe(found, &self.options);
    }

    /// Answers [`RelayStep::NeedGrant`]: so many bytes may be taken, not before that reading of the
    /// clock.
    pub fn grant(&mut self, way: Way, bytes: usize, not_before: Duration) {
        self.ways[way.index()].grant(bytes, not_before);
    }

    /// From now on [`RelayStep::NeedGrant`] is asked before bytes are taken this way, or no more.
    pub fn limit(&mut self, way: Way, limited: bool) {
        self.ways[way.index()].limit(limited);
    }

    /// Bytes that were granted and not used.
    pub fn unused_grant(&self, way: Way) -> usize {
        self.ways[way.index()].unused_grant()
    }

    /// The way's buffer, now of this size, has `len` more bytes behind those that it held, to be
    /// sent before anything is taken. Nothing of the way may be in a pipe.
    pub fn preload(&mut self, way: Way, buffer_bytes: usize, len: usize) {
        self.ways[way.index()].preload(buffer_bytes, len);
    }

    /// Whether the way has use for its buffer beyond this turn.
    pub fn holds_buffer(&self, way: Way) -> bool {
        self.ways[way.index()].has_buffer()
    }

    /// Whether what comes next goes through a pipe in one direction at least. A turn of such a relay
    /// may take long enough for others to notice.
    pub fn is_bulk(&self) -> bool {
        self.ways.iter().any(Direction::is_bulk)
    }

    /// Whether the way has use for its pipe beyond this turn.
    pub fn holds_pipe(&self, way: Way) -> bool {
        self.ways[way.index()].has_pipe()
    }

    /// What the way's pipe contains. One that contains something when the relay is over is closed,
    /// never used again.
    pub fn pipe_bytes(&self, way: Way) -> u64 {
        self.ways[way.index()].pipe_bytes()
    }

    /// The account so far.
    pub fn stats(&self) -> Stats {
        Stats::new([*self.ways[0].stats(), *self.ways[1].stats()])
    }

    /// The terms.
    pub fn options(&self) -> &RelayOptions {
        &self.options
    }

    /// Whether a turn at this reading of the clock would do something without any event.
    pub fn is_due(&self, now: Duration) -> bool {
        let limit = match self.phase {
            Phase::Running => self.next_limit(),
            Phase::Lingering { look_at, .. } => Some(look_at),
            Phase::Settling(unsettled) => Some(unsettled.look_at()),
            Phase::Closing(_) | Phase::Over(_) => return true,
        };
        let paused = self.ways.iter().filter_map(Direction::pause_end).min();
        earlier(limit, paused).is_some_and(|at| at <= now)
    }
}
