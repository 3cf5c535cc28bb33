//! The end that receives: reads into a buffer that it uses again, and may check what comes.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::net::{Shutdown, shutdown};
use xxhash_rust::xxh3::Xxh3Default;

/// What a program that looks at its data would use; it stays in the second-level cache.
pub(super) const RECEIVE_BYTES: usize = 128 << 10;

/// Reads `total` bytes. With `digest` their hash is returned; after so many `acknowledged` messages
/// a byte is sent back.
///
/// # Errors
/// As `read(2)`; an end before is an error, and so is silence for as long as the socket's timeout. On any error the connection is shut, so that the
/// sender does not wait for a reader that is gone.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    (total, acknowledged): (u64, Option<u64>),
    digest: bool,
) -> io::Result<Option<u64>> {
    let shut = ShutOnDrop(Some(socket));
    let mut hash = digest.then(Xxh3Default::new);
    let (mut received, mut messages) = (0, 0);
    while received < total {
        // What follows belongs to the next sample.
        let room = usize::try_from(total - received).map_or(buffer.len(), |n| n.min(buffer.len()));
        let read = match rustix::io::read(socket, &mut buffer[..room]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::AGAIN) => {
                let why = format!("{} of {total} bytes never came", total - received);
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            Err(errno) => return Err(errno.into()),
        };
        if let Some(hash) = &mut hash {
            hash.update(&buffer[..read]);
        }
        received += read as u64;
        messages += 1;
        if acknowledged.is_some_and(|every| messages % every == 0) {
            rustix::io::write(socket, b"+")?;
        }
    }
    shut.keep();
    Ok(hash.map(|hash| hash.digest()))
}

struct ShutOnDrop<'a>(Option<BorrowedFd<'a>>);

impl ShutOnDrop<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for ShutOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(socket) = self.0 {
            let _ = shutdown(socket, Shutdown::Both);
        }
    }
}
