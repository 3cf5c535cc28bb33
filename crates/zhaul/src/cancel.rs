//! Cancelling a transfer from outside, whichever driver runs it.
//!
//! A tokio driver waits for a notification; a blocking one sits in `poll(2)` and needs a
//! descriptor to become readable, which exists only if one ever waited.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};
#[cfg(feature = "tokio")]
use tokio::sync::Notify;

/// Cancels the transfers that were given a clone of it. Cancelling is final.
#[derive(Clone, Debug, Default)]
pub struct CancelToken {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
    #[cfg(feature = "tokio")]
    notify: Notify,
    event: OnceLock<OwnedFd>,
}

impl From<&Self> for CancelToken {
    fn from(token: &Self) -> Self {
        token.clone()
    }
}

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels. Transfers notice at once if they wait, else before their next system call.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::SeqCst);
        #[cfg(feature = "tokio")]
        self.shared.notify.notify_waiters();
        // Either this sees the descriptor, or whoever made it sees the flag.
        fence(Ordering::SeqCst);
        if let Some(event) = self.shared.event.get() {
            // Fails only when the counter is at its maximum, and then it is readable already.
            let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
        }
    }

    /// True once [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::SeqCst)
    }

    /// Waits for [`cancel`](Self::cancel).
    #[cfg(feature = "tokio")]
    pub async fn cancelled(&self) {
        loop {
            let notified = self.shared.notify.notified();
            if self.is_cancelled() {
                return;
            }
            notified.await;
        }
    }

    /// A descriptor that becomes readable on cancelling; `None` if none is to be had now, and the
    /// caller must look again soon. After asking, [`is_cancelled`](Self::is_cancelled) must be
    /// looked at once more.
    pub(crate) fn event(&self) -> Option<BorrowedFd<'_>> {
        let cell = &self.shared.event;
        if cell.get().is_none() {
            let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
            // Another thread may have been faster; then this one is closed.
            let _ = cell.set(made);
        }
        fence(Ordering::SeqCst);
        cell.get().map(AsFd::as_fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "tokio")]
    #[tokio::test]
    async fn every_waiter_wakes_and_late_ones_do_not_wait() {
        let token = CancelToken::new();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let token = token.clone();
                tokio::spawn(async move { token.cancelled().await })
            })
            .collect();
        tokio::task::yield_now().await;
        token.cancel();
        for waiter in waiters {
            waiter.await.unwrap();
        }
        token.cancelled().await;
    }

    #[test]
    fn the_descriptor_becomes_readable() {
        let token = CancelToken::new();
        let event = token.event().unwrap();
        let mut buffer = [0; 8];
        assert_eq!(
            rustix::io::read(event, &mut buffer),
            Err(rustix::io::Errno::AGAIN)
        );
        token.cancel();
        assert_eq!(rustix::io::read(event, &mut buffer), Ok(8));
    }
}
