//! `ioctl(2)` SIOCOUTQ and SIOCINQ: bytes queued in a socket.
//!
//! On TCP, SIOCOUTQ counts what the peer has not acknowledged. 0 proves that the peer's kernel
//! has the bytes. It proves that page references are no longer shared only if the bytes crossed
//! a real wire: on loopback the pages themselves move into the receiver's queue.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;

/// Bytes sent and not yet acknowledged (TCP) or not yet read by the peer (UNIX).
///
/// # Errors
/// ENOTTY for what is not a socket, EINVAL for a listening one.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<usize> {
    queue(socket, SIOCOUTQ)
}

/// Bytes received and not yet read.
///
/// # Errors
/// ENOTTY for what has no input queue, EINVAL for a listening socket.
pub fn unread(socket: BorrowedFd<'_>) -> io::Result<usize> {
    queue(socket, SIOCINQ)
}

fn queue(socket: BorrowedFd<'_>, request: libc::c_ulong) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed for the call; both requests store one int, which lives
    // on this stack.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// TIOCOUTQ and FIONREAD of `asm-generic/ioctls.h`, under the names of `linux/sockios.h`.
const SIOCOUTQ: libc::c_ulong = libc::TIOCOUTQ as libc::c_ulong;
const SIOCINQ: libc::c_ulong = libc::FIONREAD as libc::c_ulong;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_unix_socket_counts_until_the_peer_has_read() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        near.write_all(b"12345").unwrap();
        assert!(
            unacknowledged(near.as_fd()).unwrap() >= 5,
            "counts its bookkeeping too"
        );
        assert_eq!(unread(far.as_fd()).unwrap(), 5);
        far.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(unacknowledged(near.as_fd()).unwrap(), 0);
        assert_eq!(unread(far.as_fd()).unwrap(), 0);
    }

    #[test]
    fn tcp_on_loopback_is_acknowledged_before_anybody_reads() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.write_all(b"12345").unwrap();
        let began = std::time::Instant::now();
        while unacknowledged(near.as_fd()).unwrap() > 0 {
            assert!(began.elapsed().as_secs() < 5, "acknowledged soon");
        }
        assert_eq!(unread(far.as_fd()).unwrap(), 5);
    }

    #[test]
    fn a_file_has_no_such_queue() {
        assert!(unacknowledged(tempfile::tempfile().unwrap().as_fd()).is_err());
    }
}
