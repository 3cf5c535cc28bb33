//! Who waits for a slot, in the order in which they came.
//!
//! A slot that becomes free while somebody waits is given to whoever came first, not merely announced:
//! otherwise an owner who frees a slot and takes one at once would always be faster.
//!
//! Nobody waits beside a free slot. Who waits stores the count and then looks at the bitmap; who frees sets
//! the bit and then looks at the count. All four are sequentially consistent, so one of them sees the
//! other.

use std::collections::BTreeMap;
use std::task::Waker;

use super::slots::Slots;
use super::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, loom_fence};

#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// How many are `waiting`; looked at whenever a slot becomes free.
    count: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    last: Ticket,
    waiting: BTreeMap<Ticket, Waker>,
    /// Slots in use for those who were woken and have not come for them yet.
    given: BTreeMap<Ticket, u32>,
}

/// Who waits; a smaller one came earlier.
pub(super) type Ticket = u64;

impl Waiters {
    /// Takes a slot, or waits for one. Who comes without a ticket gets one, if it has to wait.
    pub(super) fn poll(
        &self,
        slots: &Slots,
        ticket: &mut Option<Ticket>,
        waker: &Waker,
    ) -> Option<u32> {
        if ticket.is_none()
            && self.count() == 0
            && let Some(slot) = slots.take()
        {
            return Some(slot);
        }
        // Wakers are foreign code, which may come back here: outside of the lock.
        let waker = waker.clone();
        let (slot, replaced, woken) = {
            let mut queue = self.lock();
            let own = *ticket.get_or_insert_with(|| queue.ticket());
            match queue.given.remove(&own) {
                Some(slot) => (Some(slot), None, Vec::new()),
                None => {
                    let replaced = queue.waiting.insert(own, waker);
                    let woken = self.give(&mut queue, slots);
                    (queue.given.remove(&own), replaced, woken)
                }
            }
        };
        drop(replaced);
        woken.into_iter().for_each(Waker::wake);
        slot
    }

    /// Waits no longer.
    pub(super) fn leave(&self, slots: &Slots, ticket: Ticket) {
        let (waker, given) = {
            let mut queue = self.lock();
            let waker = queue.waiting.remove(&ticket);
            self.count.store(queue.waiting.len(), Ordering::SeqCst);
            (waker, queue.given.remove(&ticket))
        };
        drop(waker);
        if let Some(slot) = given {
            slots.release(slot);
            self.freed(slots);
        }
    }

    /// A slot became free.
    pub(super) fn freed(&self, slots: &Slots) {
        loom_fence();
        if self.count() > 0 {
            let woken = self.give(&mut self.lock(), slots);
            woken.into_iter().for_each(Waker::wake);
        }
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Gives free slots to those who wait.
    fn give(&self, queue: &mut Queue, slots: &Slots) -> Vec<Waker> {
        let mut woken = Vec::new();
        self.count.store(queue.waiting.len(), Ordering::SeqCst);
        loom_fence();
        while !queue.waiting.is_empty()
            && let Some(slot) = slots.take()
            && let Some((ticket, waker)) = queue.waiting.pop_first()
        {
            queue.given.insert(ticket, slot);
            woken.push(waker);
        }
        self.count.store(queue.waiting.len(), Ordering::SeqCst);
        woken
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing under the lock panics")
    }
}

impl Queue {
    fn ticket(&mut self) -> Ticket {
        self.last += 1;
        self.last
    }
}
