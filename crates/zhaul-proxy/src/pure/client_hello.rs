//! What a TLS client says before anything is encrypted: the server's name and the protocols it
//! offers (RFC 8446 section 4.1.2, RFC 6066 section 3, RFC 7301).
//!
//! Works on the bytes that have arrived so far, however they were cut into records and segments, and
//! keeps nothing. TLS is not terminated: the bytes are looked at (`MSG_PEEK`) and go to the server as
//! they came.

use tls_parser::{
    TlsExtension, TlsMessage, TlsMessageHandshake, parse_tls_extension_alpn_content,
    parse_tls_extension_sni_content, parse_tls_message_handshake,
};

/// What the bytes at the beginning of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// The beginning of a ClientHello, so far.
    Incomplete {
        /// Bytes, at least one, without which the ClientHello cannot be whole.
        more: usize,
    },
    /// A whole ClientHello.
    Hello(ClientHello),
    /// Something else.
    NotTls,
    /// It began like a ClientHello, and then did not make sense.
    Malformed(&'static str),
}

/// A ClientHello, as far as routes care.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server's name, in lower case and without a dot at the end.
    pub server_name: Option<String>,
    /// The protocols offered, in the client's order.
    pub alpn: Vec<Vec<u8>>,
}

/// Bytes of handshake that are looked at. Large ClientHellos (post-quantum key shares, many
/// tickets) stay below 4 KiB; OpenSSL refuses more than 128 KiB.
pub const MAX_HELLO_BYTES: usize = 64 << 10;

/// Bytes of stream within which a ClientHello of [`MAX_HELLO_BYTES`] must end. A client that cuts its
/// hello into records of a few bytes is refused before it makes us look at them again and again.
pub const MAX_STREAM_BYTES: usize = MAX_HELLO_BYTES + (4 << 10);

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
/// The most a record carries before encryption (RFC 8446 section 5.1).
const MAX_RECORD_BYTES: usize = 1 << 14;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// Looks at the first bytes of a connection.
pub fn inspect(stream: &[u8]) -> Beginning {
    match handshake(stream) {
        Ok(message) => hello(&message),
        Err(Beginning::Incomplete { .. }) if stream.len() >= MAX_STREAM_BYTES => {
            Beginning::Malformed("the ClientHello does not end")
        }
        Err(Beginning::Incomplete { more }) => Beginning::Incomplete {
            more: more.min(MAX_STREAM_BYTES - stream.len()),
        },
        Err(beginning) => beginning,
    }
}

/// Puts the first handshake message together from its records.
fn handshake(stream: &[u8]) -> Result<Vec<u8>, Beginning> {
    let mut message = Vec::new();
    let mut rest = stream;
    // Bytes of the last record that have not arrived.
    let mut cut_off = 0;
    loop {
        let wanted = match message.as_slice() {
            [] => 1,
            [kind, ..] if *kind != CLIENT_HELLO => return Err(Beginning::NotTls),
            [_, high, middle, low, ..] => {
                MESSAGE_HEADER + u32::from_be_bytes([0, *high, *middle, *low]) as usize
            }
            _ => MESSAGE_HEADER,
        };
        if wanted > MAX_HELLO_BYTES {
            return Err(Beginning::Malformed("the ClientHello is too long"));
        }
        let Some(lacking @ 1..) = wanted.checked_sub(message.len()) else {
            message.truncate(wanted);
            return Ok(message);
        };
        if cut_off > 0 {
            let header = if lacking > cut_off { RECORD_HEADER } else { 0 };
            let more = lacking + header;
            return Err(Beginning::Incomplete { more });
        }
        let (fragment, whole) = record(rest, lacking)?;
        message.extend_from_slice(fragment);
        cut_off = whole - fragment.len();
        rest = &rest[RECORD_HEADER + fragment.len()..];
    }
}

/// What has arrived of the first record of `stream`, and how long it will be. The message lacks
/// `lacking` bytes.
fn record(stream: &[u8], lacking: usize) -> Result<(&[u8], usize), Beginning> {
    let header_so_far = &stream[..stream.len().min(RECORD_HEADER)];
    match header_so_far {
        [kind, ..] if *kind != HANDSHAKE_RECORD => return Err(Beginning::NotTls),
        [_, major, ..] if *major != 3 => return Err(Beginning::NotTls),
        [_] => return Err(Beginning::Incomplete { more: 1 }),
        _ => {}
    }
    let &[_, _, _, high, low] = header_so_far else {
        let more = RECORD_HEADER - header_so_far.len() + lacking;
        return Err(Beginning::Incomplete { more });
    };
    let whole = usize::from(u16::from_be_bytes([high, low]));
    if whole == 0 || whole > MAX_RECORD_BYTES {
        return Err(Beginning::Malformed("a record has an impossible length"));
    }
    let body = &stream[RECORD_HEADER..];
    Ok((&body[..whole.min(body.len())], whole))
}

fn hello(message: &[u8]) -> Beginning {
    let Ok((_, TlsMessage::Handshake(TlsMessageHandshake::ClientHello(contents)))) =
        parse_tls_message_handshake(message)
    else {
        return Beginning::Malformed("it is no ClientHello");
    };
    let mut hello = ClientHello::default();
    let mut extensions = contents.ext.unwrap_or_default();
    while let Some((kind, body, rest)) = extension(extensions) {
        extensions = rest;
        match kind {
            SERVER_NAME => hello.server_name = server_name(body),
            ALPN => match parse_tls_extension_alpn_content(body) {
                Ok((_, TlsExtension::ALPN(names))) => {
                    hello.alpn = names.into_iter().map(<[u8]>::to_vec).collect();
                }
                _ => return Beginning::Malformed("the list of protocols is malformed"),
            },
            _ => {}
        }
    }
    if !extensions.is_empty() {
        return Beginning::Malformed("an extension is cut short");
    }
    Beginning::Hello(hello)
}

/// The first of a list of extensions. They are walked here and not by the parser of all of them,
/// which gives up at the first that it does not like.
fn extension(list: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (&[k0, k1, l0, l1], rest) = list.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let (body, rest) = rest.split_at_checked(length)?;
    Some((u16::from_be_bytes([k0, k1]), body, rest))
}

/// Writes a ClientHello for TLS 1.2 and 1.3 that any server answers, with an alert at least: three
/// cipher suites, and one key exchange without a share of it, so that TLS 1.3 begins with a
/// HelloRetryRequest. Not for more than that: its random is none.
pub fn write(server_name: Option<&str>) -> Vec<u8> {
    let mut extensions = vec![
        // supported_versions: 1.3 and 1.2.
        0, 43, 0, 5, 4, 3, 4, 3, 3, //
        // supported_groups: x25519 and secp256r1.
        0, 10, 0, 6, 0, 4, 0, 29, 0, 23, //
        // signature_algorithms: ecdsa_secp256r1_sha256, rsa_pss_rsae_sha256, rsa_pkcs1_sha256.
        0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 4, 1, //
        // key_share without a share.
        0, 51, 0, 2, 0, 0,
    ];
    if let Some(name) = server_name {
        // server_name: a list of one host name (0).
        let entry = [&[0][..], &sized(name.as_bytes())].concat();
        extensions.extend(SERVER_NAME.to_be_bytes());
        extensions.extend(sized(&sized(&entry)));
    }
    let body = [
        // Version 3.3.
        &[3, 3][..],
        RANDOM,
        // No session; TLS_AES_128_GCM_SHA256, ECDHE with AES-128-GCM for ECDSA and RSA; no compression.
        &[0, 0, 6, 0x13, 0x01, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0],
        &sized(&extensions),
    ]
    .concat();
    let message = [&[CLIENT_HELLO, 0][..], &sized(&body)].concat();
    [&[HANDSHAKE_RECORD, 3, 1][..], &sized(&message)].concat()
}

const RANDOM: &[u8; 32] = b"zhaul asks whether this speaks T";

/// Bytes with their length before them, in two bytes; there are never more than a name has.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// The longest name that DNS has; longer ones would only fill memory and logs.
const MAX_NAME_BYTES: usize = 253;

/// The first host name (type 0) that is one; others are as good as none.
fn server_name(body: &[u8]) -> Option<String> {
    let Ok((_, TlsExtension::SNI(names))) = parse_tls_extension_sni_content(body) else {
        return None;
    };
    let (_, name) = names.into_iter().find(|(kind, _)| kind.0 == 0)?;
    let name = std::str::from_utf8(name).ok()?.trim_end_matches('.');
    let is_name = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic());
    is_name.then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extension_of(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut out = kind.to_be_bytes().to_vec();
        out.extend((body.len() as u16).to_be_bytes());
        out.extend(body);
        out
    }

    fn sni(name: &str) -> Vec<u8> {
        let mut entry = vec![0];
        entry.extend((name.len() as u16).to_be_bytes());
        entry.extend(name.as_bytes());
        let mut list = (entry.len() as u16).to_be_bytes().to_vec();
        list.extend(entry);
        extension_of(SERVER_NAME, &list)
    }

    fn alpn(names: &[&str]) -> Vec<u8> {
        let mut entries = Vec::new();
        for name in names {
            entries.push(name.len() as u8);
            entries.extend(name.as_bytes());
        }
        let mut list = (entries.len() as u16).to_be_bytes().to_vec();
        list.extend(entries);
        extension_of(ALPN, &list)
    }

    /// A ClientHello message with these extensions, without its record.
    fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend([0, 2, 0x13, 0x01]);
        body.extend([1, 0]);
        let extensions = extensions.concat();
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let length = (body.len() as u32).to_be_bytes();
        [&[CLIENT_HELLO][..], &length[1..], &body].concat()
    }

    fn in_records(message: &[u8], bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for fragment in message.chunks(bytes) {
            out.extend([HANDSHAKE_RECORD, 3, 1]);
            out.extend((fragment.len() as u16).to_be_bytes());
            out.extend(fragment);
        }
        out
    }

    fn expected() -> Beginning {
        Beginning::Hello(ClientHello {
            server_name: Some("www.example.com".to_owned()),
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        })
    }

    fn example() -> Vec<u8> {
        message(&[
            extension_of(0x0a0a, &[]),
            extension_of(51, &[9; 1300]),
            alpn(&["h2", "http/1.1"]),
            sni("WWW.example.com."),
        ])
    }

    #[test]
    fn name_and_protocols_are_found_in_any_order() {
        assert_eq!(inspect(&in_records(&example(), 1 << 14)), expected());
        let other_way = message(&[sni("www.example.com"), alpn(&["h2", "http/1.1"])]);
        assert_eq!(inspect(&in_records(&other_way, 1 << 14)), expected());
    }

    #[test]
    fn what_is_written_is_read() {
        for name in [None, Some("www.example.com"), Some(&"a".repeat(253)[..])] {
            let hello = ClientHello {
                server_name: name.map(str::to_owned),
                alpn: Vec::new(),
            };
            assert_eq!(inspect(&write(name)), Beginning::Hello(hello));
        }
    }

    #[test]
    fn records_of_any_size_are_put_together() {
        for bytes in [1, 2, 3, 5, 100, 1000] {
            assert_eq!(
                inspect(&in_records(&example(), bytes)),
                expected(),
                "{bytes}"
            );
        }
    }

    #[test]
    fn any_beginning_of_a_hello_is_incomplete() {
        for bytes in [1, 7, 1 << 14] {
            let stream = in_records(&example(), bytes);
            for cut in 0..stream.len() {
                let Beginning::Incomplete { more } = inspect(&stream[..cut]) else {
                    panic!("{cut} of {}", stream.len());
                };
                assert!((1..=stream.len() - cut).contains(&more), "{cut}: {more}");
            }
        }
    }

    /// Whoever looks again only when as many bytes have come as are lacking at least looks seldom,
    /// whatever the records are.
    #[test]
    fn few_looks_are_enough() {
        let hello = message(&[extension_of(51, &[9; 60_000])]);
        for (bytes, most) in [(1 << 14, 12), (1000, 12), (10, 40), (5, 60), (1, 60)] {
            let stream = in_records(&hello, bytes);
            let stream = &stream[..stream.len().min(MAX_STREAM_BYTES)];
            let (mut seen, mut looks) = (1, 1);
            while let Beginning::Incomplete { more } = inspect(&stream[..seen]) {
                seen += more;
                looks += 1;
            }
            assert!(looks <= most, "{looks} for records of {bytes}");
        }
    }

    #[test]
    fn what_follows_does_not_matter() {
        let mut stream = in_records(&example(), 1 << 14);
        stream.extend(b"early data");
        assert_eq!(inspect(&stream), expected());
    }

    #[test]
    fn other_protocols_are_told_apart_at_once() {
        for other in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\0\0\0\x08\x04\xd2\x16\x2f",
            b"SSH-2.0-x",
        ] {
            assert_eq!(inspect(other), Beginning::NotTls);
            assert_eq!(inspect(&other[..1]), Beginning::NotTls);
        }
        // SSL 2 and a handshake that is no ClientHello.
        assert_eq!(inspect(&[22, 2, 0, 0, 5]), Beginning::NotTls);
        assert_eq!(inspect(&[22, 3, 1, 0, 4, 2]), Beginning::NotTls);
    }

    #[test]
    fn a_hello_without_extensions_has_no_name() {
        let bare = message(&[]);
        assert_eq!(
            inspect(&in_records(&bare, 1 << 14)),
            Beginning::Hello(ClientHello::default())
        );
    }

    #[test]
    fn endless_and_impossible_hellos_are_refused() {
        let long = [&[CLIENT_HELLO, 2, 0, 0][..], &[0; 100]].concat();
        assert!(matches!(
            inspect(&in_records(&long, 1 << 14)),
            Beginning::Malformed(_)
        ));
        assert!(matches!(
            inspect(&[22, 3, 1, 0, 0, 22]),
            Beginning::Malformed(_)
        ));
        assert!(matches!(
            inspect(&[22, 3, 1, 0xff, 0xff]),
            Beginning::Malformed(_)
        ));
        let crumbs = in_records(&[&[CLIENT_HELLO, 0, 0xff, 0][..], &[0; 60_000]].concat(), 1);
        assert!(matches!(
            inspect(&crumbs[..MAX_STREAM_BYTES]),
            Beginning::Malformed(_)
        ));
    }

    #[test]
    fn names_that_are_none_are_none() {
        let too_long = "a".repeat(MAX_NAME_BYTES + 1);
        for name in ["", ".", "a b", "caf\u{e9}.example", &too_long] {
            let Beginning::Hello(hello) = inspect(&in_records(&message(&[sni(name)]), 1 << 14))
            else {
                panic!("{name:?}");
            };
            assert_eq!(hello.server_name, None, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(
            stream in prop::collection::vec(any::<u8>(), 0..600),
            at in 0..2000_usize,
            byte in any::<u8>(),
        ) {
            inspect(&stream);
            inspect(&in_records(&stream, 50));
            inspect(&in_records(&message(&[stream]), 300));
            let mut broken = in_records(&example(), 700);
            let at = at % broken.len();
            broken[at] = byte;
            inspect(&broken);
        }
    }
}
