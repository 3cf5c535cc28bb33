//! Steps a transfer on the caller's task.

use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::Interest as Ready;
use tokio::time::Instant;

use rustix::event::PollFlags;
use zhaul_core::{
    End, Errno, Interest, Op, Operation, Step, Stop, Summary, Transfer, TransferError,
};

use super::read_ahead::{FileHandle, ReadAhead};
use super::{AsyncEnd, FAR, Watch, acknowledged, pause};
use crate::blocking::stop_now;
use crate::calls::{Buffers, Called};
use crate::cancel::CancelToken;
use crate::edges::{ERROR, READABLE, WRITABLE};
use crate::errno::errno_of;
use crate::in_flight::Patience;
use crate::lease::Lease;
use crate::progress::Progress;
use crate::transfer_state::TransferState;

/// What may stop or watch a transfer from outside.
pub(crate) struct Control<'a> {
    pub(crate) lease: Option<&'a Lease>,
    pub(crate) cancel: Option<&'a CancelToken>,
    pub(crate) progress: Option<&'a Progress>,
    /// When it began, if it has a deadline or a throttle.
    pub(crate) began: Option<Instant>,
    pub(crate) deadline: Option<Duration>,
}

type StopFuture<'a> = Pin<Box<dyn Future<Output = Stop> + Send + 'a>>;

impl<'a> Control<'a> {
    /// A stop that is known now.
    pub(crate) fn stop_now(&self) -> Option<Stop> {
        stop_now(self.cancel, self.lease)
    }

    /// The first stop to come, or `None` if none can: then waiting costs no allocation.
    pub(crate) fn stop(&self) -> Option<StopFuture<'a>> {
        let (lease, cancel) = (self.lease, self.cancel);
        let deadline = self
            .began
            .zip(self.deadline)
            .and_then(|(began, deadline)| began.checked_add(deadline));
        if lease.is_none() && cancel.is_none() && deadline.is_none() {
            return None;
        }
        Some(Box::pin(async move {
            tokio::select! {
                () = forever_or(lease.map(Lease::broken)) => Stop::LeaseBroken,
                () = forever_or(cancel.map(CancelToken::cancelled)) => Stop::Cancelled,
                () = forever_or(deadline.map(tokio::time::sleep_until)) => Stop::Deadline,
            }
        }))
    }

    /// So long after the beginning.
    pub(crate) fn later(&self, after: Duration) -> Instant {
        let began = self.began.unwrap_or_else(Instant::now);
        // A throttle of a byte a second may ask for more time than the clock can tell.
        began.checked_add(after).unwrap_or_else(|| began + FAR)
    }

    /// Sleeps; returns early with the first stop.
    pub(crate) async fn sleep_until(&self, until: Instant) -> Option<Stop> {
        unless_stopped(&mut self.stop(), tokio::time::sleep_until(until))
            .await
            .err()
    }

    pub(crate) fn tick(&self, transfer: &mut Transfer) {
        if let Some(began) = self.began
            && !transfer.is_stopping()
        {
            transfer.tick(began.elapsed());
        }
    }
}

async fn forever_or<T>(future: Option<impl Future<Output = T>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

/// The result of the future, or the stop that came first; the stop comes once.
pub(crate) async fn unless_stopped<T>(
    stop: &mut Option<StopFuture<'_>>,
    future: impl Future<Output = T>,
) -> Result<T, Stop> {
    let Some(stopping) = stop.as_mut() else {
        return Ok(future.await);
    };
    let came = tokio::select! {
        biased;
        came = stopping => came,
        value = future => return Ok(value),
    };
    *stop = None;
    Err(came)
}

/// What a transfer holds between two of its steps, bytes in transit included. It may outlive the
/// future that drives it, and be driven on.
pub(crate) struct DriveState {
    watches: Watches,
    held: TransferState,
    /// What was being waited for when a future was dropped.
    waiting: Option<Step>,
}

impl DriveState {
    pub(crate) fn new(transfer: Transfer, buffers: Buffers) -> Self {
        Self {
            watches: Watches {
                source: Watch::source(),
                sink: Watch::sink(),
            },
            held: TransferState::new(transfer, buffers),
            waiting: None,
        }
    }

    pub(crate) const fn transfer(&self) -> &Transfer {
        &self.held.transfer
    }

    /// What any driver goes on with.
    pub(crate) const fn held_mut(&mut self) -> &mut TransferState {
        &mut self.held
    }

    pub(crate) fn into_transfer(self) -> Transfer {
        self.held.transfer
    }

    /// Lends what is known of the sink, and takes it back, for who sends more to it.
    pub(crate) const fn exchange_sink(&mut self, watch: &mut Watch) {
        std::mem::swap(&mut self.watches.sink, watch);
    }

    /// The source is looked at again so much later, and nothing is done before.
    pub(crate) fn stat_after(&mut self, after: Duration) {
        self.waiting = Some(Step::StatAgain { after });
    }

    /// What to do next: go on waiting, or what the transfer says.
    fn next(&mut self) -> Step {
        let waiting = self.waiting.take();
        match waiting.filter(|_| !self.transfer().is_stopping() && !self.transfer().is_over()) {
            Some(step) => step,
            None => self.held.transfer.next(),
        }
    }
}

/// How far a transfer is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    End,
    /// Nothing is in transit.
    Delivered,
}

/// What becomes of bytes in transit when the future is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtDrop {
    /// They stay where they are, for who drives on.
    Keep,
    /// The sink is offered them once. What it does not take is lost.
    Flush,
}

/// One transfer on its way.
pub(crate) struct Drive<'a, S: AsyncEnd, K: AsyncEnd, F: FileHandle> {
    source: &'a S,
    sink: &'a K,
    state: &'a mut DriveState,
    read_ahead: Option<ReadAhead<'a, F>>,
    control: Control<'a>,
    at_drop: AtDrop,
}

impl<'a, S: AsyncEnd, K: AsyncEnd, F: FileHandle> Drive<'a, S, K, F> {
    pub(crate) const fn new(
        (source, sink): (&'a S, &'a K),
        state: &'a mut DriveState,
        read_ahead: Option<ReadAhead<'a, F>>,
        control: Control<'a>,
        at_drop: AtDrop,
    ) -> Self {
        Self {
            source,
            sink,
            state,
            read_ahead,
            control,
            at_drop,
        }
    }

    /// Drives the transfer to its end, whose outcome is returned, or until it has delivered what it
    /// has taken.
    pub(crate) async fn run(mut self, goal: Goal) -> Option<Result<Summary, TransferError>> {
        let mut stop = self.control.stop();
        while goal == Goal::End || self.state.held.transfer.in_transit() > 0 {
            if let Some(outcome) = self.step(&mut stop).await {
                return Some(outcome);
            }
        }
        None
    }

    async fn step(
        &mut self,
        stop: &mut Option<StopFuture<'a>>,
    ) -> Option<Result<Summary, TransferError>> {
        self.control.tick(&mut self.state.held.transfer);
        let step = self.state.next();
        match step {
            Step::Submit(Op::Stat) => {
                let progress = self.control.progress;
                self.state.held.observe(self.source.fd(), progress);
            }
            Step::Submit(op) => {
                if self.stop_if_due() {
                    return None;
                }
                if self.is_cold(&op) {
                    let reading = unless_stopped(stop, self.make_ready(&op)).await;
                    self.settle(Operation::Populate, reading)?;
                }
                self.submit(op);
            }
            Step::Wait(interest) => {
                self.state.waiting = Some(step);
                let watches = &mut self.state.watches;
                let ready = watches.wait(self.source, self.sink, interest);
                let ready = unless_stopped(stop, ready).await;
                self.settle(Operation::Wait, ready);
            }
            Step::Pause { until } => {
                self.state.waiting = Some(step);
                let until = self.control.later(until);
                let slept = unless_stopped(stop, tokio::time::sleep_until(until)).await;
                self.settle(Operation::Wait, slept.map(Ok));
            }
            Step::StatAgain { after } => {
                self.state.waiting = Some(step);
                let slept = unless_stopped(stop, pause(after)).await;
                self.settle(Operation::Wait, slept.map(Ok));
            }
            Step::AwaitRelease => {
                // Rare, and large: not part of the future.
                Box::pin(self.await_release()).await;
            }
            Step::Yield => tokio::task::yield_now().await,
            Step::Done(outcome) => {
                self.state.held.publish_end(self.control.progress);
                return Some(outcome);
            }
        }
        None
    }
}

impl<S: AsyncEnd, K: AsyncEnd, F: FileHandle> Drop for Drive<'_, S, K, F> {
    fn drop(&mut self) {
        if self.at_drop == AtDrop::Keep {
            return;
        }
        let transfer = self.state.transfer();
        let would_lose = !transfer.is_over() && transfer.stranded() > 0;
        if would_lose && !std::thread::panicking() {
            self.flush();
        }
        self.state.held.publish_end(self.control.progress);
    }
}

impl<S: AsyncEnd, K: AsyncEnd, F: FileHandle> Drive<'_, S, K, F> {
    /// Offers the sink what is in transit, and takes nothing more.
    fn flush(&mut self) {
        self.state.held.transfer.stop(Stop::Cancelled);
        loop {
            match self.state.held.transfer.next() {
                Step::Submit(Op::Stat) => {
                    let progress = self.control.progress;
                    self.state.held.observe(self.source.fd(), progress);
                }
                Step::Submit(op) => self.submit(op),
                _ => break,
            }
        }
    }

    /// True if a stop came and the submitted operation is not to be made now.
    fn stop_if_due(&mut self) -> bool {
        if self.state.held.transfer.is_stopping() {
            return false;
        }
        let stop = self.control.stop_now();
        if let Some(stop) = stop {
            self.state.held.transfer.stop(stop);
        }
        stop.is_some()
    }

    /// What an interruptible wait came to; a stop or an error goes to the transfer.
    fn settle<T>(
        &mut self,
        operation: Operation,
        waited: Result<Result<T, Errno>, Stop>,
    ) -> Option<T> {
        self.state.waiting = None;
        match waited {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(errno)) => self.state.held.transfer.fail(operation, errno),
            Err(stop) => self.state.held.transfer.stop(stop),
        }
        None
    }

    /// Whoever breaks the lease has to wait for the acknowledgement, but not for ever.
    async fn await_release(&mut self) {
        let lease = self.control.lease;
        let mut stop = Control {
            lease: None,
            ..self.control
        }
        .stop();
        let patience = Patience::new(lease, self.state.held.transfer.has_failed());
        let sink = self.sink.fd();
        let waited = async {
            tokio::select! {
                released = acknowledged(&sink) => Some(released),
                () = patience.over() => None,
            }
        };
        match unless_stopped(&mut stop, waited).await {
            Ok(Some(Ok(()))) => self.state.held.transfer.released(),
            Ok(Some(Err(errno))) => self.state.held.transfer.fail(Operation::Wait, errno),
            Ok(None) => self.state.held.transfer.stop(Stop::LeaseBroken),
            Err(stop) => self.state.held.transfer.stop(stop),
        }
    }

    fn is_cold(&mut self, op: &Op) -> bool {
        match (&mut self.read_ahead, op.source_range()) {
            (Some(read_ahead), Some((offset, len))) => !read_ahead.is_ready(offset, len),
            _ => false,
        }
    }

    async fn make_ready(&mut self, op: &Op) -> Result<(), Errno> {
        match (&mut self.read_ahead, op.source_range()) {
            (Some(read_ahead), Some((offset, len))) => read_ahead.make_ready(offset, len).await,
            _ => Ok(()),
        }
    }

    /// Makes the call under the eyes of the reactor of the end that it may have to wait for.
    fn submit(&mut self, op: Op) {
        let (source, sink) = (self.source, self.sink);
        let DriveState { watches, held, .. } = &mut *self.state;
        // Nobody waits any more then, and the reactor may not have heard of the room there is.
        let is_stopping = held.transfer.is_stopping();
        held.submit(op, self.control.progress, |buffers, op| {
            if is_stopping {
                return buffers.call(op, source.fd(), sink.fd());
            }
            let mut call = || {
                buffers
                    .execute(op, source.fd(), sink.fd())
                    .map_err(io::Error::from)
            };
            let result = match awaited_end(op, source.is_file(), sink.is_file()) {
                Some(End::Source) => watches.source.attempt(source, Ready::READABLE, call),
                Some(End::Sink) => watches.sink.attempt(sink, Ready::WRITABLE, call),
                Some(End::Pipe) | None => call(),
            };
            Called::Returned(result.map_err(|error| errno_of(&error)))
        });
    }
}

/// The end that makes this call answer EAGAIN; `None` if none does, or if it could be either.
pub(super) fn awaited_end(op: &Op, source_is_file: bool, sink_is_file: bool) -> Option<End> {
    match op {
        Op::Read {
            from: End::Source, ..
        } => Some(End::Source),
        // At an urgent mark splice has nothing although the socket has: the reactor is told by the
        // read that follows, and must not keep that read from being made.
        Op::Splice {
            from: End::Source,
            to: End::Pipe,
            ..
        } => None,
        Op::Splice {
            from: End::Source,
            to: End::Sink,
            ..
        } => match (source_is_file, sink_is_file) {
            (true, _) => Some(End::Sink),
            (_, true) => Some(End::Source),
            _ => None,
        },
        Op::Write { .. }
        | Op::WriteMapped { .. }
        | Op::Sendfile { .. }
        | Op::Splice {
            from: End::Pipe, ..
        } => Some(End::Sink),
        // Files, and pipes of our own, make nobody wait.
        Op::Stat
        | Op::Read { .. }
        | Op::Map { .. }
        | Op::Splice { .. }
        | Op::CopyFileRange { .. }
        | Op::SeekData { .. }
        | Op::SeekHole { .. }
        | Op::PunchHole { .. } => None,
    }
}

/// What is known of both ends.
struct Watches {
    source: Watch,
    sink: Watch,
}

impl Watches {
    async fn wait<S: AsyncEnd, K: AsyncEnd>(
        &mut self,
        source: &S,
        sink: &K,
        interest: Interest,
    ) -> Result<(), Errno> {
        let either = interest.source_readable && interest.sink_writable;
        if either {
            self.source.recheck(source, READABLE);
            self.sink.recheck(sink, WRITABLE);
        }
        // If it may have been either, it was not the file.
        if interest.source_readable && !(either && source.is_file()) {
            self.source.ready(source, READABLE).await?;
        }
        let mut wanted = PollFlags::empty();
        wanted.set(
            WRITABLE,
            interest.sink_writable && !(either && sink.is_file()),
        );
        wanted.set(ERROR, interest.sink_error_queue);
        if !wanted.is_empty() {
            self.sink.ready(sink, wanted).await?;
        }
        Ok(())
    }
}
