//! Routes and links of this thread's network namespace, asked one by one with rtnetlink(7).
//!
//! `/sys/class/net` shows the interfaces of the namespace in which `/sys` was mounted, where another
//! one may have the same name. Netlink is asked in ours.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use rustix::net::AddressFamily;

use crate::netlink::{self, NLM_F_DUMP, NLM_F_REQUEST, Netlink, Request, attributes, text, word};
use crate::setsockopt;

/// Where packets to an address go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Index of the interface.
    pub(super) interface: u32,
    /// The address is one of this host's.
    pub(super) is_local: bool,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    /// What kind of virtual interface it is; physical ones mostly have none.
    pub(super) kind: Option<String>,
    /// There is a device behind it.
    pub(super) has_device: bool,
    /// The interface that it is stacked on, in this namespace.
    pub(super) lower: Option<u32>,
    /// The interface that it is a part of.
    pub(super) master: Option<u32>,
}

/// Who answers.
pub(super) struct Rtnetlink(Netlink);

impl Rtnetlink {
    pub(super) fn open() -> Option<Self> {
        Netlink::open(netlink::ROUTE).map(Self)
    }

    /// True if the socket is of the namespace that is asked here.
    pub(super) fn is_beside(&self, socket: BorrowedFd<'_>) -> bool {
        let own = setsockopt::netns_cookie(self.0.socket()).ok();
        own.is_some() && own == setsockopt::netns_cookie(socket).ok()
    }

    /// The route from an address of ours to a peer's; a link-local one needs the interface.
    pub(super) fn route(&mut self, from: IpAddr, to: IpAddr, interface: u32) -> Option<Route> {
        let family = match to {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let bits = if to.is_ipv4() { 32 } else { 128 };
        let mut request = Request::new(RTM_GETROUTE, NLM_F_REQUEST);
        request.bytes(&[low_byte(family.as_raw()), bits, bits, 0, 0, 0, 0, 0]);
        request.bytes(&[0; 4]);
        request.attribute(RTA_DST, &octets(to));
        request.attribute(RTA_SRC, &octets(from));
        if interface != 0 {
            request.attribute(RTA_OIF, &interface.to_ne_bytes());
        }
        let mut route = None;
        self.0.ask(request, |kind, body| {
            if kind == RTM_NEWROUTE {
                route = parse_route(body);
            }
        })?;
        route
    }

    /// One interface.
    pub(super) fn link(&mut self, index: u32) -> Option<Link> {
        let mut request = Request::new(RTM_GETLINK, NLM_F_REQUEST);
        request.bytes(&[0; 4]);
        request.bytes(&index.to_ne_bytes());
        request.bytes(&[0; 8]);
        let mut link = None;
        self.0.ask(request, |kind, body| {
            if kind == RTM_NEWLINK {
                link = parse_link(body);
            }
        })?;
        link
    }

    /// The interfaces that are parts of this one.
    pub(super) fn parts_of(&mut self, master: u32) -> Option<Vec<Link>> {
        let mut request = Request::new(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP);
        request.bytes(&[0; 16]);
        request.attribute(IFLA_MASTER, &master.to_ne_bytes());
        let mut links = Vec::new();
        self.0.ask(request, |kind, body| {
            if kind == RTM_NEWLINK {
                links.extend(parse_link(body));
            }
        })?;
        // The kernel filters as of 4.4, but does not promise to.
        links.retain(|link| link.master == Some(master));
        Some(links)
    }
}

fn parse_route(body: &[u8]) -> Option<Route> {
    let kind = *body.get(7)?;
    let interface = attributes(body.get(12..)?)
        .find(|(kind, _)| *kind == RTA_OIF)
        .and_then(|(_, value)| word(value, 0))?;
    Some(Route {
        interface,
        is_local: kind == RTN_LOCAL,
    })
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let mut link = Link {
        index: word(body, 4)?,
        ..Link::default()
    };
    let mut is_elsewhere = false;
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            IFLA_LINK => link.lower = word(value, 0),
            IFLA_LINK_NETNSID => is_elsewhere = true,
            IFLA_MASTER => link.master = word(value, 0),
            IFLA_PARENT_DEV_NAME => link.has_device = true,
            IFLA_LINKINFO => {
                link.kind = attributes(value)
                    .find(|(kind, _)| *kind == IFLA_INFO_KIND)
                    .and_then(|(_, name)| text(name));
            }
            _ => {}
        }
    }
    if is_elsewhere {
        link.lower = None;
    }
    Some(link)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn low_byte(family: u16) -> u8 {
    family.to_le_bytes()[0]
}

// linux/rtnetlink.h, linux/if_link.h
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTN_LOCAL: u8 = 2;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_PARENT_DEV_NAME: u16 = 56;
const IFLA_INFO_KIND: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_no_device_and_its_addresses_are_local() {
        let mut rtnetlink = Rtnetlink::open().unwrap();
        let own = IpAddr::from([127, 0, 0, 1]);
        let route = rtnetlink.route(own, own, 0).unwrap();
        assert!(route.is_local);
        let link = rtnetlink.link(route.interface).unwrap();
        assert_eq!((link.index, link.has_device, link.kind), (1, false, None));
        assert_eq!(rtnetlink.parts_of(1), Some(Vec::new()));
        assert_eq!(rtnetlink.link(u32::MAX >> 1), None);
    }

    #[test]
    fn nonsense_is_no_answer() {
        assert_eq!(parse_link(&[0; 8]), None);
        assert_eq!(parse_route(&[0; 12]), None);
    }
}
