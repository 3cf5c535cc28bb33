//! The pages of a memfd, mapped into this process.
//!
//! [`SharedPages`] is a memfd and its MAP_SHARED mapping, made as an [`arena`](crate::arena)'s: all its
//! memory is allocated when it is made, so that no later access can fail (a page that cannot be had is a
//! SIGBUS), and it is sealed: nobody can cut or lengthen it, and nobody but this mapping can write to
//! it, whoever gets the descriptor.
//!
//! A child made by `fork(2)` does not inherit the mapping (MADV_DONTFORK): it would share the pages,
//! and write where others rely on nobody writing. A load or store in the child is a SIGSEGV.

use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, Range};
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

use crate::arena::mapping::Mapping;

/// A memfd and all of its bytes.
#[derive(Debug)]
pub struct SharedPages {
    mapping: ManuallyDrop<Mapping>,
    len: usize,
    /// As [`Pages::process`].
    process: u32,
}

impl SharedPages {
    /// So many bytes of zeros, a multiple of the page size.
    ///
    /// # Errors
    /// EINVAL for no bytes, for no multiple of the page size, and for more than an address can reach;
    /// ENOMEM or ENOSPC for more than there is; EMFILE; ENOSYS without memfd.
    ///
    /// Linux 5.1, for F_SEAL_FUTURE_WRITE.
    pub fn new(len: usize) -> io::Result<Self> {
        if len == 0 || !len.is_multiple_of(rustix::param::page_size()) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mapping = Mapping::new(len, false)?;
        let start = mapping.start().as_ptr().cast();
        // SAFETY: the range is the mapping's own; the advice changes no content.
        unsafe { rustix::mm::madvise(start, len, Advice::LinuxDontFork) }?;
        Ok(Self {
            mapping: ManuallyDrop::new(mapping),
            len,
            process: std::process::id(),
        })
    }

    /// All bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping belongs to self, which is borrowed for as long as the slice lives; no
        // other mapping and no descriptor can write, as the seals say.
        unsafe { self.bytes_mut_unchecked() }
    }

    /// As [`bytes_mut`](Self::bytes_mut), from a shared reference.
    ///
    /// # Safety
    /// Until the slice is gone, nobody else reads or writes the bytes through this mapping.
    #[expect(clippy::mut_from_ref, reason = "the caller promises to be alone")]
    pub(crate) unsafe fn bytes_mut_unchecked(&self) -> &mut [u8] {
        // SAFETY: mapped, readable and writable until drop; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.start().as_ptr(), self.len) }
    }

    /// The descriptor. It can be read and mapped, here and by whoever it is sent to, but not written
    /// to. What is read changes with [`bytes_mut`](Self::bytes_mut).
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.mapping.memfd()
    }
}

impl Deref for SharedPages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped and readable until drop; whoever changes the bytes borrows self exclusively.
        unsafe { std::slice::from_raw_parts(self.mapping.start().as_ptr(), self.len) }
    }
}

impl Drop for SharedPages {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            // SAFETY: dropped once, here; self is not used any more.
            unsafe { ManuallyDrop::drop(&mut self.mapping) };
        }
    }
}

/// An own range of addresses in which pages of a memfd are mapped, readable and writable.
#[derive(Debug)]
pub(crate) struct Pages {
    start: NonNull<u8>,
    len: usize,
    /// Whose address space it is a range of: a child of fork(2) must not unmap what came in its place.
    process: u32,
}

// SAFETY: the range belongs to the process and not to a thread; who may touch it is the business of
// whoever makes slices of it.
unsafe impl Send for Pages {}
// SAFETY: a shared reference yields slices in unsafe functions only.
unsafe impl Sync for Pages {}

impl Pages {
    /// Maps the first `len` bytes of the memfd, which has as many.
    pub(crate) fn map(memfd: BorrowedFd<'_>, len: usize, flags: MapFlags) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh range chosen by the kernel aliases nothing.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), len, access, flags, memfd, 0) }?;
        let pages = Self {
            start: NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            len,
            process: std::process::id(),
        };
        // SAFETY: the range is this mapping's own; the advice changes no content.
        unsafe { rustix::mm::madvise(start, len, Advice::LinuxDontFork) }?;
        Ok(pages)
    }

    /// # Safety
    /// Nobody changes the bytes until the slice is gone.
    pub(crate) unsafe fn slice(&self) -> &[u8] {
        // SAFETY: mapped and readable until drop, the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// # Safety
    /// Nobody else reads or changes the bytes through this range until the slice is gone.
    #[expect(clippy::mut_from_ref, reason = "the caller promises to be alone")]
    pub(crate) unsafe fn slice_mut(&self) -> &mut [u8] {
        // SAFETY: mapped, readable and writable until drop, the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Lets go of what a private mapping has written in this range: from now on it shows the file.
    ///
    /// # Errors
    /// As `madvise(2)`, none of which is known for an own range that is not locked.
    pub(crate) fn discard(&mut self, range: Range<usize>) -> io::Result<()> {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "inside the range"
        );
        // SAFETY: range.start <= len was just checked.
        let start = unsafe { self.start.as_ptr().add(range.start) }.cast();
        // SAFETY: the pages are of this mapping, and nobody has a slice of it, since self is borrowed
        // exclusively.
        Ok(unsafe { rustix::mm::madvise(start, range.len(), Advice::LinuxDontNeed) }?)
    }

    /// Takes the lock off that `mlockall(2)` put on the range, if it did.
    ///
    /// # Errors
    /// As `munlock(2)`, none of which is known for an own range.
    pub(crate) fn unlock(&mut self) -> io::Result<()> {
        // SAFETY: the range is this mapping's own; no content changes.
        Ok(unsafe { rustix::mm::munlock(self.start.as_ptr().cast(), self.len) }?)
    }

    /// Allows access, or takes it away: loads and stores are a SIGSEGV then, and the kernel makes no
    /// pages for the range.
    ///
    /// # Safety
    /// Without access, no slice is made of the range.
    ///
    /// # Errors
    /// ENOMEM.
    pub(crate) unsafe fn protect(&mut self, accessible: bool) -> io::Result<()> {
        let access = if accessible {
            MprotectFlags::READ | MprotectFlags::WRITE
        } else {
            MprotectFlags::empty()
        };
        // SAFETY: the range is this mapping's own, and nobody has a slice of it, since self is
        // borrowed exclusively; that none is made is the caller's promise.
        Ok(unsafe { rustix::mm::mprotect(self.start.as_ptr().cast(), self.len, access) }?)
    }

    /// The address of the first byte.
    pub(crate) fn address(&self) -> usize {
        self.start.as_ptr().addr()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        // SAFETY: the range was mapped by map() in this process, is unmapped once, and nobody else
        // knows it.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(result.is_ok(), "munmap of an own range succeeds");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use rustix::fs::FallocateFlags;

    use super::*;

    #[test]
    fn whoever_has_the_descriptor_can_read_and_not_write() {
        let page_bytes = rustix::param::page_size();
        let mut pages = SharedPages::new(2 * page_bytes).unwrap();
        pages.bytes_mut().fill(7);
        let mut file = File::from(pages.memfd().try_clone_to_owned().unwrap());
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert_eq!(read, vec![7; 2 * page_bytes]);
        assert!(file.write(b"x").is_err() && file.set_len(0).is_err());
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert!(rustix::fs::fallocate(&file, hole, 0, page_bytes as u64).is_err());
        let again = std::os::fd::AsRawFd::as_raw_fd(&pages.memfd());
        let again = File::options()
            .write(true)
            .open(format!("/proc/self/fd/{again}"));
        assert!(again.is_ok_and(|mut file| file.write(b"x").is_err()));
        let writable = Pages::map(pages.memfd(), page_bytes, MapFlags::SHARED);
        assert!(writable.is_err());
        assert!(pages.iter().all(|&byte| byte == 7));
    }

    #[test]
    fn lengths_that_are_no_pages_are_refused() {
        for len in [0, 1, rustix::param::page_size() + 1, usize::MAX, 1 << 63] {
            assert!(SharedPages::new(len).is_err(), "{len}");
        }
    }
}
