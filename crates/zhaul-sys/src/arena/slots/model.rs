//! Every order in which threads can take, share, free and wait for slots (loom).
//!
//! The memory of a slot is a cell whose accesses loom checks: a reader beside a writer fails the model.

use std::sync::Arc as StdArc;
use std::task::{Wake, Waker};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::Notify;
use loom::thread;

use super::*;
use crate::arena::waiters::Waiters;

struct Pool {
    slots: Slots,
    waiters: Waiters,
    memory: Vec<UnsafeCell<u32>>,
}

impl Pool {
    fn new(slots: usize) -> Arc<Self> {
        Arc::new(Self {
            slots: Slots::new(slots),
            waiters: Waiters::default(),
            memory: (0..slots).map(|_| UnsafeCell::new(0)).collect(),
        })
    }

    fn write(&self, slot: u32, value: u32) {
        // SAFETY: loom checks that nobody else has access at the same time.
        self.memory[slot as usize].with_mut(|memory| unsafe { *memory = value });
    }

    fn read(&self, slot: u32) -> u32 {
        // SAFETY: loom checks that nobody writes at the same time.
        self.memory[slot as usize].with(|memory| unsafe { *memory })
    }

    fn release(&self, slot: u32) {
        if self.slots.release(slot) {
            self.waiters.freed(&self.slots);
        }
    }
}

#[test]
fn nobody_writes_what_others_read() {
    loom::model(|| {
        let pool = Pool::new(1);
        let slot = pool.slots.take().unwrap();
        pool.write(slot, 1);
        pool.slots.retain(slot);
        let (reader, writer) = (Arc::clone(&pool), Arc::clone(&pool));
        let reader = thread::spawn(move || {
            assert_eq!(reader.read(slot), 1);
            reader.release(slot);
        });
        let writer = thread::spawn(move || {
            if let Some(slot) = writer.slots.take() {
                writer.write(slot, 2);
                assert_eq!(writer.read(slot), 2);
                writer.release(slot);
            }
        });
        assert_eq!(pool.read(slot), 1);
        pool.release(slot);
        reader.join().unwrap();
        writer.join().unwrap();
        assert_eq!(pool.slots.in_use(), 0);
    });
}

#[test]
fn the_only_reference_may_write_again() {
    loom::model(|| {
        let pool = Pool::new(1);
        let slot = pool.slots.take().unwrap();
        pool.write(slot, 1);
        pool.slots.retain(slot);
        let other = Arc::clone(&pool);
        let thread = thread::spawn(move || {
            if other.slots.is_unique(slot) {
                other.write(slot, 2);
            } else {
                assert_eq!(other.read(slot), 1);
            }
            other.release(slot);
        });
        assert_eq!(pool.read(slot), 1);
        pool.release(slot);
        thread.join().unwrap();
        assert_eq!(pool.slots.in_use(), 0);
    });
}

#[test]
fn two_threads_never_take_the_same_slot() {
    loom::model(|| {
        let pool = Pool::new(2);
        let threads: Vec<_> = (1..3)
            .map(|value| {
                let pool = Arc::clone(&pool);
                thread::spawn(move || {
                    let slot = pool.slots.take().expect("one for each");
                    pool.write(slot, value);
                    assert_eq!(pool.read(slot), value);
                    pool.release(slot);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(pool.slots.in_use(), 0);
    });
}

#[test]
fn nobody_sleeps_beside_a_free_slot() {
    loom::model(|| {
        let pool = Pool::new(1);
        let slot = pool.slots.take().unwrap();
        let other = Arc::clone(&pool);
        let thread = thread::spawn(move || {
            let slot = wait(&other);
            other.write(slot, 2);
            other.release(slot);
        });
        pool.write(slot, 1);
        pool.release(slot);
        thread.join().unwrap();
        assert_eq!((pool.slots.in_use(), pool.waiters.count()), (0, 0));
    });
}

#[test]
fn whoever_leaves_takes_no_slot_with_it() {
    loom::model(|| {
        let pool = Pool::new(1);
        let slot = pool.slots.take().unwrap();
        let other = Arc::clone(&pool);
        let thread = thread::spawn(move || {
            let mut ticket = None;
            match other.waiters.poll(&other.slots, &mut ticket, Waker::noop()) {
                Some(slot) => other.release(slot),
                None => other.waiters.leave(&other.slots, ticket.unwrap()),
            }
        });
        pool.release(slot);
        thread.join().unwrap();
        assert_eq!((pool.slots.in_use(), pool.waiters.count()), (0, 0));
    });
}

/// Sleeps until it is given a slot; loom fails a model in which all threads sleep.
fn wait(pool: &Pool) -> u32 {
    struct Notifying(Notify);
    impl Wake for Notifying {
        fn wake(self: StdArc<Self>) {
            self.0.notify();
        }
    }
    let notifying = StdArc::new(Notifying(Notify::new()));
    let waker = Waker::from(StdArc::clone(&notifying));
    let mut ticket = None;
    loop {
        if let Some(slot) = pool.waiters.poll(&pool.slots, &mut ticket, &waker) {
            return slot;
        }
        notifying.0.wait();
    }
}
