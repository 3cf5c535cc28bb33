//! Who holds which slot: counts and a bitmap, without the memory itself.
//!
//! A set bit is a free slot. Whoever clears it owns the slot, so there is no list whose head could be
//! taken for another (ABA). Each thread looks into a word of its own first and takes the lowest slot
//! there: what was used a moment ago is still in the cache, and threads keep out of each other's lines.
//!
//! Everything that readers of a slot did happens before the next owner writes to it: they release the
//! count, the last of them acquires it and releases the bit, and the next owner acquires the bit.

use std::sync::atomic::AtomicU32;

use super::sync::{AtomicU64, AtomicUsize, Ordering, fence};

#[derive(Debug)]
pub(super) struct Slots {
    /// Bit `n % 64` of word `n / 64`: slot `n` is free.
    free: Box<[Word]>,
    states: Box<[State]>,
}

/// In a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Word(AtomicU64);

/// In a cache line of its own: neighbours are cloned and dropped on different cores.
#[derive(Debug, Default)]
#[repr(align(64))]
struct State {
    references: AtomicUsize,
    generation: AtomicU64,
}

impl Slots {
    pub(super) fn new(slots: usize) -> Self {
        let words = slots.div_ceil(64);
        let free = (0..words).map(|word| {
            let bits = (slots - word * 64).min(64);
            Word(AtomicU64::new(u64::MAX >> (64 - bits)))
        });
        Self {
            free: free.collect(),
            states: (0..slots).map(|_| State::default()).collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    pub(super) fn in_use(&self) -> usize {
        let free = self.free.iter().map(|word| word.0.load(Ordering::Relaxed));
        self.len() - free.map(|bits| bits.count_ones() as usize).sum::<usize>()
    }

    /// Takes a free slot with one reference to it.
    pub(super) fn take(&self) -> Option<u32> {
        let words = self.free.len();
        let first = HOME.with(|&thread| thread % words);
        let slot = (first..words)
            .chain(0..first)
            .find_map(|word| Some(word * 64 + self.take_from(word)?))?;
        self.states[slot].references.store(1, Ordering::Relaxed);
        Some(u32::try_from(slot).expect("as many slots as a u32 counts"))
    }

    fn take_from(&self, word: usize) -> Option<usize> {
        let word = &self.free[word].0;
        loop {
            // For who waits; see `waiters`.
            let free = word.load(Ordering::SeqCst);
            if free == 0 {
                return None;
            }
            let bit = free & free.wrapping_neg();
            if word.fetch_and(!bit, Ordering::Acquire) & bit != 0 {
                return Some(bit.trailing_zeros() as usize);
            }
        }
    }

    /// One more reference to a slot to which the caller has one.
    pub(super) fn retain(&self, slot: u32) {
        // Relaxed: a new reference is made from one that is known already.
        let before = self.state(slot).references.fetch_add(1, Ordering::Relaxed);
        if before > MAX_REFERENCES {
            // As Arc does: references that were forgotten cannot wrap the count to a free slot.
            std::process::abort();
        }
    }

    /// One reference less. True for the last: the slot may be taken from now on.
    pub(super) fn release(&self, slot: u32) -> bool {
        let state = self.state(slot);
        if state.references.fetch_sub(1, Ordering::Release) != 1 {
            return false;
        }
        fence(Ordering::Acquire);
        state.generation.fetch_add(1, Ordering::Relaxed);
        let word = &self.free[slot as usize / 64].0;
        word.fetch_or(1 << (slot % 64), Ordering::SeqCst);
        true
    }

    /// True if the caller's reference is the only one, and everything that others did with theirs is
    /// done.
    pub(super) fn is_unique(&self, slot: u32) -> bool {
        self.state(slot).references.load(Ordering::Acquire) == 1
    }

    /// How often the slot was freed.
    pub(super) fn generation(&self, slot: u32) -> u64 {
        self.state(slot).generation.load(Ordering::Relaxed)
    }

    fn state(&self, slot: u32) -> &State {
        &self.states[slot as usize]
    }
}

thread_local! {
    /// How many threads came before this one.
    static HOME: usize = {
        static THREADS: AtomicU32 = AtomicU32::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed) as usize
    };
}

const MAX_REFERENCES: usize = isize::MAX as usize;

#[cfg(all(test, loom))]
mod model;
