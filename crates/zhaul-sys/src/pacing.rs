//! `setsockopt(2)` SO_MAX_PACING_RATE: the kernel spaces a socket's segments to a byte rate.
//!
//! TCP paces by itself since Linux 4.13; no queueing discipline is needed.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;

/// Limits the socket to so many bytes a second; `u64::MAX` lifts the limit.
///
/// # Errors
/// ENOTSOCK for what is not a socket.
pub fn set_max_pacing_rate(socket: BorrowedFd<'_>, bytes_per_second: u64) -> io::Result<()> {
    let len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for the call; the option reads an unsigned long of eight
    // bytes, which lives on this stack.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MAX_PACING_RATE,
            (&raw const bytes_per_second).cast(),
            len,
        )
    })
    .map(drop)
}

/// The limit in bytes a second; `u64::MAX` without one.
///
/// # Errors
/// ENOTSOCK for what is not a socket.
pub fn max_pacing_rate(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut rate = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for the call; the kernel stores at most `len` bytes in
    // `rate` and the number of bytes in `len`, both on this stack.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MAX_PACING_RATE,
            (&raw mut rate).cast(),
            &raw mut len,
        )
    })?;
    Ok(rate)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_rate_beyond_32_bits_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(max_pacing_rate(socket.as_fd()).unwrap(), u64::MAX);
        set_max_pacing_rate(socket.as_fd(), 10_000_000_000).unwrap();
        assert_eq!(max_pacing_rate(socket.as_fd()).unwrap(), 10_000_000_000);
    }

    #[test]
    fn a_file_cannot_be_paced() {
        assert!(set_max_pacing_rate(tempfile::tempfile().unwrap().as_fd(), 1).is_err());
    }
}
