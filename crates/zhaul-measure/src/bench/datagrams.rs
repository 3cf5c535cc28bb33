//! Datagrams between two sockets, none of which may be lost: loopback drops what finds the
//! receiver's buffer full. So the receiver acknowledges, and the sender waits.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::sockopt::socket_type;
use rustix::net::{RecvFlags, SocketType, recv};

/// Above the size from which sending by reference is said to pay, and four of them fit into any
/// receive buffer.
pub(super) const DATAGRAM_BYTES: usize = 16 << 10;

/// The receiver sends one byte for so many datagrams.
pub(super) const ACKNOWLEDGED: u64 = 2;

/// Datagrams on their way.
#[derive(Debug)]
pub(super) struct Window<'a> {
    socket: BorrowedFd<'a>,
    /// Of which the receiver has said nothing.
    out: u64,
}

impl<'a> Window<'a> {
    /// `None` for a stream, which needs none.
    pub(super) fn of(socket: BorrowedFd<'a>) -> io::Result<Option<Self>> {
        if socket_type(socket)? != SocketType::DGRAM {
            return Ok(None);
        }
        // Of a sample that failed.
        while recv(socket, &mut [0; 1], RecvFlags::DONTWAIT).is_ok() {}
        Ok(Some(Self { socket, out: 0 }))
    }

    /// Called before each datagram.
    pub(super) fn wait_for_room(&mut self) -> io::Result<()> {
        if self.out >= 2 * ACKNOWLEDGED {
            self.acknowledged()?;
        }
        self.out += 1;
        Ok(())
    }

    /// Takes the last acknowledgements.
    pub(super) fn close(mut self) -> io::Result<()> {
        while self.out >= ACKNOWLEDGED {
            self.acknowledged()?;
        }
        Ok(())
    }

    fn acknowledged(&mut self) -> io::Result<()> {
        loop {
            match recv(self.socket, &mut [0; 1], RecvFlags::empty()) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.out -= ACKNOWLEDGED;
        Ok(())
    }
}
