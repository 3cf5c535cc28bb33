//! Closing what came from a peer, in other threads than those of the program.
//!
//! `close(2)` may wait for somebody: of a FUSE file for its server, of a TCP socket for its linger time, and of
//! a UNIX socket for all that is closed with the messages in its queue. A peer chooses what that is: by
//! what it passes, and by what it queues on the socket of a channel or on a lease.
//!
//! At most [`THREADS`] wait at one time. Beyond that descriptors stay open until one of them is free.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A descriptor that is closed in another thread.
#[derive(Debug)]
pub(super) struct Foreign(Option<OwnedFd>);

impl Foreign {
    pub(super) const fn new(fd: OwnedFd) -> Self {
        Self(Some(fd))
    }

    /// For whoever knows that closing it waits for nobody.
    pub(super) fn into_owned(mut self) -> OwnedFd {
        self.0.take().expect(OPEN)
    }
}

impl AsFd for Foreign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().expect(OPEN).as_fd()
    }
}

impl AsRawFd for Foreign {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Some(fd) = self.0.take() {
            close(fd);
        }
    }
}

const OPEN: &str = "open until it is dropped";

/// How many descriptors are being closed at one time.
const THREADS: usize = 16;
/// How long a thread stays without work.
const IDLE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Queue {
    descriptors: VecDeque<OwnedFd>,
    threads: usize,
    idle: usize,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue {
    descriptors: VecDeque::new(),
    threads: 0,
    idle: 0,
});
static CAME: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn close(fd: OwnedFd) {
    let mut queue = lock();
    queue.descriptors.push_back(fd);
    if queue.descriptors.len() > queue.idle {
        let thread = std::thread::Builder::new().name("zhaul-close".into());
        if queue.threads < THREADS && thread.spawn(serve).is_ok() {
            queue.threads += 1;
        } else {
            let open = queue.descriptors.len();
            tracing::debug!(open, "descriptors of peers wait to be closed");
        }
    }
    drop(queue);
    CAME.notify_one();
}

fn serve() {
    let mut queue = lock();
    loop {
        if let Some(fd) = queue.descriptors.pop_front() {
            drop(queue);
            drop(fd);
            queue = lock();
            continue;
        }
        queue.idle += 1;
        let (after, waited) = CAME
            .wait_timeout(queue, IDLE)
            .unwrap_or_else(PoisonError::into_inner);
        queue = after;
        queue.idle -= 1;
        if waited.timed_out() && queue.descriptors.is_empty() {
            queue.threads -= 1;
            return;
        }
    }
}
