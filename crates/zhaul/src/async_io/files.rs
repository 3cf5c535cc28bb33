//! From file to file: every call may wait for a disk, so every call is made in the cold pool.
//!
//! AsyncEnd means nothing for files, and whether a *write* waits cannot be asked. The task keeps
//! the transfer and only hands single calls over. Each call is handed over with a [`Turn`]: a stop,
//! or dropping the transfer, takes back a call that still waits for a thread; one that a thread has
//! begun cannot be taken back.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use zhaul_core::{Errno, Op, Step, Summary, Transfer, TransferError};

use super::drive::{Control, Goal, unless_stopped};
use super::end::BACK_OFF;
use crate::cold::{ColdPool, Running};
use crate::endpoint;
use crate::hands::Hands;
use crate::progress::Published;

/// What a copy holds between two of its steps. It may outlive the future that drives it.
pub(crate) struct HeldCopy {
    source: Arc<OwnedFd>,
    sink: Arc<OwnedFd>,
    transfer: Transfer,
    /// With the thread that makes a call while one does.
    hands: Arc<Mutex<Hands>>,
    making: Option<Making>,
    published: Published,
}

/// A call that was handed over to a thread.
struct Making {
    turn: Turn,
    job: Running<Option<Result<usize, Errno>>>,
}

impl HeldCopy {
    pub(crate) fn new(
        source: Arc<OwnedFd>,
        sink: Arc<OwnedFd>,
        transfer: Transfer,
        hands: Hands,
    ) -> Self {
        Self {
            source,
            sink,
            transfer,
            hands: Arc::new(Mutex::new(hands)),
            making: None,
            published: Published::default(),
        }
    }

    pub(crate) const fn transfer(&self) -> &Transfer {
        &self.transfer
    }
}

/// Drives the copy to its end, whose outcome is returned, or until it has delivered what it has
/// taken. Dropping the future loses nothing.
pub(crate) async fn drive_files(
    held: &mut HeldCopy,
    cold: &ColdPool,
    control: Control<'_>,
    goal: Goal,
) -> Option<Result<Summary, TransferError>> {
    let mut copy = Copy {
        held,
        cold,
        control,
    };
    while goal == Goal::End || copy.held.making.is_some() || copy.held.transfer.in_transit() > 0 {
        if copy.held.making.is_none() {
            copy.control.tick(&mut copy.held.transfer);
        }
        match copy.held.transfer.next() {
            Step::Submit(op) => copy.submit(op).await,
            Step::Pause { until } => copy.sleep_until(copy.control.later(until)).await,
            Step::LookAgain { after } => copy.rest(after).await,
            // A file holds no references once the call returned.
            Step::AwaitRelease => copy.held.transfer.released(),
            Step::Wait(_) => copy.rest(BACK_OFF).await,
            Step::Yield => tokio::task::yield_now().await,
            Step::Done(outcome) => {
                if let Some(progress) = copy.control.progress {
                    let held = &mut *copy.held;
                    held.published.publish_end(&held.transfer, progress);
                }
                return Some(outcome);
            }
        }
    }
    None
}

struct Copy<'a> {
    held: &'a mut HeldCopy,
    cold: &'a ColdPool,
    control: Control<'a>,
}

impl Copy<'_> {
    async fn submit(&mut self, op: Op) {
        let is_new = self.held.making.is_none();
        if let (true, false, Some(stop)) = (
            is_new,
            self.held.transfer.is_stopping(),
            self.control.stop_now(),
        ) {
            return self.held.transfer.stop(stop);
        }
        if op == Op::Stat {
            let file = Arc::clone(&self.held.source);
            let version = self.cold.run(move || endpoint::version(&file)).await;
            self.held.transfer.observed(version);
        } else {
            self.call(op).await;
        }
        if let Some(progress) = self.control.progress {
            let held = &mut *self.held;
            held.published.publish(&held.transfer, progress);
        }
    }

    async fn call(&mut self, op: Op) {
        let mut stop = if self.held.transfer.is_stopping() {
            None
        } else {
            self.control.stop()
        };
        if self.held.making.is_none() {
            if !lock(&self.held.hands).hold_pipe_for(&op) {
                return self.held.transfer.no_pipe();
            }
            match unless_stopped(&mut stop, self.hand_over(op)).await {
                Ok(making) => self.held.making = Some(making),
                Err(stop) => return self.held.transfer.stop(stop),
            }
        }
        // A future dropped here leaves the call to the next one.
        let Some(making) = &mut self.held.making else {
            return;
        };
        let result = match unless_stopped(&mut stop, making.job.result()).await {
            Ok(result) => result,
            Err(stop) if making.turn.take_back() => {
                self.held.making = None;
                return self.held.transfer.stop(stop);
            }
            // A thread is at it: what it did has to be counted. The stop is seen before the next.
            Err(_) => making.job.result().await,
        };
        self.held.making = None;
        let result = result.unwrap_or(Err(Errno::ECANCELED));
        self.held.transfer.complete(op, result);
        lock(&self.held.hands).settle_pipe(self.held.transfer.pipe_bytes());
    }

    /// Waits for room in the queue. Dropping the future takes the call back.
    async fn hand_over(&self, op: Op) -> Making {
        let turn = Turn::waiting();
        let entrance = turn.entrance();
        let (from, to) = (Arc::clone(&self.held.source), Arc::clone(&self.held.sink));
        let hands = Arc::clone(&self.held.hands);
        let call = move || {
            entrance
                .enter()
                .then(|| lock(&hands).execute(&op, from.as_fd(), to.as_fd()))
        };
        let job = self.cold.submit(call).await;
        Making { turn, job }
    }

    /// On a thread, since the runtime may have no timers. A thread is at hand.
    async fn rest(&mut self, time: Duration) {
        let mut stop = self.control.stop();
        let rest = self.cold.run(move || std::thread::sleep(time));
        if let Err(stop) = unless_stopped(&mut stop, rest).await {
            self.held.transfer.stop(stop);
        }
    }

    async fn sleep_until(&mut self, until: Instant) {
        if let Some(stop) = self.control.sleep_until(until).await {
            self.held.transfer.stop(stop);
        }
    }
}

fn lock(hands: &Mutex<Hands>) -> MutexGuard<'_, Hands> {
    // A job that panicked passes its panic on to who waits for it.
    hands.lock().unwrap_or_else(PoisonError::into_inner)
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
