//! Opening the two ends for a run.
//!
//! Everything is opened in non-blocking mode, so that a transfer can be cancelled at any moment;
//! standard streams, which others share, keep their mode, except that a pipe is opened anew for a
//! mode of its own. Nothing that exists is written over without consent, and a file is emptied last
//! of all, when everything else has succeeded.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno as Raw;
use rustix::net::Shutdown;
use zhaul::{SinkKind, SourceKind};

use super::abstract_name;
use super::endpoint::{Endpoint, Role};
use super::error::{Error, Problem};
use super::look::{Sink, Source};
use super::way::{addresses, connect};

/// How ends are opened.
#[derive(Clone, Copy, Debug)]
pub struct Consent {
    /// What is in a file or on a block device may be written over.
    pub overwrite: bool,
    /// How long to wait for the other side of a FIFO, and for a peer to answer.
    pub patience: Duration,
}

/// A source that is open.
#[derive(Debug)]
pub(crate) struct OpenSource {
    pub(crate) fd: OwnedFd,
    pub(crate) source: Source,
}

/// A sink that is open, and not yet emptied.
#[derive(Debug)]
pub(crate) struct OpenSink {
    pub(crate) fd: OwnedFd,
    pub(crate) sink: Sink,
    /// The file that was created for this run.
    created: Option<PathBuf>,
    is_peer: bool,
}

impl OpenSource {
    pub(crate) fn open(endpoint: &Endpoint, consent: Consent) -> Result<Self, Error> {
        let name = endpoint.label(Role::Source);
        let fd = match endpoint {
            Endpoint::Standard => standard(rustix::stdio::stdin(), OFlags::RDONLY, &name)?,
            Endpoint::Null => open(Path::new("/dev/null"), OFlags::RDONLY, &name)?,
            Endpoint::Tcp { host, port } => {
                let peer = addresses(&name, host, *port)?;
                unblocked(connect(&name, &peer, consent.patience)?.into(), &name)?
            }
            Endpoint::Unix(path) => unix(UnixStream::connect(path), &name)?,
            Endpoint::Abstract(socket) => unix(abstract_name::connect(socket), &name)?,
            Endpoint::Path(path) => open(path, OFlags::RDONLY, &name)?,
        };
        let mut source = Source::of_descriptor(endpoint, &name, fd.as_fd())?;
        if matches!(endpoint, Endpoint::Standard) {
            source.position = rustix::fs::seek(&fd, rustix::fs::SeekFrom::Current(0)).ok();
        } else if source.facts.kind == SourceKind::Pipe {
            await_writer(fd.as_fd(), &name, consent.patience)?;
        }
        source.file = fd.try_clone().ok();
        Ok(Self { fd, source })
    }
}

impl OpenSink {
    pub(crate) fn open(endpoint: &Endpoint, consent: Consent) -> Result<Self, Error> {
        let name = endpoint.label(Role::Sink);
        let mut created = None;
        let mut is_peer = false;
        let fd = match endpoint {
            Endpoint::Standard => standard(rustix::stdio::stdout(), OFlags::WRONLY, &name)?,
            Endpoint::Null => open(Path::new("/dev/null"), OFlags::WRONLY, &name)?,
            Endpoint::Tcp { host, port } => {
                is_peer = true;
                let peer = addresses(&name, host, *port)?;
                unblocked(connect(&name, &peer, consent.patience)?.into(), &name)?
            }
            Endpoint::Unix(path) => {
                is_peer = true;
                unix(UnixStream::connect(path), &name)?
            }
            Endpoint::Abstract(socket) => {
                is_peer = true;
                unix(abstract_name::connect(socket), &name)?
            }
            Endpoint::Path(path) => match create(path) {
                Ok(fd) => {
                    created = Some(path.clone());
                    fd
                }
                Err(Raw::EXIST) => existing(path, &name, consent)?,
                Err(errno) => return Err(Error::io(name, errno)),
            },
        };
        let mut sink = Sink::of_descriptor(endpoint, &name, fd.as_fd())?;
        if created.is_some() {
            sink.about.exists = Some(false);
        }
        let is_named = matches!(endpoint, Endpoint::Path(_));
        sink.about.emptied = is_named && created.is_none() && sink.facts.kind == SinkKind::Regular;
        Ok(Self {
            fd,
            sink,
            created,
            is_peer,
        })
    }

    /// Takes away what was in a file that is to be replaced.
    pub(crate) fn empty(&self) -> Result<(), Error> {
        if !self.sink.about.emptied {
            return Ok(());
        }
        rustix::fs::ftruncate(&self.fd, 0)
            .map_err(|errno| Error::io(self.sink.about.name.clone(), errno))
    }

    /// Removes the file that was created for a run that moved nothing and failed.
    pub(crate) fn discard(&self) {
        let Some(path) = &self.created else { return };
        let same = |stat: &rustix::fs::Stat| Some((stat.st_dev, stat.st_ino)) == self.sink.identity;
        // Somebody else may have put another file in its place.
        if rustix::fs::lstat(path).is_ok_and(|stat| same(&stat)) {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Tells a peer that this was all, and waits until its kernel has it. What it says meanwhile is
    /// read off: closing with unread bytes would reset the connection and might cost it the last
    /// ones.
    pub(crate) fn hang_up(&self, patience: Duration) -> Parting {
        if !self.is_peer {
            return Parting::Done;
        }
        if rustix::net::shutdown(&self.fd, Shutdown::Write).is_err() {
            // It was connected, and is so no more.
            return Parting::Reset;
        }
        let deadline = Instant::now() + patience;
        let mut waste = [0; 4096];
        let left = || zhaul_sys::siocoutq::unacknowledged(self.fd.as_fd()).unwrap_or(0);
        while Instant::now() < deadline {
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            let tick = timespec(Duration::from_millis(5));
            let said = poll(&mut fds, Some(&tick)).is_ok_and(|ready| ready > 0);
            match said.then(|| rustix::io::read(&self.fd, &mut waste)) {
                Some(Ok(0)) => return Parting::Done,
                Some(Err(Raw::CONNRESET | Raw::PIPE)) => return Parting::Reset,
                Some(Ok(_) | Err(Raw::INTR | Raw::AGAIN)) => {}
                Some(Err(_)) => return Parting::Done,
                None if left() == 0 => return Parting::Done,
                None => {}
            }
        }
        match left() {
            0 => Parting::Done,
            left => Parting::Pending(left as u64),
        }
    }
}

/// How the connection to a peer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    /// It has all of it, or is no peer.
    Done,
    /// It reset the connection, and may not have all of it.
    Reset,
    /// So many bytes are on their way still.
    Pending(u64),
}

fn open(path: &Path, how: OFlags, name: &str) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, how | QUIETLY, Mode::empty()).map_err(|errno| Error::io(name, errno))
}

fn create(path: &Path) -> Result<OwnedFd, Raw> {
    let how = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | QUIETLY;
    rustix::fs::open(path, how, Mode::from_raw_mode(0o666))
}

/// Something is there already: what it is decides whether it may be written to.
fn existing(path: &Path, name: &str, consent: Consent) -> Result<OwnedFd, Error> {
    let failed = |errno: Raw| Error::io(name, errno);
    let stat = rustix::fs::stat(path).map_err(failed)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let how = match kind {
        FileType::RegularFile if !consent.overwrite => {
            return Err(Error::new(name, Problem::Exists));
        }
        FileType::BlockDevice if !consent.overwrite => {
            return Err(Error::new(name, Problem::Device));
        }
        // Refused while a file system on it is mounted.
        FileType::BlockDevice => OFlags::WRONLY | OFlags::EXCL,
        _ => OFlags::WRONLY,
    };
    if kind != FileType::Fifo {
        return open(path, how, name);
    }
    let deadline = Instant::now() + consent.patience;
    loop {
        match rustix::fs::open(path, how | QUIETLY, Mode::empty()) {
            Err(Raw::NXIO) if Instant::now() < deadline => std::thread::sleep(LOOK_AGAIN),
            Err(Raw::NXIO) => {
                let whom = "nobody opened it for reading";
                let waited = consent.patience;
                return Err(Error::new(name, Problem::NobodyThere { whom, waited }));
            }
            done => return done.map_err(failed),
        }
    }
}

fn unix(connected: io::Result<UnixStream>, name: &str) -> Result<OwnedFd, Error> {
    let stream = connected.map_err(|error| Error::io(name, error))?;
    unblocked(stream.into(), name)
}

fn unblocked(fd: OwnedFd, name: &str) -> Result<OwnedFd, Error> {
    rustix::io::ioctl_fionbio(&fd, true).map_err(|errno| Error::io(name, errno))?;
    Ok(fd)
}

/// A standard stream: a pipe is opened anew where that is allowed, all else is shared.
fn standard(fd: BorrowedFd<'_>, how: OFlags, name: &str) -> Result<OwnedFd, Error> {
    let failed = |errno: Raw| Error::io(name, errno);
    let stat = rustix::fs::fstat(fd).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo {
        let again = format!("/proc/self/fd/{}", fd.as_raw_fd());
        if let Ok(own) = rustix::fs::open(again, how | QUIETLY, Mode::empty()) {
            return Ok(own);
        }
    }
    fd.try_clone_to_owned()
        .map_err(|error| Error::io(name, error))
}

/// Without a writer a FIFO reads as ended. Linux reports no end before the first writer has come and
/// gone, so `poll(2)` waits for one.
fn await_writer(fd: BorrowedFd<'_>, name: &str, patience: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(0) => {
                let whom = "nobody wrote to it";
                return Err(Error::new(
                    name,
                    Problem::NobodyThere {
                        whom,
                        waited: patience,
                    },
                ));
            }
            Ok(_) => return Ok(()),
            Err(Raw::INTR) => {}
            Err(errno) => return Err(Error::io(name, errno)),
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).unwrap_or(Timespec {
        tv_sec: i64::MAX,
        tv_nsec: 0,
    })
}

const QUIETLY: OFlags = OFlags::NONBLOCK
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

const LOOK_AGAIN: Duration = Duration::from_millis(20);
