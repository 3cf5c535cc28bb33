//! What the planner may know about the two ends and the host.
//!
//! Facts are gathered once per descriptor by a driver (`zhaul::endpoint`) and are plain data, so
//! a plan can be computed for ends that do not exist.

use crate::route::Route;
use crate::version::Version;

/// What a source is, as far as routes care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceKind {
    /// A regular file on a file system that keeps its pages in the page cache.
    Regular,
    /// A memfd: always resident; leases on it mean nothing; seals say what cannot change.
    Memfd,
    /// A block device.
    Block,
    /// A pipe or FIFO.
    Pipe,
    /// A connected stream socket, TCP or UNIX.
    StreamSocket,
    /// A socket with message boundaries, which no transfer takes from
    /// ([`Refusal::SourceKeepsMessages`](crate::Refusal::SourceKeepsMessages)).
    MessageSocket,
    /// A character device: `/dev/zero`, `/dev/urandom`, a terminal.
    Device,
    /// A file whose content is made up while it is read: procfs, sysfs and their like. Its size
    /// is meaningless.
    Pseudo,
    /// Anything else that can be read.
    Other,
}

impl SourceKind {
    /// True if the bytes come from the page cache, whose pages others may edit.
    pub const fn is_page_cache(self) -> bool {
        matches!(self, Self::Regular | Self::Memfd | Self::Block)
    }

    /// True if the kernel makes the bytes up at each read.
    pub const fn is_generated(self) -> bool {
        matches!(self, Self::Device | Self::Pseudo)
    }

    /// True for pipes, one of which every `splice(2)` needs.
    pub const fn is_pipe(self) -> bool {
        matches!(self, Self::Pipe)
    }
}

/// Which changes a memfd's seals rule out (`F_GET_SEALS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seals {
    /// `F_SEAL_SHRINK`: it cannot be truncated.
    pub shrink: bool,
    /// `F_SEAL_WRITE`: its content cannot change.
    pub write: bool,
}

/// What is known about a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceFacts {
    /// What it is.
    pub kind: SourceKind,
    /// It can be read at an offset (`lseek(2)` works).
    pub seekable: bool,
    /// Its version when the facts were gathered; only for sources whose size means something.
    pub version: Option<Version>,
    /// What its seals rule out.
    pub seals: Seals,
    /// Which block device it is (`st_rdev`).
    pub device: Option<u64>,
    /// It has fewer blocks than its size takes, so there may be holes.
    pub sparse: bool,
}

impl SourceFacts {
    /// Facts about a source of this kind, with files and devices seekable and streams not.
    pub const fn new(kind: SourceKind) -> Self {
        let seekable = kind.is_page_cache() || kind.is_generated();
        Self {
            kind,
            seekable,
            version: None,
            seals: Seals {
                shrink: false,
                write: false,
            },
            device: None,
            sparse: false,
        }
    }

    /// A regular file in this version.
    pub const fn regular(version: Version) -> Self {
        let mut facts = Self::new(SourceKind::Regular);
        facts.version = Some(version);
        facts
    }

    /// The same facts with a version.
    pub const fn with_version(mut self, version: Option<Version>) -> Self {
        self.version = version;
        self
    }

    /// The same facts about this block device.
    pub const fn with_device(mut self, device: u64) -> Self {
        self.device = Some(device);
        self
    }

    /// The same facts about a file that may have holes or not.
    pub const fn with_sparse(mut self, sparse: bool) -> Self {
        self.sparse = sparse;
        self
    }

    /// The same facts with seals.
    pub const fn with_seals(mut self, seals: Seals) -> Self {
        self.seals = seals;
        self
    }

    /// The same facts, seekable or not.
    pub const fn with_seekable(mut self, seekable: bool) -> Self {
        self.seekable = seekable;
        self
    }

    /// True if nobody can change a byte of it: a memfd sealed against writing and shrinking.
    pub const fn is_sealed(&self) -> bool {
        self.seals.shrink && self.seals.write
    }
}

/// What a sink is, as far as routes care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SinkKind {
    /// A regular file or memfd.
    Regular,
    /// A block device.
    Block,
    /// A pipe or FIFO.
    Pipe,
    /// A connected stream socket, TCP or UNIX.
    StreamSocket,
    /// A socket with message boundaries; only `write(2)` puts into it.
    MessageSocket,
    /// `/dev/null`, which takes anything and keeps nothing.
    Null,
    /// Another character device.
    Device,
    /// Anything else that can be written.
    Other,
}

impl SinkKind {
    /// True if pages given to it by reference stay queued after the call returned, so that a
    /// later edit of the source shows up in them.
    pub const fn queues_page_references(self) -> bool {
        !matches!(self, Self::Regular | Self::Block | Self::Null)
    }

    /// True for pipes.
    pub const fn is_pipe(self) -> bool {
        matches!(self, Self::Pipe)
    }

    /// True for sockets, on which `send(2)` and its flags work.
    pub const fn is_socket(self) -> bool {
        matches!(self, Self::StreamSocket | Self::MessageSocket)
    }
}

/// When the kernel lets go of page references queued in a sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum InPlaceEnd {
    /// When the peer acknowledged them: it sits across a real network device, and `SIOCOUTQ`
    /// reads 0.
    Acknowledged,
    /// At no moment that can be observed. On loopback and between containers the pages
    /// themselves move into the receiver's queue: `SIOCOUTQ` is 0 while the receiver has not
    /// read a byte, and a later edit of the file is visible to it (measured on Linux 6.18).
    #[default]
    Never,
}

/// What is known about a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinkFacts {
    /// What it is.
    pub kind: SinkKind,
    /// Opened with `O_APPEND`, which sendfile, splice and copy_file_range refuse.
    pub append: bool,
    /// When queued page references end.
    pub in_place_ends_at: InPlaceEnd,
    /// Device and inode of a file, to notice a copy of a file onto itself.
    pub identity: Option<(u64, u64)>,
    /// Which block device it is (`st_rdev`).
    pub device: Option<u64>,
    /// The descriptor's own position, for files and block devices.
    pub position: Option<u64>,
}

impl SinkFacts {
    /// Facts about a sink of this kind, with nothing else known.
    pub const fn new(kind: SinkKind) -> Self {
        Self {
            kind,
            append: false,
            in_place_ends_at: InPlaceEnd::Never,
            identity: None,
            device: None,
            position: None,
        }
    }

    /// A connected stream socket whose peer is across a real wire or not.
    pub const fn stream_socket(in_place_ends_at: InPlaceEnd) -> Self {
        let mut facts = Self::new(SinkKind::StreamSocket);
        facts.in_place_ends_at = in_place_ends_at;
        facts
    }

    /// The same facts for a sink opened with `O_APPEND` or not.
    pub const fn with_append(mut self, append: bool) -> Self {
        self.append = append;
        self
    }

    /// The same facts with the file's identity and the descriptor's position.
    pub const fn with_file(mut self, identity: (u64, u64), position: Option<u64>) -> Self {
        self.identity = Some(identity);
        self.position = position;
        self
    }

    /// The same facts about this block device, with the descriptor's position.
    pub const fn with_device(mut self, device: u64, position: Option<u64>) -> Self {
        self.device = Some(device);
        self.position = position;
        self
    }
}

/// Sizes below which a cheaper-looking route is slower. Zero means always worth it, `u64::MAX`
/// never. They are compared with [`Length::Exact`](crate::Length::Exact): the planner decides by
/// size only where the caller says the size.
///
/// The defaults were measured on a few machines; `zhaul bench --calibrate` measures a host's own,
/// which the library reads (`zhaul::calibration`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Thresholds {
    /// sendfile needs one call where read + write needs two, so it starts at zero. splice from a
    /// file, which is sendfile with a pipe of one's own, has the same threshold.
    pub sendfile_min_bytes: u64,
    /// Mapping and unmapping cost page-table work that only a longer transfer earns back.
    pub mmap_min_bytes: u64,
    /// A piece of memory from here up is sent by reference (MSG_ZEROCOPY) where that is wanted:
    /// pinning its pages and being told of their release costs more than copying a smaller one.
    pub zero_copy_min_bytes: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            sendfile_min_bytes: 0,
            mmap_min_bytes: 64 << 10,
            zero_copy_min_bytes: 16 << 10,
        }
    }
}

/// What is known about this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostFacts {
    /// Bytes in a page of memory.
    pub page_bytes: usize,
    /// Address space one transfer may map at a time.
    pub mmap_window_bytes: usize,
    /// Measured or default thresholds.
    pub thresholds: Thresholds,
    /// By [`Route::index`].
    refused: [bool; Route::BY_COST.len()],
}

impl Default for HostFacts {
    fn default() -> Self {
        Self {
            page_bytes: 4096,
            mmap_window_bytes: 8 << 20,
            thresholds: Thresholds::default(),
            refused: [false; Route::BY_COST.len()],
        }
    }
}

impl HostFacts {
    /// The same facts on a host known to refuse `route` (a seccomp filter, a probe).
    pub const fn without(mut self, route: Route) -> Self {
        self.refused[route.index()] = true;
        self
    }

    /// True if this host is known to refuse the route.
    pub const fn refuses(&self, route: Route) -> bool {
        self.refused[route.index()]
    }
}
