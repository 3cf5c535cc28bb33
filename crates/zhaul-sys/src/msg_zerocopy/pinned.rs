//! How much memory may be in the kernel's hands at a time, and how much is.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::reaper;

/// What all senders of the process together may have pending. A send beyond it is refused with
/// ENOBUFS, so that its bytes are copied instead; what is pending is never let go early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that were sent. An owner may keep more than its bytes alive.
    pub bytes: usize,
    /// Sockets with calls pending, each of which has a descriptor.
    pub sockets: usize,
}

impl Default for Limits {
    /// 256 MiB in 1,024 sockets.
    fn default() -> Self {
        Self {
            bytes: BYTES,
            sockets: SOCKETS,
        }
    }
}

/// What is in the kernel's hands, in the whole process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    /// Bytes of calls that are not completed.
    pub bytes: usize,
    /// Sockets with such calls.
    pub sockets: usize,
    /// Of these bytes, those whose sender was dropped: the reaper waits for their completions.
    pub orphaned_bytes: usize,
    /// Of these sockets, those whose sender was dropped.
    pub orphaned_sockets: usize,
    /// Sends refused at a limit, so far.
    pub refused: u64,
    /// Messages of other kinds that were taken out of error queues and dropped, so far.
    pub other_messages: u64,
}

/// What is pending now.
pub fn pinned() -> Pinned {
    let (orphaned_sockets, orphaned_bytes) = orphans();
    Pinned {
        bytes: PINNED_BYTES.load(Relaxed),
        sockets: PINNED_SOCKETS.load(Relaxed),
        orphaned_bytes,
        orphaned_sockets,
        refused: REFUSED.load(Relaxed),
        other_messages: OTHERS.load(Relaxed),
    }
}

#[cfg(not(all(feature = "io-uring", not(miri))))]
fn orphans() -> (usize, usize) {
    reaper::orphans()
}

#[cfg(all(feature = "io-uring", not(miri)))]
fn orphans() -> (usize, usize) {
    let (sockets, bytes) = reaper::orphans();
    let (rings, of_rings) = crate::send_zc::orphans();
    (sockets + rings, bytes + of_rings)
}

/// Sets the limits from now on. What is pending beyond them stays.
pub fn set_limits(limits: Limits) {
    LIMIT_BYTES.store(limits.bytes, Relaxed);
    LIMIT_SOCKETS.store(limits.sockets, Relaxed);
}

/// Takes room for so many bytes, and for a socket if it is the first of its calls.
pub(crate) fn take(bytes: usize, is_first: bool) -> bool {
    if is_first && !add(&PINNED_SOCKETS, 1, LIMIT_SOCKETS.load(Relaxed)) {
        REFUSED.fetch_add(1, Relaxed);
        return false;
    }
    if !add(&PINNED_BYTES, bytes, LIMIT_BYTES.load(Relaxed)) {
        give_back(0, is_first);
        REFUSED.fetch_add(1, Relaxed);
        return false;
    }
    true
}

/// Gives room back; `is_last` if no call of the socket is pending any more.
pub(crate) fn give_back(bytes: usize, is_last: bool) {
    PINNED_BYTES.fetch_sub(bytes, Relaxed);
    PINNED_SOCKETS.fetch_sub(usize::from(is_last), Relaxed);
}

pub(super) fn count_others(messages: u32) {
    OTHERS.fetch_add(messages.into(), Relaxed);
}

fn add(sum: &AtomicUsize, more: usize, limit: usize) -> bool {
    let within = |sum: usize| sum.checked_add(more).filter(|sum| *sum <= limit);
    sum.fetch_update(Relaxed, Relaxed, within).is_ok()
}

const BYTES: usize = 256 << 20;
const SOCKETS: usize = 1024;

static PINNED_BYTES: AtomicUsize = AtomicUsize::new(0);
static PINNED_SOCKETS: AtomicUsize = AtomicUsize::new(0);
static LIMIT_BYTES: AtomicUsize = AtomicUsize::new(BYTES);
static LIMIT_SOCKETS: AtomicUsize = AtomicUsize::new(SOCKETS);
static REFUSED: AtomicU64 = AtomicU64::new(0);
static OTHERS: AtomicU64 = AtomicU64::new(0);
