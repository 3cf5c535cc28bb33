//! To a file: every call on it may wait for a disk, so every such call is made in the cold pool.
//!
//! Readiness means nothing for files, and whether a *write* waits cannot be asked. The task keeps
//! the transfer, waits for a source that is a stream and takes from it, and hands over single calls. Each call is handed over with a [`QueuedCall`]: a stop,
//! or dropping the transfer, takes back a call that still waits for a thread; one that a thread has
//! begun cannot be taken back, and [`CopyState::settle`] waits for it where every byte counts.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::Interest as Ready;
use tokio::time::Instant;

use zhaul_core::{End, Errno, Interest, Op, Operation, Step, Summary, Transfer, TransferError};

use super::drive::{Control, Goal, awaited_end, unless_stopped};
use super::end::{AsyncEnd, BACK_OFF};
use super::watch::Watch;
use crate::calls::{Buffers, Called};
use crate::cold::{ColdJob, ColdPool};
use crate::edges::READABLE;
use crate::endpoint;
use crate::errno::errno_of;
use crate::progress::{Progress, Published};
use crate::reserve::Reservation;

/// What a copy holds between two of its steps. It may outlive the future that drives it.
pub(crate) struct CopyState {
    source: Arc<OwnedFd>,
    sink: Arc<OwnedFd>,
    transfer: Transfer,
    /// With the thread that makes a call while one does.
    buffers: Arc<Mutex<Buffers>>,
    making: Option<Making>,
    /// Of a source that is a stream.
    watch: Watch,
    reserved: Option<(Arc<Reservation>, Arc<ColdPool>)>,
    published: Published,
}

/// A call that was handed over to a thread.
struct Making {
    op: Op,
    queued: QueuedCall,
    job: ColdJob<Option<Called>>,
}

impl CopyState {
    pub(crate) fn new(
        (source, sink): (Arc<OwnedFd>, Arc<OwnedFd>),
        transfer: Transfer,
        buffers: Buffers,
        reserved: Option<(Arc<Reservation>, Arc<ColdPool>)>,
    ) -> Self {
        Self {
            source,
            sink,
            transfer,
            buffers: Arc::new(Mutex::new(buffers)),
            making: None,
            watch: Watch::source(),
            reserved,
            published: Published::default(),
        }
    }

    pub(crate) const fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    /// Takes the call that was handed over back, or, if a thread has begun it, waits for it on this
    /// thread and accounts for what it did.
    pub(crate) fn settle(&mut self, progress: Option<&Progress>) {
        let Some(mut making) = self.making.take() else {
            return;
        };
        if making.queued.take_back() {
            return;
        }
        let Some(result) = making.job.wait() else {
            return;
        };
        self.account(making.op, result);
        if let Some(progress) = progress {
            self.published.publish(&self.transfer, progress);
        }
    }

    /// `None` for a call that was not made.
    fn account(&mut self, op: Op, called: Option<Called>) {
        let called = called.unwrap_or(Called::Returned(Err(Errno::ECANCELED)));
        called.report(&mut self.transfer, op);
        lock(&self.buffers).settle_pipe(self.transfer.pipe_bytes());
    }

    /// To be called when it is over, or nobody will drive it on.
    pub(crate) fn publish_end(&mut self, progress: Option<&Progress>) {
        if let Some(progress) = progress {
            self.published.publish_end(&self.transfer, progress);
        }
    }
}

impl Drop for CopyState {
    fn drop(&mut self) {
        if let Some((reserved, pool)) = self.reserved.take() {
            let buffers = Arc::clone(&self.buffers);
            pool.detach(move || {
                // After a call that a thread is making now.
                let _turn = lock(&buffers);
                reserved.give_back();
            });
        }
    }
}

/// Drives the copy to its end, whose outcome is returned, or until it has delivered what it has
/// taken. Dropping the future loses nothing.
pub(crate) async fn drive_files<S: AsyncEnd>(
    state: &mut CopyState,
    (stream, cold): (Option<&S>, &ColdPool),
    control: Control<'_>,
    goal: Goal,
) -> Option<Result<Summary, TransferError>> {
    let mut copy = Copy {
        state,
        stream,
        cold,
        control,
    };
    while goal == Goal::End || copy.state.making.is_some() || copy.state.transfer.in_transit() > 0 {
        if copy.state.making.is_none() {
            copy.control.tick(&mut copy.state.transfer);
        }
        match copy.state.transfer.next() {
            Step::Submit(op) => copy.submit(op).await,
            Step::Pause { until } => copy.sleep_until(copy.control.later(until)).await,
            Step::StatAgain { after } => copy.rest(after).await,
            // A file holds no references once the call returned.
            Step::AwaitRelease => copy.state.transfer.released(),
            Step::Wait(interest) => copy.wait(interest).await,
            Step::Yield => tokio::task::yield_now().await,
            Step::Done(_) if copy.state.reserved.is_some() => copy.settle_reserved().await,
            Step::Done(outcome) => {
                copy.state.publish_end(copy.control.progress);
                return Some(outcome);
            }
        }
    }
    None
}

struct Copy<'a, S> {
    state: &'a mut CopyState,
    /// The source, if it is one.
    stream: Option<&'a S>,
    cold: &'a ColdPool,
    control: Control<'a>,
}

impl<S: AsyncEnd> Copy<'_, S> {
    async fn submit(&mut self, op: Op) {
        let is_new = self.state.making.is_none();
        if let (true, false, Some(stop)) = (
            is_new,
            self.state.transfer.is_stopping(),
            self.control.stop_now(),
        ) {
            return self.state.transfer.stop(stop);
        }
        if op == Op::Stat {
            let file = Arc::clone(&self.state.source);
            let version = self.cold.run(move || endpoint::version(&file)).await;
            self.state.transfer.observed(version);
        } else if let (Some(stream), false) = (self.stream, touches_file(&op)) {
            self.take(stream, op);
        } else {
            self.call(op).await;
        }
        if let Some(progress) = self.control.progress {
            let state = &mut *self.state;
            state.published.publish(&state.transfer, progress);
        }
    }

    /// Takes from the stream, which never waits.
    fn take(&mut self, stream: &S, op: Op) {
        let state = &mut *self.state;
        let mut buffers = lock(&state.buffers);
        if !buffers.hold_pipe_for(&op) {
            return state.transfer.no_pipe();
        }
        let mut call = || {
            let result = buffers.execute(&op, stream.fd(), state.sink.as_fd());
            result.map_err(io::Error::from)
        };
        let result = match awaited_end(&op, false, true) {
            Some(End::Source) => state.watch.attempt(stream, Ready::READABLE, call),
            _ => call(),
        };
        drop(buffers);
        let result = result.map_err(|error| errno_of(&error));
        state.account(op, Some(Called::Returned(result)));
    }

    async fn call(&mut self, op: Op) {
        let mut stop = if self.state.transfer.is_stopping() {
            None
        } else {
            self.control.stop()
        };
        if self.state.making.is_none() {
            if !lock(&self.state.buffers).hold_pipe_for(&op) {
                return self.state.transfer.no_pipe();
            }
            match unless_stopped(&mut stop, self.hand_over(op)).await {
                Ok(making) => self.state.making = Some(making),
                Err(stop) => return self.state.transfer.stop(stop),
            }
        }
        // A future dropped here leaves the call to the next one.
        let Some(making) = &mut self.state.making else {
            return;
        };
        let result = match unless_stopped(&mut stop, making.job.result()).await {
            Ok(result) => result,
            Err(stop) if making.queued.take_back() => {
                self.state.making = None;
                return self.state.transfer.stop(stop);
            }
            // A thread is at it: what it did has to be counted. The stop is seen before the next.
            Err(_) => making.job.result().await,
        };
        self.state.making = None;
        self.state.account(op, result);
    }

    /// Waits for room in the queue. Dropping the future takes the call back.
    async fn hand_over(&self, op: Op) -> Making {
        let queued = QueuedCall::waiting();
        let permit = queued.permit();
        let (from, to) = (Arc::clone(&self.state.source), Arc::clone(&self.state.sink));
        let buffers = Arc::clone(&self.state.buffers);
        let call = move || {
            permit
                .claim()
                .then(|| lock(&buffers).call(&op, from.as_fd(), to.as_fd()))
        };
        let job = self.cold.submit(call).await;
        Making { op, queued, job }
    }

    async fn wait(&mut self, interest: Interest) {
        let Some(stream) = self.stream.filter(|_| interest.source_readable) else {
            return self.rest(BACK_OFF).await;
        };
        let mut stop = self.control.stop();
        // A thread was told EAGAIN, and the runtime was not.
        self.state.watch.recheck(stream, READABLE);
        let ready = self.state.watch.ready(stream, READABLE);
        match unless_stopped(&mut stop, ready).await {
            Ok(Ok(_)) => {}
            Ok(Err(errno)) => self.state.transfer.fail(Operation::Wait, errno),
            Err(stop) => self.state.transfer.stop(stop),
        }
    }

    /// The last look at a sink that is this transfer's alone; what was not filled is given back.
    async fn settle_reserved(&mut self) {
        let moved = self.state.transfer.moved();
        let Some((reserved, _)) = &self.state.reserved else {
            return;
        };
        let reserved = Arc::clone(reserved);
        let size = self.cold.run(move || reserved.settled(moved)).await;
        self.state.reserved = None;
        if let Some(size) = size {
            self.state.transfer.sink_truncated(size);
        }
    }

    /// On a thread, since the runtime may have no timers. A thread is at hand.
    async fn rest(&mut self, time: Duration) {
        let mut stop = self.control.stop();
        let rest = self.cold.run(move || std::thread::sleep(time));
        if let Err(stop) = unless_stopped(&mut stop, rest).await {
            self.state.transfer.stop(stop);
        }
    }

    async fn sleep_until(&mut self, until: Instant) {
        if let Some(stop) = self.control.sleep_until(until).await {
            self.state.transfer.stop(stop);
        }
    }
}

/// False for what only moves bytes from a stream to where this transfer keeps them.
const fn touches_file(op: &Op) -> bool {
    !matches!(op, Op::Read { .. } | Op::Splice { to: End::Pipe, .. })
}

fn lock(buffers: &Mutex<Buffers>) -> MutexGuard<'_, Buffers> {
    // A job that panicked passes its panic on to who waits for it.
    buffers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who is first: the thread that makes a call, or the task that does not want it any more.
/// Dropping it takes the call back.
#[derive(Debug)]
struct QueuedCall(Arc<AtomicU8>);

/// The thread's side of a [`QueuedCall`].
#[derive(Debug)]
struct CallPermit(Arc<AtomicU8>);

impl QueuedCall {
    fn waiting() -> Self {
        Self(Arc::new(AtomicU8::new(WAITING)))
    }

    fn permit(&self) -> CallPermit {
        CallPermit(Arc::clone(&self.0))
    }

    /// True if the call will not be made.
    fn take_back(&self) -> bool {
        leave_waiting(&self.0, TAKEN_BACK)
    }
}

impl Drop for QueuedCall {
    fn drop(&mut self) {
        self.take_back();
    }
}

impl CallPermit {
    /// True if the call is to be made.
    fn claim(&self) -> bool {
        leave_waiting(&self.0, CLAIMED)
    }
}

fn leave_waiting(state: &AtomicU8, to: u8) -> bool {
    let changed = state.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire);
    changed.is_ok()
}

const WAITING: u8 = 0;
const CLAIMED: u8 = 1;
const TAKEN_BACK: u8 = 2;
