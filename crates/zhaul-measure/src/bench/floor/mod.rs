//! The floor: the same system calls in a bare loop, and nothing else.
//!
//! It checks what a call returned, because a loop that loses bytes measures nothing, and it takes
//! as much per call as the library does, so that both make the same calls. It examines nothing,
//! watches nothing and cannot be stopped: no program could do less.

mod copy_file_range;
mod mmap_write;
mod read_write;
mod send;
mod sendfile;
mod splice;

use std::io;

use zhaul::Route;

use super::mover::Job;
pub(super) use send::Sending;

/// A bare loop of one route's calls, with what it uses again from transfer to transfer.
#[derive(Debug)]
pub(super) enum Floor {
    ReadWrite(Vec<u8>),
    MmapWrite,
    Sendfile,
    Splice(splice::Pipe),
    CopyFileRange,
}

impl Floor {
    pub(super) fn new(route: Route) -> io::Result<Self> {
        match route {
            Route::ReadWrite => Ok(Self::ReadWrite(vec![1; BUFFER_BYTES])),
            Route::MmapWrite => Ok(Self::MmapWrite),
            Route::Sendfile => Ok(Self::Sendfile),
            Route::Splice => Ok(Self::Splice(splice::Pipe::open()?)),
            Route::CopyFileRange => Ok(Self::CopyFileRange),
            _ => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("there is no bare loop for {route}"),
            )),
        }
    }

    pub(super) fn move_all(&mut self, job: &Job<'_>, repeats: u64) -> io::Result<()> {
        for _ in 0..repeats {
            match self {
                Self::ReadWrite(buffer) => read_write::transfer(job, buffer)?,
                Self::MmapWrite => mmap_write::transfer(job)?,
                Self::Sendfile => sendfile::transfer(job)?,
                Self::Splice(pipe) => splice::transfer(job, pipe)?,
                Self::CopyFileRange => copy_file_range::transfer(job)?,
            }
        }
        Ok(())
    }
}

/// The library's buffer: it stays in the second-level cache between the two copies.
const BUFFER_BYTES: usize = 64 << 10;

/// The library's window of a mapped file.
const WINDOW_BYTES: u64 = 8 << 20;

/// What one call takes: the library's chunk, or what is left.
pub(super) fn chunk(left: u64) -> usize {
    usize::try_from(left).map_or(zhaul::DEFAULT_CHUNK_BYTES, |left| {
        left.min(zhaul::DEFAULT_CHUNK_BYTES)
    })
}
