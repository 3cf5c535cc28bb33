//! Listening sockets: TCP on addresses and names, UNIX by path or abstract name.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use zhaul_sys::setsockopt::IntOption;

use crate::addr::ListenAddr;
use crate::clash::Clash;
use crate::unix_addr::{Access, UnixAddr};

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
pub fn reason(why: &io::Error) -> String {
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
    /// A socket for every IPv6 address leaves those of IPv4 alone (`IPV6_V6ONLY`); see
    /// [`leaves_v4_alone`].
    pub v6_only: bool,
    /// Who may connect to a UNIX socket. If no mode is said, the process's umask decides.
    pub access: Access,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backlog: 4096,
            reuse_port: false,
            fast_open: 0,
            transparent: false,
            v6_only: false,
            access: Access::default(),
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
    /// A path, or an abstract name.
    Unix(UnixAddr),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(addr) => addr.fmt(f),
        }
    }
}

/// Whether a socket at this address is to leave IPv4 alone: it is for every IPv6 address, which takes
/// in those of IPv4, and among `all` that are listened on is one of IPv4 with the same port. The
/// kernel would not give both the port otherwise.
pub fn leaves_v4_alone(address: SocketAddr, all: &[ListenAddr]) -> bool {
    let same_port = |bound: Bound| match bound {
        Bound::Tcp(other) => other.port() == address.port() && other.is_ipv4(),
        Bound::Unix(_) => false,
    };
    address.is_ipv6()
        && address.ip().is_unspecified()
        && address.port() != 0
        && all.iter().flat_map(ListenAddr::each).any(same_port)
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
    /// Listens on each of these, which are among `all` that are listened on. Names often stand for
    /// addresses of a family that the machine does without, so one of each that works is enough.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_all(
        addresses: &[ListenAddr],
        all: &[ListenAddr],
        options: Options,
    ) -> Result<Vec<Self>, ListenError> {
        let mut listeners = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            let earlier = addresses.iter().take(index);
            if let Some(clash) = earlier.filter_map(|a| Clash::between(address, a)).next() {
                return Err(ListenError {
                    address: address.to_string(),
                    why: Errno::ADDRINUSE.into(),
                    remedy: match clash {
                        Clash::Same => "it is named twice; name it once",
                        Clash::Part { .. } => "another address here takes it in; leave one out",
                    },
                });
            }
            let mut failed = None;
            let before = listeners.len();
            for one in address.each() {
                let options = Options {
                    v6_only: matches!(one, Bound::Tcp(tcp) if leaves_v4_alone(tcp, all)),
                    access: address.access(),
                    ..options
                };
                match Self::bind(&one, options) {
                    Ok(listener) => listeners.push(listener),
                    Err(e) => failed = Some(e),
                }
            }
            match failed {
                Some(e) if listeners.len() == before => return Err(e),
                Some(e) => tracing::warn!("{e}"),
                None => {}
            }
        }
        Ok(listeners)
    }

    /// Listens on an address.
    ///
    /// A UNIX socket that a program left behind when it died is replaced; one that somebody listens
    /// on is not.
    ///
    /// # Errors
    /// What the kernel said, and what to do about it.
    pub fn bind(address: &Bound, options: Options) -> Result<Self, ListenError> {
        match address {
            Bound::Tcp(addr) => Self::tcp(*addr, options),
            Bound::Unix(addr) => Self::unix(addr, options),
        }
    }

    /// Whether an address could be listened on, without doing so: nobody can connect meanwhile, and
    /// nothing is left in the file system.
    ///
    /// # Errors
    /// As [`Self::bind`]; EADDRINUSE also if whoever asks listens there already.
    pub fn check(address: &Bound, options: Options) -> Result<(), ListenError> {
        let checked = match address {
            Bound::Tcp(addr) => everywhere(*addr, options, bind_tcp).map(drop),
            Bound::Unix(addr @ UnixAddr::Abstract(_)) => bind_unix(addr, options.access).map(drop),
            Bound::Unix(UnixAddr::Path(path)) => check_path(path),
        };
        checked.map_err(|errno| listen_error(address.to_string(), errno))
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
                Bound::Unix(UnixAddr::from_kernel(&unix).ok_or(Errno::AFNOSUPPORT)?)
            }
        };
        Ok(Self {
            fd,
            address,
            path: None,
        })
    }

    fn tcp(addr: SocketAddr, options: Options) -> Result<Self, ListenError> {
        let fd = everywhere(addr, options, listen_tcp);
        let fd = fd.map_err(|errno| listen_error(addr.to_string(), errno))?;
        let bound = rustix::net::getsockname(&fd);
        let bound = bound.map_or(Ok(addr), SocketAddr::try_from).unwrap_or(addr);
        Ok(Self {
            fd,
            address: Bound::Tcp(bound),
            path: None,
        })
    }

    fn unix(addr: &UnixAddr, options: Options) -> Result<Self, ListenError> {
        let failed = |errno| listen_error(addr.to_string(), errno);
        let bound = match (bind_unix(addr, options.access), addr) {
            (Err(Errno::ADDRINUSE), UnixAddr::Path(path)) if is_stale(path) => {
                fs::remove_file(path).map_err(|why| ListenError {
                    address: addr.to_string(),
                    why,
                    remedy: "remove the socket that a program left there",
                })?;
                bind_unix(addr, options.access)
            }
            (done, _) => done,
        };
        let fd = bound.map_err(failed)?;
        let path = match addr {
            UnixAddr::Abstract(_) => None,
            UnixAddr::Path(path) => Some(SocketPath::of(path).map_err(|why| ListenError {
                address: addr.to_string(),
                why,
                remedy: "somebody removed it at once",
            })?),
        };
        // Nobody can connect before the socket listens, so nobody does whom the mode keeps out.
        if let Some(SocketPath { path, .. }) = &path {
            grant(path, options.access).map_err(|errno| ListenError {
                address: addr.to_string(),
                why: errno.into(),
                remedy: grant_remedy(errno),
            })?;
        }
        rustix::net::listen(&fd, options.backlog).map_err(failed)?;
        Ok(Self {
            fd,
            address: Bound::Unix(addr.clone()),
            path,
        })
    }

    /// Changes who may connect to a socket in the file system from now on.
    ///
    /// # Errors
    /// As `chown(2)` and `chmod(2)`.
    pub fn grant(&self, access: Access) -> io::Result<()> {
        match &self.address {
            Bound::Unix(UnixAddr::Path(path)) => Ok(grant(path, access)?),
            _ => Ok(()),
        }
    }
}

impl SocketPath {
    fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            inode: (meta.dev(), meta.ino()),
        })
    }
}

/// Does this with an address; where a machine has no IPv6, every interface means every IPv4 interface.
fn everywhere(
    addr: SocketAddr,
    options: Options,
    open: impl Fn(SocketAddr, Options) -> Result<OwnedFd, Errno>,
) -> Result<OwnedFd, Errno> {
    let is_everywhere = addr.is_ipv6() && addr.ip().is_unspecified() && !options.v6_only;
    match open(addr, options) {
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if is_everywhere => {
            let v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            open(SocketAddr::new(v4, addr.port()), options)
        }
        done => done,
    }
}

fn listen_tcp(addr: SocketAddr, options: Options) -> Result<OwnedFd, Errno> {
    let fd = bind_tcp(addr, options)?;
    if options.fast_open > 0 {
        let length = options.fast_open.try_into().unwrap_or(i32::MAX);
        set(&fd, IntOption::TcpFastOpen, length)?;
    }
    rustix::net::listen(&fd, options.backlog)?;
    Ok(fd)
}

fn bind_tcp(addr: SocketAddr, options: Options) -> Result<OwnedFd, Errno> {
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
        sockopt::set_ipv6_v6only(&fd, options.v6_only)?;
    }
    // Inherited by accepted sockets, which saves a system call for each.
    sockopt::set_tcp_nodelay(&fd, true)?;
    rustix::net::bind(&fd, &addr)?;
    Ok(fd)
}

fn set(fd: &OwnedFd, option: IntOption, value: i32) -> Result<(), Errno> {
    zhaul_sys::setsockopt::set(fd.as_fd(), option, value)
        .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
}

fn bind_unix(addr: &UnixAddr, access: Access) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file inherits the socket's mode, of which the umask takes something away.
    let mode = access.mode.unwrap_or(0o777);
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
    rustix::net::bind(&fd, &addr.to_kernel()?)?;
    Ok(fd)
}

/// Gives a socket's file its owner and its mode, by a descriptor: whoever can write to the directory
/// may have put a link to something else in its place.
fn grant(path: &Path, Access { mode, uid, gid }: Access) -> Result<(), Errno> {
    if (mode, uid, gid) == (None, None, None) {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
    if !kind.is_socket() {
        return Err(Errno::NOTSOCK);
    }
    if uid.is_some() || gid.is_some() {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        rustix::fs::chownat(&fd, "", uid, gid, AtFlags::EMPTY_PATH)?;
    }
    if let Some(mode) = mode {
        let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
        rustix::fs::chmod(name, Mode::from_raw_mode(mode))?;
    }
    Ok(())
}

/// What to do when a socket that was just made did not get its owner or its mode.
fn grant_remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::PERM => "to give a socket to another user takes root; to a group, being in it",
        // The socket itself was there a moment ago.
        Errno::NOENT => "mount /proc, through which a socket's mode is set",
        Errno::NOTSOCK => "use a directory in which nobody else can replace the socket",
        Errno::INVAL => "use an owner and a group that this user namespace knows",
        Errno::MFILE | Errno::NFILE => "raise the limit on open files",
        _ => "use a directory whose file system keeps owners and modes",
    }
}

/// Whether a socket could be made at `path`.
fn check_path(path: &Path) -> Result<(), Errno> {
    use rustix::fs::Access as May;
    if fs::symlink_metadata(path).is_ok() && !is_stale(path) {
        return Err(Errno::ADDRINUSE);
    }
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    rustix::fs::access(directory, May::WRITE_OK | May::EXEC_OK)
}

/// Whether `path` is a socket that was left behind by a program that is gone.
fn is_stale(path: &Path) -> bool {
    // connect(2) refuses a regular file with the same error as a socket without a listener.
    let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    let refused = |e: io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && std::os::unix::net::UnixStream::connect(path).is_err_and(refused)
}

fn listen_error(address: String, errno: Errno) -> ListenError {
    let of_unix = address.starts_with("unix:");
    let remedy = match errno {
        Errno::ADDRINUSE if of_unix => {
            "stop the program that listens there, or choose another name"
        }
        Errno::ADDRINUSE => "stop the program that listens there, or choose another port",
        Errno::ACCESS if of_unix => "use a directory that you can write to",
        Errno::ACCESS => "ports below 1024 need CAP_NET_BIND_SERVICE; choose one from 1024 up",
        Errno::ADDRNOTAVAIL => "use an address of this machine, or :PORT for every interface",
        Errno::NOENT => "create the socket's directory first",
        Errno::PERM => "this needs CAP_NET_ADMIN",
        Errno::MFILE | Errno::NFILE => "raise the limit on open files",
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
        assert_eq!(unix.address, Bound::Unix(UnixAddr::Path(path.clone())));
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
        let address = Bound::Unix(UnixAddr::Path(path.clone()));
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

    #[test]
    fn every_address_of_both_families_has_its_socket() {
        let taken = TcpListener::bind("[::]:0");
        let Ok(port) = taken.and_then(|socket| socket.local_addr()) else {
            return zhaul_untested::skip(
                "every_address_of_both_families_has_its_socket",
                "no IPv6",
            );
        };
        let port = port.port();
        for addresses in [
            [format!("0.0.0.0:{port}"), format!("[::]:{port}")],
            [format!("[::]:{port}"), format!("0.0.0.0:{port}")],
            [format!(":{port}"), format!("127.0.0.1:{port}")],
        ] {
            let all: Vec<ListenAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
            let listeners = Listener::bind_all(&all, &all, Options::default()).unwrap();
            assert_eq!(listeners.len(), 2, "{addresses:?}");
            for (host, is_v4) in [("127.0.0.1", true), ("::1", false)] {
                let _client = std::net::TcpStream::connect((host, port)).unwrap();
                let its = listeners.iter().find(|l| match l.address {
                    Bound::Tcp(address) => address.is_ipv4() == is_v4,
                    Bound::Unix(_) => false,
                });
                rustix::net::accept(&its.unwrap().fd).unwrap();
            }
        }
        // Alone it is for both.
        let alone = format!("[::]:{port}").parse().unwrap();
        let _both = Listener::bind_all(&[alone], &[], Options::default()).unwrap();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn without_ipv6_every_interface_is_every_ipv4_interface() {
        let [everywhere_v6, local_v6]: [SocketAddr; 2] =
            ["[::]:80", "[::1]:80"].map(|a| a.parse().unwrap());
        let seen = std::cell::RefCell::new(Vec::new());
        let open = |addr: SocketAddr, _| {
            seen.borrow_mut().push(addr.to_string());
            Err(Errno::AFNOSUPPORT)
        };
        let v6_only = Options {
            v6_only: true,
            ..Options::default()
        };
        everywhere(everywhere_v6, Options::default(), open).unwrap_err();
        assert_eq!(seen.take(), ["[::]:80", "0.0.0.0:80"]);
        everywhere(everywhere_v6, v6_only, open).unwrap_err();
        everywhere(local_v6, Options::default(), open).unwrap_err();
        assert_eq!(seen.take(), ["[::]:80", "[::1]:80"]);
    }

    #[test]
    fn an_abstract_name_has_no_file_and_one_listener() {
        let name = format!("unix:@zhaul-test-{}", std::process::id());
        let address: ListenAddr = name.parse().unwrap();
        let bind = || Listener::bind_all(std::slice::from_ref(&address), &[], Options::default());
        let first = bind().unwrap();
        assert_eq!(first[0].address.to_string(), name);
        let error = bind().unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        let adopted = Listener::adopt(first[0].fd.try_clone().unwrap()).unwrap();
        assert_eq!(adopted.address, first[0].address);
        drop((first, adopted));
        assert!(bind().is_ok(), "nothing is left behind");
    }

    #[test]
    fn a_socket_has_the_mode_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        for mode in [0o600, 0o666, 0o777] {
            let address = format!("unix:{},mode={mode:o}", path.display());
            let address: ListenAddr = address.parse().unwrap();
            let listeners = Listener::bind_all(&[address], &[], Options::default()).unwrap();
            let of = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
            assert_eq!(of(&path), mode);
            let other = Access {
                mode: Some(0o640),
                ..Access::default()
            };
            listeners[0].grant(other).unwrap();
            assert_eq!(of(&path), 0o640);
        }
        assert!(!path.exists());
    }

    #[test]
    fn what_is_wrong_with_a_path_is_not_said_of_a_port() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "data").unwrap();
        let address = Bound::Unix(UnixAddr::Path(path.clone()));
        let error = Listener::bind(&address, Options::default()).unwrap_err();
        assert!(error.to_string().contains("another name"), "{error}");
        let error = Listener::check(&address, Options::default()).unwrap_err();
        assert!(error.to_string().contains("another name"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn what_to_do_about_an_owner_or_a_mode_depends_on_what_went_wrong() {
        for (errno, word) in [
            (Errno::PERM, "takes root"),
            (Errno::NOENT, "/proc"),
            (Errno::NOTSOCK, "nobody else"),
            (Errno::INVAL, "namespace"),
            (Errno::NFILE, "open files"),
            (Errno::ROFS, "file system"),
        ] {
            assert!(grant_remedy(errno).contains(word), "{errno}");
        }
    }

    #[test]
    fn an_owner_that_cannot_be_had_is_an_error_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let address = format!("unix:{},owner=12345:54321", path.display());
        let address: ListenAddr = address.parse().unwrap();
        match Listener::bind_all(&[address], &[], Options::default()) {
            Ok(listeners) => {
                let meta = fs::symlink_metadata(&path).unwrap();
                assert_eq!((meta.uid(), meta.gid()), (12345, 54321));
                drop(listeners);
            }
            Err(e) => assert!(e.to_string().contains("takes root"), "{e}"),
        }
        assert!(!path.exists());
    }
}
