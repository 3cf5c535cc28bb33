//! `fallocate(2)` for what a sink is to get: its blocks are there before the first byte, or there is
//! none.
//!
//! Reserved with FALLOC_FL_KEEP_SIZE the file is as long as what was written to it, whatever happens.
//! Blocks that were not filled lie behind its end, where only a truncation to the size that it has
//! frees them (measured on ext4, XFS, Btrfs and tmpfs). Linux 2.6.23.
//! [fallocate(2)](https://man7.org/linux/man-pages/man2/fallocate.2.html)

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno as Raw;

use zhaul_core::{Ask, Errno, Length, Operation, SinkFacts, SinkKind, Transfer, TransferError};

use crate::calls::{Buffers, size_of};
use crate::errno::{errno_of, of_rustix};

/// A sink that is one transfer's alone.
#[derive(Debug)]
pub(crate) struct Reservation {
    sink: OwnedFd,
    start: u64,
    end: u64,
    /// The file system has no fallocate: the sink is only watched.
    has_blocks: bool,
}

impl Reservation {
    /// Reserves what is asked for in a file; `None` for any other sink, and without a length.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EFBIG if there is no room for so much.
    pub(crate) fn make(
        sink: BorrowedFd<'_>,
        facts: &SinkFacts,
        ask: &Ask,
    ) -> Result<Option<Self>, TransferError> {
        let failed = |errno| TransferError::before_start(Operation::Reserve, errno);
        let Length::Exact(bytes) = ask.length else {
            return Ok(None);
        };
        if facts.kind != SinkKind::Regular || facts.append || bytes == 0 {
            return Ok(None);
        }
        let start = match ask.sink_offset {
            Some(offset) => offset,
            None => rustix::fs::seek(sink, SeekFrom::Current(0))
                .map_err(|errno| failed(of_rustix(errno)))?,
        };
        let sink = sink
            .try_clone_to_owned()
            .map_err(|error| failed(errno_of(&error)))?;
        let mut reservation = Self {
            sink,
            start,
            end: start.saturating_add(bytes),
            has_blocks: true,
        };
        let reserved = loop {
            match rustix::fs::fallocate(&reservation.sink, FallocateFlags::KEEP_SIZE, start, bytes)
            {
                Err(Raw::INTR) => {}
                result => break result,
            }
        };
        match reserved {
            Ok(()) => Ok(Some(reservation)),
            Err(Raw::OPNOTSUPP | Raw::NOSYS) => {
                reservation.has_blocks = false;
                Ok(Some(reservation))
            }
            Err(errno) => {
                // Some of it may have been.
                reservation.give_back();
                Err(failed(of_rustix(errno)))
            }
        }
    }

    /// Lets a transfer that is about to begin know.
    pub(crate) const fn tell(&self, transfer: &mut Transfer, buffers: &mut Buffers) {
        buffers.keep_sink_from(self.start);
        if self.has_blocks {
            transfer.sink_reserved(self.end - self.start);
        }
    }

    /// What is to be said of the sink of a transfer that is over. May wait for the disk.
    pub(crate) fn settle(&self, transfer: &mut Transfer) {
        if let Some(size) = self.settled(transfer.moved()) {
            transfer.sink_truncated(size);
        }
    }

    /// Gives back what was not filled; the size of the sink, if somebody cut it.
    pub(crate) fn settled(&self, moved: u64) -> Option<u64> {
        let written = self.start + moved;
        if written < self.end {
            self.give_back();
        }
        let size = size_of(self.sink.as_fd()).ok()?;
        (moved > 0 && size < written).then_some(size)
    }

    /// Frees blocks behind the end of the file, unless others have made it longer than that.
    pub(crate) fn give_back(&self) {
        if !self.has_blocks {
            return;
        }
        if let Ok(size) = size_of(self.sink.as_fd())
            && size < self.end
        {
            // What cannot be freed is no loss of data.
            let _: Result<(), Errno> = rustix::fs::ftruncate(&self.sink, size).map_err(of_rustix);
        }
    }
}
