//! The way to a peer: its addresses, the interface that leads there, and connecting.
//!
//! The way is found without sending anything: a datagram socket that is "connected" makes the kernel
//! choose a route and a source address, which name the interface.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use zhaul::InPlaceEnd;

use super::error::{Error, Problem};

/// How a peer is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) peer: SocketAddr,
    /// The interface that carries this machine's end, if it can be told.
    pub(crate) interface: Option<String>,
    /// When page references queued towards it end.
    pub(crate) ends: InPlaceEnd,
}

/// What a name stands for, in the order of preference.
pub(crate) fn addresses(what: &str, host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    let found: Vec<_> = (host, port)
        .to_socket_addrs()
        .map_err(|error| Error::new(what, Problem::UnknownName(error)))?
        .collect();
    if found.is_empty() {
        let none = io::Error::other("the name stands for none");
        return Err(Error::new(what, Problem::UnknownName(none)));
    }
    Ok(found)
}

/// The way to the first address that there is a way to.
pub(crate) fn way_to_any(what: &str, addresses: &[SocketAddr]) -> Result<Way, Error> {
    let mut failed = None;
    for &peer in addresses {
        match way_to(peer) {
            Ok(way) => return Ok(way),
            Err(error) => failed = Some(error),
        }
    }
    Err(Error::io(
        what,
        failed.unwrap_or_else(|| io::ErrorKind::NotFound.into()),
    ))
}

/// The way to one address. Nothing is sent.
pub(crate) fn way_to(peer: SocketAddr) -> io::Result<Way> {
    let any: SocketAddr = if peer.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let probe = UdpSocket::bind(any)?;
    probe.connect(peer)?;
    let own = probe.local_addr()?.ip().to_canonical();
    let interface = zhaul_sys::getifaddrs::interface_addresses()
        .unwrap_or_default()
        .into_iter()
        .find(|entry| entry.address == own)
        .map(|entry| entry.interface);
    Ok(Way {
        peer,
        interface,
        ends: zhaul::peer::in_place_end(&probe),
    })
}

/// Connects to the first address that answers.
pub(crate) fn connect(
    what: &str,
    addresses: &[SocketAddr],
    patience: Duration,
) -> Result<TcpStream, Error> {
    let mut failed = None;
    for address in addresses {
        match TcpStream::connect_timeout(address, patience) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = Some(error),
        }
    }
    Err(match failed {
        Some(error) if error.kind() == io::ErrorKind::TimedOut => {
            let whom = "nobody answered";
            Error::new(
                what,
                Problem::NobodyThere {
                    whom,
                    waited: patience,
                },
            )
        }
        Some(error) => Error::io(what, error),
        None => Error::io(what, io::Error::from(io::ErrorKind::NotFound)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_this_machine_is_its_loopback_and_needs_no_listener() {
        let way = way_to(([127, 0, 0, 1], 9).into()).unwrap();
        assert_eq!(way.interface.as_deref(), Some("lo"));
        assert_eq!(way.ends, InPlaceEnd::Never);
    }

    #[test]
    fn a_name_that_stands_for_nothing_is_named() {
        let error = addresses("tcp:no.such.host.invalid:80", "no.such.host.invalid", 80);
        let said = error.unwrap_err().to_string();
        assert!(
            said.starts_with("tcp:no.such.host.invalid:80: no address: "),
            "{said}"
        );
    }
}
