//! A read lease on a file, and one place where its break is noticed.
//!
//! While a [`Lease`] is held, whoever opens the file for writing or truncates it waits, and the
//! holder is told ([`Lease::is_broken`], [`Lease::broken`], [`Lease::on_break`]). The holder
//! decides when to let the editor in, by dropping the lease; the kernel stops waiting for it
//! after `/proc/sys/fs/lease-break-time` (45 s by default), so a lease is a warning with a grace
//! period and no lock. unlink, chmod and rename do not break it. An editor that had the file open
//! before makes the lease unavailable ([`LeaseError::HasWriter`]).
//!
//! # When the flight of pages ends
//! To keep edits out of bytes already sent in place, the lease must be held until nothing refers
//! to the pages any more. Across a real wire that is when the peer acknowledged (`SIOCOUTQ` 0).
//! On loopback it is never observable (measured on Linux 6.18: `SIOCOUTQ` is 0 while the receiver
//! has not read a byte, a pwrite to the file afterwards is seen by the receiver, and closing with
//! a linger of 0 does not withdraw it). So under a lease the planner sends in place only to sinks
//! whose flight ends ([`crate::peer`]), and copies to the others.
//!
//! # How a break is noticed
//! One thread, started with the first lease, blocks a real-time signal and SIGIO in itself alone
//! and waits for them. Every lease directs its signal to that thread (F_SETOWN_EX with
//! F_OWNER_TID) before it is taken, so neither handlers nor the masks of other threads matter,
//! and the SIGIO that the kernel falls back to when the real-time queue is full kills nobody: it
//! makes the thread look at every lease. A signal alone proves nothing, since it may be late and
//! its descriptor number used again: F_GETLEASE decides.
//!
//! A lease belongs to an open file description, so each one opens the file anew through
//! `/proc/self/fd`; several leases on one file do not disturb one another, and the caller's
//! descriptor is left alone.
//!
//! Any kernel. [F_SETLEASE](https://man7.org/linux/man-pages/man2/F_SETLEASE.2const.html)

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno as Raw;

use zhaul_core::{Errno, Refusal, SourceFacts, Stability};
use zhaul_sys::lease::{LeaseKind, Thread, lease, set_lease, set_owner_thread, set_signal};
use zhaul_sys::sigwait::{SIGIO, SignalSet, block_in_this_thread, first_realtime_signal, wait};

use crate::cancel::CancelToken;
use crate::endpoint::{FileSystem, file_system};
use crate::errno::{errno_of, of_rustix};

/// A read lease. Dropping it lets waiting editors in.
pub struct Lease {
    shared: Arc<Shared>,
    watcher: &'static Watcher,
    identity: (u64, u64),
}

/// What the watching thread shares with the owner of the lease.
struct Shared {
    fd: OwnedFd,
    /// F_SETLEASE succeeded; before that, no lease is to be expected.
    armed: AtomicBool,
    broken: CancelToken,
    broken_at: OnceLock<Instant>,
    callbacks: Mutex<Vec<Callback>>,
}

type Callback = Box<dyn FnOnce() + Send>;

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseError {
    /// Only regular files have leases.
    NotRegular,
    /// A lease on such a file "succeeds" and means nothing: memfd, procfs, network file systems.
    Meaningless,
    /// Somebody has the file open for writing, or mapped so.
    HasWriter,
    /// The file belongs to somebody else, and this process lacks CAP_LEASE.
    NotOwner,
    /// The kernel has been told not to give leases, or the file system gives none.
    Unsupported,
    /// This process was forked from one that holds leases; the thread that watches them is there.
    Forked,
    /// Another call failed.
    Errno(Errno),
}

impl Lease {
    /// Takes a read lease on the file that this descriptor refers to.
    ///
    /// # Errors
    /// See [`LeaseError`]. Never waits.
    pub fn acquire(file: impl AsFd) -> Result<Self, LeaseError> {
        let file = file.as_fd();
        let stat = rustix::fs::fstat(file).map_err(LeaseError::from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(LeaseError::NotRegular);
        }
        if !is_meaningful(file, stat.st_nlink == 0) {
            return Err(LeaseError::Meaningless);
        }
        let fd = open_anew(file)?;
        let watcher = Watcher::running()?;
        let shared = Arc::new(Shared {
            fd,
            armed: AtomicBool::new(false),
            broken: CancelToken::new(),
            broken_at: OnceLock::new(),
            callbacks: Mutex::default(),
        });
        // Known to the watcher before the first signal can come, and removed again on any error.
        watcher.add(&shared);
        let lease = Self {
            shared,
            watcher,
            identity: (stat.st_dev, stat.st_ino),
        };
        lease.arm()?;
        Ok(lease)
    }

    fn arm(&self) -> Result<(), LeaseError> {
        let fd = self.shared.fd.as_fd();
        let refused = |error: std::io::Error| LeaseError::from_lease_call(errno_of(&error));
        set_owner_thread(fd, self.watcher.thread).map_err(refused)?;
        set_signal(fd, self.watcher.signal).map_err(refused)?;
        set_lease(fd, LeaseKind::Read).map_err(refused)?;
        self.shared.armed.store(true, Ordering::SeqCst);
        // A break between the last two lines found the lease unarmed.
        self.shared.check();
        Ok(())
    }

    /// True once somebody wants to write to the file.
    pub fn is_broken(&self) -> bool {
        self.shared.broken.is_cancelled()
    }

    /// When that was noticed. The kernel takes the lease away `/proc/sys/fs/lease-break-time` after
    /// it happened.
    pub fn broken_at(&self) -> Option<Instant> {
        self.shared.broken_at.get().copied()
    }

    /// Device and inode of the file that it is on.
    pub const fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// What tells of the break, for whoever waits in `poll(2)`.
    pub(crate) fn break_token(&self) -> &CancelToken {
        &self.shared.broken
    }

    /// Waits until somebody wants to write to the file.
    #[cfg(feature = "tokio")]
    pub async fn broken(&self) {
        self.shared.broken.cancelled().await;
    }

    /// Calls `callback` when somebody wants to write to the file, at once if that is so already.
    /// It runs on the watching thread and must be short; a panic in it goes no further.
    pub fn on_break(&self, callback: impl FnOnce() + Send + 'static) {
        let mut callbacks = self.shared.callbacks();
        if !self.is_broken() {
            callbacks.push(Box::new(callback));
            return;
        }
        drop(callbacks);
        callback();
    }

    /// Gives the lease up and lets waiting editors in; the same as dropping it.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.watcher.remove(self.shared.fd.as_raw_fd());
        // Closing the description would end the lease as well, but the watcher may be holding
        // the last reference for a moment.
        let _ = set_lease(self.shared.fd.as_fd(), LeaseKind::None);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("fd", &self.shared.fd)
            .field("broken", &self.is_broken())
            .finish()
    }
}

impl Shared {
    /// Asks the kernel whether the lease still stands.
    fn check(&self) {
        if !self.armed.load(Ordering::SeqCst) || self.broken.is_cancelled() {
            return;
        }
        if !matches!(lease(self.fd.as_fd()), Ok(LeaseKind::Read)) {
            self.break_now();
        }
    }

    fn break_now(&self) {
        let callbacks = {
            let mut callbacks = self.callbacks();
            let _ = self.broken_at.set(Instant::now());
            self.broken.cancel();
            std::mem::take(&mut *callbacks)
        };
        for callback in callbacks {
            // The thread serves all leases; the panic has been reported by the hook.
            let _ = catch_unwind(AssertUnwindSafe(callback));
        }
    }

    fn callbacks(&self) -> MutexGuard<'_, Vec<Callback>> {
        self.callbacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that waits for the signals of all leases.
struct Watcher {
    thread: Thread,
    signal: i32,
    leases: Arc<Leases>,
    /// The process that the thread lives in: a forked one has no such thread.
    process: u32,
}

type Leases = Mutex<HashMap<RawFd, Arc<Shared>>>;

impl Watcher {
    /// The one watcher of this process, started if need be. A failed start is tried again with
    /// the next lease.
    fn running() -> Result<&'static Self, LeaseError> {
        static RUNNING: OnceLock<Watcher> = OnceLock::new();
        static STARTING: Mutex<()> = Mutex::new(());
        if let Some(watcher) = RUNNING.get() {
            return watcher.in_this_process();
        }
        let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = RUNNING.get() {
            return watcher.in_this_process();
        }
        let watcher = Self::start().map_err(|error| LeaseError::Errno(errno_of(&error)))?;
        Ok(RUNNING.get_or_init(|| watcher))
    }

    fn start() -> std::io::Result<Self> {
        let signal = first_realtime_signal() + SIGNAL_OFFSET;
        let set = SignalSet::of(&[signal, SIGIO])?;
        let leases = Arc::<Leases>::default();
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let watched = Arc::clone(&leases);
        std::thread::Builder::new()
            .name("zhaul-lease".into())
            .spawn(move || {
                let blocked = block_in_this_thread(&set);
                let thread = Thread::current();
                let go_on = blocked.is_ok();
                // The starter waits for this message and is there to receive it.
                let _ = ready.send(blocked.map(|()| thread));
                if go_on {
                    let _last_act = BreakAll(&watched);
                    watch(&set, signal, &watched);
                }
            })?;
        let thread = started.recv().map_err(std::io::Error::other)??;
        Ok(Self {
            thread,
            signal,
            leases,
            process: std::process::id(),
        })
    }

    fn in_this_process(&'static self) -> Result<&'static Self, LeaseError> {
        if self.process == std::process::id() {
            Ok(self)
        } else {
            Err(LeaseError::Forked)
        }
    }

    fn add(&self, shared: &Arc<Shared>) {
        lock(&self.leases).insert(shared.fd.as_raw_fd(), Arc::clone(shared));
    }

    fn remove(&self, fd: RawFd) {
        lock(&self.leases).remove(&fd);
    }
}

/// Should the thread ever end, no break would be noticed any more: all leases count as broken.
struct BreakAll<'a>(&'a Leases);

impl Drop for BreakAll<'_> {
    fn drop(&mut self) {
        let all: Vec<_> = lock(self.0).values().cloned().collect();
        for shared in all {
            shared.break_now();
        }
    }
}

/// Waits for signals for as long as the process lives.
fn watch(set: &SignalSet, signal: i32, leases: &Leases) {
    loop {
        // EINTR: a handler of some other signal ran on this thread.
        let Ok(received) = wait(set, None) else {
            continue;
        };
        let about = match received.fd {
            Some(fd) if received.signal == signal => {
                lock(leases).get(&fd).cloned().map(|l| vec![l])
            }
            // SIGIO: the queue of real-time signals was full and breaks were lost.
            _ => Some(lock(leases).values().cloned().collect()),
        };
        for shared in about.unwrap_or_default() {
            shared.check();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks but allocation.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A lease on a memfd or in procfs is granted and never broken. On a network file system editors
/// on other hosts do not break it.
fn is_meaningful(file: impl AsFd, unlinked: bool) -> bool {
    let file = file.as_fd();
    match file_system(file) {
        FileSystem::MadeUp => return false,
        FileSystem::Memory if unlinked => return false,
        _ => {}
    }
    !is_shared_by_machines(file)
}

/// True if the file may lie on another machine, whose editors do not break a lease taken here; also
/// if that cannot be found out.
pub fn is_shared_by_machines(file: impl AsFd) -> bool {
    let Ok(statfs) = rustix::fs::fstatfs(file) else {
        return true;
    };
    #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    let magic = statfs.f_type as u32;
    NETWORK_FILE_SYSTEMS.contains(&magic)
}

/// Whether the lease is one that a transfer of this source can rely on. Streams and made-up files
/// need none.
pub(crate) fn covers(
    lease: Option<&Lease>,
    source: &SourceFacts,
    stability: Stability,
) -> Result<(), Refusal> {
    if stability != Stability::Leased || !source.kind.is_page_cache() || source.is_sealed() {
        return Ok(());
    }
    let lease = lease.ok_or(Refusal::NoLease)?;
    match source.version {
        Some(version) if (version.dev, version.ino) == lease.identity() => Ok(()),
        _ => Err(Refusal::LeaseOnAnotherFile),
    }
}

/// A description of our own, so that the lease and its signal are nobody else's.
fn open_anew(file: impl AsFd) -> Result<OwnedFd, LeaseError> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

impl LeaseError {
    fn from_lease_call(errno: Errno) -> Self {
        match errno {
            Errno::EAGAIN => Self::HasWriter,
            Errno::EACCES => Self::NotOwner,
            Errno::EINVAL => Self::Unsupported,
            other => Self::Errno(other),
        }
    }
}

impl From<Raw> for LeaseError {
    fn from(errno: Raw) -> Self {
        Self::Errno(of_rustix(errno))
    }
}

impl fmt::Display for LeaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRegular => f.write_str("only regular files have leases"),
            Self::Meaningless => f.write_str("a lease on such a file means nothing"),
            Self::HasWriter => f.write_str("somebody has the file open for writing"),
            Self::NotOwner => f.write_str("the file belongs to somebody else (CAP_LEASE)"),
            Self::Unsupported => f.write_str("the file system gives no leases"),
            Self::Forked => {
                f.write_str("leases are watched in the process this one was forked from")
            }
            Self::Errno(errno) => write!(f, "lease: {errno}"),
        }
    }
}

impl std::error::Error for LeaseError {}

/// A real-time signal that others are unlikely to wait for. It is directed at our own thread, so
/// a handler that the program installs for it is never run by it.
const SIGNAL_OFFSET: i32 = 11;

/// NFS, SMB and CIFS, 9p, AFS, Ceph, Coda, FUSE (whose server may be anywhere), OCFS2, GFS2.
const NETWORK_FILE_SYSTEMS: [u32; 12] = [
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x0102_1997,
    0x5346_414f,
    0x6b41_4653,
    0x00c3_6400,
    0x7375_7245,
    0x6573_5546,
    0x7461_636f,
    0x0116_1970,
];
