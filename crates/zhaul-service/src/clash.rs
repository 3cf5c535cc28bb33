//! Addresses that the kernel would not let one program listen on twice.

use std::net::{IpAddr, SocketAddr};

use crate::addr::ListenAddr;

/// Why two addresses cannot be listened on together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clash {
    /// They are the same.
    Same,
    /// One takes the other in. Sockets with `SO_REUSEPORT` may be so.
    Part {
        /// The one that says more.
        part: SocketAddr,
        /// The one for every address of its family.
        whole: SocketAddr,
    },
}

impl Clash {
    /// What is in the way of listening on both. An address with port 0 stands for a port of its own.
    pub fn between(one: &ListenAddr, other: &ListenAddr) -> Option<Self> {
        let (ours, theirs) = match (one, other) {
            (ListenAddr::Unix(a, _), ListenAddr::Unix(b, _)) => {
                return (a == b).then_some(Self::Same);
            }
            (ListenAddr::Tcp(ours), ListenAddr::Tcp(theirs)) => (ours, theirs),
            _ => return None,
        };
        let pairs = || {
            ours.iter()
                .flat_map(|a| theirs.iter().map(move |b| (*a, *b)))
        };
        if pairs().any(|(a, b)| a.port() != 0 && canonical(a) == canonical(b)) {
            return Some(Self::Same);
        }
        let (a, b) = pairs().find(|&(a, b)| covers(a, b) || covers(b, a))?;
        let (part, whole) = if covers(a, b) { (b, a) } else { (a, b) };
        Some(Self::Part { part, whole })
    }
}

/// An IPv4 address however it is written.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Whether a socket at the first address takes connections to the second. One for every IPv6 address
/// leaves those of IPv4 alone if there is another for them.
fn covers(whole: SocketAddr, part: SocketAddr) -> bool {
    let (whole, part) = (canonical(whole), canonical(part));
    whole.port() != 0
        && whole.port() == part.port()
        && whole.ip().is_unspecified()
        && !part.ip().is_unspecified()
        && whole.is_ipv4() == part.is_ipv4()
}
