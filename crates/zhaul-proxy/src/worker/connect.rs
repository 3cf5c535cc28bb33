//! Making connections to servers, without waiting.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use zhaul_sys::setsockopt::{self, IntOption};

use crate::config::{Pool, Source};
use crate::pure::addresses::Endpoint;
use crate::state::tcp_options::{keep_alive, keepalive_waits, set, user_timeout};

/// Begins to connect; whether it has succeeded shows when the socket is writable.
///
/// `client` is bound to if the pool says so; `early_data` is whether something will be sent at once.
/// Only what the proxy itself says goes with the SYN: a network may deliver a SYN twice, and of what
/// a client says nobody here knows whether it may happen twice.
///
/// # Errors
/// What the kernel said at once, and about whom.
pub(super) fn begin(
    endpoint: &Endpoint,
    pool: &Pool,
    client: Option<SocketAddr>,
    early_data: bool,
) -> Result<OwnedFd, Failed> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let address = match endpoint {
        Endpoint::Unix(addr) => {
            let fd =
                rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            return match rustix::net::connect(&fd, &addr.to_kernel()?) {
                Ok(()) => Ok(fd),
                Err(Errno::AGAIN) => Err(Failed::Busy),
                Err(errno) => Err(Failed::Theirs(errno)),
            };
        }
        Endpoint::Tcp(address) => *address,
    };
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&fd, true)?;
    if !keepalive_waits(pool) {
        keep_alive(&fd, pool.keepalive)?;
    }
    user_timeout(&fd, pool.user_timeout)?;
    bind_source(&fd, pool.source, client, address)?;
    if early_data {
        // The last segment of the handshake waits for the data and goes with it: one segment less
        // for both, and the server wakes up when there is something to read. Not for clients that
        // have sent nothing: who waits for the server to speak first would wait for the timer too.
        let _ = sockopt::set_tcp_quickack(&fd, false);
        if pool.fast_open && pool.send_proxy.is_some() {
            // Without it the connection is made the long way.
            let _ = setsockopt::set(fd.as_fd(), IntOption::TcpFastOpenConnect, 1);
        }
    }
    match rustix::net::connect(&fd, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(fd),
        // No port is free on our side.
        Err(errno @ (Errno::ADDRNOTAVAIL | Errno::AGAIN)) => Err(Failed::Ours(errno)),
        Err(errno) => Err(Failed::Theirs(errno)),
    }
}

/// Why there is no connection, and who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The machine has run out of something; another server would not help.
    Exhausted(Errno),
    /// Something on our side: an address that is not ours, no free port.
    Ours(Errno),
    /// The server's backlog has no room now (UNIX sockets).
    Busy,
    /// The server, or the way to it.
    Theirs(Errno),
}

impl Failed {
    /// Whether it says anything about the server.
    pub(super) const fn is_the_servers_fault(self) -> bool {
        matches!(self, Self::Theirs(_) | Self::Busy)
    }
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Self::Exhausted(errno),
            _ => Self::Ours(errno),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted(errno) | Self::Ours(errno) | Self::Theirs(errno) => errno.fmt(f),
            Self::Busy => f.write_str("its backlog has had no room all the time"),
        }
    }
}

/// What connecting came to.
pub(super) fn result(fd: &OwnedFd) -> Result<(), Errno> {
    sockopt::socket_error(fd)?
}

fn bind_source(
    fd: &OwnedFd,
    source: Source,
    client: Option<SocketAddr>,
    to: SocketAddr,
) -> Result<(), Errno> {
    let ip = match (source, client) {
        (Source::Kernel, _) | (Source::Client, None) => return Ok(()),
        (Source::Address(ip), _) => ip,
        (Source::Client, Some(client)) => {
            let option = match to {
                SocketAddr::V4(_) => IntOption::IpTransparent,
                SocketAddr::V6(_) => IntOption::Ipv6Transparent,
            };
            set(fd, option)?;
            client.ip().to_canonical()
        }
    };
    let ip = match (ip, to) {
        (IpAddr::V4(v4), SocketAddr::V6(_)) => IpAddr::V6(v4.to_ipv6_mapped()),
        (ip, _) => ip,
    };
    // So that one port can serve connections to many servers.
    let _ = set(fd, IntOption::IpBindAddressNoPort);
    rustix::net::bind(fd, &SocketAddr::new(ip, 0))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::state::tcp_options::tests::{KEEPALIVE, assert_options};

    #[test]
    fn connections_to_servers_have_what_their_pool_says() {
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::Tcp(listening.local_addr().unwrap());
        let mut pool = Pool {
            keepalive: Some(KEEPALIVE),
            user_timeout: Some(Duration::from_millis(1234)),
            connect_timeout: KEEPALIVE.idle * 2,
            source: Source::Address("127.0.0.77".parse().unwrap()),
            ..Pool::default()
        };
        let fd = begin(&endpoint, &pool, None, false).unwrap();
        assert_options(&fd, pool.keepalive, pool.user_timeout);
        let (_, from) = listening.accept().unwrap();
        assert_eq!(from.ip().to_string(), "127.0.0.77");
        (pool.keepalive, pool.user_timeout) = (None, None);
        let fd = begin(&endpoint, &pool, None, true).unwrap();
        assert_options(&fd, None, None);
    }
}
