//! `mmap(2)` of a window of a file, for the kernel to read, never for us.
//!
//! The content of a shared mapping may change at any moment, and after a truncation a load from
//! it is a SIGBUS. So a [`Mapping`] hands out no slice and no pointer: it can only be given to
//! `write(2)` and `send(2)`, in which a vanished page is an EFAULT and no signal.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::check_len;

/// A read-only shared window of a file.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<libc::c_void>,
    len: usize,
}

// SAFETY: a Mapping owns its address range, which belongs to the process and not to a thread;
// nothing in user space reads or writes through it.
unsafe impl Send for Mapping {}
// SAFETY: all methods on a shared reference only pass addresses to the kernel.
unsafe impl Sync for Mapping {}

/// Flags of `send(2)` that make sense for a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendMode {
    /// MSG_DONTWAIT: EAGAIN instead of blocking, whatever the mode of the descriptor.
    pub dont_wait: bool,
    /// MSG_MORE: more follows at once.
    pub more: bool,
}

impl Mapping {
    /// Maps `len` bytes of the file from `offset`, which is a multiple of the page size.
    ///
    /// # Errors
    /// EINVAL for a misaligned offset or no length, ENODEV for what cannot be mapped, EACCES for
    /// a descriptor not open for reading, ENOMEM.
    pub fn map(fd: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        // SAFETY: a fresh range chosen by the kernel aliases nothing; the pages are never read or
        // written by user space, so that others may change them is of no consequence.
        let start = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::SHARED,
                fd,
                offset,
            )
        }?;
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// Bytes in the window.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True for a window of no bytes, which cannot be mapped.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tells the kernel that the window will be used from front to back.
    ///
    /// # Errors
    /// As `madvise(2)`; advice may be ignored.
    pub fn advise_sequential(&self) -> io::Result<()> {
        // SAFETY: the range is this mapping's own, alive until drop; this advice changes no
        // content.
        unsafe { rustix::mm::madvise(self.start.as_ptr(), self.len, Advice::Sequential) }?;
        Ok(())
    }

    /// `write(2)`s this part of the window, at the descriptor's own position.
    ///
    /// # Errors
    /// EFAULT if the file no longer reaches there; else as `write(2)`.
    ///
    /// # Panics
    /// If the range is not inside the window.
    pub fn write_to(&self, fd: BorrowedFd<'_>, range: Range<usize>) -> io::Result<usize> {
        let (start, len) = self.part(range);
        // SAFETY: part() lies inside the mapping, which is alive while self is borrowed; the
        // kernel only reads it and answers EFAULT for pages that vanished.
        check_len(unsafe { libc::write(fd.as_raw_fd(), start, len) })
    }

    /// `pwrite(2)`s this part of the window at `offset` of the sink.
    ///
    /// # Errors
    /// As [`write_to`](Self::write_to), and EINVAL if the offset is beyond 2^63.
    ///
    /// # Panics
    /// If the range is not inside the window.
    pub fn write_to_at(
        &self,
        fd: BorrowedFd<'_>,
        range: Range<usize>,
        offset: u64,
    ) -> io::Result<usize> {
        let (start, len) = self.part(range);
        let offset = libc::off64_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: as in write_to.
        check_len(unsafe { libc::pwrite64(fd.as_raw_fd(), start, len, offset) })
    }

    /// `send(2)`s this part of the window, without SIGPIPE.
    ///
    /// # Errors
    /// EFAULT if the file no longer reaches there, EAGAIN with `dont_wait` or on a non-blocking
    /// socket; else as `send(2)`.
    ///
    /// # Panics
    /// If the range is not inside the window.
    pub fn send_to(
        &self,
        socket: BorrowedFd<'_>,
        range: Range<usize>,
        mode: SendMode,
    ) -> io::Result<usize> {
        let (start, len) = self.part(range);
        let mut flags = libc::MSG_NOSIGNAL;
        if mode.dont_wait {
            flags |= libc::MSG_DONTWAIT;
        }
        if mode.more {
            flags |= libc::MSG_MORE;
        }
        // SAFETY: as in write_to.
        check_len(unsafe { libc::send(socket.as_raw_fd(), start, len, flags) })
    }

    fn part(&self, range: Range<usize>) -> (*const libc::c_void, usize) {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "inside the window"
        );
        // SAFETY: range.start <= len was checked, so the result is in or at the end of the
        // mapping.
        let start = unsafe { self.start.as_ptr().cast::<u8>().add(range.start) };
        (start.cast_const().cast(), range.end - range.start)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by map(), is unmapped once, and nobody else knows it.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr(), self.len) };
        debug_assert!(result.is_ok(), "munmap of an own range succeeds");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    const PAGE: usize = 4096;

    fn file_of(bytes: &[u8]) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn a_part_of_the_window_arrives() {
        let bytes = pattern(3 * PAGE);
        let file = file_of(&bytes);
        let window = Mapping::map(file.as_fd(), PAGE as u64, 2 * PAGE).unwrap();
        window.advise_sequential().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        assert_eq!(
            window
                .send_to(near.as_fd(), 10..PAGE, SendMode::default())
                .unwrap(),
            PAGE - 10
        );
        assert_eq!(window.write_to(near.as_fd(), 0..10).unwrap(), 10);
        drop(near);
        let mut received = Vec::new();
        far.read_to_end(&mut received).unwrap();
        assert_eq!(received[..PAGE - 10], bytes[PAGE + 10..2 * PAGE]);
        assert_eq!(received[PAGE - 10..], bytes[PAGE..PAGE + 10]);
    }

    #[test]
    fn a_vanished_page_is_an_error_and_no_signal() {
        let file = file_of(&pattern(4 * PAGE));
        let window = Mapping::map(file.as_fd(), 0, 4 * PAGE).unwrap();
        file.set_len(PAGE as u64).unwrap();
        let (near, _far) = UnixStream::pair().unwrap();
        let error = window
            .send_to(near.as_fd(), 0..4 * PAGE, SendMode::default())
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
    }

    #[test]
    fn a_full_socket_does_not_block_with_dont_wait() {
        let file = file_of(&pattern(64 * PAGE));
        let window = Mapping::map(file.as_fd(), 0, 64 * PAGE).unwrap();
        let (near, _far) = UnixStream::pair().unwrap();
        let mode = SendMode {
            dont_wait: true,
            more: true,
        };
        let error = loop {
            if let Err(error) = window.send_to(near.as_fd(), 0..window.len(), mode) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    #[should_panic(expected = "inside the window")]
    fn a_range_outside_the_window_is_refused() {
        let file = file_of(&pattern(PAGE));
        let window = Mapping::map(file.as_fd(), 0, PAGE).unwrap();
        let _ = window.write_to(file.as_fd(), 0..PAGE + 1);
    }

    #[test]
    fn a_pipe_and_no_length_cannot_be_mapped() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert!(Mapping::map(reader.as_fd(), 0, PAGE).is_err());
        assert!(Mapping::map(file_of(b"x").as_fd(), 0, 0).is_err());
    }

    #[test]
    fn a_write_at_an_offset_leaves_the_position_alone() {
        let bytes = pattern(PAGE);
        let window = Mapping::map(file_of(&bytes).as_fd(), 0, PAGE).unwrap();
        let mut sink = tempfile::tempfile().unwrap();
        assert_eq!(
            window.write_to_at(sink.as_fd(), 0..PAGE, 100).unwrap(),
            PAGE
        );
        let mut written = Vec::new();
        sink.read_to_end(&mut written).unwrap();
        assert_eq!(written[100..], bytes);
    }
}
