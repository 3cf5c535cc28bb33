//! How long a copy takes on this machine, for an estimate of copies where they cannot be counted.
//!
//! A bare loop reads a memory file and writes another: by the contract of the two calls, each byte
//! is copied once to user memory and once from it. The time that samples find in the copy routines
//! is the yardstick for the time they find there during a transfer.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;

use super::instruments::Instruments;
use crate::perf::{CopyTime, Samples};

/// The time of a copy, found on the calling thread; `None` if it could not be sampled well enough in
/// [`PATIENCE`].
pub(crate) fn copy_time(instruments: &mut Instruments) -> Option<CopyTime> {
    let (from, to) = (memory()?, memory()?);
    let mut buffer = vec![0; PIECE_BYTES];
    // The first pass makes the pages of the sink, and is no copy alone.
    pass(&from, &to, &mut buffer)?;
    let began = Instant::now();
    let mut samples: Option<Samples> = None;
    let mut bytes = 0;
    while began.elapsed() < PATIENCE {
        let measured =
            instruments.measure(|| (0..PASSES).try_for_each(|_| pass(&from, &to, &mut buffer)));
        measured.outcome?;
        bytes += PASSES * FILE_BYTES;
        let seen = measured.seen.profile.ok()?;
        match &mut samples {
            Some(samples) => samples.add(seen),
            None => samples = Some(seen),
        }
        let time = CopyTime::of_read_write(samples.as_ref()?, bytes);
        if time.is_some() {
            return time;
        }
    }
    None
}

/// A file in memory, all of it written.
fn memory() -> Option<OwnedFd> {
    let file = rustix::fs::memfd_create("zhaul-yardstick", MemfdFlags::CLOEXEC).ok()?;
    let content = vec![1; PIECE_BYTES];
    let mut at = 0;
    while at < FILE_BYTES {
        at += rustix::io::pwrite(&file, &content, at).ok()? as u64;
    }
    Some(file)
}

fn pass(from: &OwnedFd, to: &OwnedFd, buffer: &mut [u8]) -> Option<()> {
    let mut at = 0;
    while at < FILE_BYTES {
        let read = rustix::io::pread(from, &mut *buffer, at).ok()?;
        let mut written = 0;
        while written < read {
            written += rustix::io::pwrite(to, &buffer[written..read], at + written as u64).ok()?;
        }
        at += read as u64;
    }
    Some(())
}

/// Larger than the caches near the core, as a file mostly is.
const FILE_BYTES: u64 = 16 << 20;

/// What the library reads at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Copies between two looks at the samples: some ten milliseconds.
const PASSES: u64 = 8;

/// A report may be that much late for it.
const PATIENCE: Duration = Duration::from_millis(400);
