//! The state machine that walks a plan, one system call at a time.
//!
//! ```text
//!             next()                      complete() / observed() / released()
//!   Transfer ───────▶ Submit(op) ──driver──▶ result ───▶ accounted, then next() again
//!                     Wait / Yield / Pause / AwaitRelease
//!                     Done(Ok(summary) or Err(error)), and nothing else from then on
//! ```
//!
//! Reports return nothing: what follows from one, the end included, is what `next()` says.
//!
//! This file keeps what all routes share: order of steps, version checks, fallbacks, stopping.
//! What one route does lies in `transfer/<route>.rs`; the account of bytes in
//! `transfer/ledger.rs`.
//!
//! Invariants, whatever the kernel answers:
//! - `moved` counts bytes the sink took, `taken` bytes that left the source; a route takes only
//!   when the two are equal, so a change of route or an end never loses a byte.
//! - After an error every byte is accounted for: moved, or still in the source (seekable), or
//!   stranded (streams) and reported so.

mod account;
mod copy_file_range;
mod guard;
mod ledger;
mod mmap_write;
mod overlap;
mod read_write;
mod release;
mod sendfile;
mod settle;
mod sparse;
mod splice;

use std::time::Duration;

use crate::ask::{Ask, Stability};
use crate::errno::Errno;
use crate::error::{Cause, TransferError};
use crate::facts::{HostFacts, InPlaceEnd, SinkFacts, SourceFacts};
use crate::op::{Interest, Op, Operation, Step};
use crate::plan::Plan;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::summary::{Ending, RouteChange, Why};
use crate::version::Version;

use guard::{Check, Guard, Judgement};
use ledger::Ledger;
use mmap_write::MmapWrite;
use overlap::reads_its_own_output;
use read_write::ReadWrite;
use release::Release;
use settle::Outcome;
use sparse::Sparse;
use splice::Splice;

/// How long an append may take from stamping the times to raising the size: the copy of a page,
/// or a time slice if the writer is interrupted meanwhile.
const APPEND_TIME: Duration = Duration::from_millis(3);

/// A transfer under way.
#[derive(Debug)]
pub struct Transfer {
    plan: Plan,
    ledger: Ledger,
    machine: Machine,
    guard: Guard,
    sparse: Sparse,
    host: HostFacts,
    changes: Vec<RouteChange>,
    pending: Option<Op>,
    blocked: Option<Interest>,
    stop: Option<Stop>,
    /// How it ended.
    over: Option<Result<Ending, Cause>>,
    release: Release,
    /// Edits of what is queued in the sink are kept off by a lease.
    leased_in_place: bool,
    deadline: Option<Duration>,
    only: bool,
    /// Splice is tried again, after there was no pipe.
    retries_splice: bool,
    reserved: u64,
}

/// Why a driver stops a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// The caller cancelled.
    Cancelled,
    /// The deadline passed ([`Transfer::tick`] finds that out by itself).
    Deadline,
    /// The lease broke.
    LeaseBroken,
}

impl Stop {
    pub(crate) const fn cause(self) -> Cause {
        match self {
            Self::Cancelled => Cause::Cancelled,
            Self::Deadline => Cause::DeadlineExceeded,
            Self::LeaseBroken => Cause::LeaseBroken,
        }
    }
}

/// One route's state.
#[derive(Debug)]
enum Machine {
    ReadWrite(ReadWrite),
    MmapWrite(MmapWrite),
    Sendfile,
    Splice(Splice),
    CopyFileRange,
}

impl Transfer {
    /// Prepares a transfer on the planned route.
    ///
    /// # Errors
    /// [`Cause::RouteRefused`] if [`Ask::only`] names a route that something speaks against;
    /// [`Cause::SameFile`] if the copy would read its own output; [`Cause::Refused`] if no route
    /// can do what is asked.
    pub fn new(
        plan: Plan,
        source: &SourceFacts,
        sink: &SinkFacts,
        host: &HostFacts,
        ask: &Ask,
    ) -> Result<Self, TransferError> {
        let leased_in_place =
            ask.stability == Stability::Leased && sink.in_place_ends_at == InPlaceEnd::Acknowledged;
        let mut transfer = Self {
            plan,
            ledger: Ledger::new(source, sink, ask),
            machine: Machine::ReadWrite(ReadWrite::default()),
            guard: Guard::new(source, ask),
            sparse: Sparse::of(source, sink),
            host: *host,
            changes: Vec::new(),
            pending: None,
            blocked: None,
            stop: None,
            over: None,
            leased_in_place,
            release: if leased_in_place && ask.await_release {
                Release::Wanted
            } else {
                Release::NotWanted
            },
            deadline: ask.deadline,
            only: ask.only.is_some(),
            retries_splice: false,
            reserved: 0,
        };
        transfer.machine = transfer.machine_for(plan.route);
        if let Some(route) = ask.only
            && let Some(rejection) = plan.objection(route)
        {
            return Err(transfer.error(Cause::RouteRefused { route, rejection }));
        }
        if let Some(refusal) = Refusal::of(source, sink, ask) {
            return Err(transfer.error(Cause::Refused { refusal }));
        }
        if reads_its_own_output(source, sink, ask) {
            return Err(transfer.error(Cause::SameFile));
        }
        Ok(transfer)
    }

    /// What to do next. Asking again without reporting repeats a submitted operation.
    // No iterator: it does not end with None, and each step wants an answer.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Step {
        if let Some(outcome) = self.over {
            return Step::Done(self.outcome(outcome));
        }
        if let Some(op) = self.pending {
            return Step::Submit(op);
        }
        if let Some(interest) = self.blocked.take() {
            self.rest();
            return Step::Wait(interest);
        }
        if matches!(self.release, Release::Awaited(_)) {
            return Step::AwaitRelease;
        }
        if self.stop.is_none() && self.ledger.limits.is_budget_spent() {
            self.rest();
            return Step::Yield;
        }
        if self.guard.check == Some(Check::AfterRead) {
            return self.stat();
        }
        if self.ledger.in_transit() == 0
            && let Some(step) = self.next_at_a_clean_point()
        {
            return step;
        }
        let op = match &mut self.machine {
            Machine::ReadWrite(machine) => machine.next(&self.ledger),
            Machine::MmapWrite(machine) => machine.next(&self.ledger),
            Machine::Sendfile => sendfile::next(&self.ledger),
            Machine::Splice(machine) => machine.next(&self.ledger),
            Machine::CopyFileRange => copy_file_range::next(&self.ledger),
        };
        self.submit(op)
    }

    /// The version is wanted: now, or after a moment if it is suspect.
    fn stat(&mut self) -> Step {
        if self.guard.begins_second_round() {
            return Step::StatAgain { after: APPEND_TIME };
        }
        self.submit(Op::Stat)
    }

    /// Steps that may come between two chunks, when nothing is in transit.
    fn next_at_a_clean_point(&mut self) -> Option<Step> {
        if self.guard.check.is_some() {
            return Some(self.stat());
        }
        if self.ledger.remaining() == Some(0) {
            return Some(self.finish(Ending::Length));
        }
        if self.ledger.is_chunk_done() {
            self.ledger.open_chunk();
            self.guard.chunk_border();
            self.retry_splice();
        }
        if let Machine::MmapWrite(machine) = &self.machine {
            if machine.is_at_file_end(&self.ledger) {
                self.guard.check = Some(Check::End);
            } else {
                self.guard.before_mapped_write();
            }
        }
        if self.guard.check.is_some() {
            return Some(self.submit(Op::Stat));
        }
        // A window of memory is not skipped in.
        if !matches!(self.machine, Machine::MmapWrite(_))
            && let Some(op) = self.sparse.next(&self.ledger)
        {
            return Some(self.submit(op));
        }
        let until = self.ledger.limits.pause_until()?;
        self.rest();
        Some(Step::Pause { until })
    }

    /// The last look at the file comes after the release: until then an edit would have shown.
    fn finish(&mut self, ending: Ending) -> Step {
        if self.must_await_release() {
            self.release = Release::Awaited(Ok(ending));
            return Step::AwaitRelease;
        }
        if self.guard.wants_final_check() && self.ledger.moved > 0 {
            self.guard.check = Some(Check::Final(ending));
            return self.submit(Op::Stat);
        }
        self.over = Some(Ok(ending));
        Step::Done(Ok(self.summary()))
    }

    fn submit(&mut self, op: Op) -> Step {
        self.pending = Some(op);
        Step::Submit(op)
    }

    fn rest(&mut self) {
        self.ledger.limits.rest();
        self.guard.time_passed();
    }

    /// Reports what a system call returned.
    ///
    /// # Panics
    /// If `op` is [`Op::Stat`], which [`observed`](Self::observed) reports.
    pub fn complete(&mut self, op: Op, result: Result<usize, Errno>) {
        assert!(op != Op::Stat, "a stat is reported by observed()");
        debug_assert_eq!(
            self.pending,
            Some(op),
            "only the submitted operation is reported"
        );
        self.pending = None;
        self.ledger.count_call();
        self.guard.time_passed();
        if self.retries_splice && !op.is_about_holes() {
            // There was a pipe.
            self.retries_splice = false;
            self.note_change(Route::ReadWrite, Route::Splice, Why::PipeAgain);
        }
        let (ledger, guard) = (&mut self.ledger, &self.guard);
        let outcome = match &mut self.machine {
            _ if op.is_about_holes() => self.sparse.complete(ledger, op, result),
            Machine::ReadWrite(machine) => machine.complete(ledger, op, result),
            Machine::MmapWrite(machine) => machine.complete(ledger, guard, op, result),
            Machine::Sendfile => sendfile::complete(ledger, op, result),
            Machine::Splice(machine) => machine.complete(ledger, op, result),
            Machine::CopyFileRange => copy_file_range::complete(ledger, op, result),
        };
        let was_read = matches!(op, Op::Read { .. }) && matches!(outcome, Outcome::Progress);
        // A hole is read by asking for it.
        if was_read && self.route() == Route::ReadWrite || self.sparse.has_found_hole(op) {
            self.guard.after_read();
        }
        self.settle(outcome);
    }

    /// Reports what an [`Op::Stat`] found.
    pub fn observed(&mut self, version: Result<Version, Errno>) {
        debug_assert_eq!(self.pending, Some(Op::Stat), "a stat was submitted");
        self.pending = None;
        self.ledger.count_call();
        let version = match version {
            Ok(version) => version,
            Err(errno) => {
                self.end(Cause::Io {
                    operation: Operation::Stat,
                    errno,
                });
                return;
            }
        };
        if let Machine::MmapWrite(machine) = &mut self.machine {
            machine.sees_file_end(version.size);
        }
        let judgement = self.guard.observe(version, &mut self.ledger);
        if let Some(stop) = self.stop {
            self.end(stop.cause());
            return;
        }
        match judgement {
            Judgement::GoOn => {}
            Judgement::Finished(ending) => {
                self.guard.final_check_done();
                self.finish(ending);
            }
            Judgement::SuspectEnd => self.suspect_end(),
            Judgement::Fall(why) => self.fall(why),
            Judgement::Fail(cause) => self.end(cause),
        }
    }

    /// Reports that no pipe is to be had for the submitted splice.
    pub fn no_pipe(&mut self) {
        debug_assert!(
            matches!(self.pending, Some(Op::Splice { .. })),
            "a splice was submitted"
        );
        self.pending = None;
        if self.retries_splice {
            self.retries_splice = false;
            self.machine = self.machine_for(Route::ReadWrite);
            return;
        }
        self.fall(Why::PipePoolExhausted);
    }

    /// A pool that is used up now has pipes again later. Until one is held this is no change.
    fn retry_splice(&mut self) {
        let why = self.changes.last().map(|change| change.why);
        if why == Some(Why::PipePoolExhausted) && self.ledger.moved > 0 {
            self.machine = self.machine_for(Route::Splice);
            self.retries_splice = true;
        }
    }

    /// Tells the time since the transfer began, for the throttle and the deadline. Needed only
    /// if the [`Ask`] has one of them. A deadline that has passed [stops](Self::stop) it.
    pub fn tick(&mut self, now: Duration) {
        self.ledger.limits.tick(now);
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.stop(Stop::Deadline);
        }
    }

    /// Stops the transfer; not to be called while the kernel works on an operation.
    ///
    /// [`next`](Self::next) says what is left to do: nothing ([`Step::Done`] with the stop as its
    /// error), bytes taken from a stream that are still on their way, or written and not yet accounted
    /// for, or the release of pages in flight that a broken lease has to wait for. Nothing else is
    /// waited for. A stop during [`Step::AwaitRelease`] means to wait no longer.
    pub fn stop(&mut self, stop: Stop) {
        if self.over.is_some() {
            return;
        }
        if let Release::Awaited(outcome) = self.release {
            self.over = Some(Err(outcome.err().unwrap_or(stop.cause())));
            return;
        }
        let stop = *self.stop.get_or_insert(stop);
        self.blocked = None;
        if matches!(self.guard.check, Some(Check::AfterMappedWrite { .. })) {
            return;
        }
        if self.ledger.is_seekable() || self.ledger.in_transit() == 0 {
            self.end(stop.cause());
        }
    }

    /// True once [`next`](Self::next) says [`Step::Done`].
    pub const fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// True after a [`stop`](Self::stop): the driver must not wait, and must not make a call that
    /// may block.
    pub const fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }
}
