//! Is this range of a file in memory? Asked without blocking and at almost no cost.
//!
//! sendfile, splice and read wait for the disk on a cold page, even into a non-blocking socket,
//! and hold the thread while they do. So drivers that share a thread ask first.
//!
//! Two questions answer it. `cachestat(2)` counts the pages of a range in one call, but counts
//! pages whose reading is still under way, and is refused to whoever does not own the file.
//! `preadv2(2)` with RWF_NOWAIT reads one byte and answers EAGAIN if its page is not up to date.
//! A range counts as resident if all its pages are cached and a few of them, at a stride no
//! larger than the reads that readahead issues, are up to date. Without cachestat the stride is
//! finer. Where RWF_NOWAIT is not supported the answer is [`Residency::Unknown`], which drivers
//! treat as cold: a hop to another thread that may be needless, but never a stall. Files that live
//! in memory (tmpfs) do not support it either, and count as resident unless cachestat misses pages.
//!
//! What it does not do: it gives no guarantee. A page may be evicted right after the answer; the
//! price is one wait for the disk.
//!
//! `cachestat(2)` is there since Linux 6.5, RWF_NOWAIT since 4.14.
//! [preadv2(2)](https://man7.org/linux/man-pages/man2/readv.2.html)

mod cache;
mod populate;

use std::io::IoSliceMut;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FileType;
use rustix::io::{Errno as Raw, ReadWriteFlags};

use zhaul_core::{DEFAULT_CHUNK_BYTES, Version};

use crate::endpoint::{FileSystem, file_system};

pub use cache::{Chunk, ResidencyCache, Tick};
pub use populate::populate;

/// What is known about a range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Residency {
    /// All of it is in memory and up to date, as far as the samples tell.
    Resident,
    /// At least one page has to be read from the disk.
    Cold,
    /// This file cannot be asked.
    Unknown,
}

/// True if the range is in memory: from the cache, or by a probe. Makes no system call for a file
/// that was asked about within the last second.
pub fn is_resident(
    file: BorrowedFd<'_>,
    version: &Version,
    range: Range<u64>,
    cache: &ResidencyCache,
) -> bool {
    let now = Tick::now();
    let chunk_bytes = DEFAULT_CHUNK_BYTES as u64;
    let mut at = range.start;
    while at < range.end {
        let chunk = Chunk::at(at, chunk_bytes);
        let start = chunk.index * chunk_bytes;
        let chunk_end = start.saturating_add(chunk_bytes);
        if !cache.is_resident(version, chunk, now) {
            let end = chunk_end.min(range.end);
            if probe(file, at, end - at) != Residency::Resident {
                return false;
            }
            if at == start && end >= chunk_end.min(version.size) {
                cache.note(version, chunk, now);
            }
        }
        at = chunk_end;
    }
    true
}

/// Asks about `len` bytes from `offset` of a regular file or a block device. Bytes past the end of a
/// regular file count as resident.
pub fn probe(fd: impl AsFd, offset: u64, len: u64) -> Residency {
    let fd = fd.as_fd();
    // No file reaches so far; what follows adds the two.
    let len = len.min(u64::MAX - offset);
    if len == 0 {
        return Residency::Resident;
    }
    match all_cached(fd, offset, len) {
        Some(true) => sample_unless_in_memory(fd, offset, len, STRIDE_BYTES),
        Some(false) => {
            // Holes past the end are not cached either: judge only what the file has.
            match size_within(fd, offset, len) {
                Some(0) => Residency::Resident,
                Some(shorter) if shorter < len => probe(fd, offset, shorter),
                _ => Residency::Cold,
            }
        }
        None => sample_unless_in_memory(fd, offset, len, FINE_STRIDE_BYTES),
    }
}

/// `Some(true)` if every page of the range is in the cache, maybe still being read; `None` if
/// cachestat is refused.
fn all_cached(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Option<bool> {
    static MISSING: AtomicBool = AtomicBool::new(false);
    if MISSING.load(Ordering::Relaxed) {
        return None;
    }
    match zhaul_sys::cachestat::cachestat(fd, offset, len) {
        Ok(stat) => {
            let page = rustix::param::page_size() as u64;
            let pages = (offset + len).div_ceil(page) - offset / page;
            Some(stat.cached >= pages)
        }
        Err(error) => {
            if error.raw_os_error() == Some(Raw::NOSYS.raw_os_error()) {
                MISSING.store(true, Ordering::Relaxed);
            }
            None
        }
    }
}

/// How much of the range the file has; only a regular file tells its size.
fn size_within(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Option<u64> {
    let stat = rustix::fs::fstat(fd).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let size = u64::try_from(stat.st_size).ok()?;
    Some(size.saturating_sub(offset).min(len))
}

fn sample_unless_in_memory(fd: BorrowedFd<'_>, offset: u64, len: u64, stride: u64) -> Residency {
    match sample(fd, offset, len, stride) {
        Residency::Unknown if file_system(fd) == FileSystem::Memory => Residency::Resident,
        answer => answer,
    }
}

fn sample(fd: BorrowedFd<'_>, offset: u64, len: u64, stride: u64) -> Residency {
    let last = offset + len - 1;
    let mut at = offset;
    loop {
        match is_up_to_date(fd, at) {
            Residency::Resident => {}
            other => return other,
        }
        if at == last {
            return Residency::Resident;
        }
        at = (at - at % stride).saturating_add(stride).min(last);
    }
}

fn is_up_to_date(fd: BorrowedFd<'_>, at: u64) -> Residency {
    let mut byte = [0];
    loop {
        let mut buffers = [IoSliceMut::new(&mut byte)];
        match rustix::io::preadv2(fd, &mut buffers, at, ReadWriteFlags::NOWAIT) {
            Ok(_) => return Residency::Resident,
            Err(Raw::AGAIN) => return Residency::Cold,
            Err(Raw::INTR) => {}
            Err(_) => return Residency::Unknown,
        }
    }
}

/// Readahead is issued in pieces of at most `read_ahead_kb`, 128 KiB by default, so one page of
/// each piece tells whether its read has finished.
const STRIDE_BYTES: u64 = 128 << 10;

/// Without cachestat a hole in the cache must be hit by a sample; 32 KiB is the smallest
/// readahead window that a sequential reader leaves behind.
const FINE_STRIDE_BYTES: u64 = 32 << 10;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    /// A file on the disk whose pages are dropped from the cache, or `None` where that does
    /// nothing (tmpfs).
    fn cold_file(len: usize) -> Option<std::fs::File> {
        let mut file = tempfile::tempfile_in("/var/tmp").unwrap();
        file.write_all(&vec![7; len]).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let cold = probe(&file, 0, len as u64) != Residency::Resident;
        cold.then_some(file)
    }

    #[test]
    fn written_pages_are_resident_and_dropped_ones_are_not() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 1 << 20]).unwrap();
        assert_eq!(probe(&file, 0, 1 << 20), Residency::Resident);
        let Some(file) = cold_file(1 << 20) else {
            zhaul_untested::skip_this(format_args!(
                "pages cannot be dropped here (fd {})",
                file.as_raw_fd()
            ));
            return;
        };
        assert_eq!(probe(&file, 0, 1 << 20), Residency::Cold);
        assert_eq!(probe(&file, 4096, 1), Residency::Cold);
    }

    #[test]
    fn one_missing_page_in_the_middle_is_noticed() {
        let Some(file) = cold_file(1 << 20) else {
            zhaul_untested::skip_this("pages cannot be dropped here");
            return;
        };
        populate(&file, 0, 1 << 20).unwrap();
        assert_eq!(probe(&file, 0, 1 << 20), Residency::Resident);
        let page = std::num::NonZeroU64::new(4096);
        rustix::fs::fadvise(&file, 77 * 4096, page, rustix::fs::Advice::DontNeed).unwrap();
        if all_cached(file.as_fd(), 0, 1 << 20) == Some(false) {
            assert_eq!(probe(&file, 0, 1 << 20), Residency::Cold);
        } else {
            zhaul_untested::skip_this("the page is part of a large folio, or cachestat is refused");
        }
    }

    #[test]
    fn pages_still_being_read_are_not_resident() {
        const LEN: u64 = 8 << 20;
        let mut caught = 0;
        for _ in 0..50 {
            let Some(file) = cold_file(LEN as usize) else {
                zhaul_untested::skip_this("pages cannot be dropped here");
                return;
            };
            let len = std::num::NonZeroU64::new(LEN);
            rustix::fs::fadvise(&file, 0, len, rustix::fs::Advice::WillNeed).unwrap();
            let claimed = probe(&file, 0, LEN);
            // Pages only become more up to date: what is missing now was missing then.
            if is_up_to_date(file.as_fd(), LEN - 1) == Residency::Cold {
                assert_eq!(claimed, Residency::Cold, "the last page is on its way");
                caught += 1;
            }
        }
        if caught == 0 {
            zhaul_untested::skip_this("this disk is too fast to be caught reading");
        }
    }

    #[test]
    fn the_end_of_the_file_does_not_count() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"short").unwrap();
        assert_eq!(probe(&file, 0, 1 << 20), Residency::Resident);
        assert_eq!(probe(&file, 5, 1 << 20), Residency::Resident);
        assert_eq!(probe(&file, 1 << 30, 1), Residency::Resident);
    }

    #[test]
    fn somebody_elses_file_can_be_asked_about() {
        // Run as an ordinary user this is a file of root, for which cachestat gives EPERM.
        let program = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(
            probe(&program, 0, 4096),
            Residency::Resident,
            "it is running"
        );
        assert_ne!(
            sample(program.as_fd(), 0, 1 << 20, FINE_STRIDE_BYTES),
            Residency::Unknown
        );
    }

    #[test]
    fn a_file_on_a_memory_file_system_is_resident() {
        let Ok(mut file) = tempfile::tempfile_in("/dev/shm") else {
            zhaul_untested::skip_this("no /dev/shm");
            return;
        };
        if file_system(file.as_fd()) != FileSystem::Memory {
            zhaul_untested::skip_this("/dev/shm is no tmpfs");
            return;
        }
        file.write_all(&[7; 300_000]).unwrap();
        assert_eq!(probe(&file, 0, 300_000), Residency::Resident);
        assert_eq!(probe(&file, 100_000, 1 << 20), Residency::Resident);
    }

    #[test]
    fn a_descriptor_without_offsets_cannot_be_asked() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert_eq!(is_up_to_date(reader.as_fd(), 0), Residency::Unknown);
    }
}
