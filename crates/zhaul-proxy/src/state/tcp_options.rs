//! Options of TCP sockets that the configuration asks for: keepalive, `TCP_USER_TIMEOUT`, addresses of
//! others.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use zhaul_sys::setsockopt::{self, IntOption};

use crate::config::{Keepalive, Listener, Pool};

/// Sets on a listening socket what the connections it accepts are to have: they inherit it, which
/// saves five system calls for each. What is not asked for is switched off: the socket may have been
/// somebody else's before, or another configuration's.
pub(crate) fn set_inherited(fd: &OwnedFd, listener: &Listener) -> Result<(), Errno> {
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
pub(crate) fn user_timeout(fd: &OwnedFd, timeout: Option<Duration>) -> Result<(), Errno> {
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

/// Switches an option on.
pub(crate) fn set(fd: &OwnedFd, option: IntOption) -> Result<(), Errno> {
    setsockopt::set(fd.as_fd(), option, 1)
        .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    pub(crate) const KEEPALIVE: Keepalive = Keepalive {
        idle: Duration::from_secs(77),
        interval: Duration::from_secs(11),
        count: 5,
    };

    #[track_caller]
    pub(crate) fn assert_options(
        fd: impl AsFd,
        keepalive: Option<Keepalive>,
        timeout: Option<Duration>,
    ) {
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
            set_inherited(&fd, &config).unwrap();
            let _client = TcpStream::connect(address).unwrap();
            let (accepted, _) = listening.accept().unwrap();
            assert_options(&accepted, keepalive, user_timeout);
        }
    }
}
