//! Routes and links of this thread's network namespace, asked one by one with rtnetlink(7).
//!
//! `/sys/class/net` shows the interfaces of the namespace in which `/sys` was mounted, where another
//! one may have the same name. Netlink is asked in ours.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

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
pub(super) struct Rtnetlink {
    socket: OwnedFd,
    /// Large enough for any message but those of links with hundreds of virtual functions, which
    /// are not asked for.
    buffer: Vec<u8>,
}

impl Rtnetlink {
    pub(super) fn open() -> Option<Self> {
        // Without an address, messages go to the kernel; NETLINK_ROUTE is protocol 0.
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None).ok()?;
        Some(Self {
            socket,
            buffer: vec![0; 32 << 10],
        })
    }

    /// True if the socket is of the namespace that is asked here.
    pub(super) fn is_beside(&self, socket: BorrowedFd<'_>) -> bool {
        let own = setsockopt::netns_cookie(self.socket.as_fd()).ok();
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
        self.ask(request, |kind, body| {
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
        self.ask(request, |kind, body| {
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
        self.ask(request, |kind, body| {
            if kind == RTM_NEWLINK {
                links.extend(parse_link(body));
            }
        })?;
        // The kernel filters as of 4.4, but does not promise to.
        links.retain(|link| link.master == Some(master));
        Some(links)
    }

    /// Sends a request and hands on every message of the answer; `None` if there was an error.
    fn ask(&mut self, request: Request, mut take: impl FnMut(u16, &[u8])) -> Option<()> {
        let is_dump = request.is_dump;
        let message = request.finish();
        let sent = send(&self.socket, &message, SendFlags::empty()).ok()?;
        if sent != message.len() {
            return None;
        }
        loop {
            let (received, full) =
                recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC).ok()?;
            let mut rest = self.buffer.get(..received.min(full))?;
            if full > received || rest.is_empty() {
                return None;
            }
            while let Some((kind, body, next)) = message_of(rest) {
                match kind {
                    NLMSG_ERROR => return None,
                    NLMSG_DONE => return Some(()),
                    kind => take(kind, body),
                }
                rest = next;
            }
            if !is_dump {
                return Some(());
            }
        }
    }
}

/// A message to the kernel.
struct Request {
    message: Vec<u8>,
    is_dump: bool,
}

impl Request {
    fn new(kind: u16, flags: u16) -> Self {
        // The length comes last; sequence and port are the only ones of this socket.
        let mut message = vec![0; HEADER_BYTES];
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self {
            message,
            is_dump: flags & NLM_F_DUMP != 0,
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.message.extend_from_slice(bytes);
    }

    /// An attribute whose value is a multiple of 4 bytes long.
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(4 + value.len()).unwrap_or(4);
        self.bytes(&len.to_ne_bytes());
        self.bytes(&kind.to_ne_bytes());
        self.bytes(value);
    }

    fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.message.len()).unwrap_or(0);
        self.message[..4].copy_from_slice(&len.to_ne_bytes());
        self.message
    }
}

/// The first message: its kind, its body, and what follows it.
fn message_of(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = word(bytes, 0)? as usize;
    let kind = half_word(bytes, 4)?;
    let body = bytes.get(HEADER_BYTES..len)?;
    let next = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    Some((kind, body, next))
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

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(half_word(bytes, 0)?);
        let kind = half_word(bytes, 2)? & NLA_TYPE_MASK;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0);
    let text = bytes.get(..end.unwrap_or(bytes.len()))?;
    std::str::from_utf8(text).ok().map(str::to_owned)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

fn half_word(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    bytes.try_into().ok().map(u16::from_ne_bytes)
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

// linux/netlink.h, linux/rtnetlink.h, linux/if_link.h
const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLA_TYPE_MASK: u16 = 0x3fff;
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
        assert_eq!(message_of(&[1, 2, 3]), None);
        assert_eq!(message_of(&[0xff; 64]), None);
        assert_eq!(parse_link(&[0; 8]), None);
        assert_eq!(parse_route(&[0; 12]), None);
        assert_eq!(attributes(&[3, 0, 1, 0, 9, 9]).count(), 0);
        assert_eq!(attributes(&[0; 16]).count(), 0);
    }
}
