//! The blocking driver: makes the calls on this thread and polls when an end is not ready.
//!
//! It works with descriptors in either mode. A transfer that nothing can stop waits in the calls
//! themselves, if that is what the mode of its ends says. One that has a deadline, a token or a lease
//! never waits in a call, so that it notices at once ([`crate::nonblocking`] tells how), but in
//! `poll(2)`.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use zhaul_core::{Errno, Interest, Op, Operation, Step, Stop, Summary, Transfer, TransferError};

use crate::calls::Buffers;
use crate::cancel::CancelToken;
use crate::edges::{ERROR, Ends, READABLE, WRITABLE};
use crate::in_flight::{Patience, is_in_flight};
use crate::lease::Lease;
use crate::nonblocking::Impatient;
use crate::progress::Progress;
use crate::reserve::Reservation;
use crate::transfer_state::TransferState;

/// What may stop or watch a transfer from outside.
#[derive(Clone, Copy)]
pub(crate) struct Control<'a> {
    pub(crate) lease: Option<&'a Lease>,
    pub(crate) cancel: Option<&'a CancelToken>,
    pub(crate) progress: Option<&'a Progress>,
    /// When it began, if it has a deadline or a throttle: else the clock is not read.
    pub(crate) began: Option<Instant>,
}

impl Control<'_> {
    pub(crate) const fn can_stop(&self, deadline: Option<Duration>) -> bool {
        self.cancel.is_some() || self.lease.is_some() || deadline.is_some()
    }

    /// Since it began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| began.elapsed())
    }

    pub(crate) fn stop_now(&self) -> Option<Stop> {
        stop_now(self.cancel, self.lease)
    }
}

/// What was asked from outside by now.
pub(crate) fn stop_now(cancel: Option<&CancelToken>, lease: Option<&Lease>) -> Option<Stop> {
    if cancel.is_some_and(CancelToken::is_cancelled) {
        return Some(Stop::Cancelled);
    }
    lease
        .is_some_and(Lease::is_broken)
        .then_some(Stop::LeaseBroken)
}

/// Runs the transfer to its end.
pub(crate) fn drive(
    (source, sink): (BorrowedFd<'_>, BorrowedFd<'_>),
    transfer: Transfer,
    buffers: Buffers,
    reserved: Option<Reservation>,
    control: Control<'_>,
) -> Result<Summary, TransferError> {
    let mut state = TransferState::new(transfer, buffers);
    let (source, sink) = if control.can_stop(state.transfer.deadline()) {
        (Impatient::source(source), Impatient::sink(sink))
    } else {
        state.buffers.let_calls_wait();
        (Impatient::Given(source), Impatient::Given(sink))
    };
    drive_ends(
        (source.as_fd(), sink.as_fd()),
        &mut state,
        reserved,
        control,
    )
}

/// The same with ends that are in the mode that is right for it.
pub(crate) fn drive_ends(
    (source, sink): (BorrowedFd<'_>, BorrowedFd<'_>),
    state: &mut TransferState,
    mut reserved: Option<Reservation>,
    control: Control<'_>,
) -> Result<Summary, TransferError> {
    let deadline = state.transfer.deadline();
    let mut drive = Drive {
        source,
        sink,
        waits: Waits::new([(source, READABLE), (sink, WRITABLE)], control, deadline),
        state,
    };
    loop {
        drive.tick();
        match drive.state.transfer.next() {
            Step::Submit(Op::Stat) => drive.state.observe(source, drive.waits.control.progress),
            Step::Submit(op) => drive.submit(op),
            Step::Wait(interest) => drive.wait(interest),
            Step::Pause { until } => {
                let pause = until.saturating_sub(drive.waits.control.elapsed());
                drive.wait_for([None; 2], Some(pause));
            }
            Step::StatAgain { after } => {
                drive.wait_for([None; 2], Some(after));
            }
            Step::AwaitRelease => drive.await_release(),
            Step::Done(outcome) => {
                if let Some(reserved) = reserved.take() {
                    reserved.settle(&mut drive.state.transfer);
                    continue;
                }
                drive.state.publish_end(drive.waits.control.progress);
                return outcome;
            }
            // A thread of its own has nobody to yield to.
            Step::Yield => {}
        }
    }
}

struct Drive<'a> {
    source: BorrowedFd<'a>,
    sink: BorrowedFd<'a>,
    waits: Waits<'a, 2>,
    state: &'a mut TransferState,
}

impl Drive<'_> {
    fn tick(&mut self) {
        if let Some(began) = self.waits.control.began
            && !self.state.transfer.is_stopping()
        {
            self.state.transfer.tick(began.elapsed());
        }
    }

    fn submit(&mut self, op: Op) {
        if !self.state.transfer.is_stopping()
            && let Some(stop) = self.waits.control.stop_now()
        {
            return self.state.transfer.stop(stop);
        }
        let (source, sink) = (self.source, self.sink);
        let call = |buffers: &mut Buffers, op: &Op| buffers.call(op, source, sink);
        self.state.submit(op, self.waits.control.progress, call);
    }

    fn wait(&mut self, interest: Interest) {
        if interest.source_readable && !self.wait_for([Some(READABLE), None], None) {
            return;
        }
        if let Some(wanted) = wanted_of_sink(interest) {
            self.wait_for([None, Some(wanted)], None);
        }
    }

    /// True if something of an end is reported; what else came of it is passed on to the transfer.
    fn wait_for(&mut self, wanted: [Option<PollFlags>; 2], time: Option<Duration>) -> bool {
        match self.waits.wait_for(wanted, time) {
            Waited::Ready => return true,
            Waited::Nothing => {}
            Waited::Stopped(stop) => self.state.transfer.stop(stop),
            Waited::Failed(errno) => self.state.transfer.fail(Operation::Wait, errno),
        }
        false
    }

    fn await_release(&mut self) {
        let transfer = &mut self.state.transfer;
        let control = &self.waits.control;
        let patience = Patience::new(control.lease, transfer.has_failed());
        let cancel = control.cancel;
        let mut pause = Duration::from_millis(1);
        loop {
            match is_in_flight(self.sink) {
                Ok(false) => return transfer.released(),
                Ok(true) => {}
                Err(errno) => return transfer.fail(Operation::Wait, errno),
            }
            if patience.is_over() {
                return transfer.stop(Stop::LeaseBroken);
            }
            // The lease is no reason to wake up: an editor waits until this is over.
            if cancel.is_some_and(CancelToken::is_cancelled) {
                return transfer.stop(Stop::Cancelled);
            }
            if let Err(errno) = self.waits.ends.wait([None; 2], &[cancel], Some(pause)) {
                return transfer.fail(Operation::Wait, errno);
            }
            if let Some(began) = control.began {
                transfer.tick(began.elapsed());
                if transfer.is_over() {
                    return;
                }
            }
            pause = (pause * 2).min(Duration::from_millis(64));
        }
    }
}

/// What is wanted of a sink that has to be waited for.
pub(crate) fn wanted_of_sink(interest: Interest) -> Option<PollFlags> {
    let mut wanted = PollFlags::empty();
    wanted.set(WRITABLE, interest.sink_writable);
    wanted.set(ERROR, interest.sink_error_queue);
    (!wanted.is_empty()).then_some(wanted)
}

/// Waits for ends, for a time, or for a stop.
pub(crate) struct Waits<'a, const N: usize> {
    ends: Ends<'a, N>,
    pub(crate) control: Control<'a>,
    deadline: Option<Duration>,
}

/// What came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// Something is reported of an end.
    Ready,
    /// The time is up, or nothing happened.
    Nothing,
    Stopped(Stop),
    Failed(Errno),
}

impl<'a, const N: usize> Waits<'a, N> {
    /// For these ends, each with all that will ever be wanted of it.
    pub(crate) fn new(
        ends: [(BorrowedFd<'a>, PollFlags); N],
        control: Control<'a>,
        deadline: Option<Duration>,
    ) -> Self {
        Self {
            ends: Ends::new(ends),
            control,
            deadline,
        }
    }

    pub(crate) fn wait_for(
        &mut self,
        wanted: [Option<PollFlags>; N],
        time: Option<Duration>,
    ) -> Waited {
        let (cancel, lease) = (self.control.cancel, self.control.lease);
        let stops = [cancel, lease.map(Lease::break_token)];
        let left = self
            .deadline
            .map(|deadline| deadline.saturating_sub(self.control.elapsed()));
        let timeout = [time, left].into_iter().flatten().min();
        let reports = match self.ends.wait(wanted, &stops, timeout) {
            Ok(reports) => reports,
            Err(errno) => return Waited::Failed(errno),
        };
        match self.control.stop_now() {
            Some(stop) => Waited::Stopped(stop),
            None if reports.iter().any(|report| !report.is_empty()) => Waited::Ready,
            None => Waited::Nothing,
        }
    }
}
