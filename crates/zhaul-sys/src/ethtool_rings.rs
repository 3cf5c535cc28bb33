//! Generic netlink "ethtool", ETHTOOL_MSG_RINGS_GET: whether a device splits headers from payload.
//! Linux 5.17.
//!
//! Only questions, which any user may ask.

use crate::netlink::{GENERIC, NLM_F_REQUEST, Netlink, Request, attributes, half_word};

/// Whether the device of this index puts TCP payload into buffers of its own, apart from headers;
/// `None` if its driver does not tell, which mostly means that it cannot.
pub fn splits_headers(interface: u32) -> Option<bool> {
    let mut netlink = Netlink::open(GENERIC)?;
    let family = family(&mut netlink)?;
    let mut request = Request::new(family, NLM_F_REQUEST);
    request.bytes(&[RINGS_GET, 1, 0, 0]);
    let mut header = 8_u16.to_ne_bytes().to_vec();
    header.extend(HEADER_DEV_INDEX.to_ne_bytes());
    header.extend(interface.to_ne_bytes());
    request.attribute(RINGS_HEADER | NESTED, &header);
    let mut split = None;
    netlink.ask(request, |kind, body| {
        if kind == family {
            split = value(body, RINGS_TCP_DATA_SPLIT).and_then(|value| value.first().copied());
        }
    })?;
    match split? {
        SPLIT_OFF => Some(false),
        SPLIT_ON => Some(true),
        _ => None,
    }
}

/// The number that the kernel gave the family when it was loaded.
fn family(netlink: &mut Netlink) -> Option<u16> {
    let mut request = Request::new(CONTROL, NLM_F_REQUEST);
    request.bytes(&[GET_FAMILY, 1, 0, 0]);
    request.attribute(FAMILY_NAME, b"ethtool\0");
    let mut family = None;
    netlink.ask(request, |kind, body| {
        if kind == CONTROL {
            family = value(body, FAMILY_ID).and_then(|value| half_word(value, 0));
        }
    })?;
    family
}

/// An attribute of a generic message.
fn value(body: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut attributes = attributes(body.get(4..)?);
    attributes.find_map(|(kind, value)| (kind == wanted).then_some(value))
}

// linux/genetlink.h, linux/ethtool_netlink_generated.h
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const NESTED: u16 = 0x8000;
const RINGS_GET: u8 = 15;
const RINGS_HEADER: u16 = 1;
const HEADER_DEV_INDEX: u16 = 1;
const RINGS_TCP_DATA_SPLIT: u16 = 11;
const SPLIT_OFF: u8 = 1;
const SPLIT_ON: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_splits_nothing_and_there_is_no_device_zero() {
        assert_eq!(splits_headers(1), None);
        assert_eq!(splits_headers(0), None);
    }

    #[test]
    fn the_family_is_known() {
        let Some(mut netlink) = Netlink::open(GENERIC) else {
            zhaul_untested::skip("the_family_is_known", "no generic netlink");
            return;
        };
        assert!(family(&mut netlink).is_some_and(|family| family > CONTROL));
    }
}
