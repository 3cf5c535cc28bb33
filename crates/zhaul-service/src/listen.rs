//! Listening sockets: TCP on addresses and names, UNIX by path.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use zhaul_sys::setsockopt::IntOption;

use crate::addr::ListenAddr;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {} ({remedy})", reason(why))]
pub struct ListenError {
    /// The address asked for.
    pub address: String,
    /// What the kernel said.
    pub why: io::Error,
    /// What to do about it.
    pub remedy: &'static str,
}

/// What the kernel said, without the number that the standard library adds.
fn reason(why: &io::Error) -> String {
    let text = why.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// How to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
    pub backlog: i32,
    /// Several sockets may listen on the address, and the kernel spreads connections over them
    /// (`SO_REUSEPORT`). Without it a second server on the same port is told so.
    pub reuse_port: bool,
    /// Connections that may bring data in their SYN (`TCP_FASTOPEN`); 0 switches it off.
    pub fast_open: u32,
    /// Accept connections to addresses that are not this machine's (`IP_TRANSPARENT`, for TPROXY
    /// rules; needs CAP_NET_ADMIN).
    pub transparent: bool,
    /// Who may connect to a UNIX socket: the mode of its file, of which the process's umask takes
    /// something away.
    pub mode: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backlog: 4096,
            reuse_port: false,
            fast_open: 0,
            transparent: false,
            mode: 0o777,
        }
    }
}

/// A bound, listening socket.
#[derive(Debug)]
pub struct Listener {
    /// The socket, non-blocking.
    pub fd: OwnedFd,
    /// Where it listens, with the port that the kernel chose if 0 was asked for.
    pub address: Bound,
    /// The name in the file system.
    pub path: Option<SocketPath>,
}

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A path.
    Unix(PathBuf),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The name of a UNIX socket in the file system, removed on drop.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        // Only our own: another server may have taken the name over meanwhile.
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.inode);
        if ours && let Err(e) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {e}", self.path.display());
        }
    }
}

impl Listener {
    /// Listens on an address; a host name may stand for several.
    ///
    /// A UNIX socket that a program left behind when it died is replaced; one that somebody listens
    /// on is not.
    ///
    /// # Errors
    /// What the kernel said, and what to do about it.
    pub fn bind(address: &ListenAddr, options: Options) -> Result<Vec<Self>, ListenError> {
        match address {
            ListenAddr::Unix(path) => Ok(vec![Self::unix(path, options)?]),
            ListenAddr::Tcp(addrs) => Self::any_of(addrs, options),
        }
    }

    /// Takes over a socket that listens already (socket activation). Its name in the file system
    /// stays with whoever made it.
    ///
    /// # Errors
    /// As `getsockname(2)` and `ioctl(2)`; EAFNOSUPPORT for a socket that is neither TCP nor UNIX.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let address = rustix::net::getsockname(&fd)?;
        let address = match SocketAddr::try_from(address.clone()) {
            Ok(address) => Bound::Tcp(address),
            Err(_) => {
                let unix = SocketAddrUnix::try_from(address)?;
                let path = unix.path_bytes().ok_or(Errno::AFNOSUPPORT)?;
                Bound::Unix(PathBuf::from(std::ffi::OsStr::from_bytes(path)))
            }
        };
        Ok(Self {
            fd,
            address,
            path: None,
        })
    }

    /// Listens on what a host name stands for. Names often stand for addresses of a family that the
    /// machine does without, so one that works is enough.
    fn any_of(addrs: &[SocketAddr], options: Options) -> Result<Vec<Self>, ListenError> {
        let mut listeners = Vec::new();
        let mut failed = None;
        for &addr in addrs {
            match Self::tcp(addr, options) {
                Ok(listener) => listeners.push(listener),
                Err(e) => failed = Some(e),
            }
        }
        match failed {
            Some(e) if listeners.is_empty() => Err(e),
            Some(e) => {
                tracing::warn!("{e}");
                Ok(listeners)
            }
            None => Ok(listeners),
        }
    }

    fn tcp(addr: SocketAddr, options: Options) -> Result<Self, ListenError> {
        let everywhere = addr.is_ipv6() && addr.ip().is_unspecified();
        let fd = match listen_tcp(addr, options) {
            // No IPv6 on this machine: every interface then means every IPv4 interface.
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if everywhere => {
                let v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                listen_tcp(SocketAddr::new(v4, addr.port()), options)
            }
            done => done,
        };
        let fd = fd.map_err(|errno| listen_error(addr.to_string(), errno))?;
        let bound = rustix::net::getsockname(&fd);
        let bound = bound.map_or(Ok(addr), SocketAddr::try_from).unwrap_or(addr);
        Ok(Self {
            fd,
            address: Bound::Tcp(bound),
            path: None,
        })
    }

    fn unix(path: &Path, options: Options) -> Result<Self, ListenError> {
        let failed = |errno| listen_error(format!("unix:{}", path.display()), errno);
        let fd = match listen_unix(path, options) {
            Err(Errno::ADDRINUSE) if is_stale(path) => {
                fs::remove_file(path).map_err(|why| ListenError {
                    address: format!("unix:{}", path.display()),
                    why,
                    remedy: "remove the socket that a program left there",
                })?;
                listen_unix(path, options)
            }
            done => done,
        };
        let fd = fd.map_err(failed)?;
        let meta = fs::symlink_metadata(path).map_err(|why| ListenError {
            address: format!("unix:{}", path.display()),
            why,
            remedy: "somebody removed it at once",
        })?;
        let socket = SocketPath {
            path: path.to_owned(),
            inode: (meta.dev(), meta.ino()),
        };
        Ok(Self {
            fd,
            address: Bound::Unix(path.to_owned()),
            path: Some(socket),
        })
    }
}

fn listen_tcp(addr: SocketAddr, options: Options) -> Result<OwnedFd, Errno> {
    let family = if addr.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // Without this a restart fails while connections of the last run are in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if options.reuse_port {
        set(&fd, IntOption::ReusePort, 1)?;
    }
    if options.transparent {
        let option = if addr.is_ipv6() {
            IntOption::Ipv6Transparent
        } else {
            IntOption::IpTransparent
        };
        set(&fd, option, 1)?;
    }
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        sockopt::set_ipv6_v6only(&fd, false)?;
    }
    // Inherited by accepted sockets, which saves a system call for each.
    sockopt::set_tcp_nodelay(&fd, true)?;
    rustix::net::bind(&fd, &addr)?;
    if options.fast_open > 0 {
        let length = options.fast_open.try_into().unwrap_or(i32::MAX);
        set(&fd, IntOption::TcpFastOpen, length)?;
    }
    rustix::net::listen(&fd, options.backlog)?;
    Ok(fd)
}

fn set(fd: &OwnedFd, option: IntOption, value: i32) -> Result<(), Errno> {
    zhaul_sys::setsockopt::set(fd.as_fd(), option, value)
        .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
}

fn listen_unix(path: &Path, options: Options) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Before there is a file, so that nobody comes in between: it inherits the socket's mode.
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(options.mode))?;
    rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&fd, options.backlog)?;
    Ok(fd)
}

/// Whether `path` is a socket that was left behind by a program that is gone.
fn is_stale(path: &Path) -> bool {
    // connect(2) refuses a regular file with the same error as a socket without a listener.
    let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    let refused = |e: io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && std::os::unix::net::UnixStream::connect(path).is_err_and(refused)
}

fn listen_error(address: String, errno: Errno) -> ListenError {
    let remedy = match errno {
        Errno::ADDRINUSE => "stop the program that listens there, or choose another port",
        Errno::ACCESS => "ports below 1024 need CAP_NET_BIND_SERVICE; choose one from 1024 up",
        Errno::ADDRNOTAVAIL => "use an address of this machine, or :PORT for every interface",
        Errno::NOENT => "create the socket's directory first",
        Errno::PERM => "this needs CAP_NET_ADMIN",
        _ => "choose another address",
    };
    ListenError {
        address,
        why: errno.into(),
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn sockets_that_listen_already_are_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let unix = Listener::adopt(UnixListener::bind(&path).unwrap().into()).unwrap();
        assert_eq!(unix.address, Bound::Unix(path.clone()));
        drop(unix);
        assert!(path.exists(), "it is not ours to remove");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let tcp = Listener::adopt(tcp.into()).unwrap();
        assert_eq!(tcp.address, Bound::Tcp(address));
    }

    #[test]
    fn a_name_is_removed_with_its_socket_unless_somebody_else_took_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let address = ListenAddr::Unix(path.clone());
        let first = Listener::bind(&address, Options::default()).unwrap();
        let error = Listener::bind(&address, Options::default()).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        fs::remove_file(&path).unwrap();
        let second = Listener::bind(&address, Options::default()).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }
}
