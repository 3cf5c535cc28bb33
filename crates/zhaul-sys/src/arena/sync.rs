//! The atomics of the standard library, or those of loom in its model (`--cfg loom`).

#[cfg(loom)]
pub(super) use loom::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence},
    sync::{Mutex, MutexGuard},
};
#[cfg(not(loom))]
pub(super) use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence},
    sync::{Mutex, MutexGuard},
};

/// Loom takes sequentially consistent accesses for acquiring and releasing ones, but knows fences.
pub(super) fn loom_fence() {
    #[cfg(loom)]
    fence(Ordering::SeqCst);
}
