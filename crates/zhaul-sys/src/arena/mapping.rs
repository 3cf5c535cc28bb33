//! The memory of an arena: a sealed memfd, mapped shared and writable once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::available;

/// The mapping owns the range until it is dropped; nothing refers into it but what holds it.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    memfd: OwnedFd,
}

// SAFETY: the range belongs to the process and not to a thread; Mapping itself does not access it.
unsafe impl Send for Mapping {}
// SAFETY: as for Send.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// At least `len` bytes, zeroed, allocated and mapped.
    pub(crate) fn new(len: usize, huge: bool) -> io::Result<Self> {
        let memfd = create(huge)?;
        let len = whole_pages(&memfd, len)?;
        rustix::fs::ftruncate(&memfd, len as u64)?;
        // SAFETY: a fresh range chosen by the kernel aliases nothing, and the memfd is known to nobody
        // else before it is sealed.
        let start = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &memfd,
                0,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Self { start, len, memfd };
        // Huge pages were reserved by mmap, or it failed.
        if !huge && !available::suffices_for(len as u64) {
            return Err(Errno::NOMEM.into());
        }
        mapping.allocate()?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE;
        rustix::fs::fcntl_add_seals(&mapping.memfd, seals)?;
        Ok(mapping)
    }

    /// Gives the file its pages, and them to the mapping.
    ///
    /// Otherwise a limit that is met later (a control group's, overcommitment's, that of huge pages)
    /// would make the first touch of a page a SIGBUS. In steps: pages that are only the file's are
    /// nobody's for the OOM killer, which would kill others for them.
    fn allocate(&self) -> io::Result<()> {
        for offset in (0..self.len).step_by(STEP) {
            let len = STEP.min(self.len - offset);
            let nothing = FallocateFlags::empty();
            retry_on_intr(|| {
                rustix::fs::fallocate(&self.memfd, nothing, offset as u64, len as u64)
            })?;
            // SAFETY: offset is inside the mapping.
            let start = unsafe { self.start.as_ptr().add(offset) };
            // SAFETY: the range is this mapping's own, alive until drop, and no content is changed.
            let result =
                unsafe { rustix::mm::madvise(start.cast(), len, Advice::LinuxPopulateWrite) };
            match result {
                // Before Linux 5.14 each page is mapped when it is touched.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    pub(super) fn lock(&self) -> io::Result<()> {
        // SAFETY: the range is this mapping's own, alive until drop; locking changes no content.
        unsafe { rustix::mm::mlock(self.start.as_ptr().cast(), self.len) }?;
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by new(), is unmapped once, and every slot that referred into it
        // held the arena, which is gone.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(result.is_ok(), "munmap of an own range succeeds");
    }
}

pub(super) fn page_bytes() -> usize {
    rustix::param::page_size()
}

fn create(huge: bool) -> Result<OwnedFd, Errno> {
    let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    if huge {
        flags |= MemfdFlags::HUGETLB;
    }
    // Since Linux 6.3, which may be told to refuse others (vm.memfd_noexec).
    match rustix::fs::memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(NAME, flags),
        result => result,
    }
}

/// As many bytes as whole pages of this file have; huge pages are 2 MiB on most machines, and 1 GiB or
/// 512 MiB on some.
fn whole_pages(memfd: &OwnedFd, len: usize) -> Result<usize, Errno> {
    let page = usize::try_from(rustix::fs::fstatfs(memfd)?.f_bsize).map_err(|_| Errno::INVAL)?;
    len.checked_next_multiple_of(page.max(page_bytes()))
        .filter(|&len| isize::try_from(len).is_ok())
        .ok_or(Errno::INVAL)
}

/// Some milliseconds' work, since a signal undoes it. Of greater pages, more is allocated at once.
const STEP: usize = 16 << 20;

/// What /proc/self/maps shows.
const NAME: &str = "zhaul-pool";
