//! Waits without a descriptor, for processes that have none to spare: one thread of the process
//! wakes up everybody who waits so.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::FAR;

/// Is ready once the time has come.
#[derive(Debug)]
pub(super) struct Alarm {
    /// When, and which of several at that time.
    key: Key,
}

type Key = (Instant, u64);

impl Alarm {
    pub(super) fn after(time: Duration) -> Self {
        let now = Instant::now();
        let at = now.checked_add(time).unwrap_or(now + FAR);
        let mut state = ALARMS.lock();
        state.made += 1;
        Self {
            key: (at, state.made),
        }
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.key.0 {
            return Poll::Ready(());
        }
        ALARMS.set(self.key, cx.waker());
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        ALARMS.lock().wakers.remove(&self.key);
    }
}

struct Alarms {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    wakers: BTreeMap<Key, Waker>,
    made: u64,
    has_thread: bool,
}

static ALARMS: Alarms = Alarms {
    state: Mutex::new(State {
        wakers: BTreeMap::new(),
        made: 0,
        has_thread: false,
    }),
    changed: Condvar::new(),
};

impl Alarms {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&'static self, key: Key, waker: &Waker) {
        let mut state = self.lock();
        state.wakers.insert(key, waker.clone());
        if !state.has_thread {
            let thread = std::thread::Builder::new().name("zhaul-alarm".into());
            state.has_thread = thread.spawn(move || self.ring()).is_ok();
        }
        if !state.has_thread {
            // No threads either: it is asked again, after the others had their turn.
            state.wakers.remove(&key);
            drop(state);
            waker.wake_by_ref();
            return;
        }
        let is_first = state.wakers.first_key_value().map(|(first, _)| *first) == Some(key);
        drop(state);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// The thread, which leaves when nobody has waited for a while.
    fn ring(&self) {
        let mut state = self.lock();
        loop {
            let first = state.wakers.first_key_value().map(|((at, _), _)| *at);
            let left = first.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                if let Some((_, waker)) = state.wakers.pop_first() {
                    // It may be polled at once, or dropped, which takes the lock.
                    drop(state);
                    waker.wake();
                    state = self.lock();
                }
                continue;
            }
            let waited = self.changed.wait_timeout(state, left.unwrap_or(IDLE));
            let (woken, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if outcome.timed_out() && state.wakers.is_empty() {
                state.has_thread = false;
                return;
            }
        }
    }
}

/// How long the thread stays when nobody waits.
const IDLE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_ring_in_time_one_by_one_and_are_forgotten_when_dropped() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            let began = Instant::now();
            let dropped = Alarm::after(Duration::from_secs(3600));
            let mut dropped = Box::pin(dropped);
            std::future::poll_fn(|cx| {
                assert!(dropped.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            let key = dropped.key;
            let [late, early] = [60, 20].map(Duration::from_millis);
            let (late, early) = tokio::join!(
                async {
                    Alarm::after(late).await;
                    began.elapsed()
                },
                async {
                    Alarm::after(early).await;
                    began.elapsed()
                }
            );
            assert!(early >= Duration::from_millis(20) && late >= Duration::from_millis(60));
            drop(dropped);
            assert!(!ALARMS.lock().wakers.contains_key(&key));
        });
    }
}
