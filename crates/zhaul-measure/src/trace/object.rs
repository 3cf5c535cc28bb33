//! What descriptors refer to, as far as it decides what moving bytes costs.

use std::cell::Cell;
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
#[derive(Debug, Default)]
pub struct Object {
    kind: Cell<Kind>,
    /// It is mapped as a program or library: what is written out of it are its constants.
    image: Cell<bool>,
    /// `SO_ZEROCOPY`, if it could be seen; without it, `MSG_ZEROCOPY` is ignored.
    zerocopy: Cell<Option<bool>>,
    /// It was made by a call that says little about it, and was not looked at.
    guessed: bool,
    /// A path or an address, if it could be seen.
    pub name: Option<String>,
    /// Which file, if it is one and was seen.
    pub file: Option<FileId>,
    /// Which pipe, if it is one.
    pub pipe: Option<PipeId>,
    /// It is open for writing: of a pipe, this is the end that takes bytes.
    pub writable: bool,
    /// It lies on a file system that can share blocks between files.
    pub shares_blocks: bool,
}

impl Object {
    /// Something of this kind of which nothing else is known.
    pub fn of(kind: Kind) -> Rc<Self> {
        Rc::new(Self {
            kind: Cell::new(kind),
            ..Self::default()
        })
    }

    /// One end of a pipe.
    pub(crate) fn pipe(id: PipeId, writable: bool) -> Rc<Self> {
        Rc::new(Self {
            kind: Cell::new(Kind::Pipe),
            pipe: Some(id),
            writable,
            ..Self::default()
        })
    }

    /// A new socket.
    pub(crate) fn socket(kind: Kind) -> Rc<Self> {
        Rc::new(Self {
            kind: Cell::new(kind),
            zerocopy: Cell::new(Some(false)),
            writable: true,
            ..Self::default()
        })
    }

    /// A connection to a listening socket, whose options it inherits.
    pub(crate) fn accepted_from(listener: &Self) -> Rc<Self> {
        Rc::new(Self {
            kind: listener.kind.clone(),
            zerocopy: listener.zerocopy.clone(),
            writable: true,
            ..Self::default()
        })
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

    /// A path was opened and is gone already: most likely a file.
    pub(crate) fn opened(direct: bool) -> Rc<Self> {
        let kind = if direct {
            Kind::DirectFile
        } else {
            Kind::Opened
        };
        Rc::new(Self {
            kind: Cell::new(kind),
            guessed: true,
            ..Self::default()
        })
    }

    /// It did what only files do.
    pub(crate) fn confirm(&self) {
        if self.kind() == Kind::Opened {
            self.kind.set(Kind::File);
        }
    }

    /// Whether it should be looked at when there is another chance.
    pub(crate) fn is_guessed(&self) -> bool {
        self.guessed
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

    /// `setsockopt(SOL_TLS)`: from now on the kernel encrypts.
    pub(crate) fn set_tls(&self) {
        if self.kind() == Kind::Tcp {
            self.kind.set(Kind::TlsTcp);
        }
    }
}

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
    /// The length of a regular file.
    pub bytes: Option<u64>,
}

impl From<Seen> for Object {
    fn from(seen: Seen) -> Self {
        Self {
            kind: Cell::new(seen.kind),
            image: Cell::new(false),
            zerocopy: Cell::new(None),
            guessed: false,
            name: seen.name,
            file: seen.file,
            pipe: seen.pipe.map(PipeId::Inode),
            writable: seen.writable,
            shares_blocks: seen.shares_blocks,
        }
    }
}
