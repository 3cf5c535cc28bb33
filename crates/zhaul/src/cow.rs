//! Writing on while it is sent: memory of which immutable snapshots can be had.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! let mut region = zhaul::CowRegion::new(1 << 20)?;
//! region[..5].copy_from_slice(b"first");
//! let snapshot = region.snapshot()?; // nothing is copied
//! region[..5].copy_from_slice(b"later"); // one page is
//! assert_eq!(&snapshot[..5], b"first");
//! let bytes = bytes::Bytes::from(snapshot); // to be sent, by whoever, however long it takes
//! # Ok(())
//! # }
//! ```
//!
//! A [`Snapshot`] shows the region as it was when [`CowRegion::snapshot`] was called, for as long as
//! it or a clone of it lives. While one lives, the kernel copies each page of the region that is
//! written to, once. It can be read by other threads, written to a file, sent by MSG_ZEROCOPY (whoever
//! sends keeps the snapshot until the kernel is done with its pages), and passed to another process as
//! a descriptor ([`Snapshot::memfd`]).
//!
//! # What is copied
//! - Making a snapshot copies nothing, if no older one lives.
//! - A page that is written to while a snapshot lives is copied by the kernel then, and once more into
//!   the region's own pages by the first mutable access after the last snapshot was dropped.
//! - If an older one lives, the new snapshot gets a copy of each page that was written since; what was
//!   not written all snapshots share. When that would have copied more than the whole region, the whole
//!   region is copied, and what is written counts from there.
//! - Where so much is written that copying everything up front is cheaper (see
//!   [`CowBuilder::copy_above`]), that is done, and [`Snapshot::how`] says so. Every sixteenth snapshot
//!   is then made without, to see what is written meanwhile.
//! - Up front, too, where `/proc/self/pagemap` cannot be read, which tells the pages that were written.
//!
//! # How
//! A memfd is mapped twice, MAP_SHARED and MAP_PRIVATE (see [`zhaul_sys::map_private`]). That takes no
//! privilege, no thread and no signal. Write protection by `userfaultfd(2)`, the other way, takes a
//! privilege (for pages that a system call writes to), costs more to arm, and 10 times as much for each
//! page that is written; docs/cow.md has the figures.
//!
//! # Limits
//! All of the region's memory is allocated when it is made; pages copied by the kernel come on top, and
//! if there are none left for them the process is killed, as for any memory. A child made by `fork(2)`
//! has neither the region nor its snapshots: touching them there is a SIGSEGV. Linux 5.1.

mod snapshot;
mod write_rate;

use std::io;
use std::ops::{Deref, DerefMut};

use zhaul_sys::map_private::{CowMapping, Frozen};
use zhaul_sys::memfd_pages::SharedPages;
use zhaul_sys::pagemap::Pagemap;

pub use snapshot::{How, Snapshot, WhyCopied};
use write_rate::WriteRate;

/// A large piece of writable memory of which snapshots can be had.
///
/// It is a `[u8]` by [`Deref`] and [`DerefMut`]. The address changes with the snapshots.
#[derive(Debug)]
pub struct CowRegion {
    pages: CowMapping,
    /// What was asked for; the pages may have more.
    len: usize,
    knows_written: bool,
    write_rate: WriteRate,
    /// Copies that were made up front; free when nobody else has them any more.
    spares: Vec<Frozen>,
    usage: CowUsage,
}

/// How a region is used, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CowUsage {
    /// Snapshots made.
    pub snapshots: u64,
    /// Of those, how many began with a copy of everything.
    pub copied_up_front: u64,
    /// Bytes copied to make snapshots.
    pub snapshot_bytes: u64,
    /// Bytes of pages that were written to while snapshots lived, as far as they were copied back. The
    /// kernel had copied as many before.
    pub written_bytes: u64,
    /// The part of the region that is expected to be written during the life of a snapshot, 0 to 1:
    /// what was seen, younger ones counting more, or what the program said.
    pub write_rate: Option<f64>,
}

/// Options of a [`CowRegion`].
#[derive(Clone, Debug)]
#[must_use]
pub struct CowBuilder {
    len: usize,
    write_rate: WriteRate,
}

impl CowBuilder {
    /// The part of the region, 0 to 1, that will be written to during the life of a snapshot. It is
    /// believed until the first one is gone; what is seen then weighs as much.
    pub const fn expected_writes(mut self, part: f64) -> Self {
        self.write_rate.expect(part);
        self
    }

    /// Copies everything up front when more than this part of the region is expected to be written:
    /// 1 for never, below 0 for always. The default is where copying up front began to take less of the
    /// processor's time on the machine of docs/cow.md. It needs the memory once more, and
    /// [`CowRegion::snapshot`] takes the time to copy it.
    pub const fn copy_above(mut self, part: f64) -> Self {
        self.write_rate.copy_above = part;
        self
    }

    /// Makes the region, all zeros.
    ///
    /// # Errors
    /// EINVAL for no bytes or for more than an address can reach; ENOMEM or ENOSPC for more than there
    /// is; EMFILE.
    pub fn build(self) -> io::Result<CowRegion> {
        let page_bytes = rustix::param::page_size();
        let rounded = self.len.checked_next_multiple_of(page_bytes);
        let pages = SharedPages::new(rounded.ok_or(io::ErrorKind::InvalidInput)?)?;
        let pagemap = Pagemap::open().ok();
        Ok(CowRegion {
            knows_written: pagemap.is_some(),
            pages: CowMapping::new(pages, pagemap)?,
            len: self.len,
            write_rate: self.write_rate,
            spares: Vec::new(),
            usage: CowUsage::default(),
        })
    }
}

impl CowRegion {
    /// A region of `len` bytes, all zeros.
    ///
    /// # Errors
    /// As [`CowBuilder::build`].
    pub fn new(len: usize) -> io::Result<Self> {
        Self::builder(len).build()
    }

    /// A region of `len` bytes with options.
    pub const fn builder(len: usize) -> CowBuilder {
        CowBuilder {
            len,
            write_rate: WriteRate::new(),
        }
    }

    /// The content of this moment, for as long as the snapshot lives.
    ///
    /// # Errors
    /// ENOMEM; if something has to be copied up front, as [`CowBuilder::build`]. The region is
    /// unharmed.
    pub fn snapshot(&mut self) -> io::Result<Snapshot> {
        self.fold();
        let (frozen, how, copied) = if self.pages.is_diverged() {
            self.beside_older()?
        } else if !self.knows_written {
            self.copy_up_front(WhyCopied::PagemapUnreadable)?
        } else if self.write_rate.is_copying_cheaper() {
            self.copy_up_front(WhyCopied::ManyWrites)?
        } else {
            self.spares.clear();
            let (frozen, copied) = self.pages.freeze()?;
            (frozen, How::CopyOnWrite, copied)
        };
        self.usage.snapshots += 1;
        self.usage.copied_up_front += u64::from(how != How::CopyOnWrite);
        self.usage.snapshot_bytes += copied as u64;
        Ok(Snapshot::new(frozen, self.len, how, copied))
    }

    /// What was copied so far.
    pub fn usage(&self) -> CowUsage {
        CowUsage {
            write_rate: self.write_rate.estimate(),
            ..self.usage
        }
    }

    fn beside_older(&mut self) -> io::Result<(Frozen, How, usize)> {
        if self.write_rate.is_base_outworn(self.pages.len()) {
            self.pages.rebase(SharedPages::new(self.pages.len())?)?;
            self.write_rate.base_is_new();
            let (frozen, _) = self.pages.freeze()?;
            let how = How::CopiedUpFront(WhyCopied::OlderSnapshots);
            return Ok((frozen, how, self.pages.len()));
        }
        let (frozen, copied) = self.pages.freeze()?;
        self.write_rate.copied_beside_older(copied);
        Ok((frozen, How::CopyOnWrite, copied))
    }

    fn copy_up_front(&mut self, why: WhyCopied) -> io::Result<(Frozen, How, usize)> {
        let free = self
            .spares
            .iter_mut()
            .position(|spare| spare.try_mut().is_some());
        let mut copy = match free {
            Some(index) => self.spares.swap_remove(index),
            None => Frozen::new(SharedPages::new(self.pages.len())?),
        };
        let to = copy.try_mut().expect("a spare that is free, or new");
        to.copy_from_slice(&self.pages);
        self.spares.truncate(SPARES - 1);
        self.spares.push(copy.clone());
        Ok((copy, How::CopiedUpFront(why), self.pages.len()))
    }

    /// Takes what was written back into the pages that all share, if nobody shares them any more.
    fn fold(&mut self) {
        if !self.pages.is_diverged() || self.pages.has_frozen() {
            return;
        }
        // Without, the region goes on as if the snapshot were still there.
        if let Ok(Some(written)) = self.pages.fold() {
            self.usage.written_bytes += written as u64;
            self.write_rate.observe(written, self.pages.len());
        }
    }
}

impl Deref for CowRegion {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.pages[..self.len]
    }
}

impl DerefMut for CowRegion {
    /// The first after the last snapshot was dropped copies what was written meanwhile.
    fn deref_mut(&mut self) -> &mut [u8] {
        self.fold();
        &mut self.pages.bytes_mut()[..self.len]
    }
}

/// Copies that are kept for the next snapshot: one that is being sent, and one that was.
const SPARES: usize = 2;
