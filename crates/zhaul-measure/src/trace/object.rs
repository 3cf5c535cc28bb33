//! What descriptors refer to, as far as it decides what moving bytes costs.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

/// The kind of a thing that bytes come from or go to.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// A regular file that goes through the page cache.
    File,
    /// Opened by a path and closed before it could be looked at: most likely a file.
    Opened,
    /// A regular file opened with `O_DIRECT`.
    DirectFile,
    /// A file whose content is made when it is read: procfs, sysfs and the like.
    Generated,
    /// A memory file (`memfd_create(2)`).
    Memfd,
    /// A disk or a partition.
    BlockDevice,
    /// `/dev/null`, which takes bytes without looking at them.
    Null,
    /// `/dev/zero`: bytes are filled in, not copied.
    Zero,
    /// A terminal.
    Terminal,
    /// Any other character device.
    Device,
    /// A directory.
    Directory,
    /// A pipe, with or without a name.
    Pipe,
    /// A TCP connection.
    Tcp,
    /// A TCP connection that the kernel encrypts (kTLS).
    TlsTcp,
    /// UDP.
    Udp,
    /// A UNIX socket.
    Unix,
    /// A socket of another family.
    Socket,
    /// eventfd, epoll, timerfd, signalfd, inotify: what is read there is news, not data.
    Event,
    /// The memory of the program: it made the bytes, or what it did with them was not seen.
    Program,
    /// It was gone before it could be looked at, or may not be looked at.
    #[default]
    Unknown,
}

impl Kind {
    /// The word printed in verdicts.
    pub const fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Opened => "file?",
            Self::DirectFile => "file (O_DIRECT)",
            Self::Generated => "procfs",
            Self::Memfd => "memfd",
            Self::BlockDevice => "disk",
            Self::Null => "/dev/null",
            Self::Zero => "/dev/zero",
            Self::Terminal => "terminal",
            Self::Device => "device",
            Self::Directory => "directory",
            Self::Pipe => "pipe",
            Self::Tcp | Self::Unix | Self::Socket => "socket",
            Self::TlsTcp => "socket (kTLS)",
            Self::Udp => "socket (UDP)",
            Self::Event => "event",
            Self::Program => "program",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it is a socket of any family.
    pub const fn is_socket(self) -> bool {
        matches!(
            self,
            Self::Tcp | Self::TlsTcp | Self::Udp | Self::Unix | Self::Socket
        )
    }

    /// Whether bytes stay there, so that files can be copied onto each other.
    pub const fn is_stored(self) -> bool {
        matches!(
            self,
            Self::File | Self::Opened | Self::DirectFile | Self::Memfd | Self::BlockDevice
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A file, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Major and minor number of the file system's device.
    pub device: (u32, u32),
    /// The inode's number.
    pub inode: u64,
}

/// A pipe, the same seen from both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PipeId {
    /// By the number of its inode.
    Inode(u64),
    /// Seen when it was made, and gone before its inode could be looked up.
    Made(u64),
}

/// What an open file description refers to. Duplicated descriptors share one.
///
/// What is known from looking at a process may turn out to be wrong: by the time of the look, the
/// descriptor had been closed and its number used again. So each look stands until a close of its
/// descriptor is met that happened before it.
#[derive(Debug, Default)]
pub struct Object {
    kind: Cell<Kind>,
    /// What it is by the call that made it, if no look stands.
    made_as: Kind,
    /// It is mapped as a program or library: what is written out of it are its constants.
    image: Cell<bool>,
    /// `SO_ZEROCOPY`, if it could be seen; without it, `MSG_ZEROCOPY` is ignored.
    zerocopy: Cell<Option<bool>>,
    /// `MSG_ZEROCOPY` sends of which a completion was seen, and those of them that said that the
    /// kernel had copied after all.
    completions: Cell<(u64, u64)>,
    /// Looks at it, by the descriptor that was looked at. The first one counts.
    looks: RefCell<Vec<Look>>,
    /// Which pipe, if it was seen to be made as one, and whether it is the end that takes bytes.
    pipe: Option<(PipeId, bool)>,
}

#[derive(Clone, Debug)]
struct Look {
    pid: u32,
    fd: i32,
    seen: Seen,
}

impl Object {
    /// Something of this kind of which nothing else is known.
    pub fn of(kind: Kind) -> Rc<Self> {
        Rc::new(Self {
            kind: Cell::new(kind),
            made_as: kind,
            ..Self::default()
        })
    }

    /// What was found when this descriptor was looked at.
    pub(crate) fn looked_at(pid: u32, fd: i32, seen: Seen) -> Rc<Self> {
        let this = Self::of(Kind::Unknown);
        this.add_look(pid, fd, seen);
        this
    }

    /// A mapped file, as the list of mappings names it.
    pub(crate) fn mapped(seen: Seen) -> Rc<Self> {
        Self::looked_at(0, -1, seen)
    }

    /// One end of a pipe.
    pub(crate) fn pipe(id: PipeId, writable: bool) -> Rc<Self> {
        Rc::new(Self {
            kind: Cell::new(Kind::Pipe),
            made_as: Kind::Pipe,
            pipe: Some((id, writable)),
            ..Self::default()
        })
    }

    /// A new socket.
    pub(crate) fn socket(kind: Kind) -> Rc<Self> {
        Rc::new(Self {
            kind: Cell::new(kind),
            made_as: kind,
            zerocopy: Cell::new(Some(false)),
            ..Self::default()
        })
    }

    /// A connection to a listening socket, whose options it inherits.
    pub(crate) fn accepted_from(listener: &Self) -> Rc<Self> {
        Rc::new(Self {
            kind: listener.kind.clone(),
            made_as: listener.kind(),
            zerocopy: listener.zerocopy.clone(),
            ..Self::default()
        })
    }

    /// A path was opened: most likely a file.
    pub(crate) fn opened(direct: bool) -> Rc<Self> {
        Self::of(if direct {
            Kind::DirectFile
        } else {
            Kind::Opened
        })
    }

    /// One more look at it, at one of its descriptors.
    pub(crate) fn add_look(&self, pid: u32, fd: i32, seen: Seen) {
        let mut looks = self.looks.borrow_mut();
        if looks.is_empty() {
            self.kind.set(seen.kind);
        }
        if looks.len() < LOOKS_AT_MOST {
            looks.push(Look { pid, fd, seen });
        }
    }

    /// This descriptor of it was closed at this time: whatever was seen there later was something
    /// else.
    pub(crate) fn closed(&self, pid: u32, fd: i32, time_ns: u64) {
        self.void(|look| (look.pid, look.fd) == (pid, fd) && look.seen.looked_ns > time_ns);
    }

    /// What was seen after this time cannot be confirmed.
    pub(crate) fn doubt(&self, time_ns: u64) {
        self.void(|look| look.seen.looked_ns > time_ns);
    }

    fn void(&self, is_void: impl Fn(&Look) -> bool) {
        let mut looks = self.looks.borrow_mut();
        if looks.iter().any(&is_void) {
            looks.retain(|look| !is_void(look));
            let kind = looks.first().map(|look| look.seen.kind);
            self.kind.set(kind.unwrap_or(self.made_as));
        }
    }

    /// No look at it can turn out to be wrong any more: all that happened before is known.
    pub(crate) fn is_settled(&self, now_ns: u64) -> bool {
        let looks = self.looks.borrow();
        looks.iter().all(|look| look.seen.looked_ns <= now_ns)
    }

    fn seen<T>(&self, what: impl FnOnce(&Seen) -> T) -> Option<T> {
        self.looks.borrow().first().map(|look| what(&look.seen))
    }

    /// A path or an address, if it could be seen.
    pub fn name(&self) -> Option<String> {
        self.seen(|seen| seen.name.clone())?
    }

    /// Which file, if it is one and was seen.
    pub fn file(&self) -> Option<FileId> {
        self.seen(|seen| seen.file)?
    }

    /// Which pipe, if it is one.
    pub fn pipe_id(&self) -> Option<PipeId> {
        let seen = || self.seen(|seen| seen.pipe)?.map(PipeId::Inode);
        self.pipe.map(|(id, _)| id).or_else(seen)
    }

    /// It is open for writing: of a pipe, this is the end that takes bytes.
    pub fn is_writable(&self) -> bool {
        let seen = || self.seen(|seen| seen.writable).unwrap_or(true);
        self.pipe.map_or_else(seen, |(_, writable)| writable)
    }

    /// It lies on a file system that can share blocks between files.
    pub fn shares_blocks(&self) -> bool {
        self.seen(|seen| seen.shares_blocks).unwrap_or(false)
    }

    /// Opened with `O_APPEND`.
    pub fn appends(&self) -> bool {
        self.seen(|seen| seen.appends).unwrap_or(false)
    }

    /// What it is at this moment: flags may change it.
    pub fn kind(&self) -> Kind {
        self.kind.get()
    }

    /// `fcntl(F_SETFL)` with or without `O_DIRECT`.
    pub(crate) fn set_direct(&self, direct: bool) {
        match (self.kind(), direct) {
            (Kind::File | Kind::Opened, true) => self.kind.set(Kind::DirectFile),
            (Kind::DirectFile, false) => self.kind.set(Kind::File),
            _ => {}
        }
    }

    /// It did what only files do.
    pub(crate) fn confirm(&self) {
        if self.kind() == Kind::Opened {
            self.kind.set(Kind::File);
        }
    }

    /// Mapped for execution.
    pub(crate) fn set_image(&self) {
        self.image.set(true);
    }

    pub(crate) fn is_image(&self) -> bool {
        self.image.get()
    }

    /// `setsockopt(SO_ZEROCOPY)`.
    pub(crate) fn set_zerocopy(&self) {
        self.zerocopy.set(Some(true));
    }

    /// Whether `MSG_ZEROCOPY` means something on it. Of a socket that was there before us it is
    /// taken for granted.
    pub(crate) fn takes_zerocopy(&self) -> bool {
        self.zerocopy.get() != Some(false)
    }

    /// A completion of so many sends was read from the error queue.
    pub(crate) fn completed(&self, sends: u64, copied: bool) {
        let (all, of_them) = self.completions.get();
        let copied = if copied { sends } else { 0 };
        self.completions.set((all + sends, of_them + copied));
    }

    pub(crate) fn completions(&self) -> (u64, u64) {
        self.completions.get()
    }

    /// `setsockopt(SOL_TLS)`: from now on the kernel encrypts.
    pub(crate) fn set_tls(&self) {
        if self.kind() == Kind::Tcp {
            self.kind.set(Kind::TlsTcp);
        }
    }
}

/// One is enough if it stands; each duplicate brings one.
const LOOKS_AT_MOST: usize = 4;

/// An open file as it was found by looking at the process.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What it is.
    pub kind: Kind,
    /// A path or an address.
    pub name: Option<String>,
    /// Which file.
    pub file: Option<FileId>,
    /// Which pipe.
    pub pipe: Option<u64>,
    /// Open for writing.
    pub writable: bool,
    /// Closed by `execve(2)`.
    pub cloexec: bool,
    /// On a file system that can share blocks between files.
    pub shares_blocks: bool,
    /// Opened with `O_APPEND`.
    pub appends: bool,
    /// The length of a regular file.
    pub bytes: Option<u64>,
    /// When the look was over, by `CLOCK_MONOTONIC`: 0 if it cannot have been too late.
    pub looked_ns: u64,
}
