//! What a transfer has done so far, readable from anywhere while it runs.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use zhaul_core::{Route, Transfer};

/// Live counters. One instance may serve several transfers in turn: the counts add up.
///
/// The counters are independent; a reader may see one of them a step ahead of another.
#[derive(Debug, Default)]
pub struct Progress {
    moved: AtomicU64,
    in_transit: AtomicU64,
    stranded: AtomicU64,
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
            in_transit: AtomicU64::new(0),
            stranded: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
            route: AtomicU8::new(0),
        }
    }

    /// Bytes that sinks took.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Bytes that were taken from sources and are under way to sinks: in a pipe or buffer between.
    pub fn in_transit(&self) -> u64 {
        self.in_transit.load(Ordering::Relaxed)
    }

    /// Bytes that were taken from streams and never will reach a sink: what was in transit when a
    /// transfer failed, was stopped, or was dropped. Sources that can be read again lose nothing.
    pub fn stranded(&self) -> u64 {
        self.stranded.load(Ordering::Relaxed)
    }

    /// System calls that moved or tried to move them, version checks included.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Changes of route.
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks.load(Ordering::Relaxed)
    }

    /// Adds bytes that no transfer moved: memory that was sent.
    pub(crate) fn count(&self, moved: u64, calls: u64) {
        add(&self.moved, moved);
        add(&self.calls, calls);
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
    in_transit: u64,
    calls: u64,
    fallbacks: u64,
    has_ended: bool,
}

impl Published {
    pub(crate) fn publish(&mut self, transfer: &Transfer, progress: &Progress) {
        let (moved, calls) = (transfer.moved(), transfer.calls());
        let in_transit = if self.has_ended || transfer.is_over() {
            0
        } else {
            transfer.in_transit()
        };
        let fallbacks = transfer.changes().len() as u64;
        add(&progress.moved, moved - self.moved);
        if in_transit > self.in_transit {
            add(&progress.in_transit, in_transit - self.in_transit);
        } else if in_transit < self.in_transit {
            let less = self.in_transit - in_transit;
            progress.in_transit.fetch_sub(less, Ordering::Relaxed);
        }
        add(&progress.calls, calls - self.calls);
        add(&progress.fallbacks, fallbacks - self.fallbacks);
        let route = u8::try_from(transfer.route().index() + 1).unwrap_or(0);
        progress.route.store(route, Ordering::Relaxed);
        *self = Self {
            moved,
            in_transit,
            calls,
            fallbacks,
            has_ended: self.has_ended,
        };
    }

    /// Publishes the end of a transfer that is over, or that nobody will drive on, once.
    pub(crate) fn publish_end(&mut self, transfer: &Transfer, progress: &Progress) {
        let had_ended = std::mem::replace(&mut self.has_ended, true);
        self.publish(transfer, progress);
        if !had_ended {
            add(&progress.stranded, transfer.stranded());
        }
    }
}

fn add(counter: &AtomicU64, count: u64) {
    if count > 0 {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}
