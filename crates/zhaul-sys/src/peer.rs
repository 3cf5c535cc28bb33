//! Whether a socket's peer sits across a real network device.
//!
//! This decides whose pages are in its queues. Across a wire, what is sent leaves this machine's
//! memory and what is received lies in pages of the driver's. Between processes of one machine
//! (loopback, veth pairs, bridges) both queues hold the very pages that the sender gave.
//!
//! Interfaces are looked at through rtnetlink(7), in this thread's network namespace; a socket of
//! another namespace (`SO_NETNS_COOKIE`) has no remote peer. On a kernel before 5.14, which has
//! neither that option nor tells what device is behind an interface, no peer is remote.
//!
//! Any doubt counts as "not remote". The answer takes about ten system calls; cache it per
//! connection. It is about the way to the peer: that packets come the same way is what
//! `net.ipv4.conf.*.rp_filter` and `SO_BINDTODEVICE` make sure of.

mod rtnetlink;

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use rtnetlink::{Link, Rtnetlink};

/// True if the peer of this connected IP socket is reached through a physical (or virtual but
/// DMA-capable) network device. False for UNIX sockets, own addresses, and virtual interfaces
/// that pass pages on (loopback, veth, bridge, tun, dummy); false if anything is unclear.
pub fn peer_is_remote(socket: impl AsFd) -> bool {
    remote(socket.as_fd()).unwrap_or(false)
}

fn remote(socket: BorrowedFd<'_>) -> Option<bool> {
    let peer = SocketAddr::try_from(rustix::net::getpeername(socket).ok()??).ok()?;
    let scope = match peer {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(peer) => peer.scope_id(),
    };
    let peer = peer.ip().to_canonical();
    if peer.is_loopback() || peer.is_unspecified() {
        return Some(false);
    }
    let own = SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()?;
    let own = own.ip().to_canonical();
    if own == peer || own.is_ipv4() != peer.is_ipv4() {
        return Some(false);
    }
    let mut rtnetlink = Rtnetlink::open()?;
    if !rtnetlink.is_beside(socket) {
        return Some(false);
    }
    let route = rtnetlink.route(own, peer, scope)?;
    if route.is_local {
        return Some(false);
    }
    let link = rtnetlink.link(route.interface)?;
    Some(is_physical(&link, &mut rtnetlink, MAX_STACKED))
}

/// Who knows the interfaces.
trait Links {
    fn link(&mut self, index: u32) -> Option<Link>;
    fn parts_of(&mut self, master: u32) -> Option<Vec<Link>>;
}

impl Links for Rtnetlink {
    fn link(&mut self, index: u32) -> Option<Link> {
        self.link(index)
    }

    fn parts_of(&mut self, master: u32) -> Option<Vec<Link>> {
        self.parts_of(master)
    }
}

/// An interface with a device behind it, or a VLAN, bond or team on such interfaces only. Others
/// that are stacked on a device (macvlan, ipvlan) pass packets between neighbours on it as they
/// are.
fn is_physical(link: &Link, links: &mut impl Links, depth: u32) -> bool {
    if link.has_device {
        return true;
    }
    if depth == 0 {
        return false;
    }
    let lower = match link.kind.as_deref() {
        Some("vlan") => link
            .lower
            .and_then(|lower| links.link(lower))
            .into_iter()
            .collect(),
        Some("bond" | "team") => links.parts_of(link.index).unwrap_or_default(),
        _ => Vec::new(),
    };
    !lower.is_empty() && lower.iter().all(|link| is_physical(link, links, depth - 1))
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
        for entry in crate::getifaddrs::interface_addresses().unwrap() {
            let Ok(listener) = TcpListener::bind((entry.address, 0)) else {
                continue;
            };
            let Ok(socket) = TcpStream::connect(listener.local_addr().unwrap()) else {
                continue;
            };
            assert!(!peer_is_remote(&socket), "{entry:?}");
        }
    }

    /// An interface, what it is of, its lower one and the one that it is a part of.
    type Row = (u32, &'static str, Option<u32>, Option<u32>);

    struct Table(Vec<Row>);

    impl Links for Table {
        fn link(&mut self, index: u32) -> Option<Link> {
            let row = self.0.iter().find(|row| row.0 == index)?;
            Some(link(row))
        }

        fn parts_of(&mut self, master: u32) -> Option<Vec<Link>> {
            let parts = self.0.iter().filter(|row| row.3 == Some(master));
            Some(parts.map(link).collect())
        }
    }

    fn link((index, kind, lower, master): &Row) -> Link {
        Link {
            index: *index,
            kind: Some((*kind).to_owned()).filter(|kind| kind != "device"),
            has_device: *kind == "device",
            lower: *lower,
            master: *master,
        }
    }

    #[test]
    fn only_interfaces_that_end_in_devices_are_physical() {
        let mut table = Table(vec![
            (1, "device", None, Some(3)),
            (2, "device", None, Some(3)),
            (3, "bond", None, None),
            (4, "vlan", Some(3), None),
            (5, "veth", Some(6), Some(9)),
            (7, "device", None, Some(9)),
            (8, "bridge", None, None),
            (9, "bond", None, None),
            (10, "macvlan", Some(1), None),
            (11, "ipvlan", Some(1), None),
            (12, "bond", None, None),
            // On an interface of another namespace.
            (13, "vlan", None, None),
            (14, "device", None, Some(8)),
        ]);
        let mut physical = |index| {
            let link = table.link(index).unwrap();
            is_physical(&link, &mut table, MAX_STACKED)
        };
        for index in [1, 3, 4, 7] {
            assert!(physical(index), "{index}");
        }
        for index in [5, 8, 9, 10, 11, 12, 13] {
            assert!(!physical(index), "{index}");
        }
    }

    /// As `/sys` shows them in the namespace in which it was mounted.
    fn devices() -> Vec<String> {
        let Ok(entries) = std::fs::read_dir("/sys/class/net") else {
            return Vec::new();
        };
        entries
            .filter_map(Result::ok)
            .filter(|entry| entry.path().join("device").exists())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    #[test]
    fn an_interface_is_judged_by_its_own_namespace_and_not_by_its_name() {
        const INSIDE: &str = "ZHAUL_TEST_INSIDE_NAMESPACE";
        let name = "an_interface_is_judged_by_its_own_namespace_and_not_by_its_name";
        if std::env::var_os(INSIDE).is_some() {
            let socket = std::net::UdpSocket::bind("10.99.0.1:0").unwrap();
            socket.connect("10.99.0.2:9").unwrap();
            assert!(!peer_is_remote(&socket), "a veth pair");
            println!("inside and well");
            return;
        }
        let Some(device) = devices().into_iter().next() else {
            println!("SKIP {name}: no network device");
            return;
        };
        let setup = format!(
            "ip link add {device} type veth peer name other && \
             ip address add 10.99.0.1/24 dev {device} && \
             ip link set {device} up && ip link set other up && exec \"$0\" \"$@\""
        );
        let inner = std::process::Command::new("unshare")
            .args(["--net", "sh", "-c", &setup])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &format!("peer::tests::{name}"), "--nocapture"])
            .env(INSIDE, "1")
            .output();
        let Ok(inner) = inner else {
            println!("SKIP {name}: no unshare(1)");
            return;
        };
        let said = String::from_utf8_lossy(&inner.stdout);
        if !inner.status.success() && !said.contains("running 1 test") {
            println!("SKIP {name}: no network namespace, or no ip(8)");
            return;
        }
        assert!(said.contains("inside and well"), "{said}");
    }

    #[test]
    fn a_peer_behind_a_device_is_remote() {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let Ok(()) = socket.connect("203.0.113.7:9") else {
            println!("SKIP a_peer_behind_a_device_is_remote: no route");
            return;
        };
        let own = socket.local_addr().unwrap().ip();
        let egress = crate::getifaddrs::interface_addresses()
            .unwrap()
            .into_iter()
            .find(|entry| entry.address == own);
        let has_device = egress.is_some_and(|egress| devices().contains(&egress.interface));
        if !has_device {
            println!("SKIP a_peer_behind_a_device_is_remote: the route ends in no device");
            return;
        }
        assert!(peer_is_remote(&socket));
    }
}
