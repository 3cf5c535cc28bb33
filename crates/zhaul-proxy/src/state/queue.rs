//! Those who wait for a place at one of a pool's servers, in the order in which they came.
//!
//! Whoever is first is told when a place may be free, and tries to take it. Until it was heard of
//! ([`Queue::answered`]), nobody who arrives may come before it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Those who wait, on all workers.
#[derive(Debug, Default)]
pub(crate) struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// By ticket, so that whoever was told in vain gets its old position back.
    sessions: BTreeMap<u64, Waiter>,
    next_ticket: u64,
    /// Told of a place, and not heard of since. They come before everybody who arrives.
    called: usize,
}

/// A session that waits for a place, on some worker.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) worker: Arc<dyn Notify>,
    pub(crate) session: u64,
}

/// Tells a worker that a session of its may try to take a place.
pub(crate) trait Notify: Debug + Send + Sync {
    /// If the session does not wait any more, the next one of `queue` may try; in any case the worker
    /// says so by [`Queue::answered`].
    fn place_free(&self, queue: Arc<Queue>, session: u64);
}

impl Queue {
    /// Whether somebody was here first.
    pub(crate) fn is_occupied(&self) -> bool {
        let waiting = self.lock();
        waiting.called > 0 || !waiting.sessions.is_empty()
    }

    /// Lets a session wait, and says under which ticket; `None` if `most` do already.
    pub(crate) fn wait(&self, waiter: Waiter, most: usize) -> Option<u64> {
        let mut waiting = self.lock();
        if waiting.sessions.len() >= most {
            return None;
        }
        let ticket = waiting.next_ticket;
        waiting.next_ticket += 1;
        waiting.sessions.insert(ticket, waiter);
        Some(ticket)
    }

    /// Lets a session that was told in vain wait on where it was.
    pub(crate) fn wait_on(&self, ticket: u64, waiter: Waiter) {
        self.lock().sessions.insert(ticket, waiter);
    }

    /// Takes a session that has gone, or waited long enough, out of the queue.
    pub(crate) fn forget(&self, ticket: u64) {
        self.lock().sessions.remove(&ticket);
    }

    /// Tells the first of those who wait that there may be a place.
    pub(crate) fn call_next(self: &Arc<Self>) {
        self.call_from(0);
    }

    /// Tells the first who came after somebody that had no use for a free place.
    pub(crate) fn call_behind(self: &Arc<Self>, ticket: u64) {
        self.call_from(ticket + 1);
    }

    fn call_from(self: &Arc<Self>, ticket: u64) {
        let mut waiting = self.lock();
        let first = waiting.sessions.range(ticket..).next().map(|(&t, _)| t);
        let Some(waiter) = first.and_then(|ticket| waiting.sessions.remove(&ticket)) else {
            return;
        };
        waiting.called += 1;
        // The lock is given back before a worker is told.
        drop(waiting);
        self.call(&waiter);
    }

    /// Tells all who wait: a server came up.
    pub(crate) fn call_all(self: &Arc<Self>) {
        let mut waiting = self.lock();
        let all = std::mem::take(&mut waiting.sessions);
        waiting.called += all.len();
        drop(waiting);
        for waiter in all.values() {
            self.call(waiter);
        }
    }

    /// Somebody who was told has taken a place, or waits again, or has gone.
    pub(crate) fn answered(&self) {
        let mut waiting = self.lock();
        waiting.called = waiting.called.saturating_sub(1);
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().sessions.len()
    }

    fn call(self: &Arc<Self>, Waiter { worker, session }: &Waiter) {
        worker.place_free(Arc::clone(self), *session);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who was told, in turn.
    #[derive(Debug, Default)]
    struct Told(Mutex<Vec<u64>>);

    impl Notify for Told {
        fn place_free(&self, _queue: Arc<Queue>, session: u64) {
            self.0.lock().unwrap().push(session);
        }
    }

    #[test]
    fn nobody_overtakes_and_whoever_was_told_in_vain_is_first_again() {
        let (queue, told) = (Arc::new(Queue::default()), Arc::new(Told::default()));
        let waiter = |session| Waiter {
            worker: Arc::clone(&told) as Arc<dyn Notify>,
            session,
        };
        let tickets = [1, 2, 3].map(|session| queue.wait(waiter(session), 3));
        assert_eq!(tickets, [Some(0), Some(1), Some(2)]);
        assert_eq!(queue.wait(waiter(4), 3), None);
        queue.call_next();
        assert_eq!((queue.len(), queue.is_occupied()), (2, true));
        queue.wait_on(0, waiter(1));
        queue.answered();
        queue.call_behind(0);
        queue.answered();
        queue.call_all();
        assert_eq!(*told.0.lock().unwrap(), [1, 2, 1, 3]);
        assert_eq!((queue.len(), queue.is_occupied()), (0, true));
        queue.answered();
        queue.answered();
        assert!(!queue.is_occupied());
    }
}
