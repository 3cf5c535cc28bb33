//! Whether a socket's peer sits across a real network device.
//!
//! This decides when page references queued in the socket end. Across a wire the peer's
//! acknowledgement proves that the bytes left this machine's memory. On loopback it proves
//! nothing: measured on Linux 6.18, after sendfile `SIOCOUTQ` reads 0 although the receiver has
//! not read a byte, a later pwrite to the file is visible to the receiver, and closing with a
//! linger of 0 does not withdraw it, because the pages themselves sit in the receiver's queue.
//! The same holds between containers, where packets travel over veth pairs and bridges.
//!
//! The names of interfaces are looked up in `/sys`, which must be that of this network namespace.
//!
//! Any doubt counts as "not remote": the planner then copies where it would have sent in place.
//! The answer takes about a dozen system calls; cache it per connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::net::{AddressFamily, SocketType};

use zhaul_core::InPlaceEnd;

/// When page references queued in this socket end.
pub fn in_place_end(socket: impl AsFd) -> InPlaceEnd {
    if peer_is_remote(socket) {
        InPlaceEnd::Acknowledged
    } else {
        InPlaceEnd::Never
    }
}

/// True if the peer of this connected IP socket is reached through a physical (or virtual but
/// DMA-capable) network device. False for UNIX sockets, own addresses, and virtual interfaces
/// that pass pages on (loopback, veth, bridge, tun, dummy); false if anything is unclear.
pub fn peer_is_remote(socket: impl AsFd) -> bool {
    remote(socket.as_fd()).unwrap_or(false)
}

fn remote(socket: BorrowedFd<'_>) -> Option<bool> {
    let peer = SocketAddr::try_from(rustix::net::getpeername(socket).ok()??).ok()?;
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    if peer.ip().is_loopback() || peer.ip().is_unspecified() {
        return Some(false);
    }
    let source = egress_address(peer)?;
    // Bound to another address, or routed by a mark or a rule: the probe says nothing about it.
    let own = SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()?;
    if own.ip().to_canonical() != source {
        return None;
    }
    if source == peer.ip() {
        return Some(false);
    }
    let addresses = zhaul_sys::getifaddrs::interface_addresses().ok()?;
    if addresses.iter().any(|entry| entry.address == peer.ip()) {
        return Some(false);
    }
    let egress = addresses.iter().find(|entry| entry.address == source)?;
    Some(is_physical(
        Path::new("/sys/class/net"),
        &egress.interface,
        MAX_STACKED,
    ))
}

/// The address that the routing table chooses for packets to the peer. Connecting a datagram
/// socket sends nothing.
fn egress_address(peer: SocketAddr) -> Option<IpAddr> {
    let family = if peer.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let probe = rustix::net::socket(family, SocketType::DGRAM, None).ok()?;
    // Port 0 cannot be connected to on some kernels; any other port routes the same way.
    let peer = if peer.port() == 0 {
        SocketAddr::new(peer.ip(), 9)
    } else {
        peer
    };
    rustix::net::connect(&probe, &peer).ok()?;
    let local = SocketAddr::try_from(rustix::net::getsockname(&probe).ok()?).ok()?;
    let local = local.ip().to_canonical();
    let unspecified = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    (!unspecified.contains(&local)).then_some(local)
}

/// An interface with a device behind it, or a VLAN, bond or team on such interfaces only. Others
/// that are stacked on a device (macvlan, ipvlan) pass packets between neighbours on it as they
/// are.
fn is_physical(class_net: &Path, interface: &str, depth: u32) -> bool {
    let node = class_net.join(interface);
    if node.join("device").exists() {
        return true;
    }
    if depth == 0 || !hands_everything_down(&node) {
        return false;
    }
    let Ok(entries) = std::fs::read_dir(&node) else {
        return false;
    };
    let lower: Vec<_> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_prefix("lower_")
                .map(String::from)
        })
        .collect();
    !lower.is_empty()
        && lower
            .iter()
            .all(|name| is_physical(class_net, name, depth - 1))
}

/// The kernel names the kind of a stacked interface in its uevent.
fn hands_everything_down(node: &Path) -> bool {
    let uevent = std::fs::read_to_string(node.join("uevent")).unwrap_or_default();
    uevent
        .lines()
        .filter_map(|line| line.strip_prefix("DEVTYPE="))
        .any(|kind| matches!(kind, "vlan" | "bond" | "team"))
}

/// VLAN on bond on device, and one to spare.
const MAX_STACKED: u32 = 3;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn loopback_and_unix_peers_are_not_remote() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                zhaul_untested::skip_this(format_args!("no {address}"));
                continue;
            };
            let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert!(!peer_is_remote(&socket));
        }
        assert!(!peer_is_remote(UnixStream::pair().unwrap().0));
        assert!(!peer_is_remote(tempfile::tempfile().unwrap()));
    }

    #[test]
    fn an_own_address_on_a_real_interface_is_not_remote() {
        for entry in zhaul_sys::getifaddrs::interface_addresses().unwrap() {
            let Ok(listener) = TcpListener::bind((entry.address, 0)) else {
                continue;
            };
            let Ok(socket) = TcpStream::connect(listener.local_addr().unwrap()) else {
                continue;
            };
            assert!(!peer_is_remote(&socket), "{entry:?}");
        }
    }

    #[test]
    fn only_interfaces_that_end_in_devices_are_physical() {
        let class_net = tempfile::tempdir().unwrap();
        let make = |path: &str| std::fs::create_dir_all(class_net.path().join(path)).unwrap();
        let kind = |name: &str, kind: &str| {
            let uevent = class_net.path().join(name).join("uevent");
            std::fs::write(uevent, format!("DEVTYPE={kind}\nINTERFACE={name}\n")).unwrap();
        };
        make("eth0/device");
        make("eth1/device");
        make("veth0");
        make("bond0/lower_eth0");
        make("bond0/lower_eth1");
        make("bond0.7/lower_bond0");
        make("br0/bridge");
        make("br0/lower_eth0");
        make("mixed/lower_eth0");
        make("mixed/lower_veth0");
        make("macvlan0/lower_eth0");
        make("ipvlan0/lower_eth0");
        make("unknown0/lower_eth0");
        for (name, of_kind) in [
            ("bond0", "bond"),
            ("bond0.7", "vlan"),
            ("br0", "bridge"),
            ("mixed", "bond"),
            ("macvlan0", "macvlan"),
            ("ipvlan0", "ipvlan"),
        ] {
            kind(name, of_kind);
        }
        let physical = |name| is_physical(class_net.path(), name, MAX_STACKED);
        assert!(physical("eth0") && physical("bond0") && physical("bond0.7"));
        let not_physical = [
            "veth0", "br0", "mixed", "macvlan0", "ipvlan0", "unknown0", "missing",
        ];
        for name in not_physical {
            assert!(!physical(name), "{name}");
        }
    }
}
