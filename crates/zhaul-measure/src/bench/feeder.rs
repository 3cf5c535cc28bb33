//! The far end of a stream source: writes content as fast as it is taken.

use std::io;
use std::os::fd::BorrowedFd;

use super::content::Content;

/// Bytes of one write, a multiple of any socket's or pipe's appetite.
const FEED_BYTES: u64 = 256 << 10;

/// Writes the first `total` bytes of the content.
///
/// # Errors
/// As `write(2)`.
pub(super) fn feed(sink: BorrowedFd<'_>, content: &Content, total: u64) -> io::Result<()> {
    let mut fed = 0;
    while fed < total {
        let piece = content.at(fed, FEED_BYTES.min(total - fed));
        match rustix::io::write(sink, piece) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => fed += written as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
