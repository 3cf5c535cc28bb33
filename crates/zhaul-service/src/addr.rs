//! Addresses as people write them: `host:port`, `[v6]:port`, `:port`, `unix:/path`, `unix:@name`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use crate::listen::Bound;
use crate::unix_addr::{Access, UnixAddr};

/// Where to listen: `host:port`, `[v6]:port`, `:port` (every interface), `unix:/path` or
/// `unix:@name`; behind a path there may be `,mode=660` and `,owner=USER:GROUP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// The addresses that a host name or literal stands for.
    Tcp(Vec<SocketAddr>),
    /// A UNIX stream socket of this name, and who may connect to it.
    Unix(UnixAddr, Access),
}

impl ListenAddr {
    /// Each address by itself.
    pub fn each(&self) -> Vec<Bound> {
        match self {
            Self::Tcp(addrs) => addrs.iter().copied().map(Bound::Tcp).collect(),
            Self::Unix(addr, _) => vec![Bound::Unix(addr.clone())],
        }
    }

    /// Who may connect, if that was said.
    pub fn access(&self) -> Access {
        match self {
            Self::Tcp(_) => Access::default(),
            Self::Unix(_, access) => *access,
        }
    }
}

impl FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("unix:") {
            return unix(name);
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(format!(
                "{text:?} has no port (write host:port, [v6]:port, :port or unix:/path)"
            ));
        };
        let port: u16 = port
            .parse()
            .map_err(|_| format!("{port:?} is not a port (use 0 to 65535)"))?;
        if host.is_empty() {
            let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
            return Ok(Self::Tcp(vec![any]));
        }
        let bare = host
            .strip_prefix('[')
            .and_then(|inner| inner.strip_suffix(']'));
        if bare.is_none() && host.contains(':') {
            return Err(format!(
                "{text:?} is ambiguous (write an IPv6 address in brackets)"
            ));
        }
        let addrs: Vec<_> = (bare.unwrap_or(host), port)
            .to_socket_addrs()
            .map_err(|e| format!("cannot resolve {host:?}: {e} (use an address of this machine)"))?
            .collect();
        if addrs.is_empty() {
            return Err(format!(
                "{host:?} has no address (use an address of this machine)"
            ));
        }
        Ok(Self::Tcp(addrs))
    }
}

fn unix(text: &str) -> Result<ListenAddr, String> {
    let (name, access) = Access::split(text)?;
    let addr: UnixAddr = name.parse()?;
    if matches!(addr, UnixAddr::Abstract(_)) && access != Access::default() {
        return Err(format!(
            "{addr} has no file that could have a mode or an owner (write unix:/path)"
        ));
    }
    Ok(ListenAddr::Unix(addr, access))
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(addr, _) => addr.fmt(f),
            Self::Tcp(addrs) => {
                for (i, addr) in addrs.iter().enumerate() {
                    write!(f, "{}{addr}", if i > 0 { "," } else { "" })?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_documented() {
        let tcp = |text: &str| match text.parse::<ListenAddr>() {
            Ok(ListenAddr::Tcp(addrs)) => addrs[0].to_string(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(tcp("127.0.0.1:80"), "127.0.0.1:80");
        assert_eq!(tcp("[::1]:8080"), "[::1]:8080");
        assert_eq!(tcp(":8080"), "[::]:8080");
        assert_eq!(
            "unix:/run/z.sock".parse(),
            Ok(ListenAddr::Unix(
                UnixAddr::Path("/run/z.sock".into()),
                Access::default()
            ))
        );
    }

    #[test]
    fn bad_addresses_say_what_to_write() {
        for (text, hint) in [
            ("8080", "no port"),
            ("localhost:http", "not a port"),
            ("127.0.0.1:70000", "not a port"),
            ("::1:8080", "in brackets"),
            ("unix:", "needs a path"),
            ("unix:@a,mode=600", "has no file"),
        ] {
            let error = text.parse::<ListenAddr>().expect_err(text);
            assert!(error.contains(hint), "{text}: {error}");
        }
        let long = format!("unix:/{}", "x".repeat(107));
        assert!(
            long.parse::<ListenAddr>()
                .expect_err("too long")
                .contains("107")
        );
    }
}
