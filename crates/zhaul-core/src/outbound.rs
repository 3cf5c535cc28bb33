//! An aggregate on its way into a socket, as a state machine without socket, clock or runtime.
//!
//! ```text
//!             next(segments)            complete() / begin_file() + end_file() / completed()
//!   Outbound ───────▶ Send(gather) ──driver──▶ result ───▶ accounted, then next() again
//!                     File { segment }   drive its Transfer, then hand that back
//!                     Wait / Yield / Pause / Reap / AwaitRelease
//!                     Done(Ok(summary) or Err(error)), and nothing else from then on
//! ```
//!
//! An aggregate is a list of segments, each a piece of immutable memory or a range of a file. A run
//! of memory goes out by one gathering call; a large piece of it may go out by reference
//! (MSG_ZEROCOPY). A range of a file is a [`Transfer`](crate::Transfer) like any other, which this machine makes and
//! lends to the driver: the routes, what is promised of a file that changes, and the fallbacks are
//! those of transfers.
//!
//! What is kept, whatever the kernel answers:
//! - What the socket was given is a prefix of the aggregate, cut at any byte.
//! - *taken ≥ moved ≥ released*: taken is what an operation was made for, moved what the socket has,
//!   and below released the kernel reads nobody's memory any more. Operations by reference complete
//!   in any order.
//! - `MSG_MORE` goes with a call only if more is certain to follow at once: of the aggregate, or
//!   behind it ([`Ask::more_follows`]).
//!
//! What it does not do: it holds no bytes and keeps none alive (drivers do), and does not retry
//! `EINTR`.

mod file;
mod in_flight;
mod step;
mod summary;
mod zero_copy;

use std::time::Duration;

use crate::ask::Ask;
use crate::errno::{Errno, ErrnoClass};
use crate::error::Cause;
use crate::limits::Limits;
use crate::op::{Interest, Operation};
use crate::refusal::Refusal;
use crate::summary::{Summary, Why};
use crate::transfer::Stop;

use in_flight::InFlight;

pub use step::{Gather, MAX_GATHERED_SEGMENTS, OutboundStep, SegmentFacts, SegmentList};
pub use summary::{SendError, SendSummary, ZeroCopyChange};
pub use zero_copy::{ZeroCopy, ZeroCopyPolicy};

/// An aggregate under way.
#[derive(Debug)]
pub struct Outbound {
    ask: Ask,
    limits: Limits,
    policy: ZeroCopyPolicy,
    /// The first byte that no operation was made for.
    place: Place,
    moved: u64,
    calls: u64,
    pending: Option<Gather>,
    blocked: Option<Interest>,
    /// A file's transfer is with the driver.
    lent: bool,
    /// The next piece of memory is copied, whatever its size: by reference it did not go.
    plain_next: bool,
    /// The error queue is to be emptied before anything else.
    reap: bool,
    /// Something went by reference since it was.
    unreaped: bool,
    in_flight: InFlight,
    by_reference: u64,
    copied_after_all: u64,
    files: Vec<Summary>,
    changes: Vec<ZeroCopyChange>,
    stop: Option<Stop>,
    over: Option<Result<(), Cause>>,
    /// Of a failed file, pages are queued that a lease has to keep.
    leased_in_flight: bool,
    /// What was seen of a file before it was sent is no longer current.
    has_rested: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    segment: usize,
    /// In the segment.
    offset: u64,
}

impl Outbound {
    /// Of the wishes, the place, the length and what is said of the source are those of each file
    /// and not looked at here. A budget or chunk of 0 is 1.
    pub fn new(ask: &Ask, policy: ZeroCopyPolicy) -> Self {
        Self {
            limits: Limits::of(ask),
            ask: *ask,
            policy,
            place: Place::default(),
            moved: 0,
            calls: 0,
            pending: None,
            blocked: None,
            lent: false,
            plain_next: false,
            reap: false,
            unreaped: false,
            in_flight: InFlight::default(),
            by_reference: 0,
            copied_after_all: 0,
            files: Vec::new(),
            changes: Vec::new(),
            stop: None,
            over: None,
            leased_in_flight: false,
            has_rested: false,
        }
    }

    /// The wishes.
    pub const fn ask(&self) -> &Ask {
        &self.ask
    }

    /// Other wishes from here on. Budget and rate are those that it began with.
    pub fn set_ask(&mut self, ask: &Ask) {
        self.ask = *ask;
        if self.calls == 0 && !self.lent {
            self.limits = Limits::of(ask);
        }
    }

    /// Whether memory goes by reference from here on.
    pub const fn set_policy(&mut self, policy: ZeroCopyPolicy) {
        self.policy = policy;
    }

    /// What to do next with these segments, which are the same each time. Asking again without
    /// reporting repeats an operation.
    pub fn next(&mut self, segments: &(impl SegmentList + ?Sized)) -> OutboundStep {
        if let Some(outcome) = self.over {
            return OutboundStep::Done(self.outcome(outcome));
        }
        if self.lent {
            return OutboundStep::File {
                segment: self.place.segment,
            };
        }
        if std::mem::take(&mut self.reap) {
            self.unreaped = false;
            return OutboundStep::Reap;
        }
        if let Some(gather) = self.pending {
            return OutboundStep::Send(gather);
        }
        if let Some(interest) = self.blocked.take() {
            self.rest();
            // Whatever woke it up: what is done with is let go.
            self.reap = !self.in_flight.is_empty();
            return OutboundStep::Wait(interest);
        }
        let Some(facts) = self.skip_what_is_done(segments) else {
            return self.finish();
        };
        if self.limits.is_budget_spent() {
            self.rest();
            return OutboundStep::Yield;
        }
        if let SegmentFacts::File { .. } = facts {
            return OutboundStep::File {
                segment: self.place.segment,
            };
        }
        if let Some(until) = self.limits.pause_until() {
            self.rest();
            return OutboundStep::Pause { until };
        }
        let gather = self.gather(segments);
        self.pending = Some(gather);
        OutboundStep::Send(gather)
    }

    /// The segment of which something is left to send.
    fn skip_what_is_done(
        &mut self,
        segments: &(impl SegmentList + ?Sized),
    ) -> Option<SegmentFacts> {
        loop {
            let facts = segments.facts(self.place.segment)?;
            if self.place.offset < facts.len() {
                return Some(facts);
            }
            self.place.offset -= facts.len();
            self.place.segment += 1;
        }
    }

    /// The memory that goes out by the next call: a large piece by itself, by reference, or as many
    /// pieces as one call takes.
    fn gather(&self, segments: &(impl SegmentList + ?Sized)) -> Gather {
        let room = self.limits.quantum_bytes().unwrap_or(u64::MAX);
        let room = room.min(self.limits.budget_left());
        let mut gather = Gather {
            segment: self.place.segment,
            offset: usize::try_from(self.place.offset).unwrap_or(usize::MAX),
            len: 0,
            segments: 0,
            more: false,
            zero_copy: false,
        };
        let (mut index, mut skipped) = (self.place.segment, self.place.offset);
        let mut len = 0;
        while let Some(SegmentFacts::Memory { len: whole }) = segments.facts(index) {
            let left = whole as u64 - skipped;
            let taken = left.min(room - len);
            let by_reference = !self.plain_next && self.policy.wants(taken);
            let is_alone = by_reference || gather.zero_copy;
            if gather.segments > 0 && is_alone || gather.segments == MAX_GATHERED_SEGMENTS {
                break;
            }
            gather.zero_copy = by_reference;
            gather.segments += 1;
            len += taken;
            if taken < left {
                // More of this piece is to come.
                gather.more = true;
                break;
            }
            (index, skipped) = (index + 1, 0);
        }
        gather.len = usize::try_from(len).unwrap_or(usize::MAX);
        gather.more |= self.follows(segments, index);
        // A rate that spreads the bytes leaves nothing that follows at once.
        gather.more &= !self.limits.is_throttled();
        gather
    }

    /// Whether bytes are certain to follow at once those before this segment.
    fn follows(&self, segments: &(impl SegmentList + ?Sized), index: usize) -> bool {
        let mut behind = (index..).map_while(|index| segments.facts(index));
        self.ask.more_follows || behind.any(|facts| !facts.is_empty())
    }

    fn finish(&mut self) -> OutboundStep {
        // What was copied after all is known at once, for the next aggregate to profit by.
        if std::mem::take(&mut self.unreaped) {
            return OutboundStep::Reap;
        }
        if self.ask.await_release && !self.in_flight.is_empty() {
            return OutboundStep::AwaitRelease;
        }
        self.over = Some(Ok(()));
        OutboundStep::Done(Ok(self.summary()))
    }

    /// Reports what a call returned, with the number under which the kernel will complete it if it
    /// went by reference.
    pub fn complete(&mut self, gather: Gather, result: Result<usize, Errno>, call: Option<u32>) {
        debug_assert_eq!(
            self.pending,
            Some(gather),
            "only what was named is reported"
        );
        self.pending = None;
        self.calls += 1;
        self.limits.count_call();
        match result {
            Ok(0) if gather.len > 0 => self.end(Cause::SinkStalled),
            Ok(sent) => self.sent(sent.min(gather.len) as u64, call),
            Err(errno) if errno.is_would_block() => self.blocked = Some(Interest::SINK),
            Err(errno) if gather.zero_copy && self.goes_on_plainly(errno) => {}
            Err(errno) => self.end(Cause::Io {
                operation: if gather.zero_copy {
                    Operation::SendZeroCopy
                } else {
                    Operation::Write
                },
                errno,
            }),
        }
    }

    fn sent(&mut self, bytes: u64, call: Option<u32>) {
        self.limits.take(bytes);
        self.limits.deliver(bytes);
        if let Some(call) = call {
            self.in_flight.add(call, self.moved, bytes);
            self.by_reference += bytes;
            self.unreaped = true;
            self.reap = self.in_flight.len().is_multiple_of(REAP_EVERY_CALLS);
        } else {
            self.policy.sent_plainly(bytes);
        }
        self.plain_next = false;
        self.advance(bytes);
    }

    /// The place may then lie behind the end of its segment, which the next look puts right.
    const fn advance(&mut self, bytes: u64) {
        self.moved += bytes;
        self.place.offset += bytes;
    }

    /// Reports that there is nobody to send by reference on this socket: it does not do it, or
    /// somebody else does.
    pub fn no_sender(&mut self, gather: Gather, errno: Errno) {
        debug_assert_eq!(
            self.pending,
            Some(gather),
            "only what was named is reported"
        );
        self.pending = None;
        self.policy.is_refused();
        self.send_plainly(errno);
    }

    /// Whether the kernel lacks the means for a send by reference, and a plain one may do.
    fn goes_on_plainly(&mut self, errno: Errno) -> bool {
        match errno.class() {
            // Pages are charged to the socket (optmem_max) and the user (RLIMIT_MEMLOCK) until they
            // are released.
            ErrnoClass::Shortage => {
                self.reap = true;
                self.policy.fell_short();
            }
            ErrnoClass::Unsupported => self.policy.is_refused(),
            // Pages that cannot be pinned can be copied, if they are there.
            _ if errno == Errno::EFAULT => self.policy.fell_short(),
            _ => return false,
        }
        self.send_plainly(errno);
        true
    }

    fn send_plainly(&mut self, errno: Errno) {
        self.plain_next = true;
        self.note(Why::Refused {
            operation: Operation::SendZeroCopy,
            errno,
        });
    }

    fn note(&mut self, why: Why) {
        self.changes.push(ZeroCopyChange {
            moved: self.moved,
            why,
        });
    }

    /// Reports that the kernel is done with the memory of these calls, modulo 2^32 and both
    /// included, in any order. Of calls that are not of this aggregate it is learnt only whether
    /// sending by reference pays on this socket.
    pub fn completed(&mut self, first: u32, last: u32, copied: bool) {
        let bytes = self.in_flight.complete(first, last);
        if !copied {
            self.policy.gained();
            return;
        }
        self.copied_after_all += bytes;
        if self.policy.copied_after_all() {
            self.note(Why::CopiedAfterAll);
        }
    }

    /// Tells the time since it began, for the throttle and the deadline. Needed only if the [`Ask`]
    /// has one of them. A deadline that has passed [stops](Self::stop) it.
    pub fn tick(&mut self, now: Duration) {
        self.limits.tick(now);
        if self.ask.deadline.is_some_and(|deadline| now >= deadline) {
            self.stop(Stop::Deadline);
        }
    }

    /// Stops it; not to be called while the kernel works on an operation. A file's transfer that is
    /// with the driver has to be stopped there. What is in flight by reference is not waited for: its
    /// owner keeps it.
    pub fn stop(&mut self, stop: Stop) {
        if self.lent {
            self.stop.get_or_insert(stop);
        } else {
            self.end(stop.cause());
        }
    }

    /// Ends it with an error of the driver's own: waiting, examining a file.
    pub fn fail(&mut self, operation: Operation, errno: Errno) {
        self.end(Cause::Io { operation, errno });
    }

    /// Ends it with what a driver refuses.
    pub fn refuse(&mut self, refusal: Refusal) {
        self.end(Cause::Refused { refusal });
    }

    fn end(&mut self, cause: Cause) {
        self.pending = None;
        self.blocked = None;
        self.over.get_or_insert(Err(cause));
    }
}

/// What is done with is let go at the latest when so many calls are in flight.
const REAP_EVERY_CALLS: usize = 16;
