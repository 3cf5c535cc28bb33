//! From file to file: every call may wait for a disk, so every call is made in the cold pool.
//!
//! AsyncEnd means nothing for files, and whether a *write* waits cannot be asked. The task keeps
//! the transfer and hands over single calls. Each call is handed over with a [`QueuedCall`]: a stop,
//! or dropping the transfer, takes back a call that still waits for a thread; one that a thread has
//! begun cannot be taken back, and [`CopyState::settle`] waits for it where every byte counts.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use zhaul_core::{Errno, Op, Step, Summary, Transfer, TransferError};

use super::drive::{Control, Goal, unless_stopped};
use super::end::BACK_OFF;
use crate::calls::Buffers;
use crate::cold::{ColdJob, ColdPool};
use crate::endpoint;
use crate::progress::{Progress, Published};

/// What a copy holds between two of its steps. It may outlive the future that drives it.
pub(crate) struct CopyState {
    source: Arc<OwnedFd>,
    sink: Arc<OwnedFd>,
    transfer: Transfer,
    /// With the thread that makes a call while one does.
    buffers: Arc<Mutex<Buffers>>,
    making: Option<Making>,
    published: Published,
}

/// A call that was handed over to a thread.
struct Making {
    op: Op,
    queued: QueuedCall,
    job: ColdJob<Option<Result<usize, Errno>>>,
}

impl CopyState {
    pub(crate) fn new(
        source: Arc<OwnedFd>,
        sink: Arc<OwnedFd>,
        transfer: Transfer,
        buffers: Buffers,
    ) -> Self {
        Self {
            source,
            sink,
            transfer,
            buffers: Arc::new(Mutex::new(buffers)),
            making: None,
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
    fn account(&mut self, op: Op, result: Option<Result<usize, Errno>>) {
        let result = result.unwrap_or(Err(Errno::ECANCELED));
        self.transfer.complete(op, result);
        lock(&self.buffers).settle_pipe(self.transfer.pipe_bytes());
    }

    /// To be called when it is over, or nobody will drive it on.
    pub(crate) fn publish_end(&mut self, progress: Option<&Progress>) {
        if let Some(progress) = progress {
            self.published.publish_end(&self.transfer, progress);
        }
    }
}

/// Drives the copy to its end, whose outcome is returned, or until it has delivered what it has
/// taken. Dropping the future loses nothing.
pub(crate) async fn drive_files(
    state: &mut CopyState,
    cold: &ColdPool,
    control: Control<'_>,
    goal: Goal,
) -> Option<Result<Summary, TransferError>> {
    let mut copy = Copy {
        state,
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
            Step::Wait(_) => copy.rest(BACK_OFF).await,
            Step::Yield => tokio::task::yield_now().await,
            Step::Done(outcome) => {
                copy.state.publish_end(copy.control.progress);
                return Some(outcome);
            }
        }
    }
    None
}

struct Copy<'a> {
    state: &'a mut CopyState,
    cold: &'a ColdPool,
    control: Control<'a>,
}

impl Copy<'_> {
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
        } else {
            self.call(op).await;
        }
        if let Some(progress) = self.control.progress {
            let state = &mut *self.state;
            state.published.publish(&state.transfer, progress);
        }
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
                .then(|| lock(&buffers).execute(&op, from.as_fd(), to.as_fd()))
        };
        let job = self.cold.submit(call).await;
        Making { op, queued, job }
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
