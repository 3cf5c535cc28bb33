//! Remembers for a second which chunks were found resident.
//!
//! A fixed table of 4096 words (32 KiB), direct-mapped by a hash of file, version and chunk (its place and its size). A
//! collision forgets the older entry; the price is one more probe. With chunks of 1 MiB it covers
//! 4 GiB of hot files. It is lock-free and may be shared, though one per worker keeps its cache
//! lines at home.

use std::sync::atomic::{AtomicU64, Ordering};

use zhaul_core::Version;

/// Chunks found resident a moment ago.
#[derive(Debug)]
pub struct ResidencyCache {
    entries: Box<[AtomicU64]>,
}

impl Default for ResidencyCache {
    fn default() -> Self {
        Self::new()
    }
}

impl ResidencyCache {
    /// Remembers nothing yet.
    pub fn new() -> Self {
        Self {
            entries: (0..ENTRIES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// True if this chunk of this version was noted within the last second.
    pub fn is_resident(&self, version: &Version, chunk: Chunk, now: Tick) -> bool {
        let hash = hash(version, chunk);
        let entry = self.slot(hash).load(Ordering::Relaxed);
        entry >> TICK_BITS == tag(hash) && now.since(entry & TICK_MASK) < VALID_TICKS
    }

    /// Notes that this chunk was resident now.
    pub fn note(&self, version: &Version, chunk: Chunk, now: Tick) {
        let hash = hash(version, chunk);
        self.slot(hash)
            .store(tag(hash) << TICK_BITS | now.0, Ordering::Relaxed);
    }

    fn slot(&self, hash: u64) -> &AtomicU64 {
        // ENTRIES is a power of two.
        #[allow(clippy::cast_possible_truncation)]
        &self.entries[hash as usize & (ENTRIES - 1)]
    }
}

/// A piece of a file. Pieces of different sizes are remembered apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Which multiple of its size it begins at.
    pub index: u64,
    /// Its size.
    pub bytes: u64,
}

impl Chunk {
    /// The chunk of this size that the offset is in.
    pub const fn at(offset: u64, bytes: u64) -> Self {
        Self {
            index: offset / bytes,
            bytes,
        }
    }
}

/// A reading of a coarse clock, in units of about 16 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick(u64);

impl Tick {
    /// Now, by CLOCK_MONOTONIC_COARSE: a read from the vDSO, no system call.
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
        let nanoseconds = now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned();
        Self(nanoseconds >> 24 & TICK_MASK)
    }

    /// This reading, so many ticks later.
    pub const fn plus(self, ticks: u64) -> Self {
        Self(self.0.wrapping_add(ticks) & TICK_MASK)
    }

    /// Whether less than a second passed since an earlier reading.
    pub const fn is_within_a_second_of(self, earlier: Self) -> bool {
        self.since(earlier.0) < VALID_TICKS
    }

    const fn since(self, earlier: u64) -> u64 {
        self.0.wrapping_sub(earlier) & TICK_MASK
    }
}

const ENTRIES: usize = 4096;

/// 24 bits of ticks wrap after 78 hours; an entry that old is mistaken for a fresh one during one
/// second, and the mistake costs one wait for the disk.
const TICK_BITS: u32 = 24;
const TICK_MASK: u64 = (1 << TICK_BITS) - 1;

/// 60 × 2^24 ns: one second.
const VALID_TICKS: u64 = 60;

/// The upper 40 bits, never 0, so that an empty entry matches nothing.
const fn tag(hash: u64) -> u64 {
    (hash >> TICK_BITS) | 1
}

/// Mixes with the finaliser of SplitMix64 after each word; the inputs are small numbers that
/// differ in few bits.
fn hash(version: &Version, chunk: Chunk) -> u64 {
    let mtime = version.mtime.seconds.cast_unsigned() << 30 ^ u64::from(version.mtime.nanoseconds);
    // A start and a length say which piece it is, whatever the sizes of others.
    let place = chunk.index.wrapping_mul(chunk.bytes);
    [
        version.dev,
        version.ino,
        version.size,
        mtime,
        place,
        chunk.bytes,
    ]
    .into_iter()
    .fold(0, |state, word| {
        let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn nth(index: u64) -> Chunk {
        Chunk {
            index,
            bytes: 1 << 20,
        }
    }

    #[test]
    fn a_chunk_of_another_size_is_another_entry() {
        let (cache, version, now) = (ResidencyCache::new(), Version::default(), Tick::now());
        let small = Chunk::at(0, 4096);
        cache.note(&version, small, now);
        assert!(cache.is_resident(&version, small, now));
        assert!(!cache.is_resident(&version, Chunk::at(0, 1 << 20), now));
        assert!(!cache.is_resident(&version, Chunk::at(4096, 4096), now));
    }

    #[test]
    fn an_entry_is_valid_for_a_second() {
        let (cache, version, now) = (ResidencyCache::new(), Version::default(), Tick::now());
        assert!(!cache.is_resident(&version, nth(3), now));
        cache.note(&version, nth(3), now);
        assert!(cache.is_resident(&version, nth(3), now));
        assert!(cache.is_resident(&version, nth(3), now.plus(VALID_TICKS - 1)));
        assert!(!cache.is_resident(&version, nth(3), now.plus(VALID_TICKS)));
        assert!(!cache.is_resident(&version, nth(4), now));
    }

    #[test]
    fn another_version_is_another_entry() {
        let (cache, now) = (ResidencyCache::new(), Tick::now());
        let old = Version {
            ino: 1,
            size: 10,
            ..Version::default()
        };
        cache.note(&old, nth(0), now);
        assert!(!cache.is_resident(&Version { size: 11, ..old }, nth(0), now));
        assert!(!cache.is_resident(&Version { ino: 2, ..old }, nth(0), now));
    }

    #[test]
    fn the_clock_wraps_without_harm() {
        let (cache, version) = (ResidencyCache::new(), Version::default());
        let late = Tick(TICK_MASK);
        cache.note(&version, nth(0), late);
        assert!(cache.is_resident(&version, nth(0), late.plus(5)));
        assert!(!cache.is_resident(&version, nth(0), late.plus(100)));
    }

    #[test]
    fn chunks_of_one_file_spread_over_the_table() {
        let (cache, version, now) = (ResidencyCache::new(), Version::default(), Tick::now());
        (0..1000).for_each(|chunk| cache.note(&version, nth(chunk), now));
        let kept = (0..1000)
            .filter(|&chunk| cache.is_resident(&version, nth(chunk), now))
            .count();
        assert!(
            kept > 800,
            "a random table keeps about 880 of 1000, this one {kept}"
        );
    }
}
