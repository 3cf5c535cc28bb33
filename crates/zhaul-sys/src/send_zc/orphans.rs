//! Rings whose batch was dropped while the kernel could still read slots, and the thread that waits
//! for them.
//!
//! All of these rings signal one eventfd, on which the thread sleeps; while there are any it looks at
//! all of them once a second besides. If it cannot be started, rings and slots are kept, and the next
//! batch that is dropped tries again.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::State;

struct Table {
    states: Vec<State>,
    /// Of the thread, once it runs.
    signal: Option<Arc<OwnedFd>>,
}

/// Takes a ring that still has sends in flight. It is never entered again.
pub(super) fn leave(state: State) {
    let mut table = table();
    if let Ok(signal) = table.runs() {
        // Without it the ring is looked at once a second.
        let _ = state.ring.submitter().register_eventfd(signal.as_raw_fd());
        table.states.push(state);
        // What came before that has signalled nothing.
        let _ = rustix::io::write(&signal, &1_u64.to_ne_bytes());
    } else {
        table.states.push(state);
    }
}

/// How many there are, and the bytes that the kernel may read of them.
pub(crate) fn orphans() -> (usize, usize) {
    let table = table();
    let bytes = table.states.iter().map(|state| state.bytes);
    (table.states.len(), bytes.sum())
}

impl Table {
    fn runs(&mut self) -> io::Result<Arc<OwnedFd>> {
        if let Some(signal) = &self.signal {
            return Ok(Arc::clone(signal));
        }
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let signal = Arc::new(eventfd(0, flags)?);
        let also = Arc::clone(&signal);
        let thread = std::thread::Builder::new().name("zhaul-send-zc".to_owned());
        thread.spawn(move || run(&also))?;
        self.signal = Some(Arc::clone(&signal));
        Ok(signal)
    }
}

/// Reaps for ever.
fn run(signal: &OwnedFd) {
    loop {
        let (mut released, mut over) = (Vec::new(), Vec::new());
        let mut table = table();
        let mut at = 0;
        while let Some(state) = table.states.get_mut(at) {
            state.reap(|send| released.push(send));
            if state.in_flight() == 0 {
                over.push(table.states.swap_remove(at));
            } else {
                at += 1;
            }
        }
        let timeout = (!table.states.is_empty()).then_some(A_SECOND);
        drop(table);
        // Giving a slot back wakes who waits for one, which is done without the lock; a waker that panics
        // is not the end of this thread.
        for send in released {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(send)));
        }
        drop(over);
        // If it fails, it is looked again.
        let _ = poll(&mut [PollFd::new(signal, PollFlags::IN)], timeout.as_ref());
        let _ = rustix::io::read(signal, &mut [0; 8]);
    }
}

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

const A_SECOND: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

static TABLE: Mutex<Table> = Mutex::new(Table {
    states: Vec::new(),
    signal: None,
});
