//! `getifaddrs(3)`: the addresses of this host and the interfaces that carry them.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

use crate::check;

/// An address of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// Name of the interface, such as `eth0`.
    pub interface: String,
    /// One of its addresses.
    pub address: IpAddr,
}

/// All addresses of all interfaces in this network namespace.
///
/// # Errors
/// Whatever opening a netlink socket gives.
pub fn interface_addresses() -> io::Result<Vec<InterfaceAddress>> {
    let mut first: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: getifaddrs stores the head of a list, which is freed below, exactly once.
    check(unsafe { libc::getifaddrs(&raw mut first) })?;
    let list = List(first);
    let mut found = Vec::new();
    let mut next = list.0;
    while !next.is_null() {
        // SAFETY: next is a node of the list, which lives until `list` is dropped; the node is
        // plain data that nobody writes to.
        let node = unsafe { next.read() };
        next = node.ifa_next;
        if let Some(address) = ip_address(node.ifa_addr) {
            // SAFETY: ifa_name is a NUL-terminated string that belongs to the list.
            let name = unsafe { CStr::from_ptr(node.ifa_name) };
            found.push(InterfaceAddress {
                interface: name.to_string_lossy().into(),
                address,
            });
        }
    }
    Ok(found)
}

/// Owns the list that getifaddrs allocated.
struct List(*mut libc::ifaddrs);

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the list came from getifaddrs and is freed only here.
        unsafe { libc::freeifaddrs(self.0) };
    }
}

/// The address of a node, if it is an IP address; nodes for packet sockets have others, and
/// tunnels may have none.
fn ip_address(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: a non-null ifa_addr points to a sockaddr of the list, whose first field on Linux is
    // its family.
    let family = unsafe { address.cast::<libc::sa_family_t>().read() };
    match libc::c_int::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is a sockaddr_in, alive as long as the list.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that this is a sockaddr_in6, alive as long as the list.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_found_on_its_interface() {
        let found = interface_addresses().unwrap();
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let on: Vec<_> = found
            .iter()
            .filter(|entry| entry.address == loopback)
            .collect();
        assert_eq!(on.len(), 1, "{found:?}");
        assert_eq!(on[0].interface, "lo");
    }
}
