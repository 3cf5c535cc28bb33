//! Addresses of clients and servers as people write them: networks, `host:port`, `unix:/path`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use zhaul_service::{ListenAddr, UnixAddr};

/// Clients that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Those of a network. An IPv4 network written as an IPv6 one (`::ffff:10.0.0.0/104`) is IPv4.
    Network(IpNet),
    /// Those of this machine that come through a UNIX socket.
    Unix,
}

impl Clients {
    /// Whether a client is one of them; `None` is one without an address.
    pub fn contain(self, client: Option<IpAddr>) -> bool {
        match (self, client) {
            (Self::Network(network), Some(ip)) => network.contains(&ip.to_canonical()),
            (Self::Unix, None) => true,
            _ => false,
        }
    }
}

/// Where a server is. A name stays a name: it is resolved while the proxy runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Upstream {
    /// A literal address.
    Ip(SocketAddr),
    /// A name and a port.
    Name(String, u16),
    /// A UNIX stream socket.
    Unix(UnixAddr),
}

/// Where the administrator's commands are taken.
///
/// # Errors
/// If it is nothing whose file keeps others out.
pub fn admin(address: ListenAddr) -> Result<ListenAddr, String> {
    match address {
        ListenAddr::Unix(UnixAddr::Path(_), _) => Ok(address),
        ListenAddr::Unix(UnixAddr::Abstract(_), _) => Err(
            "it takes commands, and everybody may connect to a name without a file (write unix:/path)"
                .to_owned(),
        ),
        ListenAddr::Tcp(_) => {
            Err("it takes commands, so it is a UNIX socket (write unix:/path)".to_owned())
        }
    }
}

impl FromStr for Clients {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text, "unix" | "unix:") {
            return Ok(Self::Unix);
        }
        let network = match text.parse::<IpAddr>() {
            Ok(address) => Ok(IpNet::from(address)),
            Err(_) => text.parse::<IpNet>(),
        };
        let wrong = |_| {
            format!(
                "{text:?} is no network (write 10.0.0.0/8, an address, or unix for UNIX sockets)"
            )
        };
        network
            .map(|net| Self::Network(canonical(net)))
            .map_err(wrong)
    }
}

impl fmt::Display for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// The network as it is compared with addresses: without host bits, and IPv4 if it is within
/// `::ffff:0:0/96`.
fn canonical(network: IpNet) -> IpNet {
    let network = network.trunc();
    match (
        network.addr().to_canonical(),
        network.prefix_len().checked_sub(96),
    ) {
        (v4 @ IpAddr::V4(_), Some(prefix)) if network.addr().is_ipv6() => {
            IpNet::new(v4, prefix).unwrap_or(network)
        }
        _ => network,
    }
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("unix:") {
            return name.parse().map(Self::Unix);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => Err(format!("{text:?} has port 0 (use 1 to 65535)")),
                _ => Ok(Self::Ip(address)),
            };
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(format!(
                "{text:?} has no port (write host:port, [v6]:port, unix:/path or unix:@name)"
            ));
        };
        let Ok(port @ 1..) = port.parse::<u16>() else {
            return Err(format!("{port:?} is not a port (use 1 to 65535)"));
        };
        if host.is_empty() {
            return Err(format!("{text:?} names no host (write host:port)"));
        }
        if host.contains(':') || host.starts_with('[') {
            return Err(format!(
                "{text:?} is no address (write an IPv6 address in brackets)"
            ));
        }
        if !is_host_name(host) {
            return Err(format!("{host:?} is not a host name"));
        }
        Ok(Self::Name(host.to_owned(), port))
    }
}

/// Whether a name can be looked up, and asked for in a ClientHello.
pub(super) fn is_host_name(name: &str) -> bool {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    (1..=253).contains(&name.len()) && name.chars().all(is_of_name)
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(addr) => addr.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_written_as_ipv6_is_ipv4() {
        for (text, expected) in [
            ("::ffff:10.0.0.7", "10.0.0.7/32"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("::ffff:10.0.0.7/64", "::/64"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("unix:", "unix"),
        ] {
            let clients: Clients = text.parse().unwrap();
            assert_eq!(clients.to_string(), expected, "{text}");
        }
        for text in [
            "10.0.0.0/33",
            "::ffff:1.2.3.4/129",
            "localhost",
            "unix:/path",
            "",
        ] {
            assert!(text.parse::<Clients>().is_err(), "{text}");
        }
        let ten: Clients = "::ffff:10.0.0.0/104".parse().unwrap();
        for (client, expected) in [
            ("10.9.9.9", true),
            ("::ffff:10.9.9.9", true),
            ("::1", false),
        ] {
            assert_eq!(ten.contain(client.parse().ok()), expected, "{client}");
        }
        assert!(!ten.contain(None));
    }

    #[test]
    fn upstreams_are_read_as_documented() {
        assert_eq!(
            "192.0.2.1:80".parse(),
            Ok(Upstream::Ip("192.0.2.1:80".parse().unwrap()))
        );
        assert_eq!(
            "[2001:db8::1]:80".parse(),
            Ok(Upstream::Ip("[2001:db8::1]:80".parse().unwrap()))
        );
        assert_eq!(
            "db.example.com:5432".parse(),
            Ok(Upstream::Name("db.example.com".to_owned(), 5432))
        );
        assert_eq!(
            "unix:/run/db".parse(),
            Ok(Upstream::Unix(UnixAddr::Path("/run/db".into())))
        );
        assert_eq!(
            "unix:@db".parse(),
            Ok(Upstream::Unix(UnixAddr::Abstract(b"db".to_vec())))
        );
    }

    #[test]
    fn bad_upstreams_say_what_to_write() {
        for (text, hint) in [
            ("db", "no port"),
            ("db:http", "not a port"),
            ("db:0", "not a port"),
            ("192.0.2.1:0", "port 0"),
            (":80", "names no host"),
            ("::1:80", "in brackets"),
            ("a b:80", "not a host name"),
            ("unix:", "needs a path"),
        ] {
            let error = text.parse::<Upstream>().expect_err(text);
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
