//! What the caller wants of a transfer.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::route::Route;

/// How much to move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Length {
    /// Exactly so many bytes; a source that ends before is an error.
    Exact(u64),
    /// Until the source ends.
    #[default]
    ToEnd,
}

/// What the caller knows about others who may write to the source while it is sent.
///
/// A route that sends in place (sendfile, splice) queues references to the page cache, not
/// copies: what a writer stores there before the receiver got the bytes is what the receiver
/// gets, and a truncation turns them into zeros. Streams and generated files have no such
/// pages; for them the value changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stability {
    /// Nobody edits it in place: it is replaced by rename, or is archived. All routes are
    /// allowed. The version is compared before each chunk and after the last: another mtime or a
    /// shorter length stops the transfer, but bytes already queued cannot be taken back. A change of
    /// metadata alone (ctime moves, mtime does not) stops nothing.
    ///
    /// What stays unseen: an editor who sets mtime back; stores through a shared mapping whose page
    /// is dirty already, which move no time stamp before the kernel has written the page back; an
    /// edit after the last look, while pages are still queued in the sink.
    Immutable,
    /// Others may write to it at any time. Bytes are copied at the moment they are read, so each
    /// byte sent was in the file when it was read. The default.
    ///
    /// From file to file it rules `copy_file_range(2)` out too, and with it shared extents
    /// (reflink): while the kernel copies, a truncation of the source turns into zeros in the copy.
    /// Call the source immutable, or lease it, to have files copied in the kernel.
    ///
    /// One gap is the kernel's own: `read(2)` is not atomic. A truncation that overtakes it during
    /// the copy of the page at the cut leaves zeros from the cut to the end of that page (or large
    /// folio) in what was read (seen on Linux 6.18, rarely, with an editor that did nothing but
    /// cut and rewrite). Only a lease rules that out.
    #[default]
    MayChange,
    /// The caller holds a read lease, which makes an editor wait. In-place routes are allowed to
    /// sinks where the end of the flight can be observed; the transfer stops when the lease
    /// breaks.
    Leased,
}

/// The caller's wishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Where in a seekable source to start; anything but 0 is refused for streams. The descriptor's
    /// own position is neither used nor moved.
    pub offset: u64,
    /// How much to move.
    pub length: Length,
    /// Where in a seekable sink to start; `None` writes at the descriptor's own position and
    /// moves it, as `write(2)` does. Refused for streams and for files opened with `O_APPEND`.
    pub sink_offset: Option<u64>,
    /// Who else may write to the source.
    pub stability: Stability,
    /// Largest amount asked of one system call; versions and residency are checked at its
    /// multiples. 0 is refused, and more than 1 GiB is 1 GiB.
    pub chunk_bytes: usize,
    /// Bytes to move before other work gets its turn ([`Step::Yield`](crate::Step::Yield)). 0 is
    /// refused.
    pub budget_bytes: usize,
    /// When to give up, on the clock whose readings go to
    /// [`Transfer::tick`](crate::Transfer::tick).
    pub deadline: Option<Duration>,
    /// Bytes per second at most.
    pub throttle: Option<NonZeroU64>,
    /// Take this route or fail: no planning, no fallback.
    pub only: Option<Route>,
    /// The source's version was read just now, so the first chunk needs no check of its own.
    pub version_is_fresh: bool,
    /// All bytes must come from one version of the file: where they are copied by reading, the
    /// version is compared after each read and before the bytes are written, so that neither a
    /// mixture nor a page that a truncation zeroed under the read reaches the sink. An edit ends
    /// the transfer. What counts as one is said at [`Drift`](crate::Drift).
    pub one_version: bool,
    /// Where versions are compared, a move of ctime alone counts as an edit. That finds an editor
    /// who sets mtime back, and cuts the transfer short for everybody who changes the mode, the
    /// owner, an attribute or the name of the file. A link, an unlink and a rename over it stay
    /// allowed.
    pub ctime_is_edit: bool,
    /// With [`Stability::Leased`] and pages sent in place: do not finish before they are
    /// acknowledged, so that the lease may be dropped as soon as the transfer is done.
    pub await_release: bool,
    /// More is certain to be sent at once behind the last byte of an exact length, so that a copy
    /// of it may be held back to share a segment with that (`MSG_MORE`).
    pub more_follows: bool,
}

/// 1 MiB: large enough that a version check and a residency probe vanish in the cost of moving
/// it, small enough that one chunk occupies a thread for about 100 µs.
pub const DEFAULT_CHUNK_BYTES: usize = 1 << 20;

/// The last offset that the kernel knows (`loff_t` is signed): 2^63 - 1.
pub(crate) const MAX_OFFSET: u64 = i64::MAX as u64;

/// One chunk: whoever else is runnable waits for at most one.
pub const DEFAULT_BUDGET_BYTES: usize = DEFAULT_CHUNK_BYTES;

impl Default for Ask {
    fn default() -> Self {
        Self {
            offset: 0,
            length: Length::ToEnd,
            sink_offset: None,
            stability: Stability::default(),
            chunk_bytes: DEFAULT_CHUNK_BYTES,
            budget_bytes: DEFAULT_BUDGET_BYTES,
            deadline: None,
            throttle: None,
            only: None,
            version_is_fresh: false,
            one_version: false,
            ctime_is_edit: false,
            await_release: true,
            more_follows: false,
        }
    }
}
