//! The open-file cache of one worker: descriptors, validators and small bodies, by request path.
//!
//! Contract: an answer from the cache is never older than the request. Before an entry is used the
//! caller compares it with one statx(2) of its path (see [`crate::files::entry`]), so that an edit in
//! place, a rename over, an unlink and a swapped symbolic link are each seen by the next request.
//! What statx cannot show cannot be seen: stores through a shared mapping that the kernel has not
//! yet stamped on the inode.
//!
//! The cache holds at most `max_files` open files and `max_bytes` of bodies; the entry that was not
//! used for longest (second chance, not exact LRU) makes room. Entries that nobody asked for in
//! [`IDLE_SECONDS`] are closed by one of the next sweeps, so a deleted file's blocks are freed
//! within half a minute.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::RandomState;

/// After this long without a request an entry is closed.
pub(crate) const IDLE_SECONDS: u64 = 20;
/// Entries looked at in one sweep, so that a sweep's time does not grow with the cache.
const SWEEP: usize = 256;

/// What the cache needs to know of a value.
pub(crate) trait Weight {
    /// Bytes of memory that it holds beyond a small constant.
    fn bytes(&self) -> usize;
    /// Open files that it holds.
    fn files(&self) -> usize;
}

/// A cached value with what the cache remembers of it.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    key: Box<[u8]>,
    index: Cell<usize>,
    used: Cell<bool>,
    used_at: Cell<u64>,
    pub(crate) value: T,
}

impl<T> Slot<T> {
    /// A value that no cache keeps.
    pub(crate) fn apart(value: T) -> Rc<Self> {
        Self::new(&[], value, 0)
    }

    fn new(key: &[u8], value: T, now: u64) -> Rc<Self> {
        let (index, used, used_at) = (Cell::new(0), Cell::new(false), Cell::new(now));
        Rc::new(Self {
            key: key.into(),
            index,
            used,
            used_at,
            value,
        })
    }
}

/// A bounded map from request paths to values.
#[derive(Debug)]
pub(crate) struct Cache<T> {
    by_key: HashMap<Box<[u8]>, Rc<Slot<T>>, RandomState>,
    ring: Vec<Rc<Slot<T>>>,
    hand: usize,
    bytes: usize,
    files: usize,
    max_files: usize,
    max_bytes: usize,
}

impl<T: Weight> Cache<T> {
    pub(crate) fn new(max_files: usize, max_bytes: usize) -> Self {
        let by_key = HashMap::with_hasher(RandomState::default());
        Self {
            by_key,
            ring: Vec::new(),
            hand: 0,
            bytes: 0,
            files: 0,
            max_files,
            max_bytes,
        }
    }

    /// The value of `key`, marked as used at `now` (seconds of the clock that [`Cache::sweep`] is
    /// called with).
    #[inline]
    pub(crate) fn get(&self, key: &[u8], now: u64) -> Option<&Rc<Slot<T>>> {
        let slot = self.by_key.get(key)?;
        slot.used.set(true);
        slot.used_at.set(now);
        Some(slot)
    }

    /// Puts `value` in, in place of what had its key, and makes room for it first. A value that
    /// would fill more than a quarter of the cache is handed back uncached.
    pub(crate) fn insert(&mut self, key: &[u8], value: T, now: u64) -> Rc<Slot<T>> {
        self.remove(key);
        let bytes = value.bytes();
        let slot = Slot::new(key, value, now);
        let files = slot.value.files();
        if files > self.max_files || bytes > self.max_bytes / 4 {
            return slot;
        }
        while self.files + files > self.max_files || self.bytes + bytes > self.max_bytes {
            self.evict_one();
        }
        self.bytes += bytes;
        self.files += files;
        slot.index.set(self.ring.len());
        self.ring.push(Rc::clone(&slot));
        self.by_key.insert(slot.key.clone(), Rc::clone(&slot));
        slot
    }

    /// Forgets `key`.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        if let Some(slot) = self.by_key.remove(key) {
            self.unlink(&slot);
        }
    }

    /// Closes entries that nobody asked for lately; call about once a second.
    pub(crate) fn sweep(&mut self, now: u64) {
        for _ in 0..SWEEP.min(self.ring.len()) {
            self.hand = (self.hand + 1) % self.ring.len();
            let slot = Rc::clone(&self.ring[self.hand]);
            if now.saturating_sub(slot.used_at.get()) > IDLE_SECONDS {
                self.by_key.remove(&slot.key);
                self.unlink(&slot);
                if self.ring.is_empty() {
                    return;
                }
            }
        }
    }

    /// Closes everything: descriptors have run out elsewhere.
    pub(crate) fn clear(&mut self) {
        self.by_key.clear();
        self.ring.clear();
        self.bytes = 0;
        self.files = 0;
        self.hand = 0;
    }

    fn evict_one(&mut self) {
        loop {
            self.hand = (self.hand + 1) % self.ring.len();
            let slot = &self.ring[self.hand];
            if !slot.used.replace(false) {
                let slot = Rc::clone(slot);
                self.by_key.remove(&slot.key);
                self.unlink(&slot);
                return;
            }
        }
    }

    fn unlink(&mut self, slot: &Slot<T>) {
        let index = slot.index.get();
        self.ring.swap_remove(index);
        if let Some(moved) = self.ring.get(index) {
            moved.index.set(index);
        }
        self.bytes -= slot.value.bytes();
        self.files -= slot.value.files();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq)]
    struct Bytes(usize);

    impl Weight for Bytes {
        fn bytes(&self) -> usize {
            self.0
        }

        fn files(&self) -> usize {
            1 + self.0 % 2
        }
    }

    #[test]
    fn what_is_used_outlives_what_is_not() {
        let mut cache = Cache::new(2, 1000);
        cache.insert(b"a", Bytes(2), 0);
        cache.insert(b"b", Bytes(2), 0);
        cache.get(b"a", 0);
        cache.insert(b"c", Bytes(2), 0);
        assert!(cache.get(b"a", 0).is_some());
        assert!(cache.get(b"b", 0).is_none());
    }

    #[test]
    fn a_body_too_large_for_the_cache_is_served_and_not_kept() {
        let mut cache = Cache::new(8, 100);
        assert_eq!(cache.insert(b"a", Bytes(26), 0).value, Bytes(26));
        assert!(cache.get(b"a", 0).is_none());
    }

    #[test]
    fn unused_entries_are_closed() {
        let mut cache = Cache::new(8, 100);
        cache.insert(b"old", Bytes(1), 0);
        cache.insert(b"new", Bytes(1), IDLE_SECONDS);
        cache.sweep(IDLE_SECONDS + 1);
        assert!(cache.get(b"old", 0).is_none());
        assert!(cache.get(b"new", 0).is_some());
    }

    proptest! {
        #[test]
        fn bounds_hold_whatever_is_done(steps in proptest::collection::vec((0u8..4, 0u8..12, 0usize..40), 0..200)) {
            let mut cache = Cache::new(5, 100);
            for (now, (what, key, bytes)) in steps.into_iter().enumerate() {
                let key = [key];
                match what {
                    0 | 1 => drop(cache.insert(&key, Bytes(bytes), now as u64)),
                    2 => drop(cache.get(&key, now as u64).cloned()),
                    _ if key[0] < 6 => cache.remove(&key),
                    _ => cache.sweep(now as u64),
                }
                let files: usize = cache.ring.iter().map(|s| s.value.files()).sum();
                prop_assert_eq!(cache.files, files);
                prop_assert!(files <= 5);
                prop_assert_eq!(cache.ring.len(), cache.by_key.len());
                prop_assert_eq!(cache.bytes, cache.ring.iter().map(|s| s.value.0).sum::<usize>());
                prop_assert!(cache.bytes <= 100);
                for (i, slot) in cache.ring.iter().enumerate() {
                    prop_assert_eq!(slot.index.get(), i);
                }
            }
        }
    }
}
