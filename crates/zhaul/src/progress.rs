//! What a transfer has done so far, readable from anywhere while it runs.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use zhaul_core::{Route, Transfer};

/// Live counters. One instance may serve several transfers in turn: the counts add up.
///
/// The counters are independent; a reader may see one of them a step ahead of another.
#[derive(Debug, Default)]
pub struct Progress {
    moved: AtomicU64,
    calls: AtomicU64,
    fallbacks: AtomicU64,
    /// [`Route::index`] plus one; 0 before the first transfer.
    route: AtomicU8,
}

impl Progress {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            moved: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
            route: AtomicU8::new(0),
        }
    }

    /// Bytes that sinks took.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// System calls that moved or tried to move them, version checks included.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Changes of route.
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks.load(Ordering::Relaxed)
    }

    /// The route taken last.
    pub fn route(&self) -> Option<Route> {
        let index = self.route.load(Ordering::Relaxed).checked_sub(1)?;
        Route::from_index(index.into())
    }
}

/// Carries one transfer's counts over into a [`Progress`].
#[derive(Debug, Default)]
pub(crate) struct Published {
    moved: u64,
    calls: u64,
    fallbacks: u64,
}

impl Published {
    pub(crate) fn publish(&mut self, transfer: &Transfer, progress: &Progress) {
        let (moved, calls) = (transfer.moved(), transfer.calls());
        let fallbacks = transfer.changes().len() as u64;
        add(&progress.moved, moved - self.moved);
        add(&progress.calls, calls - self.calls);
        add(&progress.fallbacks, fallbacks - self.fallbacks);
        let route = u8::try_from(transfer.route().index() + 1).unwrap_or(0);
        progress.route.store(route, Ordering::Relaxed);
        *self = Self {
            moved,
            calls,
            fallbacks,
        };
    }
}

fn add(counter: &AtomicU64, count: u64) {
    if count > 0 {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}
