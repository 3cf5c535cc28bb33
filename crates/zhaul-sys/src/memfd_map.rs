//! `mmap(2)` of a memfd for reading, where it is known that what is read does not change.
//!
//! That is known of a memfd with F_SEAL_WRITE, or because somebody vouches for whoever can write to it
//! with a [`TrustedPeer`]. Others can be read with `pread(2)` only, where a change during the call is
//! no more than a mixture of old and new bytes.

use std::io;
use std::ops::Range;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::memfd_seals::SealedMemfd;

/// Somebody's word that the process which can write to shared memory, and each that passed it on, keep the
/// rules.
#[derive(Clone, Copy, Debug)]
pub struct TrustedPeer(());

impl TrustedPeer {
    /// Vouches for the peer.
    ///
    /// # Safety
    /// Nobody writes to a range of a memory that was mapped with this token from when a slice of it is
    /// asked for ([`MemfdMap::bytes`]) until that slice is gone. Of a channel of zhaul this holds if the
    /// process that made a pool, **and every process through which a buffer of it came here**, use it
    /// through zhaul and never call `Sender::revoke`: a buffer that was handed over is not written until it
    /// came back. A process in the middle cannot write to the pool, but it can give back what this process
    /// still reads, or break the protocol so that the maker revokes: a sender uses again at once what is
    /// out when its receiver gives back what is not out or shows a counter that runs ahead. This process
    /// itself must not write to the ring or the sockets of its channels by other means than zhaul.
    pub const unsafe fn assume() -> Self {
        Self(())
    }
}

/// A memfd that is mapped for reading, whole.
#[derive(Debug)]
pub struct MemfdMap {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the range belongs to the process and not to a thread, and is only read.
unsafe impl Send for MemfdMap {}
// SAFETY: as for Send.
unsafe impl Sync for MemfdMap {}

impl MemfdMap {
    /// Maps what nobody can write to any more; `None` if that is not so.
    ///
    /// # Errors
    /// As `mmap(2)`; ENOMEM or EFAULT if it has holes for which there is no memory; EINVAL before
    /// Linux 5.14.
    pub fn of_immutable(memfd: &SealedMemfd) -> io::Result<Option<Self>> {
        if !memfd.is_immutable() {
            return Ok(None);
        }
        // A shared mapping of a descriptor open for writing is refused with F_SEAL_WRITE before Linux
        // 6.7, though it be for reading. Nothing is ever written, so private is the same.
        let map = Self::new(memfd, MapFlags::PRIVATE)?;
        populate_read(map.start, map.len)?;
        Ok(Some(map))
    }

    /// Maps what a peer that somebody vouches for may write to.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub fn of_trusted(memfd: &SealedMemfd, _word: TrustedPeer) -> io::Result<Self> {
        Self::new(memfd, MapFlags::SHARED)
    }

    fn new(memfd: &SealedMemfd, sharing: MapFlags) -> io::Result<Self> {
        let len = usize::try_from(memfd.bytes()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: a fresh range chosen by the kernel aliases nothing in this process.
        let start =
            unsafe { rustix::mm::mmap(ptr::null_mut(), len, ProtFlags::READ, sharing, memfd, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// Bytes that were handed over.
    ///
    /// # Panics
    /// If the range is not inside the memory.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        let inside = range.start <= range.end && range.end <= self.len;
        assert!(inside, "inside the memory");
        // SAFETY: range.start <= len, so the pointer is in or at the end of the mapping.
        let start = unsafe { self.start.as_ptr().add(range.start) };
        // SAFETY: inside the mapping, which lives as long as self, and whose pages cannot vanish (a
        // SealedMemfd). Nobody writes to it: by F_SEAL_WRITE, or by the word of a TrustedPeer.
        unsafe { std::slice::from_raw_parts(start, range.len()) }
    }
}

impl Drop for MemfdMap {
    fn drop(&mut self) {
        // SAFETY: mapped by new() with this length, unmapped once, and no slice outlives self.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(result.is_ok(), "munmap of an own range succeeds");
    }
}

/// MADV_POPULATE_READ (Linux 5.14): every page of a mapping of somebody else's memfd is there, or this is an
/// error. How many blocks a memfd has does not say so, as some may be beyond its end (FALLOC_FL_KEEP_SIZE),
/// and for a page inside that is then missing a load would be a SIGBUS where memory is accounted strictly.
/// `lseek(2)` SEEK_HOLE would tell, but takes the lock of the inode, which another process can hold as
/// long as it likes by writing from memory whose faults it does not answer.
///
/// The range is mapped for reading, and stays mapped during the call.
pub(crate) fn populate_read(start: NonNull<u8>, len: usize) -> io::Result<()> {
    // SAFETY: it reads pages in and changes nothing; for a range that is not mapped it fails.
    Ok(unsafe { rustix::mm::madvise(start.as_ptr().cast(), len, Advice::LinuxPopulateRead) }?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::MemfdFlags;

    use super::*;
    use crate::memfd_seals::seal_all;

    fn sealed(bytes: &[u8]) -> SealedMemfd {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .unwrap();
        rustix::io::pwrite(&fd, bytes, 0).unwrap();
        seal_all(fd.as_fd()).unwrap();
        SealedMemfd::verify(fd).unwrap()
    }

    #[test]
    fn a_sealed_memfd_is_read_in_place() {
        let map = MemfdMap::of_immutable(&sealed(b"sealed")).unwrap().unwrap();
        assert_eq!(map.bytes(0..6), b"sealed");
        assert_eq!(map.bytes(6..6), b"");
    }

    #[test]
    fn holes_behind_blocks_beyond_the_end_are_filled_when_it_is_mapped() {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .unwrap();
        let bytes = 1 << 20;
        rustix::fs::ftruncate(&fd, bytes).unwrap();
        let beyond = rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&fd, beyond, bytes, bytes).unwrap();
        seal_all(fd.as_fd()).unwrap();
        // Its blocks are as many as its bytes.
        let memfd = SealedMemfd::verify(fd).unwrap();
        let blocks = || rustix::fs::fstat(&memfd).unwrap().st_blocks * 512;
        assert_eq!(blocks(), 1 << 20);
        let map = MemfdMap::of_immutable(&memfd).unwrap().unwrap();
        // A load of any page now finds it.
        assert_eq!(blocks(), 2 << 20);
        assert!(map.bytes(0..1 << 20).iter().all(|byte| *byte == 0));
    }

    #[test]
    #[should_panic(expected = "inside the memory")]
    fn bytes_behind_the_end_are_refused_though_the_page_has_them() {
        let map = MemfdMap::of_immutable(&sealed(b"sealed")).unwrap().unwrap();
        map.bytes(0..7);
    }
}
