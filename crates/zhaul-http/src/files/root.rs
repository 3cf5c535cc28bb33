//! The served directory and the only way into it: openat2(2) confined below the root.
//!
//! Every file is found and opened by [`Root::open`]. It is found first, with `O_PATH`, and opened
//! only if it is a regular file: to open a FIFO would let its writer go on, and some devices act on
//! being opened. A directory stays as it was found, so that one that may be searched and not read
//! (mode 0711) does for what is in it. `RESOLVE_BENEATH` makes the kernel refuse a walk that
//! leaves the root by `..`, by a symbolic link or by a mount of procfs's magic links, at each step
//! and without a race; nothing here compares path strings to decide what is allowed.
//!
//! A walk is first tried with `RESOLVE_CACHED` (Linux 5.12): names and inodes that are in memory
//! are opened at once, anything that would wait for a disk comes back as [`Miss::NotCached`] and
//! is repeated on a thread that may block.
//!
//! On a network file system, or one that a program serves, opening and looking at a file wait for
//! somebody's answer even if its name is in memory. Where such a file system lies below the root, the
//! event loop therefore takes hold of a file by `O_PATH` first, which asks nobody, and leaves it alone
//! if it belongs to one.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arc_swap::ArcSwap;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;
use zhaul::{Timestamp, Version};

use crate::files::open_file::OpenFile;
use crate::files::storage::{FileSystem, Storage};
use crate::host::config::Symlinks;

/// Whether a look-up may wait for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// Only what is in memory; the caller is an event loop.
    Cached,
    /// All the way; the caller is a thread that may block.
    Full,
}

/// Why a path led to no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// It would have waited for a disk: ask again with [`Walk::Full`].
    NotCached,
    /// Nothing there that the policy lets a client see.
    NotFound,
    /// The file system's permissions refuse it.
    Forbidden,
    /// No descriptor or memory to open it with.
    Exhausted(Errno),
    /// Another program holds a write lease (an oplock of a file server, say) and has yet to let go; or
    /// names are being moved at this moment.
    Leased,
    /// The file system did not answer in time.
    TimedOut,
    /// The served directory was removed, and its path leads to no other.
    Gone,
    /// The device or file system failed.
    Failed(Errno),
}

impl From<Errno> for Miss {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN => Self::NotCached,
            Errno::BUSY => Self::Leased,
            Errno::ACCESS | Errno::PERM => Self::Forbidden,
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => Self::Exhausted(errno),
            // ELOOP: too many links, or a link where none is allowed; EXDEV: it left the root;
            // ENXIO: a socket or a device without a driver.
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::NAMETOOLONG
            | Errno::LOOP
            | Errno::XDEV
            | Errno::NXIO
            | Errno::NODEV
            | Errno::INVAL => Self::NotFound,
            _ => Self::Failed(errno),
        }
    }
}

/// What a path led to.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Open for reading, if it is a file; else as [`FIND`] has it.
    pub(crate) file: OpenFile,
    pub(crate) kind: Kind,
    pub(crate) version: Version,
}

/// The two kinds of file that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
}

/// The directory that is served.
#[derive(Debug)]
pub(crate) struct Root {
    /// Replaced when the path comes to lead to another directory.
    dir: ArcSwap<Directory>,
    path: PathBuf,
    symlinks: Symlinks,
    storage: Arc<Storage>,
    /// What an event loop may do by itself; changes with what is mounted.
    access: AtomicU8,
}

/// An event loop may open and look at everything.
const FREE: u8 = 0;
/// It has to make sure first that nobody is asked.
const GUARDED: u8 = 1;
/// All of it is out of bounds.
const BARRED: u8 = 2;

/// The directory that the root's path led to when it was last looked at.
#[derive(Debug)]
struct Directory {
    fd: OpenFile,
    /// Where it really is, for links that name their target from `/`.
    real: PathBuf,
    identity: (u64, u64),
    mount: u64,
    /// Its file system counts links, and a directory without any is one that was removed.
    has_links: bool,
}

impl Directory {
    fn open(path: &Path, storage: &Storage) -> io::Result<Self> {
        let real = path.canonicalize()?;
        let fd = rustix::fs::open(&real, FIND | OFlags::DIRECTORY, Mode::empty())?;
        let stat = statx(&fd, c"", AtFlags::EMPTY_PATH)?;
        let version = version_of(&stat);
        let mount = stat.stx_mnt_id;
        let (file_system, is_remote) = storage.of_mount(mount, mount, Some(fd.as_fd()));
        Ok(Self {
            fd: OpenFile::new(fd, file_system, is_remote),
            real,
            identity: (version.dev, version.ino),
            mount,
            has_links: version.nlink > 0,
        })
    }
}

/// Finds something without opening it.
const FIND: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// `openat2` answers EAGAIN when a rename raced with the walk, and while somebody else holds a
/// write lease on the file, which our attempt asks them to give up. It is tried this often without a
/// pause; who wants to wait for a lease does so without keeping a thread.
const ATTEMPTS: u32 = 4;

impl Root {
    pub(crate) fn open_root(
        path: &Path,
        symlinks: Symlinks,
        storage: Arc<Storage>,
    ) -> io::Result<Self> {
        // Independent of the working directory, which is not replaced when its path is.
        let path = std::path::absolute(path)?;
        let dir = ArcSwap::from_pointee(Directory::open(&path, &storage)?);
        let root = Self {
            dir,
            path,
            symlinks,
            storage,
            access: AtomicU8::new(BARRED),
        };
        root.classify();
        Ok(root)
    }

    /// Finds out what an event loop may do by itself, after something was mounted or the root was
    /// replaced.
    pub(crate) fn classify(&self) {
        let dir = self.dir.load();
        let mounts = self.storage.mounts();
        let passes_remote = match self.symlinks {
            Symlinks::Anywhere => mounts.has_remote(),
            Symlinks::Never | Symlinks::Inside => {
                mounts.has_remote_below(dir.real.as_os_str().as_bytes())
            }
        };
        let access = match (dir.fd.is_remote(), passes_remote) {
            (true, _) => BARRED,
            (false, true) => GUARDED,
            (false, false) => FREE,
        };
        self.access.store(access, Ordering::Relaxed);
    }

    /// The file system of the root itself.
    pub(crate) fn file_system(&self) -> Arc<FileSystem> {
        let dir = self.dir.load();
        self.storage.of_mount(dir.mount, dir.mount, None).0
    }

    /// The file system that a path below the root seems to lead to, links aside, and whether it may
    /// keep a caller waiting.
    pub(crate) fn file_system_of(&self, path: &[u8]) -> (Arc<FileSystem>, bool) {
        let dir = self.dir.load();
        let real = dir.real.as_os_str().as_bytes();
        self.storage.of_path(&[real, b"/", path].concat())
    }

    /// Looks whether the path that was given still leads to the same directory, and follows it if
    /// it does not: deploying by moving a link is moving the root. To be called now and then.
    pub(crate) fn refresh(&self) {
        let Ok(meta) = std::fs::metadata(&self.path) else {
            // In the middle of being replaced, or gone: what is open can still be served.
            return;
        };
        // A new directory can have the number of the one that was removed.
        if (meta.dev(), meta.ino()) == self.dir.load().identity && !self.is_removed() {
            return;
        }
        match Directory::open(&self.path, &self.storage) {
            Ok(dir) => {
                tracing::info!(
                    "{} now leads to {}",
                    self.path.display(),
                    dir.real.display()
                );
                self.dir.store(Arc::new(dir));
                self.classify();
            }
            Err(e) => tracing::warn!("cannot follow {}: {e}", self.path.display()),
        }
    }

    /// Says whether this kernel (and the sandbox around us) lets us use openat2(2) as we must.
    pub(crate) fn check_confinement(&self) -> Result<(), Errno> {
        // Whether it may be searched is told by a walk that goes all the way.
        self.openat2(c".", FIND, Walk::Full)?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::CACHED;
        match rustix::fs::openat2(&self.dir.load().fd, c".", FIND, Mode::empty(), resolve) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Opens `path` (relative; empty means the root itself) for reading.
    pub(crate) fn open(&self, path: &CStr, walk: Walk) -> Result<Opened, Miss> {
        match self.find(path, walk) {
            Ok(found) if found.kind == Kind::File => {
                let fd = self.reopen(&found.file, path, walk)?;
                let file = found.file.with(fd);
                Ok(Opened { file, ..found })
            }
            Ok(found) if !path.is_empty() || !self.is_removed() => Ok(found),
            // A directory that was removed is still there for those who have it open, and empty.
            Ok(_) | Err(Miss::NotFound) if self.is_removed() => {
                if walk == Walk::Cached {
                    return Err(Miss::NotCached);
                }
                self.refresh();
                if self.is_removed() {
                    return Err(Miss::Gone);
                }
                self.open(path, walk)
            }
            found => found,
        }
    }

    /// Finds what `path` leads to, without opening it.
    pub(crate) fn find(&self, path: &CStr, walk: Walk) -> Result<Opened, Miss> {
        let path = or_dot(path);
        let access = match walk {
            Walk::Cached => self.access.load(Ordering::Relaxed),
            Walk::Full => FREE,
        };
        let mut flags = AtFlags::EMPTY_PATH;
        match access {
            FREE => {}
            GUARDED => flags |= AtFlags::STATX_DONT_SYNC,
            _ => return Err(Miss::NotCached),
        }
        let fd = match self.openat2(path, FIND, walk) {
            Err(Errno::XDEV) if self.symlinks == Symlinks::Inside => match walk {
                Walk::Cached => return Err(Miss::NotCached),
                Walk::Full => self.find_by_real_path(path)?,
            },
            other => other?,
        };
        let stat = statx(&fd, c"", flags)?;
        let from = self.dir.load().mount;
        let asked = (walk == Walk::Full).then_some(fd.as_fd());
        let (file_system, is_remote) = self.storage.of_mount(stat.stx_mnt_id, from, asked);
        if is_remote && walk == Walk::Cached {
            return Err(Miss::NotCached);
        }
        let kind = match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            _ => return Err(Miss::NotFound),
        };
        Ok(Opened {
            file: OpenFile::new(fd, file_system, is_remote),
            kind,
            version: version_of(&stat),
        })
    }

    /// Opens a directory that was found, to be read.
    pub(crate) fn open_directory(found: &OpenFile) -> Result<OpenFile, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(found, c".", flags, Mode::empty()).map(|fd| found.with(fd))
    }

    /// Opens a file that was found.
    fn reopen(&self, found: &OpenFile, path: &CStr, walk: Walk) -> Result<OwnedFd, Errno> {
        let link = format!("/proc/self/fd/{}", found.as_fd().as_raw_fd());
        let open = || rustix::fs::open(&*link, OPEN, Mode::empty());
        let opened = match walk {
            Walk::Cached => open(),
            Walk::Full => again(open),
        };
        match opened {
            // Without procfs all that is left is to find it once more.
            Err(Errno::NOENT) => {}
            opened => return opened,
        }
        let opened = self.openat2(or_dot(path), OPEN, walk)?;
        if identity(&opened)? != identity(found)? {
            return Err(Errno::BUSY);
        }
        Ok(opened)
    }

    /// Whether the directory was removed that the root's path led to when it was last looked at.
    fn is_removed(&self) -> bool {
        let dir = self.dir.load();
        dir.has_links && Self::version_of(&dir.fd).is_ok_and(|version| version.nlink == 0)
    }

    /// Makes sure that nobody has to be asked for a file: EAGAIN if somebody has. `None` where that
    /// goes without saying.
    fn take_hold(&self, path: &CStr) -> Result<Option<Statx>, Errno> {
        match self.access.load(Ordering::Relaxed) {
            FREE => return Ok(None),
            GUARDED => {}
            _ => return Err(Errno::AGAIN),
        }
        let held = self.openat2(path, FIND, Walk::Cached)?;
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let stat = statx(&held, c"", flags)?;
        let from = self.dir.load().mount;
        if self.storage.is_remote(stat.stx_mnt_id, from) {
            return Err(Errno::AGAIN);
        }
        Ok(Some(stat))
    }

    /// The version of what `path` names now, by one statx(2). Only good for comparing with the
    /// version of a file that [`Root::open`] opened: the walk is not confined.
    ///
    /// # Errors
    /// EAGAIN if an event loop asks ([`Walk::Cached`]) and somebody else would have to be asked.
    pub(crate) fn version(&self, path: &CStr, walk: Walk) -> Result<Version, Errno> {
        let path = or_dot(path);
        if walk == Walk::Cached
            && let Some(stat) = self.take_hold(path)?
        {
            return Ok(version_of(&stat));
        }
        let dir = self.dir.load();
        Ok(version_of(&statx(&dir.fd, path, AtFlags::NO_AUTOMOUNT)?))
    }

    /// Whether there may be something of this name, be it a link that leads nowhere.
    pub(crate) fn has_name(&self, path: &CStr, walk: Walk) -> bool {
        let found = self.openat2(or_dot(path), FIND | OFlags::NOFOLLOW, walk);
        !matches!(found, Err(Errno::NOENT | Errno::NOTDIR))
    }

    /// Whether `path` is a link, or passes one, that may not be followed.
    pub(crate) fn refuses(&self, path: &CStr, walk: Walk) -> Result<bool, Miss> {
        match self.openat2(or_dot(path), FIND, walk) {
            Err(Errno::AGAIN) => Err(Miss::NotCached),
            found => Ok(matches!(found, Err(Errno::XDEV | Errno::LOOP))),
        }
    }

    /// The version of an open file now.
    pub(crate) fn version_of(fd: impl AsFd) -> Result<Version, Errno> {
        Ok(version_of(&statx(fd, c"", AtFlags::EMPTY_PATH)?))
    }

    fn openat2(&self, path: &CStr, flags: OFlags, walk: Walk) -> Result<OwnedFd, Errno> {
        let mut resolve = ResolveFlags::NO_MAGICLINKS;
        match self.symlinks {
            Symlinks::Never => resolve |= ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            Symlinks::Inside => resolve |= ResolveFlags::BENEATH,
            Symlinks::Anywhere => {}
        }
        if walk == Walk::Cached {
            let resolve = resolve | ResolveFlags::CACHED;
            return rustix::fs::openat2(&self.dir.load().fd, path, flags, Mode::empty(), resolve);
        }
        let dir = self.dir.load();
        again(|| rustix::fs::openat2(&dir.fd, path, flags, Mode::empty(), resolve))
    }

    /// Follows a link that names its target from `/`, which `RESOLVE_BENEATH` refuses even where
    /// the target is below the root: finds where the path really leads, and finds that, again
    /// confined and this time without any link.
    fn find_by_real_path(&self, path: &CStr) -> Result<OwnedFd, Errno> {
        let dir = self.dir.load();
        let found = rustix::fs::openat(&dir.fd, path, FIND, Mode::empty())?;
        let link = format!("/proc/self/fd/{}", found.as_raw_fd());
        let real = rustix::fs::readlink(link, Vec::new())?;
        let real = Path::new(std::ffi::OsStr::from_bytes(real.as_bytes()));
        let below = real.strip_prefix(&dir.real).map_err(|_| Errno::XDEV)?;
        let below = CString::new(below.as_os_str().as_bytes()).map_err(|_| Errno::XDEV)?;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        again(|| rustix::fs::openat2(&dir.fd, or_dot(&below), FIND, Mode::empty(), resolve))
    }
}

/// A path that is empty is that of the root itself.
fn or_dot(path: &CStr) -> &CStr {
    if path.is_empty() { c"." } else { path }
}

fn identity(fd: impl AsFd) -> Result<(u64, u64), Errno> {
    Root::version_of(fd).map(|version| (version.dev, version.ino))
}

/// Opens, also in the middle of a rename; for threads that may block.
fn again(open: impl Fn() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    for _ in 0..ATTEMPTS {
        match open() {
            Err(Errno::INTR | Errno::AGAIN) => {}
            done => return done,
        }
    }
    Err(Errno::BUSY)
}

fn statx(dir: impl AsFd, path: &CStr, flags: AtFlags) -> Result<Statx, Errno> {
    let wanted = StatxFlags::TYPE
        | StatxFlags::MODE
        | StatxFlags::INO
        | StatxFlags::SIZE
        | StatxFlags::MTIME
        | StatxFlags::CTIME
        | StatxFlags::NLINK
        | StatxFlags::MNT_ID;
    rustix::fs::statx(dir, path, flags, wanted)
}

fn version_of(stat: &Statx) -> Version {
    let time = |t: &rustix::fs::StatxTimestamp| Timestamp {
        seconds: t.tv_sec,
        nanoseconds: t.tv_nsec,
    };
    Version {
        dev: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        ino: stat.stx_ino,
        size: stat.stx_size,
        mtime: time(&stat.stx_mtime),
        ctime: time(&stat.stx_ctime),
        nlink: stat.stx_nlink.into(),
    }
}
