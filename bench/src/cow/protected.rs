//! `userfaultfd(2)`: pages are write-protected, and replaced by a thread when they are written to.
//!
//! What is measured is less than a snapshot takes: sends in flight keep the old pages, but nobody else
//! can read them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::ensure;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zhaul_sys::userfaultfd::{Userfault, WatchedMemory};

use super::{Contender, Cycle, Times, timed};
use crate::affinity::{self, Cores};

pub(crate) struct Protected {
    watched: Arc<Watched>,
    handler: Option<JoinHandle<()>>,
}

struct Watched {
    memory: WatchedMemory,
    faults: Userfault,
    stop: AtomicBool,
}

impl Protected {
    pub(crate) fn new(pages: usize) -> anyhow::Result<Self> {
        let faults = Userfault::open(true)?;
        let memory = WatchedMemory::pages(pages)?;
        (0..pages).for_each(|page| memory.store(page, 1));
        faults.watch(&memory)?;
        let watched = Arc::new(Watched {
            memory,
            faults,
            stop: AtomicBool::new(false),
        });
        let shared = Arc::clone(&watched);
        let core = Cores::pick()?.client;
        let handler = std::thread::spawn(move || {
            let _ = affinity::pin(core);
            shared.handle();
        });
        Ok(Self {
            watched,
            handler: Some(handler),
        })
    }
}

impl Watched {
    fn handle(&self) {
        let while_idle = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        while !self.stop.load(Ordering::Relaxed) {
            let mut ready = [PollFd::new(&self.faults, PollFlags::IN)];
            let _ = poll(&mut ready, Some(&while_idle));
            while let Ok(Some(fault)) = self.faults.next() {
                let page = self.memory.page_of(fault.address).expect("a watched page");
                self.faults
                    .replace(&self.memory, page)
                    .expect("the page is there");
            }
        }
    }
}

impl Contender for Protected {
    fn cycle(&mut self, cycle: &Cycle<'_>) -> anyhow::Result<Times> {
        let Watched { memory, faults, .. } = &*self.watched;
        let (snapshot_us, armed) = timed(|| faults.protect_all(memory, true));
        armed?;
        let (write_us, ()) = timed(|| {
            for &page in cycle.pages {
                memory.store(page, cycle.byte);
            }
        });
        let (release_us, disarmed) = timed(|| faults.protect_all(memory, false));
        disarmed?;
        ensure!(cycle.sink.is_none(), "there is nothing to send");
        Ok(Times {
            snapshot_us,
            write_us,
            release_us,
        })
    }
}

impl Drop for Protected {
    fn drop(&mut self) {
        self.watched.stop.store(true, Ordering::Relaxed);
        if let Some(handler) = self.handler.take() {
            let _ = handler.join();
        }
    }
}
