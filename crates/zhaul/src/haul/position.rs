//! A source whose own position counts.

use std::os::fd::BorrowedFd;

use rustix::fs::SeekFrom;
use zhaul_core::Errno;

use crate::errno::of_rustix;
use crate::progress::Progress;

/// Moves the position of a descriptor behind what was moved, however the transfer ends.
#[derive(Debug)]
pub(super) struct Position<'a> {
    source: BorrowedFd<'a>,
    start: u64,
    progress: &'a Progress,
    /// What the progress had counted before.
    before: u64,
}

impl<'a> Position<'a> {
    /// Where the descriptor stands.
    pub(super) fn of(source: BorrowedFd<'_>) -> Result<u64, Errno> {
        rustix::fs::seek(source, SeekFrom::Current(0)).map_err(of_rustix)
    }

    /// For a transfer that begins at `start` and counts in `progress`.
    pub(super) fn keep(source: BorrowedFd<'a>, start: u64, progress: &'a Progress) -> Self {
        Self {
            source,
            start,
            progress,
            before: progress.moved(),
        }
    }
}

impl Drop for Position<'_> {
    fn drop(&mut self) {
        let moved = self.progress.moved() - self.before;
        let end = self.start.saturating_add(moved);
        // It could be told, so it can be set.
        let _ = rustix::fs::seek(self.source, SeekFrom::Start(end));
    }
}
