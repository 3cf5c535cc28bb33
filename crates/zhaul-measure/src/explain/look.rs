//! Looking at the two ends without touching them: what they are, for the planner and for people.
//!
//! Nothing is created, truncated, connected to or opened for writing here. A FIFO is not opened
//! (whoever waits at its other side would be let in), nor is a device that might do something when
//! it is opened; their kind tells enough. A file to be written is described from its name, a peer
//! from the route to it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno as Raw;
use rustix::net::AddressFamily;
use zhaul::{Errno, InPlaceEnd, SinkFacts, SinkKind, SourceFacts, SourceKind};

use super::about::{AboutSink, AboutSource, FoundBy, sink_words, source_words};
use super::abstract_name;
use super::endpoint::{Endpoint, Role};
use super::error::{Error, Problem};
use super::way::{Way, addresses, way_to, way_to_any};
use crate::host::Host;

/// A source that was looked at.
#[derive(Debug)]
pub struct Source {
    /// For the planner.
    pub facts: SourceFacts,
    /// For people.
    pub about: AboutSource,
    /// Where a descriptor that was handed to us stands.
    pub(crate) position: Option<u64>,
    pub(crate) identity: Option<(u64, u64)>,
    /// A file can be asked what of it is in memory, and whether it can be leased.
    pub(crate) file: Option<OwnedFd>,
}

/// A sink that was looked at.
#[derive(Debug)]
pub struct Sink {
    /// For the planner.
    pub facts: SinkFacts,
    /// For people.
    pub about: AboutSink,
    pub(crate) identity: Option<(u64, u64)>,
    /// What its pipe holds at most, in bytes that fill its slots.
    pub(crate) pipe_bytes: Option<usize>,
}

impl Source {
    /// Looks at a source and leaves it as it is.
    ///
    /// # Errors
    /// If it is not there, may not be read, or can be no source.
    pub fn look(endpoint: &Endpoint) -> Result<Self, Error> {
        let name = endpoint.label(Role::Source);
        match endpoint {
            Endpoint::Standard => {
                let stdin = rustix::stdio::stdin();
                let mut source = Self::of_descriptor(endpoint, &name, stdin)?;
                source.position = position(stdin);
                source.file = stdin.try_clone_to_owned().ok();
                Ok(source)
            }
            Endpoint::Tcp { host, port } => {
                let way = way_to_any(&name, &addresses(&name, host, *port)?)?;
                let mut source = Self::bare(
                    &name,
                    SourceFacts::new(SourceKind::StreamSocket),
                    "TCP connection",
                );
                source.about.found_by = FoundBy::Route;
                source.about.peer = Some(way.peer.to_string());
                source.about.interface = way.interface;
                Ok(source)
            }
            Endpoint::Unix(path) => {
                examine_socket(path, &name)?;
                Ok(Self::unix_socket(&name))
            }
            Endpoint::Abstract(socket) => {
                abstract_name::examine(socket).map_err(|errno| Error::io(&name, errno))?;
                Ok(Self::unix_socket(&name))
            }
            Endpoint::Null => Self::of_path(endpoint, Path::new("/dev/null"), &name),
            Endpoint::Path(path) => Self::of_path(endpoint, path, &name),
        }
    }

    fn unix_socket(name: &str) -> Self {
        let facts = SourceFacts::new(SourceKind::StreamSocket);
        Self::bare(name, facts, "UNIX stream socket")
    }

    fn of_path(endpoint: &Endpoint, path: &Path, name: &str) -> Result<Self, Error> {
        let failed = |errno: Raw| Error::io(name, errno);
        let stat = rustix::fs::stat(path).map_err(failed)?;
        let may_read =
            || rustix::fs::accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS).map_err(failed);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Err(Error::new(name, Problem::Directory)),
            FileType::Socket => Err(Error::new(name, Problem::SocketIsNoFile)),
            FileType::Fifo => {
                may_read()?;
                let mut source = Self::bare(name, SourceFacts::new(SourceKind::Pipe), "FIFO");
                source.identity = Some(identity(&stat));
                Ok(source)
            }
            FileType::CharacterDevice if !opens_harmlessly(&stat) => {
                may_read()?;
                let facts = SourceFacts::new(SourceKind::Device).with_seekable(false);
                Ok(Self::bare(name, facts, "character device"))
            }
            _ => {
                let file = rustix::fs::open(path, LOOK, Mode::empty()).map_err(failed)?;
                let mut source = Self::of_descriptor(endpoint, name, file.as_fd())?;
                source.file = Some(file);
                Ok(source)
            }
        }
    }

    /// Describes a source that is open.
    pub(crate) fn of_descriptor(
        endpoint: &Endpoint,
        name: &str,
        fd: BorrowedFd<'_>,
    ) -> Result<Self, Error> {
        let facts = zhaul::endpoint::source_facts(fd).map_err(|errno| not_usable(name, errno))?;
        if facts.kind == SourceKind::MessageSocket {
            return Err(Error::new(name, Problem::KeepsMessages));
        }
        let stat = rustix::fs::fstat(fd).map_err(|errno| Error::io(name, errno))?;
        let mut source = Self::bare(name, facts, source_words(facts.kind, endpoint));
        source.about.found_by = FoundBy::Descriptor;
        source.identity = Some(identity(&stat));
        if facts.kind == SourceKind::StreamSocket {
            let (what, way) = far_end(fd);
            source.about.what = what.to_owned();
            source.about.peer = way.as_ref().map(|way| way.peer.to_string());
            source.about.interface = way.and_then(|way| way.interface);
        }
        source.about.size_bytes = match facts.kind {
            SourceKind::Regular | SourceKind::Memfd => facts.version.map(|version| version.size),
            SourceKind::Block => block_bytes(fd),
            _ => None,
        };
        if matches!(facts.kind, SourceKind::Regular | SourceKind::Pseudo) {
            source.about.file_system = file_system_of(fd);
        }
        Ok(source)
    }

    fn bare(name: &str, facts: SourceFacts, what: &str) -> Self {
        Self {
            facts,
            about: AboutSource::of(name, &facts, what),
            position: None,
            identity: None,
            file: None,
        }
    }
}

impl Sink {
    /// Looks at a sink and leaves it as it is, or as it is not.
    ///
    /// # Errors
    /// If it may not be written or created, or can be no sink.
    pub fn look(endpoint: &Endpoint) -> Result<Self, Error> {
        let name = endpoint.label(Role::Sink);
        match endpoint {
            Endpoint::Standard => Self::of_descriptor(endpoint, &name, rustix::stdio::stdout()),
            Endpoint::Null => Ok(Self::bare(
                &name,
                SinkFacts::new(SinkKind::Null),
                "/dev/null",
            )),
            Endpoint::Tcp { host, port } => {
                let way = way_to_any(&name, &addresses(&name, host, *port)?)?;
                let mut sink =
                    Self::bare(&name, SinkFacts::stream_socket(way.ends), "TCP connection");
                sink.about.found_by = FoundBy::Route;
                sink.about.peer = Some(way.peer.to_string());
                sink.about.interface = way.interface;
                Ok(sink)
            }
            Endpoint::Unix(path) => {
                examine_socket(path, &name)?;
                Ok(Self::unix_socket(&name))
            }
            Endpoint::Abstract(socket) => {
                abstract_name::examine(socket).map_err(|errno| Error::io(&name, errno))?;
                Ok(Self::unix_socket(&name))
            }
            Endpoint::Path(path) => match rustix::fs::stat(path) {
                Ok(stat) => Self::of_name(path, &name, &stat),
                Err(Raw::NOENT) => Self::to_be_created(path, &name),
                Err(errno) => Err(Error::io(name, errno)),
            },
        }
    }

    fn unix_socket(name: &str) -> Self {
        let facts = SinkFacts::stream_socket(InPlaceEnd::Never);
        Self::bare(name, facts, "UNIX stream socket")
    }

    fn of_name(path: &Path, name: &str, stat: &Stat) -> Result<Self, Error> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::Directory => return Err(Error::new(name, Problem::Directory)),
            FileType::Socket => return Err(Error::new(name, Problem::SocketIsNoFile)),
            _ => rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS)
                .map_err(|errno| Error::io(name, errno))?,
        }
        let place = identity(stat);
        let mut sink = match kind {
            FileType::RegularFile => {
                let facts = SinkFacts::new(SinkKind::Regular).with_file(place, Some(0));
                let mut sink = Self::bare(name, facts, "regular file");
                sink.about.exists = Some(true);
                sink.about.size_bytes = u64::try_from(stat.st_size).ok();
                sink.about.file_system = Some(Host::describe(path).file_system);
                sink
            }
            FileType::BlockDevice => {
                let facts = SinkFacts::new(SinkKind::Block).with_device(stat.st_rdev, Some(0));
                Self::bare(name, facts, "block device")
            }
            FileType::Fifo => Self::bare(name, SinkFacts::new(SinkKind::Pipe), "FIFO"),
            FileType::CharacterDevice if is_memory_device(stat, NULL_MINOR) => {
                Self::bare(name, SinkFacts::new(SinkKind::Null), "/dev/null")
            }
            FileType::CharacterDevice => {
                Self::bare(name, SinkFacts::new(SinkKind::Device), "character device")
            }
            _ => Self::bare(
                name,
                SinkFacts::new(SinkKind::Other),
                "neither file nor stream",
            ),
        };
        sink.identity = Some(place);
        Ok(sink)
    }

    /// The regular file that opening it would create.
    fn to_be_created(path: &Path, name: &str) -> Result<Self, Error> {
        let failed = |errno: Raw| Error::io(name, errno);
        // A link that leads nowhere is no place for a new file.
        if rustix::fs::lstat(path).is_ok() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(failed(Raw::NOENT));
        }
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        rustix::fs::accessat(CWD, &parent, wanted, AtFlags::EACCESS).map_err(failed)?;
        let mut sink = Self::bare(name, SinkFacts::new(SinkKind::Regular), "regular file");
        sink.about.exists = Some(false);
        sink.about.file_system = Some(Host::describe(&parent).file_system);
        Ok(sink)
    }

    /// Describes a sink that is open.
    pub(crate) fn of_descriptor(
        endpoint: &Endpoint,
        name: &str,
        fd: BorrowedFd<'_>,
    ) -> Result<Self, Error> {
        let facts = zhaul::endpoint::sink_facts(fd).map_err(|errno| not_usable(name, errno))?;
        let stat = rustix::fs::fstat(fd).map_err(|errno| Error::io(name, errno))?;
        let mut sink = Self::bare(name, facts, sink_words(facts.kind, endpoint));
        sink.about.found_by = FoundBy::Descriptor;
        sink.identity = Some(identity(&stat));
        match facts.kind {
            SinkKind::StreamSocket => {
                let (what, way) = far_end(fd);
                sink.about.what = what.to_owned();
                sink.about.peer = way.as_ref().map(|way| way.peer.to_string());
                sink.about.interface = way.and_then(|way| way.interface);
            }
            SinkKind::Regular => {
                sink.about.exists = Some(true);
                sink.about.size_bytes = u64::try_from(stat.st_size).ok();
                sink.about.file_system = file_system_of(fd);
            }
            SinkKind::Pipe => sink.pipe_bytes = rustix::pipe::fcntl_getpipe_size(fd).ok(),
            _ => {}
        }
        Ok(sink)
    }

    fn bare(name: &str, facts: SinkFacts, what: &str) -> Self {
        Self {
            facts,
            about: AboutSink::of(name, &facts, what),
            identity: None,
            pipe_bytes: facts.kind.is_pipe().then_some(DEFAULT_PIPE_BYTES),
        }
    }
}

fn not_usable(name: &str, errno: Errno) -> Error {
    let problem = match errno {
        Errno::EISDIR => Problem::Directory,
        Errno::EBADF => Problem::NotOpen,
        other => Problem::Io(other.into()),
    };
    Error::new(name, problem)
}

/// The path of a socket must lead to a socket that this user may connect to.
fn examine_socket(path: &Path, name: &str) -> Result<(), Error> {
    let failed = |errno: Raw| Error::io(name, errno);
    let stat = rustix::fs::stat(path).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(Error::new(name, Problem::NotASocket));
    }
    rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).map_err(failed)
}

/// What kind of connection a stream socket is, and the way to its peer.
fn far_end(fd: BorrowedFd<'_>) -> (&'static str, Option<Way>) {
    let family = rustix::net::getsockname(fd).map(|address| address.address_family());
    match family {
        Ok(AddressFamily::UNIX) => ("UNIX stream socket", None),
        Ok(AddressFamily::INET | AddressFamily::INET6) => {
            let peer = rustix::net::getpeername(fd).ok().flatten();
            let way = peer
                .and_then(|peer| std::net::SocketAddr::try_from(peer).ok())
                .and_then(|peer| way_to(peer).ok());
            ("TCP connection", way)
        }
        _ => ("stream socket", None),
    }
}

fn position(fd: BorrowedFd<'_>) -> Option<u64> {
    rustix::fs::seek(fd, SeekFrom::Current(0)).ok()
}

/// A block device tells its size by its end; the position, which others may share, is put back.
fn block_bytes(fd: BorrowedFd<'_>) -> Option<u64> {
    let before = position(fd)?;
    let end = rustix::fs::seek(fd, SeekFrom::End(0)).ok();
    let _ = rustix::fs::seek(fd, SeekFrom::Start(before));
    end
}

fn file_system_of(fd: BorrowedFd<'_>) -> Option<String> {
    use std::os::fd::AsRawFd;
    let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
    let exists: io::Result<_> = std::fs::symlink_metadata(&path);
    exists.ok().map(|_| Host::describe(&path).file_system)
}

const fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// `/dev/null`, `/dev/zero`, `/dev/urandom` and their like: opening them does nothing, and only an
/// open descriptor tells whether they have positions.
fn opens_harmlessly(stat: &Stat) -> bool {
    rustix::fs::major(stat.st_rdev) == MEMORY_MAJOR
}

fn is_memory_device(stat: &Stat, minor: u32) -> bool {
    opens_harmlessly(stat) && rustix::fs::minor(stat.st_rdev) == minor
}

/// Never waits for the other side of a FIFO, or for a lease to be broken; never becomes the
/// controlling terminal.
const LOOK: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Of `mem(4)`, `null(4)`, `random(4)`.
const MEMORY_MAJOR: u32 = 1;
const NULL_MINOR: u32 = 3;

/// Sixteen slots of a page (`pipe(7)`), unless somebody changed it.
const DEFAULT_PIPE_BYTES: usize = 64 << 10;
