//! `mmap(2)` of a memfd with two counters and cells, which one process writes and another reads; and
//! `futex(2)` on the first counter.
//!
//! Each side of a channel has an [`OwnRing`] and the other's as a [`PeerRing`], mapped for reading. The
//! maker seals its ring against everybody else's writing (F_SEAL_FUTURE_WRITE, Linux 5.1) and against
//! losing pages, and nobody maps another's that is not (see [`memfd_seals`](crate::memfd_seals)), so no
//! access here can be a SIGBUS and nobody can spoil what he only reads. What the *owner* wrote may be
//! anything, and may change between two loads: values are copied out once and then judged.
//!
//! Everything is an atomic access, so that a peer that writes while we read is no data race. The futex
//! is on memory that only the owner changes, so a peer cannot make it wait longer than the timeout.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::thread::futex;
use rustix::time::Timespec;

use crate::memfd_map::populate_read;
use crate::memfd_seals::SealedMemfd;

/// A ring that this process alone writes.
#[derive(Debug)]
pub struct OwnRing {
    map: Map,
}

/// A ring that another process writes.
#[derive(Debug)]
pub struct PeerRing {
    map: Map,
}

impl OwnRing {
    /// A ring of `cells` zeros, and the descriptor by which others map it.
    ///
    /// # Errors
    /// ENOMEM, EMFILE, ENFILE; EINVAL for more than fits into memory.
    pub fn new(cells: usize) -> io::Result<(Self, OwnedFd)> {
        let bytes = ring_bytes(cells).ok_or(io::ErrorKind::InvalidInput)?;
        let memfd = rustix::fs::memfd_create(
            "zhaul-ring",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        rustix::fs::ftruncate(&memfd, bytes as u64)?;
        rustix::fs::fallocate(&memfd, rustix::fs::FallocateFlags::empty(), 0, bytes as u64)?;
        let map = Map::new(&memfd, bytes, cells, ProtFlags::READ | ProtFlags::WRITE)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&memfd, seals)?;
        Ok((Self { map }, memfd))
    }

    /// How many entries were written so far, modulo 2^32. Stored with Release after the cells.
    pub fn published(&self) -> &AtomicU32 {
        self.map.counter(PUBLISHED)
    }

    /// What the owner waits for, in words of the protocol.
    pub fn sleep(&self) -> &AtomicU32 {
        self.map.counter(SLEEP)
    }

    /// A cell.
    ///
    /// # Panics
    /// If there is none of that number.
    pub fn cell(&self, index: usize) -> &AtomicU64 {
        self.map.cell(index)
    }

    /// FUTEX_WAKE of whoever waits for [`published`](Self::published) to change.
    pub fn wake(&self) {
        // It fails for addresses that are not mapped only.
        let _ = futex::wake(self.published(), futex::Flags::empty(), u32::MAX >> 1);
    }
}

impl PeerRing {
    /// Maps a ring of `cells`; `None` if the memfd is shorter than that.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub fn map(memfd: &SealedMemfd, cells: usize) -> io::Result<Option<Self>> {
        let Some(bytes) = ring_bytes(cells).filter(|bytes| *bytes as u64 <= memfd.bytes()) else {
            return Ok(None);
        };
        // Of huge pages whole ones are unmapped only; a memfd of them is as long as so many.
        let page = usize::try_from(rustix::fs::fstatfs(memfd)?.f_bsize)
            .ok()
            .filter(|page| *page > 0)
            .ok_or(io::ErrorKind::Unsupported)?;
        let bytes = bytes
            .checked_next_multiple_of(page)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let map = Map::new(memfd, bytes, cells, ProtFlags::READ)?;
        populate_read(map.start, bytes)?;
        Ok(Some(Self { map }))
    }

    /// How many entries the peer says that it wrote. What it stored before is then visible.
    pub fn published(&self) -> u32 {
        self.load_acquire(PUBLISHED)
    }

    /// What the peer says that it waits for.
    pub fn sleep(&self) -> u32 {
        self.load_acquire(SLEEP)
    }

    fn load_acquire(&self, offset: usize) -> u32 {
        // Of memory mapped for reading only, relaxed loads alone are defined (std::sync::atomic).
        let value = self.map.counter(offset).load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        value
    }

    /// What is in a cell at this moment.
    ///
    /// # Panics
    /// If there is none of that number.
    pub fn cell(&self, index: usize) -> u64 {
        self.map.cell(index).load(Ordering::Relaxed)
    }

    /// FUTEX_WAIT for [`published`](Self::published) to be something else, at most that long. It may
    /// return early for no reason.
    pub fn wait(&self, published: u32, timeout: Duration) {
        let timeout = Timespec::try_from(timeout).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        });
        let counter = self.map.counter(PUBLISHED);
        // EAGAIN: it changed already; ETIMEDOUT; EINTR. Whoever waits looks again in any case.
        let _ = futex::wait(counter, futex::Flags::empty(), published, Some(&timeout));
    }
}

#[derive(Debug)]
struct Map {
    start: NonNull<u8>,
    bytes: usize,
    cells: usize,
}

// SAFETY: the range belongs to the process and not to a thread, and is accessed by atomics only.
unsafe impl Send for Map {}
// SAFETY: as for Send.
unsafe impl Sync for Map {}

impl Map {
    fn new(
        fd: impl std::os::fd::AsFd,
        bytes: usize,
        cells: usize,
        protection: ProtFlags,
    ) -> io::Result<Self> {
        // SAFETY: a fresh range chosen by the kernel aliases nothing in this process.
        let start = unsafe {
            rustix::mm::mmap(ptr::null_mut(), bytes, protection, MapFlags::SHARED, fd, 0)
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            start,
            bytes,
            cells,
        })
    }

    fn counter(&self, offset: usize) -> &AtomicU32 {
        assert!(offset + size_of::<AtomicU32>() <= CELLS);
        // SAFETY: the header is part of every mapping, as ring_bytes() says.
        let counter = unsafe { self.start.as_ptr().add(offset) }.cast::<u32>();
        // SAFETY: inside the mapping, which lives as long as self and begins at a page; offsets are
        // multiples of 64. Nothing accesses it but by atomics, of this size.
        unsafe { AtomicU32::from_ptr(counter) }
    }

    fn cell(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.cells, "a cell of the ring");
        // SAFETY: index < cells, for which the mapping has room.
        let cell = unsafe { self.start.as_ptr().add(CELLS + 8 * index) }.cast::<u64>();
        // SAFETY: as for counters; CELLS is a multiple of 8.
        unsafe { AtomicU64::from_ptr(cell) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by new() with this length, unmapped once, and no reference outlives self.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
        debug_assert!(result.is_ok(), "munmap of an own range succeeds");
    }
}

fn ring_bytes(cells: usize) -> Option<usize> {
    let bytes = cells.checked_mul(8)?.checked_add(CELLS)?;
    isize::try_from(bytes).ok().map(|_| bytes)
}

/// Where things are, in bytes. Each counter has a cache line of its own.
const PUBLISHED: usize = 0;
const SLEEP: usize = 64;
const CELLS: usize = 128;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn pair(cells: usize) -> (OwnRing, PeerRing) {
        let (own, memfd) = OwnRing::new(cells).unwrap();
        let memfd = SealedMemfd::verify(memfd).unwrap();
        (own, PeerRing::map(&memfd, cells).unwrap().unwrap())
    }

    #[test]
    fn what_is_stored_on_one_side_is_loaded_on_the_other() {
        let (own, peer) = pair(1000);
        own.cell(999).store(7, Ordering::Relaxed);
        own.sleep().store(5, Ordering::Release);
        own.published().store(1, Ordering::Release);
        assert_eq!((peer.published(), peer.sleep(), peer.cell(999)), (1, 5, 7));
    }

    #[test]
    fn the_descriptor_cannot_be_used_to_write_or_shrink() {
        let (_own, memfd) = OwnRing::new(10).unwrap();
        assert!(rustix::io::pwrite(&memfd, b"x", 0).is_err());
        assert!(rustix::fs::ftruncate(&memfd, 0).is_err());
    }

    #[test]
    fn a_short_memfd_is_not_mapped() {
        let (_own, memfd) = OwnRing::new(10).unwrap();
        let memfd = SealedMemfd::verify(memfd).unwrap();
        assert!(PeerRing::map(&memfd, 11).unwrap().is_none());
        assert!(PeerRing::map(&memfd, usize::MAX).unwrap().is_none());
    }

    #[test]
    fn a_ring_of_huge_pages_is_unmapped_whole() {
        let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        let huge = rustix::fs::memfd_create("test", flags).and_then(|memfd| {
            rustix::fs::ftruncate(&memfd, 2 << 20)?;
            rustix::fs::fallocate(&memfd, rustix::fs::FallocateFlags::empty(), 0, 2 << 20)?;
            Ok(memfd)
        });
        let Ok(huge) = huge else {
            return zhaul_untested::skip("a ring of huge pages", "no huge pages");
        };
        rustix::fs::fcntl_add_seals(&huge, SealFlags::SHRINK | SealFlags::FUTURE_WRITE).unwrap();
        let memfd = SealedMemfd::verify(huge).unwrap();
        // A part of a page cannot be unmapped: Drop asserts that it could.
        drop(PeerRing::map(&memfd, 10).unwrap().unwrap());
    }

    #[test]
    fn a_waiter_is_woken() {
        let (own, peer) = pair(1);
        let waiter = thread::spawn(move || {
            while peer.published() == 0 {
                peer.wait(0, Duration::from_secs(600));
            }
        });
        own.published().store(1, Ordering::Release);
        while !waiter.is_finished() {
            own.wake();
            thread::yield_now();
        }
        waiter.join().unwrap();
    }

    #[test]
    #[should_panic(expected = "a cell of the ring")]
    fn there_is_no_cell_beyond_the_last() {
        pair(4).1.cell(4);
    }
}
