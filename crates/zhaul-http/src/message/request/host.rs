//! Host and authority (RFC 9110 §7.2, RFC 9112 §3.2, RFC 3986 §3.2.2).
//!
//! The value ends up in logs, redirects and, one day, the choice of a virtual host, so only what
//! the grammar allows gets through. User information is not part of an http authority (RFC 9110
//! §4.2.4) and an empty host is not valid in one (§4.2.1).

use super::{Reject, bad};

/// The host of a request: that of an absolute target wins over the field (RFC 9112 §3.2.2), which
/// must be there and valid all the same.
pub(super) fn select<'a>(
    field: Option<&'a [u8]>,
    authority: Option<&'a str>,
    version_minor: u8,
) -> Result<Option<&'a str>, Reject> {
    let Some(value) = field else {
        return if version_minor == 0 {
            Ok(authority)
        } else {
            Err(bad("missing Host"))
        };
    };
    if !is_valid(value) {
        return Err(bad("invalid Host"));
    }
    // A valid host is ASCII.
    let host = std::str::from_utf8(value).map_err(|_| bad("invalid Host"))?;
    Ok(Some(authority.unwrap_or(host)))
}

/// Whether `host` is `uri-host [ ":" port ]` with a host that is not empty.
pub(crate) fn is_valid(host: &[u8]) -> bool {
    let (name, port) = match host {
        [b'[', ..] => {
            let Some(close) = memchr::memchr(b']', host) else {
                return false;
            };
            (&host[..=close], &host[close + 1..])
        }
        _ => host.split_at(memchr::memchr(b':', host).unwrap_or(host.len())),
    };
    is_valid_name(name) && is_valid_port(port)
}

fn is_valid_name(name: &[u8]) -> bool {
    match name {
        [] => false,
        // The RFC leaves room for addresses of a later version; there is none.
        [b'[', address @ .., b']'] => std::str::from_utf8(address)
            .is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        _ => name.iter().all(|&b| REG_NAME[usize::from(b)]) && escapes_are_complete(name),
    }
}

/// Empty, or a colon and a number that fits a port; `host:` with nothing after it is legal.
fn is_valid_port(port: &[u8]) -> bool {
    match port {
        [] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5
                && digits.iter().all(u8::is_ascii_digit)
                && digits
                    .iter()
                    .fold(0_u32, |n, d| n * 10 + u32::from(d - b'0'))
                    <= 0xFFFF
        }
        _ => false,
    }
}

fn escapes_are_complete(name: &[u8]) -> bool {
    let mut rest = name;
    while let Some(at) = memchr::memchr(b'%', rest) {
        match &rest[at + 1..] {
            [high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest = after;
            }
            _ => return false,
        }
    }
    true
}

/// unreserved / sub-delims / "%"
const REG_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        let byte = b as u8;
        table[b] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
            );
        b += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn grammar_of_rfc_3986() {
        for host in [
            "example.org",
            "example.org:80",
            "example.org:",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:443",
            "[::ffff:1.2.3.4]",
            "a_b",
            "xn--bcher-kva.example",
            "%41",
            "localhost:65535",
        ] {
            assert!(is_valid(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":80",
            "a b",
            "a/b",
            "user@host",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:123456",
            "[::1",
            "[]",
            "[ab..cd::1]",
            "[1.2.3.4]",
            "[:]",
            "[1:2:3]",
            "[1::2::3]",
            "[::1.2.3]",
            "[::1%eth0]",
            "[v1.x]",
            "[12345::]",
            "[::1]x",
            "[::1%25eth0]",
            "a%4",
            "a%zz",
            "a\"b",
            "a<b",
            "a\\b",
            "a?b",
            "a#b",
            "b\u{fc}cher",
        ] {
            assert!(!is_valid(host.as_bytes()), "{host}");
        }
    }
}
