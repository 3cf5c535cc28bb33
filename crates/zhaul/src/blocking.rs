//! The blocking driver: makes the calls on this thread and polls when an end is not ready.
//!
//! It works with descriptors in either mode. A transfer that nothing can stop waits in the calls
//! themselves, if that is what the mode of its ends says. One that has a deadline, a token or a lease
//! never waits in a call, so that it notices at once ([`crate::nonblocking`] tells how), but in
//! `poll(2)`.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use zhaul_core::{Interest, Op, Operation, Step, Stop, Summary, Transfer, TransferError};

use crate::calls::Buffers;
use crate::cancel::CancelToken;
use crate::edges::{ERROR, Ends, READABLE, WRITABLE};
use crate::endpoint;
use crate::in_flight::{Patience, is_in_flight};
use crate::lease::Lease;
use crate::nonblocking::Impatient;
use crate::progress::{Progress, Published};
use crate::reserve::Reservation;

/// What may stop or watch a transfer from outside.
pub(crate) struct Control<'a> {
    pub(crate) lease: Option<&'a Lease>,
    pub(crate) cancel: Option<&'a CancelToken>,
    pub(crate) progress: Option<&'a Progress>,
    pub(crate) began: Instant,
    /// The clock is read only if somebody asks for the time.
    pub(crate) keeps_time: bool,
}

impl Control<'_> {
    fn can_stop(&self, transfer: &Transfer) -> bool {
        self.cancel.is_some() || self.lease.is_some() || transfer.deadline().is_some()
    }
}

/// Runs the transfer to its end.
pub(crate) fn drive(
    (source, sink): (BorrowedFd<'_>, BorrowedFd<'_>),
    transfer: Transfer,
    mut buffers: Buffers,
    mut reserved: Option<Reservation>,
    control: Control<'_>,
) -> Result<Summary, TransferError> {
    let (source, sink) = if control.can_stop(&transfer) {
        (Impatient::source(source), Impatient::sink(sink))
    } else {
        buffers.let_calls_wait();
        (Impatient::Given(source), Impatient::Given(sink))
    };
    let (source, sink) = (source.as_fd(), sink.as_fd());
    let mut drive = Drive {
        source,
        sink,
        ends: Ends::new([(source, READABLE), (sink, WRITABLE)]),
        transfer,
        buffers,
        control,
        published: Published::default(),
    };
    loop {
        if drive.control.keeps_time && !drive.transfer.is_stopping() {
            drive.transfer.tick(drive.control.began.elapsed());
        }
        match drive.transfer.next() {
            Step::Submit(Op::Stat) => {
                let version = endpoint::version(drive.source);
                drive.transfer.observed(version);
                drive.publish();
            }
            Step::Submit(op) => drive.submit(op),
            Step::Wait(interest) => drive.wait(interest),
            Step::Pause { until } => drive.pause(until),
            Step::StatAgain { after } => {
                drive.wait_for([None; 2], Some(after));
            }
            Step::AwaitRelease => drive.await_release(),
            Step::Done(outcome) => {
                if let Some(reserved) = reserved.take() {
                    reserved.settle(&mut drive.transfer);
                    continue;
                }
                if let Some(progress) = drive.control.progress {
                    drive.published.publish_end(&drive.transfer, progress);
                }
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
    /// The same two, to be waited for.
    ends: Ends<'a, 2>,
    transfer: Transfer,
    buffers: Buffers,
    control: Control<'a>,
    published: Published,
}

impl Drive<'_> {
    fn submit(&mut self, op: Op) {
        if !self.transfer.is_stopping()
            && let Some(stop) = self.stop_now()
        {
            return self.transfer.stop(stop);
        }
        if !self.buffers.hold_pipe_for(&op) {
            self.transfer.no_pipe();
            return self.publish();
        }
        let called = self.buffers.call(&op, self.source, self.sink);
        called.report(&mut self.transfer, op);
        self.buffers.settle_pipe(self.transfer.pipe_bytes());
        self.publish();
    }

    fn stop_now(&self) -> Option<Stop> {
        if self.control.cancel.is_some_and(CancelToken::is_cancelled) {
            return Some(Stop::Cancelled);
        }
        self.control
            .lease
            .is_some_and(Lease::is_broken)
            .then_some(Stop::LeaseBroken)
    }

    fn wait(&mut self, interest: Interest) {
        if interest.source_readable && !self.wait_for([Some(READABLE), None], None) {
            return;
        }
        let mut wanted = PollFlags::empty();
        wanted.set(WRITABLE, interest.sink_writable);
        wanted.set(ERROR, interest.sink_error_queue);
        if !wanted.is_empty() {
            self.wait_for([None, Some(wanted)], None);
        }
    }

    fn pause(&mut self, until: Duration) {
        let pause = until.saturating_sub(self.control.began.elapsed());
        self.wait_for([None; 2], Some(pause));
    }

    fn await_release(&mut self) {
        let patience = Patience::new(self.control.lease, self.transfer.has_failed());
        let cancel = self.control.cancel;
        let mut pause = Duration::from_millis(1);
        loop {
            match is_in_flight(self.sink) {
                Ok(false) => return self.transfer.released(),
                Ok(true) => {}
                Err(errno) => return self.transfer.fail(Operation::Wait, errno),
            }
            if patience.is_over() {
                return self.transfer.stop(Stop::LeaseBroken);
            }
            // The lease is no reason to wake up: an editor waits until this is over.
            if cancel.is_some_and(CancelToken::is_cancelled) {
                return self.transfer.stop(Stop::Cancelled);
            }
            if let Err(errno) = self.ends.wait([None; 2], &[cancel], Some(pause)) {
                return self.transfer.fail(Operation::Wait, errno);
            }
            if self.control.keeps_time {
                self.transfer.tick(self.control.began.elapsed());
                if self.transfer.is_over() {
                    return;
                }
            }
            pause = (pause * 2).min(Duration::from_millis(64));
        }
    }

    /// Waits for what is wanted of an end, for a time, or for a stop. True if something of an end is
    /// reported; a stop is passed on to the transfer.
    fn wait_for(&mut self, wanted: [Option<PollFlags>; 2], time: Option<Duration>) -> bool {
        let (cancel, lease) = (self.control.cancel, self.control.lease);
        let stops = [cancel, lease.map(Lease::break_token)];
        let left = self
            .transfer
            .deadline()
            .map(|deadline| deadline.saturating_sub(self.control.began.elapsed()));
        let timeout = [time, left].into_iter().flatten().min();
        let ready = match self.ends.wait(wanted, &stops, timeout) {
            Ok(reports) => reports.iter().any(|report| !report.is_empty()),
            Err(errno) => {
                self.transfer.fail(Operation::Wait, errno);
                return false;
            }
        };
        match self.stop_now() {
            Some(stop) => {
                self.transfer.stop(stop);
                false
            }
            None => ready,
        }
    }

    fn publish(&mut self) {
        if let Some(progress) = self.control.progress {
            self.published.publish(&self.transfer, progress);
        }
    }
}
