//! PROXY protocol, versions 1 and 2: who the client of the proxy in front is.
//!
//! Parsing works on the bytes that have arrived so far and says how many of them are the header, so
//! that nothing behind it is taken from the stream. TLVs of version 2 are kept and passed on, except
//! those that are about the bytes of the header itself (CRC32C, NOOP).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ppp::v2::{self, Builder, Command, Protocol, Type, Version};
use ppp::{PartialResult, v1};

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
    Incomplete,
    /// A header of so many bytes.
    Header(Introduction, usize),
    /// No header, or one with a mistake.
    Malformed(String),
}

/// The longest header that is taken. Version 1 ends at 107 bytes; version 2 could have 64 KiB of TLVs,
/// of which a few hundred bytes are seen in practice.
pub const MAX_BYTES: usize = 4096;

/// The longest line of version 1, with its CR LF.
const MAX_LINE: usize = 107;
const V1_PREFIX: &[u8] = b"PROXY ";

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
            0..MAX_LINE => Parsed::Incomplete,
            _ => Parsed::Malformed(format!("its line is longer than {MAX_LINE} bytes")),
        };
    };
    let line = &stream[..end + 2];
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
    if let Some(&[high, low]) = stream.get(14..16) {
        let length = 16 + usize::from(u16::from_be_bytes([high, low]));
        if length > MAX_BYTES {
            return Parsed::Malformed(format!(
                "it has {length} bytes ({MAX_BYTES} are the most that is taken)"
            ));
        }
    }
    let parsed = v2::Header::try_from(stream);
    if parsed.is_incomplete() {
        return Parsed::Incomplete;
    }
    let header = match parsed {
        Ok(header) => header,
        Err(error) => return Parsed::Malformed(sentence(&error)),
    };
    let stream_of_bytes = matches!(header.protocol, Protocol::Stream | Protocol::Unspecified);
    if header.command == Command::Proxy && !stream_of_bytes {
        return Parsed::Malformed("it is about datagrams".to_owned());
    }
    let addresses = match (header.command, header.addresses) {
        (Command::Proxy, v2::Addresses::IPv4(ip)) => Some(Addresses {
            source: (ip.source_address, ip.source_port).into(),
            destination: (ip.destination_address, ip.destination_port).into(),
        }),
        (Command::Proxy, v2::Addresses::IPv6(ip)) => Some(Addresses {
            source: (ip.source_address, ip.source_port).into(),
            destination: (ip.destination_address, ip.destination_port).into(),
        }),
        _ => None,
    };
    // Without addresses the TLVs begin where addresses would.
    let tlvs = match header.addresses {
        v2::Addresses::Unspecified => header.as_bytes().get(16..).unwrap_or_default(),
        _ => header.tlv_bytes(),
    };
    match kept(tlvs) {
        Ok(tlvs) => Parsed::Header(Introduction { addresses, tlvs }, header.len()),
        Err(why) => Parsed::Malformed(why),
    }
}

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
        // The connection is the client's all the same, so this is no LOCAL.
        None => Builder::with_addresses(
            Version::Two | Command::Proxy,
            Protocol::Unspecified,
            v2::Addresses::Unspecified,
        ),
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
                assert_eq!(
                    parse(&header[..cut]),
                    Parsed::Incomplete,
                    "{:?}",
                    &header[..cut]
                );
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
        let Parsed::Header(unknown, 31) = parse(b"PROXY UNKNOWN ff:: ff:: 65 65\r\nx") else {
            panic!("UNKNOWN with addresses");
        };
        assert_eq!(unknown, Introduction::default());
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
            &[b"PROXY UNKNOWN "[..].to_vec(), vec![b'x'; 200]].concat(),
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c12bytes.....",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0cdatagram....",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04four",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
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

    #[test]
    fn a_local_connection_has_no_addresses() {
        let stream = b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c12bytes.....";
        assert_eq!(
            parse(stream),
            Parsed::Header(Introduction::default(), stream.len())
        );
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
