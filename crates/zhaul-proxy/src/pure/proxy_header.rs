//! PROXY protocol, versions 1 and 2: who the client of the proxy in front is.
//!
//! Parsing works on the bytes that have arrived so far and says how many of them are the header, so
//! that nothing behind it is taken from the stream. TLVs of version 2 are kept and passed on, except
//! those that are about the bytes of the header itself (CRC32C, NOOP).
//!
//! A header that introduces no client has nothing else to say either: what stands in the block of a
//! `LOCAL`, of a UNIX or unspecified address family, or behind `UNKNOWN`, is skipped unread, as the
//! specification asks.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ppp::v1;
use ppp::v2::{self, Builder, Command, Protocol, Type, Version};

use crate::config::ProxyVersion;

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// The client, and the address that it connected to. `None` if the proxy speaks for itself (a
    /// health check) or does not know.
    pub addresses: Option<Addresses>,
    /// Type-length-value triples as they came, without CRC32C and NOOP.
    pub tlvs: Vec<u8>,
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Who connected.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
}

/// What the bytes at the beginning of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header, so far.
    Incomplete {
        /// Bytes, at least one, without which it cannot be whole.
        more: usize,
    },
    /// A header of so many bytes.
    Header(Introduction, usize),
    /// No header, or one with a mistake.
    Malformed(String),
}

/// The longest header there is: one of version 2.
pub const MAX_BYTES: usize = FIXED_BYTES + u16::MAX as usize;

/// Of a header of version 2, what is there in any case: signature, command, family, length.
const FIXED_BYTES: usize = 16;

/// The longest line of version 1, with its CR LF.
const MAX_LINE: usize = 107;
const V1_PREFIX: &[u8] = b"PROXY ";
const V1_UNKNOWN: &[u8] = b"PROXY UNKNOWN";

/// Reads the header at the beginning of `stream`.
pub fn parse(stream: &[u8]) -> Parsed {
    let begins = |prefix: &[u8]| {
        let n = stream.len().min(prefix.len());
        stream[..n] == prefix[..n]
    };
    if begins(V1_PREFIX) {
        parse_v1(stream)
    } else if begins(v2::PROTOCOL_PREFIX) {
        parse_v2(stream)
    } else {
        Parsed::Malformed("it does not begin like a PROXY header".to_owned())
    }
}

/// The line is looked for first: a parser would take the first half of an address for a wrong one.
fn parse_v1(stream: &[u8]) -> Parsed {
    let window = &stream[..stream.len().min(MAX_LINE)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return match stream.len() {
            0..MAX_LINE => Parsed::Incomplete { more: 1 },
            _ => Parsed::Malformed(format!("its line is longer than {MAX_LINE} bytes")),
        };
    };
    let line = &stream[..end + 2];
    if line.starts_with(V1_UNKNOWN) {
        return Parsed::Header(Introduction::default(), line.len());
    }
    let header = match v1::Header::try_from(line) {
        Ok(header) => header,
        Err(error) => return Parsed::Malformed(sentence(&error)),
    };
    let addresses = match header.addresses {
        v1::Addresses::Tcp4(ip) => Some(Addresses {
            source: (ip.source_address, ip.source_port).into(),
            destination: (ip.destination_address, ip.destination_port).into(),
        }),
        v1::Addresses::Tcp6(ip) => Some(Addresses {
            source: (ip.source_address, ip.source_port).into(),
            destination: (ip.destination_address, ip.destination_port).into(),
        }),
        v1::Addresses::Unknown => None,
    };
    let introduction = Introduction {
        addresses,
        tlvs: Vec::new(),
    };
    Parsed::Header(introduction, line.len())
}

fn parse_v2(stream: &[u8]) -> Parsed {
    let Some(&[version_and_command, family_and_protocol, high, low]) = stream.get(12..FIXED_BYTES)
    else {
        return Parsed::Incomplete {
            more: FIXED_BYTES - stream.len(),
        };
    };
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    let introduces_nobody = match (version_and_command, family_and_protocol) {
        (LOCAL, _) | (PROXY, UNSPECIFIED | UNIX_STREAM) => true,
        (PROXY, TCP4 | TCP6) => false,
        (PROXY, _) => {
            let what = "its address family or protocol is none of TCP, UNIX or unspecified";
            return Parsed::Malformed(format!("{what} ({family_and_protocol:#04x})"));
        }
        _ => {
            let what = "its version or command is unknown";
            return Parsed::Malformed(format!("{what} ({version_and_command:#04x})"));
        }
    };
    let Some(header) = stream.get(..length) else {
        return Parsed::Incomplete {
            more: length - stream.len(),
        };
    };
    if introduces_nobody {
        return Parsed::Header(Introduction::default(), length);
    }
    let header = match v2::Header::try_from(header) {
        Ok(header) => header,
        Err(error) => return Parsed::Malformed(sentence(&error)),
    };
    let addresses = match header.addresses {
        v2::Addresses::IPv4(ip) => Some(Addresses {
            source: (ip.source_address, ip.source_port).into(),
            destination: (ip.destination_address, ip.destination_port).into(),
        }),
        v2::Addresses::IPv6(ip) => Some(Addresses {
            source: (ip.source_address, ip.source_port).into(),
            destination: (ip.destination_address, ip.destination_port).into(),
        }),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
    };
    match kept(header.tlv_bytes()) {
        Ok(tlvs) => Parsed::Header(Introduction { addresses, tlvs }, length),
        Err(why) => Parsed::Malformed(why),
    }
}

// Version 2 with its two commands, and the families with their protocols, as they stand in a header.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;

/// The TLVs to be passed on.
fn kept(tlvs: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(tlvs.len());
    for tlv in v2::TypeLengthValues::from(tlvs) {
        let tlv = tlv.map_err(|error| sentence(&error))?;
        if [Type::CRC32C as u8, Type::NoOp as u8].contains(&tlv.kind) {
            continue;
        }
        out.push(tlv.kind);
        out.extend((tlv.value.len() as u16).to_be_bytes());
        out.extend_from_slice(&tlv.value);
    }
    Ok(out)
}

/// The words of the parser, as a part of ours.
fn sentence(error: &impl std::fmt::Display) -> String {
    error.to_string().trim_end_matches('.').to_owned()
}

/// Writes a header that introduces a client. Version 1 has no room for TLVs.
pub fn write(version: ProxyVersion, introduction: &Introduction) -> Vec<u8> {
    let addresses = introduction.addresses.map(of_one_family);
    match version {
        ProxyVersion::V1 => write_v1(addresses).into_bytes(),
        ProxyVersion::V2 => write_v2(addresses, &introduction.tlvs),
    }
}

fn write_v1(addresses: Option<Addresses>) -> String {
    match addresses {
        None => "PROXY UNKNOWN\r\n".to_owned(),
        Some(Addresses {
            source,
            destination,
        }) => format!(
            "PROXY TCP{} {} {} {} {}\r\n",
            if source.is_ipv4() { 4 } else { 6 },
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port()
        ),
    }
}

fn write_v2(addresses: Option<Addresses>, tlvs: &[u8]) -> Vec<u8> {
    let built = match addresses {
        Some(Addresses {
            source,
            destination,
        }) => Builder::with_addresses(
            Version::Two | Command::Proxy,
            Protocol::Stream,
            (source, destination),
        ),
        // There are receivers, HAProxy among them, that take PROXY with an unspecified family for a
        // mistake; nobody reads TLVs of a LOCAL.
        None => {
            return Builder::with_addresses(
                Version::Two | Command::Local,
                Protocol::Unspecified,
                v2::Addresses::Unspecified,
            )
            .build()
            .expect("sixteen bytes are few enough");
        }
    };
    built
        .write_payload(tlvs)
        .and_then(Builder::build)
        .expect("addresses and TLVs that came in one header fit into another")
}

/// A header has one family for both ends; an IPv4 address is also an IPv6 address.
fn of_one_family(addresses: Addresses) -> Addresses {
    let canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(v6) => SocketAddr::new(Ipv6Addr::into(v6), address.port()),
    };
    let source = canonical(addresses.source);
    let destination = canonical(addresses.destination);
    if source.is_ipv4() == destination.is_ipv4() {
        Addresses {
            source,
            destination,
        }
    } else {
        Addresses {
            source: mapped(source),
            destination: mapped(destination),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(source: &str, destination: &str, tlvs: &[u8]) -> Introduction {
        Introduction {
            addresses: Some(Addresses {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
            }),
            tlvs: tlvs.to_vec(),
        }
    }

    fn examples() -> Vec<(ProxyVersion, Introduction)> {
        let tlvs = [0x02, 0, 1, b'a', 0xee, 0, 0];
        vec![
            (ProxyVersion::V1, of("192.0.2.1:1", "192.0.2.2:65535", &[])),
            (
                ProxyVersion::V1,
                of("[2001:db8::1]:56324", "[2001:db8::2]:443", &[]),
            ),
            (ProxyVersion::V1, Introduction::default()),
            (
                ProxyVersion::V2,
                of("192.0.2.1:1", "192.0.2.2:65535", &tlvs),
            ),
            (
                ProxyVersion::V2,
                of("[2001:db8::1]:56324", "[2001:db8::2]:443", &[]),
            ),
            (ProxyVersion::V2, Introduction::default()),
        ]
    }

    #[test]
    fn what_is_written_is_read_with_anything_behind_it() {
        for (version, introduction) in examples() {
            let header = write(version, &introduction);
            for behind in [&b""[..], b"GET", &[0xff, 0, 13, 10]] {
                let stream = [&header[..], behind].concat();
                let expected = Parsed::Header(introduction.clone(), header.len());
                assert_eq!(parse(&stream), expected, "{stream:?}");
            }
        }
    }

    #[test]
    fn any_beginning_is_incomplete() {
        for (version, introduction) in examples() {
            let header = write(version, &introduction);
            for cut in 0..header.len() {
                let Parsed::Incomplete { more } = parse(&header[..cut]) else {
                    panic!("{:?}", &header[..cut]);
                };
                assert!((1..=header.len() - cut).contains(&more), "{cut}: {more}");
            }
        }
    }

    #[test]
    fn the_text_is_as_the_specification_has_it() {
        let v4 = of("192.168.0.1:56324", "192.168.0.11:443", &[]);
        assert_eq!(
            write(ProxyVersion::V1, &v4),
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
        );
    }

    #[test]
    fn mistakes_are_refused() {
        for stream in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n",
            b"PROXY TCP4 192.168.0.256 192.168.0.11 1 2\r\n",
            b"PROXY TCP4 192.168.0.1 192.168.0.11 1 65536\r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            b"PROXY TCP5 1 2 3 4\r\n",
            b"PROXY TCP4 192.168.0.1 192.168.0.11 1 2 3\r\n",
            b"proxy TCP4 192.168.0.1 192.168.0.11 1 2\r\n",
            &[
                b"PROXY UNKNOWN "[..].to_vec(),
                vec![b'x'; 92],
                b"\r\n".to_vec(),
            ]
            .concat(),
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c12bytes.....",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0cdatagram....",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04four",
            b"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\x0c12bytes.....",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x41\0\x0c12bytes.....",
            // A TLV that says to be longer than the header.
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f12bytes.....\x02\0\x01",
        ] {
            assert!(
                matches!(parse(stream), Parsed::Malformed(_)),
                "{stream:?}: {:?}",
                parse(stream)
            );
        }
    }

    /// As the specification has it: whatever stands in the block is not looked at.
    #[test]
    fn headers_that_introduce_nobody_are_taken_whatever_else_they_say() {
        let v2 = |command: u8, family: u8, block: &[u8]| {
            let length = (block.len() as u16).to_be_bytes();
            [v2::PROTOCOL_PREFIX, &[command, family], &length, block].concat()
        };
        let addresses = b"12bytes.....";
        let v1 = |rest: &[u8]| [b"PROXY UNKNOWN", rest, b"\r\n"].concat();
        for header in [
            v2(LOCAL, 0, b""),
            v2(LOCAL, TCP4, addresses),
            v2(LOCAL, TCP4, b""),
            v2(LOCAL, TCP6, b""),
            v2(LOCAL, 0, addresses),
            v2(LOCAL, TCP4, b"12345"),
            v2(LOCAL, TCP4, &[addresses, &b"\x02\xff\xff"[..]].concat()),
            v2(LOCAL, 0xf0, b"abcd"),
            v2(LOCAL, 0xff, &[7; 65_535]),
            v2(PROXY, UNSPECIFIED, b""),
            v2(PROXY, UNSPECIFIED, addresses),
            v2(PROXY, UNSPECIFIED, b"\x02\0\x01a"),
            v2(PROXY, UNIX_STREAM, &[0; 216]),
            v2(PROXY, UNIX_STREAM, b"short"),
            v1(b""),
            v1(b" ff:: ff:: 65 65"),
            v1(b" \xff\xfe"),
            v1(b" \0\r \n"),
            v1(&[b'x'; 92]),
        ] {
            let stream = [&header[..], b"behind"].concat();
            let expected = Parsed::Header(Introduction::default(), header.len());
            assert_eq!(
                parse(&stream),
                expected,
                "{:?}",
                &header[..header.len().min(40)]
            );
        }
    }

    #[test]
    fn a_client_without_an_address_is_a_local_one() {
        let with_tlvs = Introduction {
            addresses: None,
            tlvs: vec![0x02, 0, 1, b'a'],
        };
        let expected = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        assert_eq!(write(ProxyVersion::V2, &with_tlvs), expected);
        assert_eq!(write(ProxyVersion::V1, &with_tlvs), b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn tlvs_about_the_header_itself_are_dropped() {
        let with = [
            0x03, 0, 4, 1, 2, 3, 4, 0x04, 0, 1, 0, 0x01, 0, 2, b'h', b'2',
        ];
        let header = write(ProxyVersion::V2, &of("192.0.2.1:1", "192.0.2.2:2", &with));
        let Parsed::Header(introduction, _) = parse(&header) else {
            panic!("it was well-formed");
        };
        assert_eq!(introduction.tlvs, [0x01, 0, 2, b'h', b'2']);
    }

    #[test]
    fn ends_of_two_families_become_ipv6() {
        let mixed = of("192.0.2.1:1", "[2001:db8::1]:2", &[]);
        assert_eq!(
            write(ProxyVersion::V1, &mixed),
            b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n"
        );
        let mapped = of("[::ffff:192.0.2.1]:1", "192.0.2.2:2", &[]);
        assert_eq!(
            write(ProxyVersion::V1, &mapped),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
        );
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(
            version in any::<bool>(),
            tail in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let prefix: &[u8] = if version { b"PROXY " } else { v2::PROTOCOL_PREFIX };
            parse(&[prefix, &tail].concat());
            parse(&[prefix, b"\x21\x11", &tail].concat());
            parse(&[prefix, b"\x21\x00\x00\x20", &tail].concat());
            parse(&tail);
        }
    }
}
