//! `setsockopt(2)` and `getsockopt(2)` with an integer, for the options that rustix lacks.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;

/// An option whose value is one `int`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntOption {
    /// `TCP_FASTOPEN` of a listening socket: requests that may wait with their data. Needs bit 2 of
    /// `net.ipv4.tcp_fastopen`.
    TcpFastOpen,
    /// `TCP_FASTOPEN_CONNECT`: connect(2) returns at once, and the first send goes out with the SYN.
    /// Linux 4.11.
    TcpFastOpenConnect,
    /// `IP_TRANSPARENT`: bind to addresses that are not this machine's. Needs CAP_NET_ADMIN or
    /// CAP_NET_RAW.
    IpTransparent,
    /// The same for IPv6.
    Ipv6Transparent,
    /// `IP_BIND_ADDRESS_NO_PORT`: choose the port at connect(2), so that one port can serve many
    /// destinations. Linux 4.2.
    IpBindAddressNoPort,
    /// `TCP_DEFER_ACCEPT`, in seconds: report a connection when its first data arrives.
    TcpDeferAccept,
    /// `TCP_QUICKACK`.
    TcpQuickAck,
    /// `TCP_MAXSEG`: no segment is longer, TCP options included. 88 to 32767, before the connection
    /// is made.
    TcpMaxSegment,
    /// `SO_REUSEPORT`: several sockets may listen on one address.
    ReusePort,
    /// `SO_RCVLOWAT`: bytes that make a socket readable.
    ReceiveLowWater,
}

impl IntOption {
    const fn name(self) -> (libc::c_int, libc::c_int) {
        match self {
            Self::TcpFastOpen => (libc::IPPROTO_TCP, libc::TCP_FASTOPEN),
            Self::TcpFastOpenConnect => (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT),
            Self::IpTransparent => (libc::SOL_IP, libc::IP_TRANSPARENT),
            Self::Ipv6Transparent => (libc::SOL_IPV6, libc::IPV6_TRANSPARENT),
            Self::IpBindAddressNoPort => (libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT),
            Self::TcpDeferAccept => (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
            Self::TcpQuickAck => (libc::IPPROTO_TCP, libc::TCP_QUICKACK),
            Self::TcpMaxSegment => (libc::IPPROTO_TCP, libc::TCP_MAXSEG),
            Self::ReusePort => (libc::SOL_SOCKET, libc::SO_REUSEPORT),
            Self::ReceiveLowWater => (libc::SOL_SOCKET, libc::SO_RCVLOWAT),
        }
    }
}

/// Sets an option.
///
/// # Errors
/// ENOPROTOOPT where the kernel or the family lacks it, EPERM where a capability is missing.
pub fn set(fd: BorrowedFd<'_>, option: IntOption, value: i32) -> io::Result<()> {
    let (level, name) = option.name();
    let value: libc::c_int = value;
    let bytes = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for the call; the kernel reads one int, which lives on
    // this stack until the call returns.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            bytes,
        )
    };
    check(result).map(drop)
}

/// `SO_NETNS_COOKIE`: the network namespace of a socket, by a number that no other has had since
/// boot. Linux 5.14.
///
/// # Errors
/// ENOPROTOOPT before, ENOTSOCK.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for the call; the kernel stores one u64 and its length,
    // both of which live on this stack until the call returns.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    check(result).map(|_| cookie)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn sockets_of_one_namespace_have_one_cookie() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        match netns_cookie(tcp.as_fd()) {
            Ok(cookie) => assert_eq!(netns_cookie(udp.as_fd()).unwrap(), cookie),
            Err(error) => zhaul_untested::skip("sockets_of_one_namespace_have_one_cookie", error),
        }
        assert!(netns_cookie(tempfile::tempfile().unwrap().as_fd()).is_err());
    }

    #[test]
    fn options_are_known_to_the_kernel_and_foreign_ones_are_refused() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        for option in [
            IntOption::TcpFastOpen,
            IntOption::IpBindAddressNoPort,
            IntOption::TcpDeferAccept,
            IntOption::TcpMaxSegment,
            IntOption::ReceiveLowWater,
        ] {
            set(tcp.as_fd(), option, 1000).unwrap_or_else(|e| panic!("{option:?}: {e}"));
        }
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(set(udp.as_fd(), IntOption::TcpFastOpen, 1).is_err());
    }
}
