//! From file to file: every call may wait for a disk, so every call is made in the cold pool.
//!
//! Readiness means nothing for files, and whether a *write* waits cannot be asked. The task keeps
//! the transfer and only hands single calls over. Each call is handed over with a [`Turn`]: a stop,
//! or dropping the task, takes back a call that still waits for a thread; one that a thread has
//! begun cannot be taken back.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::time::Instant;

use zhaul_core::{Errno, Op, Step, Summary, Transfer, TransferError};

use super::drive::{Control, unless_stopped};
use super::readiness::BACK_OFF;
use crate::cold::ColdPool;
use crate::endpoint;
use crate::hands::Hands;
use crate::progress::Published;

pub(crate) async fn drive_files(
    source: Arc<OwnedFd>,
    sink: Arc<OwnedFd>,
    transfer: Transfer,
    hands: Hands,
    cold: &ColdPool,
    control: Control<'_>,
) -> Result<Summary, TransferError> {
    let mut copy = Copy {
        source,
        sink,
        transfer,
        hands: Some(hands),
        cold,
        control,
        published: Published::default(),
    };
    loop {
        copy.control.tick(&mut copy.transfer);
        match copy.transfer.next() {
            Step::Submit(op) => copy.submit(op).await,
            Step::Pause { until } => copy.sleep_until(copy.control.later(until)).await,
            Step::LookAgain { after } => copy.sleep_until(Instant::now() + after).await,
            // A file holds no references once the call returned.
            Step::AwaitRelease => copy.transfer.released(),
            Step::Wait(_) => copy.sleep_until(Instant::now() + BACK_OFF).await,
            Step::Yield => tokio::task::yield_now().await,
            Step::Done(outcome) => return outcome,
        }
    }
}

struct Copy<'a> {
    source: Arc<OwnedFd>,
    sink: Arc<OwnedFd>,
    transfer: Transfer,
    /// Elsewhere while a thread makes a call, and lost if the call was taken back.
    hands: Option<Hands>,
    cold: &'a ColdPool,
    control: Control<'a>,
    published: Published,
}

impl Copy<'_> {
    async fn submit(&mut self, op: Op) {
        if let (false, Some(stop)) = (self.transfer.is_stopping(), self.control.stop_now()) {
            return self.transfer.stop(stop);
        }
        if op == Op::Stat {
            let file = Arc::clone(&self.source);
            let version = self.cold.run(move || endpoint::version(&file)).await;
            self.transfer.observed(version);
        } else {
            self.call(op).await;
        }
        if let Some(progress) = self.control.progress {
            self.published.publish(&self.transfer, progress);
        }
    }

    async fn call(&mut self, op: Op) {
        let Some(mut hands) = self.hands.take() else {
            return self.transfer.fail(op.operation(), Errno::ECANCELED);
        };
        if !hands.hold_pipe_for(&op) {
            self.hands = Some(hands);
            return self.transfer.no_pipe();
        }
        let turn = Turn::waiting();
        let mut stop = if self.transfer.is_stopping() {
            None
        } else {
            self.control.stop()
        };
        let (from, to) = (Arc::clone(&self.source), Arc::clone(&self.sink));
        let entrance = turn.entrance();
        let call = move || {
            let result = entrance
                .enter()
                .then(|| hands.execute(&op, from.as_fd(), to.as_fd()));
            (hands, result)
        };
        let mut making = std::pin::pin!(self.cold.run(call));
        let (hands, result) = match unless_stopped(&mut stop, making.as_mut()).await {
            Ok(made) => made,
            Err(stop) if turn.take_back() => return self.transfer.stop(stop),
            // A thread is at it: what it did has to be counted. The stop is seen before the next.
            Err(_) => making.await,
        };
        self.transfer
            .complete(op, result.unwrap_or(Err(Errno::ECANCELED)));
        let hands = self.hands.insert(hands);
        hands.settle_pipe(self.transfer.pipe_bytes());
    }

    async fn sleep_until(&mut self, until: Instant) {
        if let Some(stop) = self.control.sleep_until(until).await {
            self.transfer.stop(stop);
        }
    }
}

/// Who is first: the thread that makes a call, or the task that does not want it any more.
/// Dropping it takes the call back.
#[derive(Debug)]
struct Turn(Arc<AtomicU8>);

/// The thread's side of a [`Turn`].
#[derive(Debug)]
struct Entrance(Arc<AtomicU8>);

impl Turn {
    fn waiting() -> Self {
        Self(Arc::new(AtomicU8::new(WAITING)))
    }

    fn entrance(&self) -> Entrance {
        Entrance(Arc::clone(&self.0))
    }

    /// True if the call will not be made.
    fn take_back(&self) -> bool {
        leave_waiting(&self.0, TAKEN_BACK)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.take_back();
    }
}

impl Entrance {
    /// True if the call is to be made.
    fn enter(&self) -> bool {
        leave_waiting(&self.0, ENTERED)
    }
}

fn leave_waiting(state: &AtomicU8, to: u8) -> bool {
    let changed = state.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire);
    changed.is_ok()
}

const WAITING: u8 = 0;
const ENTERED: u8 = 1;
const TAKEN_BACK: u8 = 2;
