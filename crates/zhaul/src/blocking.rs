//! The blocking driver: makes the calls on this thread and polls when an end is not ready.
//!
//! It works with descriptors in either mode. Sends and receives on sockets never block in the
//! call itself; the driver waits in `poll(2)`, where a deadline and a cancellation are noticed at
//! once. The kernel has no such flag for the other calls: sendfile and splice into a *blocking*
//! socket or pipe, and `write(2)` into a blocking pipe or terminal (flushing what was taken from a
//! stream after a stop included), return only when the whole call went out (at most
//! [`Ask::chunk_bytes`]); so a deadline or a cancellation is noticed that much late, and a receiver
//! that stops reading holds the call for as long as it likes. Put the descriptor into non-blocking
//! mode where that matters.
//!
//! [`Ask::chunk_bytes`]: zhaul_core::Ask::chunk_bytes

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags};

use zhaul_core::{
    End, Errno, Interest, Op, Operation, Step, Stop, Summary, Transfer, TransferError,
};

use crate::cancel::CancelToken;
use crate::endpoint;
use crate::errno::of_rustix;
use crate::hands::{Hands, is_ready};
use crate::in_flight::{Patience, is_in_flight};
use crate::lease::Lease;
use crate::progress::{Progress, Published};

/// What may stop or watch a transfer from outside.
pub(crate) struct Control<'a> {
    pub(crate) lease: Option<&'a Lease>,
    pub(crate) cancel: Option<&'a CancelToken>,
    pub(crate) progress: Option<&'a Progress>,
    pub(crate) began: Instant,
    /// The clock is read only if somebody asks for the time.
    pub(crate) keeps_time: bool,
}

/// Runs the transfer to its end.
pub(crate) fn drive(
    source: BorrowedFd<'_>,
    sink: BorrowedFd<'_>,
    transfer: Transfer,
    hands: Hands,
    control: Control<'_>,
) -> Result<Summary, TransferError> {
    let published = Published::default();
    let mut drive = Drive {
        source,
        sink,
        source_holds: true,
        sink_holds: true,
        transfer,
        hands,
        control,
        published,
    };
    if drive.can_be_stopped() {
        drive.source_holds = may_hold_a_call(source);
        drive.sink_holds = may_hold_a_call(sink);
    }
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
            Step::LookAgain { after } => {
                drive.wait_for(None, Some(after));
            }
            Step::AwaitRelease => drive.await_release(),
            Step::Done(outcome) => return outcome,
            // A thread of its own has nobody to yield to.
            Step::Yield => {}
        }
    }
}

struct Drive<'a> {
    source: BorrowedFd<'a>,
    sink: BorrowedFd<'a>,
    /// Whether a call on this end may wait, and not come back when it is to be stopped.
    source_holds: bool,
    sink_holds: bool,
    transfer: Transfer,
    hands: Hands,
    control: Control<'a>,
    published: Published,
}

impl Drive<'_> {
    fn submit(&mut self, op: Op) {
        if !self.transfer.is_stopping() {
            if let Some(stop) = self.stop_now() {
                return self.transfer.stop(stop);
            }
            if self.can_be_stopped() && !self.is_ready_for(&op) {
                return self.report(op, Err(Errno::EAGAIN));
            }
        } else if !self.is_ready_for(&op) {
            return self.report(op, Err(Errno::EAGAIN));
        }
        if !self.hands.hold_pipe_for(&op) {
            self.transfer.no_pipe();
            return self.publish();
        }
        let result = self.hands.execute(&op, self.source, self.sink);
        self.report(op, result);
    }

    fn report(&mut self, op: Op, result: Result<usize, Errno>) {
        self.transfer.complete(op, result);
        self.hands.settle_pipe(self.transfer.pipe_bytes());
        self.publish();
    }

    /// Whether the call would start without waiting. Asked only when somebody may want to stop
    /// the transfer, and only about a descriptor that would not let go.
    fn is_ready_for(&self, op: &Op) -> bool {
        let source_ready = || !self.source_holds || is_ready(self.source, PollFlags::IN);
        let sink_ready = || !self.sink_holds || is_ready(self.sink, PollFlags::OUT);
        match op {
            Op::Read {
                from: End::Source,
                offset: None,
                ..
            }
            | Op::Splice {
                from: End::Source,
                to: End::Pipe,
                source_offset: None,
                ..
            } => source_ready(),
            Op::Splice {
                from: End::Source,
                source_offset: None,
                ..
            } => source_ready() && sink_ready(),
            Op::Write { .. }
            | Op::WriteMapped { .. }
            | Op::Sendfile { .. }
            | Op::Splice { to: End::Sink, .. } => sink_ready(),
            // Files, and pipes of our own, make nobody wait.
            Op::Stat
            | Op::Read { .. }
            | Op::Map { .. }
            | Op::Splice { .. }
            | Op::CopyFileRange { .. } => true,
        }
    }

    fn can_be_stopped(&self) -> bool {
        self.control.cancel.is_some()
            || self.control.lease.is_some()
            || self.transfer.deadline().is_some()
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
        if interest.source_readable && !self.wait_for(Some((self.source, PollFlags::IN)), None) {
            return;
        }
        if interest.sink_writable {
            self.wait_for(Some((self.sink, PollFlags::OUT)), None);
        }
    }

    fn pause(&mut self, until: Duration) {
        let pause = until.saturating_sub(self.control.began.elapsed());
        self.wait_for(None, Some(pause));
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
            let event = cancel.and_then(CancelToken::event);
            if cancel.is_some_and(CancelToken::is_cancelled) {
                return self.transfer.stop(Stop::Cancelled);
            }
            if let Err(errno) = poll_all(None, event.as_slice(), Some(pause)) {
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

    /// Waits for an end, for a time, or for a stop. True if the end is ready; a stop is passed
    /// on to the transfer.
    fn wait_for(
        &mut self,
        end: Option<(BorrowedFd<'_>, PollFlags)>,
        time: Option<Duration>,
    ) -> bool {
        let (cancel, lease) = (self.control.cancel, self.control.lease);
        let stops = [cancel, lease.map(Lease::break_token)];
        let wanted = stops.iter().flatten().count();
        let events: Vec<_> = stops
            .into_iter()
            .flatten()
            .filter_map(CancelToken::event)
            .collect();
        // The descriptors exist now, so a stop from here on makes one of them readable.
        if let Some(stop) = self.stop_now() {
            self.transfer.stop(stop);
            return false;
        }
        let left = self
            .transfer
            .deadline()
            .map(|deadline| deadline.saturating_sub(self.control.began.elapsed()));
        // Without a descriptor to wake up by, a stop is looked for every so often.
        let blind = (events.len() < wanted).then_some(BLIND_WAIT);
        let timeout = [time, left, blind].into_iter().flatten().min();
        let ready = match poll_all(end, &events, timeout) {
            Ok(ready) => ready,
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

/// A descriptor in blocking mode holds a call for as long as it likes, unless `poll(2)` would call it
/// ready anyway, as it does all files.
fn may_hold_a_call(fd: BorrowedFd<'_>) -> bool {
    if rustix::fs::fcntl_getfl(fd).is_ok_and(|mode| mode.contains(OFlags::NONBLOCK)) {
        return false;
    }
    let is_file = rustix::fs::fstat(fd).is_ok_and(|stat| {
        matches!(
            FileType::from_raw_mode(stat.st_mode),
            FileType::RegularFile | FileType::BlockDevice
        )
    });
    !is_file
}

/// True if the end is ready; false if the time is up or an event came.
fn poll_all(
    end: Option<(BorrowedFd<'_>, PollFlags)>,
    events: &[BorrowedFd<'_>],
    timeout: Option<Duration>,
) -> Result<bool, Errno> {
    let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(1 + events.len());
    if let Some((fd, flags)) = end {
        fds.push(PollFd::from_borrowed_fd(fd, flags));
    }
    fds.extend(
        events
            .iter()
            .map(|&event| PollFd::from_borrowed_fd(event, PollFlags::IN)),
    );
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => Ok(end.is_some() && !fds[0].revents().is_empty()),
        // The transfer asks again.
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => Err(of_rustix(errno)),
    }
}

/// How long a stop goes unnoticed in a process out of descriptors.
const BLIND_WAIT: Duration = Duration::from_millis(50);
