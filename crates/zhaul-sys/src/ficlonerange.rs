//! `ioctl(2)` FICLONERANGE: a range of one file shared with another, copied only when written.
//!
//! Whole files are cloned by `rustix::fs::ioctl_ficlone`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;

/// Shares `len` bytes (0: to the end) of `source` from `source_offset` with `sink` at
/// `sink_offset`.
///
/// # Errors
/// EOPNOTSUPP where the file system cannot, EXDEV across file systems, EINVAL for offsets or lengths
/// that are no multiple of its block size.
pub fn ficlonerange(
    sink: BorrowedFd<'_>,
    sink_offset: u64,
    source: BorrowedFd<'_>,
    source_offset: u64,
    len: u64,
) -> io::Result<()> {
    let range = libc::file_clone_range {
        src_fd: source.as_raw_fd().into(),
        src_offset: source_offset,
        src_length: len,
        dest_offset: sink_offset,
    };
    // SAFETY: both descriptors are borrowed for the call; the request reads one file_clone_range,
    // which lives on this stack.
    check(unsafe { libc::ioctl(sink.as_raw_fd(), libc::FICLONERANGE, &raw const range) }).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_clone_has_the_same_bytes_or_the_file_system_says_that_it_cannot() {
        let source = tempfile::tempfile().unwrap();
        let sink = tempfile::tempfile().unwrap();
        rustix::io::pwrite(&source, &[5; 64 << 10], 0).unwrap();
        match ficlonerange(sink.as_fd(), 0, source.as_fd(), 0, 0) {
            Ok(()) => {
                let mut cloned = vec![0; 64 << 10];
                assert_eq!(rustix::io::pread(&sink, &mut cloned, 0).unwrap(), 64 << 10);
                assert!(cloned.iter().all(|&byte| byte == 5));
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{error}"),
        }
    }

    #[test]
    fn a_pipe_cannot_be_cloned() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert!(ficlonerange(writer.as_fd(), 0, reader.as_fd(), 0, 4096).is_err());
    }
}
