//! accept(2), and what its errors are about: nobody, the one connection, or us.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::SocketFlags;

use crate::peer::Peer;

/// Why accept(2) gave no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// Nobody waits to be accepted (EAGAIN).
    Nobody,
    /// Whoever waited has gone: accept(2) reports what is pending on the new connection as its own
    /// error, as its manual page says. The next may be accepted.
    Connection(Errno),
    /// The process or the machine has run out of descriptors or memory. It would be reported at once
    /// again, so whoever accepts rests.
    Exhausted(Errno),
    /// Anything else, which would be reported for ever, too.
    Listener(Errno),
}

impl From<Errno> for AcceptError {
    fn from(errno: Errno) -> Self {
        use Errno as E;
        match errno {
            E::AGAIN => Self::Nobody,
            E::CONNABORTED
            | E::INTR
            | E::PROTO
            | E::NOPROTOOPT
            | E::OPNOTSUPP
            | E::PERM
            | E::NETDOWN
            | E::NETUNREACH
            | E::HOSTDOWN
            | E::HOSTUNREACH
            | E::NONET
            | E::TIMEDOUT
            | E::CONNRESET => Self::Connection(errno),
            E::MFILE | E::NFILE | E::NOBUFS | E::NOMEM => Self::Exhausted(errno),
            _ => Self::Listener(errno),
        }
    }
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot accept a connection: ")?;
        match self {
            Self::Nobody => f.write_str("nobody waits"),
            Self::Connection(errno) | Self::Listener(errno) => errno.fmt(f),
            Self::Exhausted(errno) => write!(f, "{errno} (raise the limit on open files)"),
        }
    }
}

impl std::error::Error for AcceptError {}

/// Accepts one connection, non-blocking and closed on exec.
///
/// # Errors
/// By what they are about: [`AcceptError`].
pub fn accept(listening: impl AsFd) -> Result<(OwnedFd, Peer), AcceptError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (fd, address) = rustix::net::acceptfrom_with(listening, flags)?;
    let ip = address.and_then(|any| SocketAddr::try_from(any).ok());
    Ok((fd, ip.map_or(Peer::Unix, Peer::Ip)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn whoever_waits_is_accepted_and_then_nobody_is_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(accept(&listener).unwrap_err(), AcceptError::Nobody);
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (fd, peer) = accept(&listener).unwrap();
        assert_eq!(peer, Peer::Ip(client.local_addr().unwrap()));
        let flags = rustix::fs::fcntl_getfl(&fd).unwrap();
        assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
    }

    #[test]
    fn errors_of_the_connection_are_told_from_those_that_stay() {
        for (errno, expected) in [
            (
                Errno::CONNABORTED,
                AcceptError::Connection(Errno::CONNABORTED),
            ),
            (Errno::MFILE, AcceptError::Exhausted(Errno::MFILE)),
            (Errno::INVAL, AcceptError::Listener(Errno::INVAL)),
        ] {
            assert_eq!(AcceptError::from(errno), expected);
        }
        let said = AcceptError::Exhausted(Errno::MFILE).to_string();
        assert!(said.ends_with("(raise the limit on open files)"), "{said}");
    }
}
