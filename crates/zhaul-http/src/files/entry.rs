//! What is known of a file, and knowing whether that still holds.
//!
//! Each use of what was loaded ([`crate::files::load`]) is preceded by a check ([`FileSet::check`]):
//! one statx(2) of the path of the file that is about to be sent, compared in device, inode, size,
//! mtime and ctime; of a sibling also one of the file whose sibling it is, since one that is older
//! is stale and not sent; and where the answer also depends on names that were *not* there (a
//! sibling in a better coding, an earlier index file), one statx(2) of their directory, whose mtime
//! changes with every name. What is there and of no use (a sibling that is stale or may not be read,
//! a link that leads nowhere) can become so without that, and is looked at by its own path.
//!
//! A file on a network file system, or one that a program serves, is not looked at by the event loop:
//! the answer may take a while. It is checked on a thread, all of it, and not again for as long as the
//! configured freshness says.
//!
//! Timestamps are only as fine as the kernel's tick (1 to 10 ms before Linux 6.13): a second edit
//! within the tick of the first leaves them as they are. So a file (or directory) that changed
//! less than [`SETTLE`] ago is not yet *settled*: it is served without an entity tag and loaded
//! again by the next request.

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use tokio::sync::OwnedSemaphorePermit;
use zhaul::{SourceFacts, Timestamp, Version};

use crate::files::cache::Weight;
use crate::files::open_file::OpenFile;
use crate::files::root::{Miss, Root, Walk};
use crate::files::small::Small;
use crate::host::clock::Clock;
use crate::message::encoding::{Coding, CodingSet};
use crate::message::head;
use crate::message::validators::Validators;

/// Longer than a clock tick at the lowest rate that Linux is configured with (100 Hz), twice over.
const SETTLE: Duration = Duration::from_millis(25);
/// The same where times seem to be whole seconds: FAT has every other one.
const SETTLE_COARSE: Duration = Duration::from_millis(2025);

/// Representations of a file: one in each [`Coding`].
pub(crate) const CODINGS: usize = 1 + Coding::COMPRESSED.len();

/// A file and its precompressed siblings.
#[derive(Debug)]
pub(crate) struct FileSet {
    /// By coding; identity is always there.
    pub(super) representations: [Option<Representation>; CODINGS],
    /// What every answer depends on beside its file: index files that were missing.
    pub(super) index: Vec<Watch>,
    /// What an answer depends on that might have had a better coding: siblings that were missing.
    pub(super) siblings: Vec<Watch>,
    /// Whether what was found may be kept.
    pub(super) settled: bool,
    /// The last check that held: in which round, for which coding, whether with the directory.
    pub(super) checked: Cell<Option<(u64, Coding, bool)>>,
    /// When all of it was last known to hold, by [`Clock::now_ms`].
    pub(super) known_ms: Cell<u64>,
}

/// One file that can be sent.
#[derive(Debug)]
pub(crate) struct Representation {
    pub(crate) file: Arc<OpenFile>,
    pub(crate) version: Version,
    /// The same, as the engine wants it.
    pub(crate) facts: Arc<SourceFacts>,
    /// Bytes that are sent: the file's size, except where the kernel makes a size up.
    pub(crate) size: u64,
    pub(crate) validators: Validators,
    /// Header fields of every 200, 206 and 304 with this file, each with its CRLF.
    pub(crate) fields: Vec<u8>,
    pub(crate) content_type: String,
    /// The coding that what is sent has, be it negotiated or the file's own.
    pub(crate) content_encoding: Option<&'static str>,
    pub(crate) coding: Coding,
    pub(crate) small: Option<Small>,
    /// Whether nothing about it will look different a second later with the file unchanged.
    pub(super) settled: bool,
    pub(super) watch: Watch,
    /// What a body counts against that is in memory and not small.
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

/// A path, and what it led to.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    pub(super) path: CString,
    pub(super) version: Result<Version, Errno>,
}

impl Watch {
    pub(super) fn of(root: &Root, path: CString, walk: Walk) -> Result<Self, Miss> {
        match root.version(&path, walk) {
            Err(Errno::AGAIN) => Err(Miss::NotCached),
            version => Ok(Self { path, version }),
        }
    }

    pub(crate) fn holds(&self, root: &Root, walk: Walk) -> bool {
        root.version(&self.path, walk) == self.version
    }

    /// Whether a change within the same tick of the clock can be ruled out.
    pub(super) fn is_settled(&self) -> bool {
        self.version.is_ok_and(|version| is_settled(&version)) || self.version.is_err()
    }
}

impl FileSet {
    /// Whether `coding` may be sent as it was loaded. `may_be_better` says that the client would
    /// like another coding better, so that a sibling that has appeared since would matter.
    ///
    /// `batch` names requests that were all received before any of them was answered. A check made
    /// for one of them is later than each of them, and is not made again.
    pub(crate) fn check(
        &self,
        root: &Root,
        coding: Coding,
        may_be_better: bool,
        batch: Option<u64>,
    ) -> bool {
        let Some(chosen) = self.get(coding) else {
            return false;
        };
        let this = batch.map(|batch| (batch, coding, may_be_better));
        if this.is_some() && this == self.checked.get() {
            return true;
        }
        let holds = |watch: &Watch| watch.holds(root, Walk::Cached);
        // A sibling is stale when its file is newer.
        let plain = self
            .get(Coding::Identity)
            .filter(|_| coding != Coding::Identity);
        let siblings = self.siblings.iter().filter(|_| may_be_better);
        let holds = holds(&chosen.watch)
            && plain.is_none_or(|plain| holds(&plain.watch))
            && self.index.iter().chain(siblings).all(holds);
        if holds && this.is_some() {
            self.checked.set(this);
        }
        holds
    }

    /// Whether a later request may be answered with this, after a check.
    pub(crate) fn may_be_kept(&self) -> bool {
        self.settled || self.is_remote()
    }

    /// Whether to look at it may wait for somebody who does not answer.
    pub(crate) fn is_remote(&self) -> bool {
        let mut files = self.representations.iter().flatten();
        files.any(|representation| representation.file.is_remote())
    }

    /// Whether all of it was known to hold at most so long ago.
    pub(crate) fn is_fresh(&self, freshness: Duration) -> bool {
        let age_ms = Clock::now_ms().saturating_sub(self.known_ms.get());
        u128::from(age_ms) <= freshness.as_millis()
    }

    /// Notes that all of it held at `now_ms`.
    pub(crate) fn renew(&self, now_ms: u64) {
        self.known_ms.set(now_ms);
    }

    /// What has to hold for it to be sent; nothing if it has to be loaded again in any case.
    pub(crate) fn watches(&self) -> Vec<Watch> {
        if !self.settled {
            return Vec::new();
        }
        let files = self.representations.iter().flatten();
        let watches = files.map(|representation| &representation.watch);
        let names = self.index.iter().chain(&self.siblings);
        watches.chain(names).cloned().collect()
    }

    /// Codings that can be sent.
    pub(crate) fn codings(&self) -> CodingSet {
        let present = self.representations.iter().flatten().map(|r| r.coding);
        present.fold(CodingSet::IDENTITY, CodingSet::with)
    }

    /// The file in this coding, if it is there.
    pub(crate) fn get(&self, coding: Coding) -> Option<&Representation> {
        self.representations[coding as usize].as_ref()
    }
}

impl Representation {
    /// Writes what is said of the bytes that are sent, and so not in a 304.
    pub(crate) fn write_content_fields(&self, out: &mut Vec<u8>) {
        write_content_fields(&self.content_type, self.content_encoding, out);
    }

    /// Where the file is, relative to the root; for messages.
    pub(crate) fn path(&self) -> &CStr {
        &self.watch.path
    }
}

impl Weight for FileSet {
    fn bytes(&self) -> usize {
        let one = |r: &Representation| r.small.as_ref().map_or(0, Small::memory) + 1024;
        self.representations.iter().flatten().map(one).sum()
    }

    fn files(&self) -> usize {
        self.representations.iter().flatten().count()
    }
}

/// Writes what is said of the bytes that are sent.
pub(crate) fn write_content_fields(content_type: &str, encoding: Option<&str>, out: &mut Vec<u8>) {
    head::field(out, "Content-Type", content_type.as_bytes());
    if let Some(encoding) = encoding {
        head::field(out, "Content-Encoding", encoding.as_bytes());
    }
}

/// Whether a change within the same tick of the clock can be ruled out.
pub(crate) fn is_settled(version: &Version) -> bool {
    let Timestamp {
        seconds,
        nanoseconds,
    } = version.ctime;
    let Ok(seconds) = u64::try_from(seconds) else {
        return true;
    };
    let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
    let settle = if nanoseconds == 0 {
        SETTLE_COARSE
    } else {
        SETTLE
    };
    // A time stamp from the future says that the clock was set back: nothing can be told.
    changed.elapsed().is_ok_and(|age| age >= settle)
}
