//! UNIX sockets of the type SOCK_SEQPACKET, which the standard library does not have.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
    socketpair,
};

/// Two sockets connected with one another, one for each end of a channel; closed on exec.
///
/// # Errors
/// As `socketpair(2)`.
pub fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// Connects to a [`Listener`].
///
/// # Errors
/// As `connect(2)`; ENAMETOOLONG beyond 107 bytes.
pub fn connect(path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let socket = new_socket()?;
    let address = SocketAddrUnix::new(path.as_ref())?;
    retry_on_intr(|| rustix::net::connect(&socket, &address))?;
    Ok(socket)
}

/// Waits for processes that connect. Who they are says `SO_PEERCRED`; who may is a matter of the
/// permissions of the path.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Listens at a path that does not exist yet.
    ///
    /// # Errors
    /// As `bind(2)`: EADDRINUSE if it exists; ENAMETOOLONG beyond 107 bytes.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        let socket = new_socket()?;
        bind(&socket, &SocketAddrUnix::new(path.as_ref())?)?;
        listen(&socket, 128)?;
        Ok(Self(socket))
    }

    /// Waits for the next.
    ///
    /// # Errors
    /// As `accept(2)`.
    pub fn accept(&self) -> io::Result<OwnedFd> {
        Ok(retry_on_intr(|| {
            accept_with(&self.0, SocketFlags::CLOEXEC)
        })?)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
}
