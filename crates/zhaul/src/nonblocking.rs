//! Calls that do not wait, on descriptors in blocking mode.
//!
//! What can be stopped must not be in a call when it is. Sends and receives know a flag for that
//! (MSG_DONTWAIT), splice has one for its pipe. Nothing else has: sendfile and splice into a socket
//! and writes into a pipe or terminal wait for as long as the receiver likes, unless O_NONBLOCK is
//! set; and that is a property of the open file description, which a thread that receives from the
//! same socket shares, or the shell that started this program. So:
//!
//! - **One direction of a socket** is given a timeout (`SO_SNDTIMEO`, `SO_RCVTIMEO`) of the shortest
//!   time that the kernel knows, a tick of 1 to 10 ms. It concerns calls in that direction only,
//!   and who else would make those meanwhile? It is put back afterwards.
//! - **Pipes and terminals** are opened anew through `/proc`, which gives a description with flags
//!   of its own.
//! - **Whatever else**, and sockets on which both directions must not wait at all, get O_NONBLOCK,
//!   which is taken back afterwards. Sharers of the description in this process are counted, so
//!   that the last to be done takes it back.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_timeout};

/// One end of a transfer, on which no call waits for longer than a tick.
#[derive(Debug)]
pub(crate) enum Impatient<'a> {
    /// As it is: in non-blocking mode already, or it never makes anybody wait but for a disk.
    Given(BorrowedFd<'a>),
    Socket(ShortTimeout<'a>),
    Anew(OwnedFd),
    Switched(NonBlocking<BorrowedFd<'a>>),
}

impl<'a> Impatient<'a> {
    /// An end that is read from.
    pub(crate) fn source(fd: BorrowedFd<'a>) -> Self {
        Self::new(fd, Timeout::Recv)
    }

    /// An end that is written to.
    pub(crate) fn sink(fd: BorrowedFd<'a>) -> Self {
        Self::new(fd, Timeout::Send)
    }

    fn new(fd: BorrowedFd<'a>, direction: Timeout) -> Self {
        let (Ok(flags), Ok(stat)) = (rustix::fs::fcntl_getfl(fd), rustix::fs::fstat(fd)) else {
            return Self::Given(fd);
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if flags.contains(OFlags::NONBLOCK)
            || matches!(kind, FileType::RegularFile | FileType::BlockDevice)
        {
            return Self::Given(fd);
        }
        if kind == FileType::Socket
            && let Some(socket) = ShortTimeout::set(fd, direction)
        {
            return Self::Socket(socket);
        }
        if let Some(anew) = open_anew(fd, flags, &stat) {
            return Self::Anew(anew);
        }
        NonBlocking::new(fd).map_or(Self::Given(fd), Self::Switched)
    }
}

impl AsFd for Impatient<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Given(fd) => *fd,
            Self::Socket(socket) => socket.fd,
            Self::Anew(fd) => fd.as_fd(),
            Self::Switched(fd) => fd.as_fd(),
        }
    }
}

/// A socket with the shortest timeout there is in one direction.
#[derive(Debug)]
pub(crate) struct ShortTimeout<'a> {
    fd: BorrowedFd<'a>,
    direction: Timeout,
    before: Option<Duration>,
}

impl<'a> ShortTimeout<'a> {
    fn set(fd: BorrowedFd<'a>, direction: Timeout) -> Option<Self> {
        let before = socket_timeout(fd, direction).ok()?;
        // The kernel makes whole ticks of it.
        set_socket_timeout(fd, direction, Some(Duration::from_micros(1))).ok()?;
        Some(Self {
            fd,
            direction,
            before,
        })
    }
}

impl Drop for ShortTimeout<'_> {
    fn drop(&mut self) {
        // It was possible before.
        let _ = set_socket_timeout(self.fd, self.direction, self.before);
    }
}

/// A pipe or terminal with a description of its own, in non-blocking mode; `None` if it is neither,
/// or that is not possible: no `/proc`, no permission, a pipe without a reader.
pub(crate) fn open_anew(fd: BorrowedFd<'_>, flags: OFlags, stat: &Stat) -> Option<OwnedFd> {
    let can_be = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => true,
        FileType::CharacterDevice => fd.is_terminal(),
        _ => false,
    };
    if !can_be {
        return None;
    }
    let path = format!("/proc/thread-self/fd/{}", fd.as_raw_fd());
    // A pipe with O_DIRECT keeps its packets apart.
    let kept = flags & (OFlags::RWMODE | OFlags::DIRECT);
    let own = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let anew = rustix::fs::open(path, kept | own, Mode::empty()).ok()?;
    let is_same = rustix::fs::fstat(&anew)
        .is_ok_and(|anew| (anew.st_dev, anew.st_ino) == (stat.st_dev, stat.st_ino));
    is_same.then_some(anew)
}

/// A descriptor in non-blocking mode, which goes back to blocking mode if it was in that before.
#[derive(Debug)]
pub(crate) struct NonBlocking<F: AsFd> {
    fd: F,
    /// By what its sharers are counted, if it was in blocking mode.
    key: Option<Key>,
}

impl NonBlocking<OwnedFd> {
    /// The descriptor, in the mode that it was in.
    #[cfg(feature = "tokio")]
    pub(crate) fn into_inner(self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }
}

impl<F: AsFd> NonBlocking<F> {
    /// Switches it.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub(crate) fn new(fd: F) -> io::Result<Self> {
        let key = switch(fd.as_fd())?;
        Ok(Self { fd, key })
    }

    /// Switches it if that is possible.
    #[cfg(feature = "tokio")]
    pub(crate) fn if_possible(fd: F) -> Self {
        let key = switch(fd.as_fd()).unwrap_or(None);
        Self { fd, key }
    }

    #[cfg(feature = "tokio")]
    pub(crate) const fn get_ref(&self) -> &F {
        &self.fd
    }
}

/// By what its sharers are counted from now on, if it was in blocking mode.
fn switch(fd: BorrowedFd<'_>) -> io::Result<Option<Key>> {
    let mut switched = switched();
    let flags = rustix::fs::fcntl_getfl(fd)?;
    let stat = rustix::fs::fstat(fd)?;
    let key = (stat.st_dev, stat.st_ino, (flags & OFlags::RWMODE).bits());
    let is_ours = switched.contains_key(&key);
    if flags.contains(OFlags::NONBLOCK) && !is_ours {
        return Ok(None);
    }
    rustix::io::ioctl_fionbio(fd, true)?;
    *switched.entry(key).or_insert(0) += 1;
    Ok(Some(key))
}

impl<F: AsFd> Drop for NonBlocking<F> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut switched = switched();
        let Some(sharers) = switched.get_mut(&key) else {
            return;
        };
        *sharers -= 1;
        if *sharers == 0 {
            switched.remove(&key);
            // It was possible before.
            let _ = rustix::io::ioctl_fionbio(&self.fd, false);
        }
    }
}

impl<F: AsFd> AsFd for NonBlocking<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<F: AsFd> AsRawFd for NonBlocking<F> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_fd().as_raw_fd()
    }
}

/// Device, inode and access mode. A socket has one description for its inode; of other things there
/// may be several, but those that share such a key were mostly one terminal's.
type Key = (u64, u64, u32);

fn switched() -> MutexGuard<'static, BTreeMap<Key, usize>> {
    static SWITCHED: Mutex<BTreeMap<Key, usize>> = Mutex::new(BTreeMap::new());
    // Nothing that can panic runs under the lock but allocation.
    SWITCHED.lock().unwrap_or_else(PoisonError::into_inner)
}
