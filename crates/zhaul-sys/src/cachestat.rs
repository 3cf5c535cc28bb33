//! `cachestat(2)`: how many pages of a range of a file are in the page cache.
//!
//! Linux 6.5. Later kernels answer EPERM to whoever neither owns the file nor may write to it.
//! A page that is being read from disk counts as cached although it is not up to date yet.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;

/// What the page cache holds of a range, in pages. `struct cachestat` of `linux/mman.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStat {
    /// In the cache.
    pub cached: u64,
    /// Of these, not written back yet.
    pub dirty: u64,
    /// Of these, being written back.
    pub writeback: u64,
    /// Not in the cache any more.
    pub evicted: u64,
    /// Of these, evicted so recently that the working set has outgrown memory.
    pub recently_evicted: u64,
}

/// Counts the cached pages of `len` bytes from `offset`; `len` 0 means to the end of the file.
///
/// # Errors
/// ENOSYS before Linux 6.5, EPERM for a file that is neither owned nor writable, EOPNOTSUPP on
/// hugetlbfs.
pub fn cachestat(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<CacheStat> {
    let range = Range { offset, len };
    let mut stat = CacheStat::default();
    let (range_ptr, stat_ptr) = (&raw const range, &raw mut stat);
    let flags: libc::c_uint = 0;
    // SAFETY: the descriptor is borrowed for the call; the kernel reads a cachestat_range and
    // stores a cachestat, both on this stack and laid out as linux/mman.h says.
    let result =
        unsafe { libc::syscall(SYS_CACHESTAT, fd.as_raw_fd(), range_ptr, stat_ptr, flags) };
    check(libc::c_int::try_from(result).unwrap_or(-1))?;
    Ok(stat)
}

/// `struct cachestat_range`.
#[repr(C)]
struct Range {
    offset: u64,
    len: u64,
}

/// 451 on every architecture; `libc` does not list it for x86-64.
const SYS_CACHESTAT: libc::c_long = 451;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn written_pages_are_cached_and_a_hole_is_not() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 8 * 4096]).unwrap();
        file.set_len(64 * 4096).unwrap();
        match cachestat(file.as_fd(), 0, 64 * 4096) {
            Ok(stat) => assert_eq!(stat.cached, 8),
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                zhaul_untested::skip_this("cachestat needs Linux 6.5");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
