//! Whether memory goes by reference.
//!
//! Pinning pages and reporting their release costs more than copying a little, so below a size
//! memory is copied. Where the kernel copies all the same (loopback, veth, a device that does not
//! gather), or has no room to account for pinned pages, asking costs and gains nothing: then it is
//! not asked for a while, which is longer each time.

/// Whether memory may go by reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopy {
    /// From a size on, and not where it turned out to gain nothing.
    #[default]
    Auto,
    /// Never.
    Never,
    /// From the first byte, also where the kernel says that it copies: to measure, and to test.
    Always,
}

/// What is known of one socket in this respect. It outlives an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroCopyPolicy {
    mode: ZeroCopy,
    min_bytes: u64,
    /// So much memory is copied before it is tried again.
    copies_left: u64,
    /// So much it was the last time.
    penalty: u64,
}

impl ZeroCopyPolicy {
    /// For a socket of which nothing is known.
    pub const fn new(mode: ZeroCopy, min_bytes: u64) -> Self {
        Self {
            mode,
            min_bytes,
            copies_left: 0,
            penalty: 0,
        }
    }

    /// For a socket that never sends by reference.
    pub const NEVER: Self = Self::new(ZeroCopy::Never, u64::MAX);

    /// Whether a piece of so many bytes goes by reference.
    pub const fn wants(&self, bytes: u64) -> bool {
        match self.mode {
            ZeroCopy::Never => false,
            ZeroCopy::Always => bytes > 0,
            ZeroCopy::Auto => self.copies_left == 0 && bytes >= self.min_bytes && bytes > 0,
        }
    }

    pub(super) const fn sent_plainly(&mut self, bytes: u64) {
        self.copies_left = self.copies_left.saturating_sub(bytes);
    }

    /// Pages were released that were not copied.
    pub(super) const fn gained(&mut self) {
        self.penalty = 0;
    }

    /// True if it is given up for a while now, and was not before.
    pub(super) fn copied_after_all(&mut self) -> bool {
        let is_news = self.mode == ZeroCopy::Auto && self.copies_left == 0;
        if is_news {
            self.give_up_for_a_while();
        }
        is_news
    }

    /// The kernel had no means left.
    pub(super) fn fell_short(&mut self) {
        self.give_up_for_a_while();
    }

    /// The socket does not do it at all.
    pub(super) const fn is_refused(&mut self) {
        self.mode = ZeroCopy::Never;
    }

    fn give_up_for_a_while(&mut self) {
        self.penalty = (self.penalty * 2).clamp(FIRST_PENALTY, MAX_PENALTY);
        self.copies_left = self.penalty;
    }
}

/// What a socket on loopback wastes on trying: a piece in 8 MiB, then in 16 MiB, and so on.
const FIRST_PENALTY: u64 = 8 << 20;
const MAX_PENALTY: u64 = 1 << 30;
