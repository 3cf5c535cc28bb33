//! Making connections to servers, without waiting.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use zhaul_sys::setsockopt::{self, IntOption};

use crate::addresses::Endpoint;
use crate::config::{Keepalive, Listener, Pool, Source};

/// Begins to connect; whether it has succeeded shows when the socket is writable.
///
/// `client` is bound to if the pool says so; `early_data` is whether something will be sent at once.
/// Only what the proxy itself says goes with the SYN: a network may deliver a SYN twice, and of what
/// a client says nobody here knows whether it may happen twice.
///
/// # Errors
/// What the kernel said at once, and about whom.
pub(crate) fn begin(
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
pub(crate) enum Failed {
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
    pub(crate) const fn is_the_servers_fault(self) -> bool {
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

/// Whether connections may come from addresses that are not this machine's.
pub(crate) fn may_be_transparent() -> Result<(), Errno> {
    let fd = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set(&fd, IntOption::IpTransparent)
}

/// What connecting came to.
pub(crate) fn result(fd: &OwnedFd) -> Result<(), Errno> {
    sockopt::socket_error(fd)?
}

/// Sets on a listening socket what the connections it accepts are to have: they inherit it, which
/// saves five system calls for each. What is not asked for is switched off: the socket may have been
/// somebody else's before, or another configuration's.
pub(crate) fn bequeath(fd: &OwnedFd, listener: &Listener) -> Result<(), Errno> {
    sockopt::set_tcp_nodelay(fd, true)?;
    sockopt::set_socket_keepalive(fd, listener.keepalive.is_some())?;
    keep_alive(fd, listener.keepalive)?;
    user_timeout(fd, listener.user_timeout.or(Some(Duration::ZERO)))
}

/// Whether connections that this socket accepts are TCP; MPTCP, for one, is something else.
pub(crate) fn is_tcp(listening: &OwnedFd) -> bool {
    sockopt::socket_protocol(listening) == Ok(Some(rustix::net::ipproto::TCP))
}

/// Whether keepalive is set only when the connection is as old as connecting may take. It has
/// nothing to do before, and most connections are shorter than that: four system calls less.
pub(crate) fn keepalive_waits(pool: &Pool) -> bool {
    let idle = |keepalive: Keepalive| pool.connect_timeout <= keepalive.idle;
    pool.keepalive.is_some_and(idle)
}

/// Sets keepalive and its times; `None` leaves it off.
pub(crate) fn keep_alive(fd: &OwnedFd, keepalive: Option<Keepalive>) -> Result<(), Errno> {
    let Some(Keepalive {
        idle,
        interval,
        count,
    }) = keepalive
    else {
        return Ok(());
    };
    sockopt::set_socket_keepalive(fd, true)?;
    sockopt::set_tcp_keepidle(fd, at_least_a_second(idle))?;
    sockopt::set_tcp_keepintvl(fd, at_least_a_second(interval))?;
    sockopt::set_tcp_keepcnt(fd, count.clamp(1, 127))
}

/// Sets `TCP_USER_TIMEOUT`; `None` leaves the kernel's.
fn user_timeout(fd: &OwnedFd, timeout: Option<Duration>) -> Result<(), Errno> {
    let Some(timeout) = timeout else {
        return Ok(());
    };
    let ms = u32::try_from(timeout.as_millis()).unwrap_or(i32::MAX as u32);
    sockopt::set_tcp_user_timeout(fd, ms.min(i32::MAX as u32))
}

/// The kernel counts in seconds, from 1 to 32767.
fn at_least_a_second(time: Duration) -> Duration {
    time.clamp(Duration::from_secs(1), Duration::from_secs(32_767))
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

fn set(fd: &OwnedFd, option: IntOption) -> Result<(), Errno> {
    setsockopt::set(fd.as_fd(), option, 1)
        .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const KEEPALIVE: Keepalive = Keepalive {
        idle: Duration::from_secs(77),
        interval: Duration::from_secs(11),
        count: 5,
    };

    #[track_caller]
    fn assert_options(fd: impl AsFd, keepalive: Option<Keepalive>, timeout: Option<Duration>) {
        let fd = fd.as_fd();
        assert!(sockopt::tcp_nodelay(fd).unwrap());
        assert_eq!(sockopt::socket_keepalive(fd).unwrap(), keepalive.is_some());
        if let Some(keepalive) = keepalive {
            assert_eq!(sockopt::tcp_keepidle(fd).unwrap(), keepalive.idle);
            assert_eq!(sockopt::tcp_keepintvl(fd).unwrap(), keepalive.interval);
            assert_eq!(sockopt::tcp_keepcnt(fd).unwrap(), keepalive.count);
        }
        let ms = timeout.map_or(0, |timeout| timeout.as_millis() as u32);
        assert_eq!(sockopt::tcp_user_timeout(fd).unwrap(), ms);
    }

    #[test]
    fn clients_have_what_was_set_on_the_listening_socket() {
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listening.local_addr().unwrap();
        let fd = OwnedFd::from(listening.try_clone().unwrap());
        assert!(is_tcp(&fd));
        for (keepalive, user_timeout) in [
            (Some(KEEPALIVE), Some(Duration::from_millis(4321))),
            (None, None),
            (None, Some(Duration::from_secs(3))),
        ] {
            let config = Listener {
                keepalive,
                user_timeout,
                ..Listener::default()
            };
            bequeath(&fd, &config).unwrap();
            let _client = TcpStream::connect(address).unwrap();
            let (accepted, _) = listening.accept().unwrap();
            assert_options(&accepted, keepalive, user_timeout);
        }
    }

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
