//! Waiting for a buffer of a pool: a future that needs no particular runtime, and the same for threads.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use zhaul_sys::arena::Taking;

use super::fbuf::FBufMut;
use super::pool::Pool;

/// The future of [`Pool::allocate_async`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct Allocating(pub(super) Taking);

impl Future for Allocating {
    type Output = FBufMut;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<FBufMut> {
        Pin::new(&mut self.0).poll(context).map(FBufMut::new)
    }
}

/// `None` if there is none for so long.
pub(super) fn block(pool: &Pool, at_most: Duration) -> Option<FBufMut> {
    // One that cannot be told never comes.
    let deadline = Instant::now().checked_add(at_most);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut allocating = pool.allocate_async();
    loop {
        if let Poll::Ready(buffer) = Pin::new(&mut allocating).poll(&mut context) {
            return Some(buffer);
        }
        let Some(deadline) = deadline else {
            thread::park();
            continue;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_waits_until_a_buffer_is_dropped() {
        let pool = Pool::new(1, 1).unwrap();
        let held = pool.allocate().unwrap().freeze(1);
        assert!(pool.allocate_within(Duration::ZERO).is_none());
        assert!(pool.allocate_within(Duration::from_millis(1)).is_none());
        assert_eq!(pool.usage().waiting, 0, "who gave up waits no longer");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.allocate_within(Duration::MAX));
            while pool.usage().waiting == 0 {
                thread::yield_now();
            }
            drop(held);
            assert!(waiting.join().unwrap().is_some());
        });
        assert!(pool.allocate_within(Duration::ZERO).is_some());
    }

    #[cfg(feature = "tokio")]
    #[tokio::test]
    async fn tasks_get_buffers_in_their_turn() {
        let pool = Pool::new(1, 1).unwrap();
        let held = pool.allocate_async().await;
        let (order, mut turns) = tokio::sync::mpsc::unbounded_channel();
        for turn in 0..3 {
            let (pool, order) = (pool.clone(), order.clone());
            tokio::spawn(async move {
                let _buffer = pool.allocate_async().await;
                order.send(turn).unwrap();
            });
        }
        while pool.usage().waiting < 3 {
            tokio::task::yield_now().await;
        }
        drop(held);
        for turn in 0..3 {
            assert_eq!(turns.recv().await, Some(turn));
        }
    }
}
