//! A bounded pool of buffers for what is copied.
//!
//! A relay takes a buffer before it receives and gives it back when it has sent everything, so
//! one buffer serves all the connections of a thread that are not held up by their peers.

#[cfg(feature = "tokio")]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

#[cfg(feature = "tokio")]
use tokio::sync::Notify;

/// A pool; clones share it.
#[derive(Clone, Debug)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max_buffers: usize,
    buffer_bytes: usize,
    state: Mutex<State>,
    /// Relays that wait for a buffer.
    #[cfg(feature = "tokio")]
    waiting: AtomicUsize,
    #[cfg(feature = "tokio")]
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Box<[u8]>>,
    /// Buffers that exist, idle or held.
    alive: usize,
}

impl BufferPool {
    /// A pool of at most `max_buffers` of `buffer_bytes` each. Of either, at least one.
    pub fn new(max_buffers: usize, buffer_bytes: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                max_buffers: max_buffers.max(1),
                buffer_bytes: buffer_bytes.max(1),
                state: Mutex::default(),
                #[cfg(feature = "tokio")]
                waiting: AtomicUsize::new(0),
                #[cfg(feature = "tokio")]
                freed: Notify::new(),
            }),
        }
    }

    /// The process-wide pool.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<BufferPool> = OnceLock::new();
        SHARED.get_or_init(|| Self::new(MAX_BUFFERS, BUFFER_BYTES))
    }

    /// Takes a buffer, with whatever it contains; `None` if all are in use. Never waits.
    pub fn take(&self) -> Option<PooledBuffer> {
        let mut state = self.state();
        let idle = state.idle.pop();
        if idle.is_none() {
            if state.alive >= self.shared.max_buffers {
                return None;
            }
            state.alive += 1;
        }
        drop(state);
        let bytes = idle.unwrap_or_else(|| vec![0; self.shared.buffer_bytes].into_boxed_slice());
        Some(PooledBuffer {
            bytes,
            pool: Some(self.clone()),
        })
    }

    /// Buffers held by relays.
    pub fn held(&self) -> usize {
        let state = self.state();
        state.alive - state.idle.len()
    }

    /// Whether [`take`](Self::take) would find one now.
    pub fn is_available(&self) -> bool {
        let state = self.state();
        !state.idle.is_empty() || state.alive < self.shared.max_buffers
    }

    /// Size of a buffer.
    pub fn buffer_bytes(&self) -> usize {
        self.shared.buffer_bytes
    }

    /// Waits until there is a buffer to be had. Another may take it first.
    #[cfg(feature = "tokio")]
    pub async fn available(&self) {
        let _waiting = Waiting::new(&self.shared.waiting);
        loop {
            // Listening before looking, so that nothing is missed in between.
            let freed = self.shared.freed.notified();
            if self.is_available() {
                return;
            }
            freed.await;
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is consistent between any two statements.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts who waits, however the wait ends.
#[cfg(feature = "tokio")]
struct Waiting<'a>(&'a AtomicUsize);

#[cfg(feature = "tokio")]
impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

#[cfg(feature = "tokio")]
impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A buffer that goes back when it is dropped.
#[derive(Debug)]
pub struct PooledBuffer {
    bytes: Box<[u8]>,
    /// `None` for one that is freed instead.
    pool: Option<BufferPool>,
}

impl PooledBuffer {
    /// A buffer of its own, which belongs to no pool.
    pub(super) fn unpooled(bytes: Vec<u8>) -> Self {
        Self {
            bytes: bytes.into_boxed_slice(),
            pool: None,
        }
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All of it, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let Some(pool) = &self.pool else { return };
        let bytes = std::mem::take(&mut self.bytes);
        let mut state = pool.state();
        if state.idle.len() < MAX_IDLE {
            state.idle.push(bytes);
        } else {
            state.alive -= 1;
        }
        drop(state);
        // Whoever starts to wait after this look finds the buffer that was just put back.
        #[cfg(feature = "tokio")]
        if pool.shared.waiting.load(Ordering::SeqCst) > 0 {
            pool.shared.freed.notify_waiters();
        }
    }
}

/// Two receives that fill it are bulk; what is less is copied within the second-level cache.
const BUFFER_BYTES: usize = 64 << 10;

/// 64 MiB.
const MAX_BUFFERS: usize = 1024;

/// Idle buffers kept; more are freed after a burst.
const MAX_IDLE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_buffer_given_back_is_the_next_one_taken() {
        let pool = BufferPool::new(4, 100);
        let (first, second) = (pool.take().unwrap(), pool.take().unwrap());
        let address = second.bytes().as_ptr();
        drop(first);
        drop(second);
        assert_eq!(pool.take().unwrap().bytes().as_ptr(), address);
        assert_eq!(pool.held(), 0);
    }

    #[test]
    fn the_pool_is_bounded_and_never_waits() {
        let pool = BufferPool::new(1, 100);
        let only = pool.take().unwrap();
        assert!(pool.take().is_none() && !pool.is_available());
        drop(only);
        assert!(pool.take().is_some());
    }

    #[cfg(feature = "tokio")]
    #[tokio::test]
    async fn who_waits_for_a_buffer_wakes_when_one_comes_back() {
        let pool = BufferPool::new(1, 100);
        let only = pool.take().unwrap();
        let waiter = tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.available().await;
                pool.take().is_some()
            }
        });
        tokio::task::yield_now().await;
        drop(only);
        assert!(waiter.await.unwrap());
    }
}
