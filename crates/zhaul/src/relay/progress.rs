//! What a relay has done so far, readable from any thread while it runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use zhaul_core::Route;
use zhaul_core::relay::{Stats, Way};

/// Live counters of one relay, brought up to date at the end of each of its turns.
///
/// They are independent; a reader may see one of them a step ahead of another.
#[derive(Debug, Default)]
pub struct RelayProgress {
    ways: [WayProgress; 2],
    turns: AtomicU64,
}

#[derive(Debug, Default)]
struct WayProgress {
    taken: AtomicU64,
    delivered: AtomicU64,
    spliced: AtomicU64,
    calls: AtomicU64,
    switches: AtomicU64,
    splices: AtomicBool,
}

impl RelayProgress {
    /// All zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes taken from the way's source, preloaded ones included.
    pub fn taken(&self, way: Way) -> u64 {
        self.way(way).taken.load(Ordering::Relaxed)
    }

    /// Bytes taken and not delivered: in a buffer or pipe or, once the relay is over, lost.
    pub fn in_transit(&self, way: Way) -> u64 {
        self.taken(way).saturating_sub(self.delivered(way))
    }

    /// Bytes that the way's sink took.
    pub fn delivered(&self, way: Way) -> u64 {
        self.way(way).delivered.load(Ordering::Relaxed)
    }

    /// Of these, those that were spliced, not copied.
    pub fn spliced(&self, way: Way) -> u64 {
        self.way(way).spliced.load(Ordering::Relaxed)
    }

    /// System calls.
    pub fn calls(&self, way: Way) -> u64 {
        self.way(way).calls.load(Ordering::Relaxed)
    }

    /// Changes between copying and splicing.
    pub fn switches(&self, way: Way) -> u64 {
        self.way(way).switches.load(Ordering::Relaxed)
    }

    /// The route in force: [`Route::ReadWrite`] or [`Route::Splice`].
    pub fn route(&self, way: Way) -> Route {
        if self.way(way).splices.load(Ordering::Relaxed) {
            Route::Splice
        } else {
            Route::ReadWrite
        }
    }

    /// Turns that the relay has had.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Takes over the account of a relay, at the end of a turn.
    pub fn publish(&self, stats: &Stats) {
        self.turns.fetch_add(1, Ordering::Relaxed);
        for way in Way::BOTH {
            let (from, to) = (stats.way(way), self.way(way));
            to.taken.store(from.taken, Ordering::Relaxed);
            to.delivered.store(from.delivered, Ordering::Relaxed);
            to.spliced.store(from.spliced, Ordering::Relaxed);
            to.calls.store(from.calls, Ordering::Relaxed);
            to.switches.store(from.switches.into(), Ordering::Relaxed);
            let splices = from.route == Route::Splice;
            to.splices.store(splices, Ordering::Relaxed);
        }
    }

    const fn way(&self, way: Way) -> &WayProgress {
        &self.ways[way.index()]
    }
}
