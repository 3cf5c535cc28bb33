//! A relay that is given its turns by an event loop.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use zhaul_core::relay::{
    Readiness, RelayEnding, RelayMachine, RelayOptions, RelayStep, Side, Stats, Trigger, Wants, Way,
};

use super::buffers::{BufferPool, PooledBuffer};
use super::calls::{Bare, Calls, WayBuffers, release};
use super::limit::Limit;
use crate::pipe_pool::PipePool;

/// What relays borrow while bytes are under way; one set for each worker thread, or one for all.
#[derive(Clone, Debug)]
pub struct Resources {
    /// Pipes for bulk.
    pub pipes: PipePool,
    /// Buffers for everything else.
    pub buffers: BufferPool,
}

impl Resources {
    /// The process-wide set: pipes of 1 MiB where the kernel grants that.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Resources> = OnceLock::new();
        SHARED.get_or_init(|| Self {
            pipes: PipePool::of_size(BULK_PIPE_BYTES),
            buffers: BufferPool::shared().clone(),
        })
    }
}

/// What a turn came to. Exhaustive: an event loop that forgot one would spin or stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing more can be done before one of these happens.
    Wait(Wants),
    /// There is more to do: another turn, after the others had theirs.
    Again,
    /// It is over. Both sockets are left as they should be; close them.
    Done(RelayEnding),
}

/// A relay between two sockets that its owner keeps, registers with a reactor, and closes.
///
/// The owner [notes](Self::note) what its reactor reports and then gives it a [turn](Self::turn).
/// Between turns it holds a buffer or a pipe only if that contains bytes that a peer does not take.
#[derive(Debug)]
pub struct Relay {
    core: RelayMachine,
    buffers: [WayBuffers; 2],
    limits: [Vec<Arc<dyn Limit>>; 2],
    /// Sides known to be TCP.
    is_tcp: [bool; 2],
    /// The sockets were looked at.
    has_begun: bool,
}

impl Relay {
    /// A relay that begins at this reading of the clock, which may have any zero.
    ///
    /// Both sides count as writable and as not readable. If a socket may have been reported as
    /// readable before, [`note`](Self::note) that.
    pub fn new(options: &Arc<RelayOptions>, now: Duration) -> Self {
        Self {
            core: RelayMachine::new(Arc::clone(options), now),
            buffers: Default::default(),
            limits: Default::default(),
            is_tcp: [false; 2],
            has_begun: false,
        }
    }

    /// Says that this side is a TCP socket, for which the first turn would have to ask the kernel.
    /// To be called before it.
    pub const fn set_tcp(&mut self, side: Side) {
        self.is_tcp[side.index()] = true;
    }

    /// Bytes to be sent this way before any others, such as a header, or what was read to find out
    /// where to connect. To be called before the first turn.
    pub fn preload(&mut self, way: Way, bytes: &[u8]) {
        debug_assert_eq!(self.core.pipe_bytes(way), 0, "nothing overtakes");
        if bytes.is_empty() {
            return;
        }
        let held = &mut self.buffers[way.index()].buffer;
        let before = held.as_ref().map_or(&[][..], PooledBuffer::bytes);
        let all = [before, bytes].concat();
        self.core.preload(way, all.len(), bytes.len());
        *held = Some(PooledBuffer::unpooled(all));
    }

    /// Adds a limit to what is taken this way. The strictest of several counts.
    pub fn limit(&mut self, way: Way, limit: Arc<dyn Limit>) {
        self.refund(way);
        self.limits[way.index()].push(limit);
        self.core.limit(way, true);
    }

    /// Removes all limits of this way.
    pub fn unlimit(&mut self, way: Way) {
        self.refund(way);
        self.limits[way.index()].clear();
        self.core.limit(way, false);
    }

    /// Takes in what was reported of a side.
    pub fn note(&mut self, side: Side, readiness: Readiness) {
        self.core.note(side, readiness);
    }

    /// Does what can be done now, up to the budget.
    ///
    /// The sockets are in non-blocking mode, and always the same two.
    pub fn turn(
        &mut self,
        a: BorrowedFd<'_>,
        b: BorrowedFd<'_>,
        resources: &Resources,
        now: Duration,
    ) -> Turn {
        self.turn_with(&Bare { a, b }, resources, now)
    }

    /// Whether a turn at this reading of the clock would do something without any event.
    pub fn is_due(&self, now: Duration) -> bool {
        self.core.is_due(now)
    }

    /// Whether its next turn may take long, because it splices. An event loop lets others go first.
    pub fn is_bulk(&self) -> bool {
        self.core.is_bulk()
    }

    /// Sets how much a turn takes in one direction, instead of
    /// [`RelayOptions::budget_bytes`]. An event loop that serves others, too, may want to be back
    /// sooner.
    pub const fn set_budget(&mut self, bytes: usize) {
        self.core.set_budget(bytes);
    }

    /// Stops it. The next turn is the last, unless it is over already.
    pub fn cancel(&mut self) {
        self.core.cancel();
    }

    /// Stops it gracefully, by this reading of the clock: takes nothing more, delivers what was taken,
    /// ends both streams and waits for their acknowledgement. What is not done then is
    /// [cancelled](Self::cancel). Give it a turn at once.
    pub fn drain(&mut self, until: Duration) {
        self.core.drain(until);
    }

    /// The account so far.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Whether its terms speak of time, or it has a limit, which may make it wait.
    #[cfg(feature = "tokio")]
    pub(super) fn has_time_limits(&self) -> bool {
        let options = self.core.options();
        let inactivity = [options.idle, options.fin_timeout[0], options.fin_timeout[1]];
        options.deadline.is_some()
            || inactivity.iter().any(Option::is_some)
            || self.limits.iter().any(|limits| !limits.is_empty())
    }

    /// The terms.
    pub fn options(&self) -> &RelayOptions {
        self.core.options()
    }

    pub(super) fn turn_with(
        &mut self,
        sockets: &impl Calls,
        resources: &Resources,
        now: Duration,
    ) -> Turn {
        if !self.has_begun {
            self.begin(sockets);
        }
        self.core.begin_turn(now);
        loop {
            match self.core.next() {
                RelayStep::Call(call) => match sockets.perform(call, &mut self.buffers) {
                    Some(result) => self.core.complete(call, result),
                    None => self.core.not_ready(call),
                },
                RelayStep::NeedBuffer(way) => {
                    let buffer = resources.buffers.take();
                    let bytes = buffer.as_ref().map(|buffer| buffer.bytes().len());
                    self.buffers[way.index()].buffer = buffer;
                    self.core.buffer(way, bytes);
                }
                RelayStep::NeedPipe(way) => {
                    let pipe = resources.pipes.take().ok();
                    self.core.pipe(way, pipe.is_some());
                    self.buffers[way.index()].pipe = pipe;
                }
                RelayStep::NeedGrant { way, wanted } => self.grant(way, wanted, now),
                RelayStep::Wait(wants) => {
                    release(&mut self.buffers, &self.core);
                    return Turn::Wait(wants);
                }
                RelayStep::Done(ending) => {
                    self.end();
                    return Turn::Done(ending);
                }
                RelayStep::Yield => {
                    release(&mut self.buffers, &self.core);
                    return Turn::Again;
                }
            }
        }
    }

    fn begin(&mut self, sockets: &impl Calls) {
        self.has_begun = true;
        if self.core.options().trigger != Trigger::Edge {
            return;
        }
        for side in Side::BOTH {
            if !self.is_tcp[side.index()] && !sockets.is_tcp(side) {
                self.core.reads_end_early(side);
            }
        }
    }

    fn grant(&mut self, way: Way, wanted: usize, now: Duration) {
        let (mut bytes, mut not_before) = (wanted, now);
        for (index, limit) in self.limits[way.index()].iter().enumerate() {
            let (allowed, at) = limit.reserve(bytes, now);
            if allowed < bytes {
                for earlier in &self.limits[way.index()][..index] {
                    earlier.refund(bytes - allowed);
                }
                bytes = allowed;
            }
            not_before = not_before.max(at);
        }
        self.core.grant(way, bytes, not_before);
    }

    fn refund(&mut self, way: Way) {
        let unused = self.core.unused_grant(way);
        if unused > 0 {
            for limit in &self.limits[way.index()] {
                limit.refund(unused);
            }
        }
    }

    /// Everything goes back, except pipes that contain something: those are closed.
    fn end(&mut self) {
        release(&mut self.buffers, &self.core);
        self.buffers = Default::default();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        for way in Way::BOTH {
            self.refund(way);
        }
    }
}

/// 256 slots: the largest that an ordinary user may ask for by default.
const BULK_PIPE_BYTES: usize = 1 << 20;
