//! What `SOURCE` and `SINK` of the command line mean. Pure: nothing is looked up or opened.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Which end of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Where the bytes come from.
    Source,
    /// Where they go.
    Sink,
}

/// An end of a transfer, as it was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `-`: standard input for a source, standard output for a sink.
    Standard,
    /// `null`: a sink that takes everything and keeps nothing.
    Null,
    /// `tcp:host:port`: a peer to connect to.
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        /// Its port, never 0.
        port: u16,
    },
    /// `unix:/path`: a UNIX stream socket to connect to.
    Unix(PathBuf),
    /// `unix:@name`: the same in the abstract namespace, where it has a name and no file.
    Abstract(Vec<u8>),
    /// Anything else: a file, FIFO, block device or character device.
    Path(PathBuf),
}

/// Why a text names no end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotAnEndpoint {
    /// There is no text.
    Empty,
    /// A NUL byte cannot be part of a path.
    Nul,
    /// `tcp:` is not followed by host and port.
    NoPort(String),
    /// The port is no number from 1 to 65535.
    BadPort(String),
    /// `tcp::80` names no host.
    NoHost(String),
    /// An IPv6 address without brackets.
    NoBrackets(String),
    /// The host of `tcp:` is not UTF-8.
    HostNotText,
    /// `unix:` is not followed by a path, or `unix:@` by a name.
    NoPath,
    /// A socket's path or name is at most 107 bytes long.
    LongSocketPath,
    /// `null` as a source.
    NullGivesNothing,
}

impl Endpoint {
    /// Reads one end. A file whose name looks like something else is written as `./name`.
    ///
    /// # Errors
    /// [`NotAnEndpoint`] says what is wrong and what to write instead.
    pub fn parse(text: &OsStr, role: Role) -> Result<Self, NotAnEndpoint> {
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return Err(NotAnEndpoint::Empty);
        }
        if bytes.contains(&0) {
            return Err(NotAnEndpoint::Nul);
        }
        if let Some(peer) = bytes.strip_prefix(b"tcp:") {
            return tcp(peer);
        }
        if let Some(path) = bytes.strip_prefix(b"unix:") {
            return unix(path);
        }
        match (bytes, role) {
            (b"-", _) => Ok(Self::Standard),
            (b"null", Role::Sink) => Ok(Self::Null),
            (b"null", Role::Source) => Err(NotAnEndpoint::NullGivesNothing),
            _ => Ok(Self::Path(PathBuf::from(text))),
        }
    }

    /// What it is called in reports, control characters escaped.
    pub fn label(&self, role: Role) -> String {
        match (self, role) {
            (Self::Standard, Role::Source) => "standard input".to_owned(),
            (Self::Standard, Role::Sink) => "standard output".to_owned(),
            _ => self.to_string(),
        }
    }
}

fn tcp(peer: &[u8]) -> Result<Endpoint, NotAnEndpoint> {
    let peer = std::str::from_utf8(peer).map_err(|_| NotAnEndpoint::HostNotText)?;
    let given = || peer.to_owned();
    let (host, port) = peer
        .rsplit_once(':')
        .ok_or_else(|| NotAnEndpoint::NoPort(given()))?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .ok_or_else(|| NotAnEndpoint::NoPort(given()))?,
        None if host.contains(':') => return Err(NotAnEndpoint::NoBrackets(given())),
        None => host,
    };
    if host.is_empty() {
        return Err(NotAnEndpoint::NoHost(given()));
    }
    // `parse` alone would take a plus sign.
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|&port| is_number && port > 0);
    Ok(Endpoint::Tcp {
        host: host.to_owned(),
        port: port.ok_or_else(|| NotAnEndpoint::BadPort(given()))?,
    })
}

fn unix(text: &[u8]) -> Result<Endpoint, NotAnEndpoint> {
    let name = text.strip_prefix(b"@");
    match name.unwrap_or(text).len() {
        0 => Err(NotAnEndpoint::NoPath),
        1..=MAX_SOCKET_PATH => Ok(match name {
            Some(name) => Endpoint::Abstract(name.to_vec()),
            None => Endpoint::Unix(OsString::from_vec(text.to_vec()).into()),
        }),
        _ => Err(NotAnEndpoint::LongSocketPath),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard => f.write_str("-"),
            Self::Null => f.write_str("null"),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", printable(path)),
            Self::Abstract(name) => write!(f, "unix:@{}", name.escape_ascii()),
            Self::Path(path) => f.write_str(&printable(path)),
        }
    }
}

/// A path for the terminal: a name must not be able to move the cursor.
pub(crate) fn printable(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.chars().any(char::is_control) {
        text.chars()
            .flat_map(|c| {
                let escaped = c.is_control().then(|| c.escape_default());
                let plain = (!c.is_control()).then_some(c);
                escaped.into_iter().flatten().chain(plain)
            })
            .collect()
    } else {
        text.into_owned()
    }
}

impl fmt::Display for NotAnEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no name given (write -, null, tcp:, unix: or a path)"),
            Self::Nul => f.write_str("a NUL byte in a path (write a path without one)"),
            Self::NoPort(peer) => write!(f, "no port in {peer:?} (write tcp:host:port)"),
            Self::BadPort(peer) => write!(f, "no port from 1 to 65535 in {peer:?} (write tcp:host:port)"),
            Self::NoHost(peer) => write!(f, "no host in {peer:?} (write tcp:localhost:port for this machine)"),
            Self::NoBrackets(peer) => {
                write!(f, "more than one colon in {peer:?} (write an IPv6 address in brackets, tcp:[::1]:port)")
            }
            Self::HostNotText => f.write_str("a host name that is no UTF-8 (write tcp:host:port)"),
            Self::NoPath => f.write_str("no path or name (write unix:/path or unix:@name)"),
            Self::LongSocketPath => {
                write!(f, "a socket's path or name of more than {MAX_SOCKET_PATH} bytes (use a shorter one, or a relative path)")
            }
            Self::NullGivesNothing => {
                f.write_str("null takes bytes and gives none (read /dev/zero with --length, or write ./null for a file of that name)")
            }
        }
    }
}

impl std::error::Error for NotAnEndpoint {}

/// `sun_path` has 108 bytes: one is for the NUL behind a path, or before an abstract name.
const MAX_SOCKET_PATH: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Endpoint, NotAnEndpoint> {
        Endpoint::parse(OsStr::new(text), Role::Sink)
    }

    #[test]
    fn every_form_is_read_and_printed_as_it_was_written() {
        let tcp = |host: &str, port| Endpoint::Tcp {
            host: host.to_owned(),
            port,
        };
        for (text, endpoint) in [
            ("-", Endpoint::Standard),
            ("null", Endpoint::Null),
            ("tcp:example.org:80", tcp("example.org", 80)),
            ("tcp:127.0.0.1:65535", tcp("127.0.0.1", 65535)),
            ("tcp:[::1]:9000", tcp("::1", 9000)),
            ("tcp:[fe80::1%eth0]:9000", tcp("fe80::1%eth0", 9000)),
            ("unix:/run/a.sock", Endpoint::Unix("/run/a.sock".into())),
            ("unix:a", Endpoint::Unix("a".into())),
            ("unix:./@a", Endpoint::Unix("./@a".into())),
            ("unix:@a", Endpoint::Abstract(b"a".to_vec())),
            ("./-", Endpoint::Path("./-".into())),
            ("./null", Endpoint::Path("./null".into())),
            ("tcp", Endpoint::Path("tcp".into())),
            ("a:b", Endpoint::Path("a:b".into())),
            ("/dev/zero", Endpoint::Path("/dev/zero".into())),
        ] {
            assert_eq!(parse(text), Ok(endpoint.clone()), "{text}");
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn every_mistake_has_a_name_and_a_remedy() {
        let given = str::to_owned;
        for (text, wrong) in [
            ("", NotAnEndpoint::Empty),
            ("a\0b", NotAnEndpoint::Nul),
            ("tcp:", NotAnEndpoint::NoPort(given(""))),
            ("tcp:host", NotAnEndpoint::NoPort(given("host"))),
            ("tcp:[::1]", NotAnEndpoint::NoPort(given("[::1]"))),
            ("tcp:[::1:80", NotAnEndpoint::NoPort(given("[::1:80"))),
            ("tcp:::1:80", NotAnEndpoint::NoBrackets(given("::1:80"))),
            ("tcp::80", NotAnEndpoint::NoHost(given(":80"))),
            ("tcp:[]:80", NotAnEndpoint::NoHost(given("[]:80"))),
            ("tcp:host:", NotAnEndpoint::BadPort(given("host:"))),
            ("tcp:host:0", NotAnEndpoint::BadPort(given("host:0"))),
            ("tcp:host:+80", NotAnEndpoint::BadPort(given("host:+80"))),
            (
                "tcp:host:65536",
                NotAnEndpoint::BadPort(given("host:65536")),
            ),
            ("tcp:host:http", NotAnEndpoint::BadPort(given("host:http"))),
            ("unix:", NotAnEndpoint::NoPath),
            ("unix:@", NotAnEndpoint::NoPath),
            (
                &format!("unix:@{}", "x".repeat(108)),
                NotAnEndpoint::LongSocketPath,
            ),
            (
                &format!("unix:/{}", "x".repeat(107)),
                NotAnEndpoint::LongSocketPath,
            ),
        ] {
            assert_eq!(parse(text), Err(wrong.clone()), "{text}");
            let said = wrong.to_string();
            assert!(said.ends_with(')') && said.contains(" ("), "{said}");
        }
        assert_eq!(
            Endpoint::parse(OsStr::new("null"), Role::Source),
            Err(NotAnEndpoint::NullGivesNothing)
        );
        assert_eq!(
            Endpoint::parse(OsStr::from_bytes(b"tcp:\xff:80"), Role::Sink),
            Err(NotAnEndpoint::HostNotText)
        );
    }

    #[test]
    fn a_name_cannot_move_the_cursor() {
        let path = Endpoint::Path("a\x1b[2Jb\nc".into());
        assert_eq!(path.to_string(), "a\\u{1b}[2Jb\\nc");
        assert_eq!(Endpoint::Standard.label(Role::Source), "standard input");
        assert_eq!(Endpoint::Standard.label(Role::Sink), "standard output");
    }

    #[test]
    fn a_path_need_not_be_text() {
        let name = OsStr::from_bytes(b"caf\xe9");
        assert_eq!(
            Endpoint::parse(name, Role::Source),
            Ok(Endpoint::Path(name.into()))
        );
    }
}
