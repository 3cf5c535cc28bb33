//! `vmsplice(2)`: pages of the caller into a pipe, by reference.
//!
//! The kernel gives no sign when it is done with the pages, so only bytes that never change can be
//! spliced safely: [`vmsplice_static`]. SPLICE_F_GIFT is not offered; it moves nothing in practice.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::pipe::{IoSliceRaw, SpliceFlags};

/// Queues references to the pages of `bytes` in a pipe, without blocking.
///
/// # Errors
/// EAGAIN for a full pipe, EBADF or EINVAL for what is no pipe.
pub fn vmsplice_static(pipe: BorrowedFd<'_>, bytes: &'static [u8]) -> io::Result<usize> {
    let vectors = [IoSliceRaw::from_slice(bytes)];
    // SAFETY: the bytes live for ever and are never written, so the pipe may hold references to
    // them for as long as it likes.
    let spliced = unsafe { rustix::pipe::vmsplice(pipe, &vectors, SpliceFlags::NONBLOCK) };
    Ok(spliced?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    static BYTES: [u8; 5000] = [9; 5000];

    #[test]
    fn the_reader_of_the_pipe_gets_the_bytes() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert_eq!(vmsplice_static(writer.as_fd(), &BYTES).unwrap(), 5000);
        let mut read = [0; 5000];
        assert_eq!(rustix::io::read(&reader, &mut read).unwrap(), 5000);
        assert!(read == BYTES);
    }

    #[test]
    fn a_file_is_no_pipe() {
        let file = tempfile::tempfile().unwrap();
        assert!(vmsplice_static(file.as_fd(), &BYTES).is_err());
    }
}
