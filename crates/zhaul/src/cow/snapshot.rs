//! What a region was at one moment.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::ops::Deref;
use std::os::fd::{BorrowedFd, OwnedFd};

use bytes::Bytes;
use rustix::fs::{MemfdFlags, SealFlags};
use zhaul_sys::map_private::Frozen;

/// The bytes of a [`CowRegion`](super::CowRegion) at the moment when it was made. They never change.
///
/// Whoever hands them to the kernel for longer than a call (MSG_ZEROCOPY, io_uring), or to another
/// process, keeps a clone until the kernel or the other process is done: when the last one is gone, the
/// region writes to the pages again. As [`Bytes`] it keeps itself.
#[derive(Clone, Debug)]
pub struct Snapshot {
    frozen: Frozen,
    len: usize,
    how: How,
    copied: usize,
}

/// How a snapshot keeps its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum How {
    /// It shares its pages with the region, in which those that are written to are copied.
    CopyOnWrite,
    /// Everything was copied when it was made.
    CopiedUpFront(WhyCopied),
}

/// Why everything was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhyCopied {
    /// So much is written during the life of a snapshot that copying pages one by one takes longer.
    ManyWrites,
    /// Beside older snapshots that live on, what was written since the first of them has been copied
    /// so often that a new beginning is cheaper.
    OlderSnapshots,
    /// `/proc/self/pagemap` cannot be read, so nobody knows which pages are written. There is no
    /// `/proc`, or the process has changed its user and is not dumpable (`prctl(2)`).
    PagemapUnreadable,
}

impl Snapshot {
    pub(super) const fn new(frozen: Frozen, len: usize, how: How, copied: usize) -> Self {
        Self {
            frozen,
            len,
            how,
            copied,
        }
    }

    /// How it keeps its content.
    pub const fn how(&self) -> How {
        self.how
    }

    /// Bytes that were copied to make it, in whole pages.
    pub const fn copied_bytes(&self) -> usize {
        self.copied
    }

    /// A memfd with the bytes, for another process: it can read and map it, but not write to it. The
    /// file may be up to a page longer. `None` if the bytes are in more than one file, as those of a
    /// snapshot that was made beside an older one.
    ///
    /// What is read there is this snapshot for as long as it or a clone of it lives **here**; later it
    /// is a later content of the region. So it is kept until the other process says that it is done.
    /// `sendfile(2)` and `splice(2)` from it never say so: they queue the pages and nobody tells when
    /// these have left; send the bytes instead.
    pub fn memfd(&self) -> Option<BorrowedFd<'_>> {
        self.frozen.memfd()
    }

    /// A copy of the bytes in a memfd that nobody can change any more (F_SEAL_WRITE, which its receiver
    /// can verify), for a process that is not to be waited for.
    ///
    /// # Errors
    /// ENOMEM, EMFILE.
    pub fn to_sealed_memfd(&self) -> io::Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut copy = File::from(rustix::fs::memfd_create("zhaul-snapshot", flags)?);
        copy.write_all(self)?;
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&copy, seals)?;
        Ok(copy.into())
    }
}

impl Deref for Snapshot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.frozen[..self.len]
    }
}

impl AsRef<[u8]> for Snapshot {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Snapshot> for Bytes {
    /// Copies nothing; the snapshot lives until the last of the bytes is dropped.
    fn from(snapshot: Snapshot) -> Self {
        Self::from_owner(snapshot)
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CopyOnWrite => f.write_str("copy on write"),
            Self::CopiedUpFront(why) => write!(f, "copied up front: {why}"),
        }
    }
}

impl fmt::Display for WhyCopied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ManyWrites => "most of it is written meanwhile",
            Self::OlderSnapshots => "older snapshots live on",
            Self::PagemapUnreadable => "/proc/self/pagemap cannot be read",
        })
    }
}
