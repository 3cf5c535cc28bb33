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
//!   and who else would make those meanwhile? It is put back afterwards, by the last of those in
//!   this process who use it so.
//! - **Pipes and terminals** are opened anew through `/proc`, which gives a description with flags
//!   of its own.
//! - **Whatever else**, and sockets on which both directions must not wait at all, get O_NONBLOCK,
//!   which is taken back afterwards. Sharers of the description in this process are counted (told
//!   apart by `kcmp(2)`), so that the last to be done takes it back.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_timeout};
use zhaul_sys::kcmp::is_same_description;

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
        let Ok(stat) = rustix::fs::fstat(fd) else {
            return Self::Given(fd);
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if matches!(kind, FileType::RegularFile | FileType::BlockDevice) {
            return Self::Given(fd);
        }
        let mut switched = switched();
        let Ok(flags) = rustix::fs::fcntl_getfl(fd) else {
            return Self::Given(fd);
        };
        if flags.contains(OFlags::NONBLOCK) {
            // It may be so only as long as somebody else here needs it.
            let key = join(&mut switched, fd, &stat, flags);
            return match key {
                Some(_) => Self::Switched(NonBlocking { fd, key }),
                None => Self::Given(fd),
            };
        }
        drop(switched);
        if kind == FileType::Socket
            && let Some(socket) = ShortTimeout::set(fd, &stat, direction)
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
    key: TimeoutKey,
}

/// Device and inode, of which a socket has one; and whether it is the timeout of receiving.
type TimeoutKey = (u64, u64, bool);

/// How many need it short, and what it was before.
type Shortened = (usize, Option<Duration>);

impl<'a> ShortTimeout<'a> {
    fn set(fd: BorrowedFd<'a>, stat: &Stat, direction: Timeout) -> Option<Self> {
        let key = (stat.st_dev, stat.st_ino, matches!(direction, Timeout::Recv));
        let mut shortened = shortened();
        let (sharers, before) = match shortened.get(&key) {
            Some(&(sharers, before)) => (sharers, before),
            None => (0, socket_timeout(fd, direction).ok()?),
        };
        // The kernel makes whole ticks of it.
        set_socket_timeout(fd, direction, Some(Duration::from_micros(1))).ok()?;
        shortened.insert(key, (sharers + 1, before));
        Some(Self { fd, direction, key })
    }
}

impl Drop for ShortTimeout<'_> {
    fn drop(&mut self) {
        let mut shortened = shortened();
        match shortened.get_mut(&self.key) {
            Some((sharers, _)) if *sharers > 1 => *sharers -= 1,
            Some(&mut (_, before)) => {
                shortened.remove(&self.key);
                // It was possible before.
                let _ = set_socket_timeout(self.fd, self.direction, before);
            }
            None => {}
        }
    }
}

fn shortened() -> MutexGuard<'static, BTreeMap<TimeoutKey, Shortened>> {
    static SHORTENED: Mutex<BTreeMap<TimeoutKey, Shortened>> = Mutex::new(BTreeMap::new());
    // Nothing that can panic runs under the lock but allocation.
    SHORTENED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pipe or terminal with a description of its own, in non-blocking mode; `None` if it is neither,
/// or that is not possible: no `/proc`, no permission, a pipe without a reader, a device that is
/// another one for whoever opens it.
pub(crate) fn open_anew(fd: BorrowedFd<'_>, flags: OFlags, stat: &Stat) -> Option<OwnedFd> {
    let can_be = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => true,
        FileType::CharacterDevice => names_one_line(stat.st_rdev) && fd.is_terminal(),
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
        .is_ok_and(|anew| identity(&anew) == identity(stat) && anew.st_rdev == stat.st_rdev);
    is_same.then_some(anew)
}

/// Whether a terminal is the same one each time its device is opened. `/dev/ptmx` (5:2), which is
/// what the master of a pseudoterminal says it is, makes a new pair. `/dev/tty` (5:0) is the
/// opener's, `/dev/console` (5:1) and `/dev/tty0` (4:0) that of the moment.
fn names_one_line(device: u64) -> bool {
    let device = (rustix::fs::major(device), rustix::fs::minor(device));
    !matches!(device, (5, 0..=2) | (4, 0))
}

const fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// A descriptor in non-blocking mode, which goes back to blocking mode if it was in that before.
#[derive(Debug)]
pub(crate) struct NonBlocking<F: AsFd> {
    fd: F,
    /// Where its sharers are counted, if it was in blocking mode.
    key: Option<(u64, u64)>,
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

/// Where its sharers are counted from now on, if it was in blocking mode.
fn switch(fd: BorrowedFd<'_>) -> io::Result<Option<(u64, u64)>> {
    let mut switched = switched();
    let flags = rustix::fs::fcntl_getfl(fd)?;
    let stat = rustix::fs::fstat(fd)?;
    if flags.contains(OFlags::NONBLOCK) {
        return Ok(join(&mut switched, fd, &stat, flags));
    }
    rustix::io::ioctl_fionbio(fd, true)?;
    let key = identity(&stat);
    // Whoever took it back meanwhile shares it all the same.
    if join(&mut switched, fd, &stat, flags).is_none() {
        switched.entry(key).or_default().push(vec![fd.as_raw_fd()]);
    }
    Ok(Some(key))
}

impl<F: AsFd> Drop for NonBlocking<F> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut switched = switched();
        let Some(descriptions) = switched.get_mut(&key) else {
            return;
        };
        let fd = self.fd.as_fd().as_raw_fd();
        let Some(index) = descriptions.iter().position(|them| them.contains(&fd)) else {
            return;
        };
        let sharers = &mut descriptions[index];
        if let Some(own) = sharers.iter().position(|&sharer| sharer == fd) {
            sharers.swap_remove(own);
        }
        if sharers.is_empty() {
            descriptions.swap_remove(index);
            if descriptions.is_empty() {
                switched.remove(&key);
            }
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

/// The descriptors that share each description that was switched here, by device and inode. Several
/// descriptions may have the same: of a pipe, of a terminal, of whatever has no inode of its own,
/// such as eventfds. Each descriptor is open as long as it is in here.
type Switched = BTreeMap<(u64, u64), Vec<Vec<RawFd>>>;

/// Counts a descriptor among those that share its description; `None` if that was not switched here.
fn join(
    switched: &mut Switched,
    fd: BorrowedFd<'_>,
    stat: &Stat,
    flags: OFlags,
) -> Option<(u64, u64)> {
    let (key, fd) = (identity(stat), fd.as_raw_fd());
    // A socket has one description for its inode.
    let is_only = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
    let is_shared = |sharers: &&mut Vec<RawFd>| {
        is_only
            || sharers.contains(&fd)
            // Where the kernel does not tell, one in non-blocking mode is taken for a duplicate.
            || is_same_description(sharers[0], fd).unwrap_or(flags.contains(OFlags::NONBLOCK))
    };
    let sharers = switched.get_mut(&key)?.iter_mut().find(is_shared)?;
    sharers.push(fd);
    Some(key)
}

fn switched() -> MutexGuard<'static, Switched> {
    static SWITCHED: Mutex<Switched> = Mutex::new(BTreeMap::new());
    // Nothing that can panic runs under the lock but allocation.
    SWITCHED.lock().unwrap_or_else(PoisonError::into_inner)
}
