//! `mmap(2)` with MAP_HUGETLB: memory in huge pages that the administrator set aside.
//!
//! A limit (cgroup) can make the first touch of such a page a SIGBUS. So user space never touches
//! it: bytes go in and out by system calls, for which it is an EFAULT.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags};

use crate::check_len;

/// Anonymous memory in huge pages of the default size.
#[derive(Debug)]
pub struct HugeMapping {
    start: NonNull<libc::c_void>,
    len: usize,
}

// SAFETY: a mapping owns its address range, which belongs to the process and not to a thread.
unsafe impl Send for HugeMapping {}

impl HugeMapping {
    /// Maps `len` bytes, a multiple of the huge page size.
    ///
    /// # Errors
    /// ENOMEM if too few huge pages are free, EINVAL for another length or without hugetlbfs.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        // SAFETY: a fresh anonymous range chosen by the kernel aliases nothing.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::HUGETLB,
            )
        }?;
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// Reads from `offset` of a file into the beginning of the memory.
    ///
    /// # Errors
    /// EFAULT if the kernel has no page to give after all; else as `pread(2)`.
    pub fn fill_from(&mut self, fd: BorrowedFd<'_>, len: usize, offset: i64) -> io::Result<usize> {
        let len = len.min(self.len);
        // SAFETY: at most the length of the mapping is stored, which is ours alone while it is
        // borrowed mutably.
        check_len(unsafe { libc::pread64(fd.as_raw_fd(), self.start.as_ptr(), len, offset) })
    }

    /// Writes from the beginning of the memory to `offset` of a file.
    ///
    /// # Errors
    /// As [`fill_from`](Self::fill_from).
    pub fn write_to(&self, fd: BorrowedFd<'_>, len: usize, offset: i64) -> io::Result<usize> {
        let len = len.min(self.len);
        // SAFETY: at most the length of the mapping is read, which is alive while it is borrowed.
        check_len(unsafe { libc::pwrite64(fd.as_raw_fd(), self.start.as_ptr(), len, offset) })
    }
}

impl Drop for HugeMapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by anonymous(), is unmapped once, and nobody else knows it.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr(), self.len) };
        debug_assert!(result.is_ok(), "munmap of an own range succeeds");
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let mut memory = match HugeMapping::anonymous(2 << 20) {
            Ok(memory) => memory,
            Err(error) => {
                zhaul_untested::skip("bytes_come_out_as_they_went_in", error);
                return;
            }
        };
        let file = tempfile::tempfile().unwrap();
        rustix::io::pwrite(&file, &[6; 5000], 0).unwrap();
        assert_eq!(memory.fill_from(file.as_fd(), 5000, 0).unwrap(), 5000);
        assert_eq!(memory.write_to(file.as_fd(), 5000, 5000).unwrap(), 5000);
        let mut read = [0; 5000];
        assert_eq!(rustix::io::pread(&file, &mut read, 5000).unwrap(), 5000);
        assert!(read == [6; 5000]);
    }
}
