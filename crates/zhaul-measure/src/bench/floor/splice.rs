//! `splice(2)`: from a pipe straight to the sink, from anything else through a pipe.

use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};

use super::chunk;
use crate::bench::mover::{Job, ended_early};

/// A pipe that is empty between two transfers.
#[derive(Debug)]
pub(in crate::bench) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    /// As large as those of the library's pool.
    pub(super) fn open() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        if fcntl_getpipe_size(&writer)? < PIPE_BYTES {
            // Not granted past the user's limit; then it is the default size for both.
            let _ = fcntl_setpipe_size(&writer, PIPE_BYTES);
        }
        Ok(Self { reader, writer })
    }
}

pub(super) fn transfer(job: &Job<'_>, pipe: &Pipe) -> io::Result<()> {
    if job.is_from_file() {
        from_file(job, pipe)
    } else if fcntl_getpipe_size(job.descriptor()?).is_ok() {
        from_pipe(job)
    } else {
        from_socket(job, pipe)
    }
}

fn from_file(job: &Job<'_>, pipe: &Pipe) -> io::Result<()> {
    let mut offset = 0;
    while offset < job.bytes {
        let len = chunk(job.bytes - offset);
        let off_in = Some(&mut offset);
        let got = splice(job.descriptor()?, off_in, &pipe.writer, None, len, MOVE)?;
        if got == 0 {
            return Err(ended_early(offset));
        }
        drain(job, pipe, got, job.bytes - offset)?;
    }
    Ok(())
}

fn from_socket(job: &Job<'_>, pipe: &Pipe) -> io::Result<()> {
    let mut moved = 0;
    while moved < job.bytes {
        let len = chunk(job.bytes - moved);
        let got = splice(job.descriptor()?, None, &pipe.writer, None, len, MOVE)?;
        if got == 0 {
            return Err(ended_early(moved));
        }
        // More is not certain to follow at once: a cork could stall the receiver.
        drain(job, pipe, got, 0)?;
        moved += got as u64;
    }
    Ok(())
}

fn from_pipe(job: &Job<'_>) -> io::Result<()> {
    let mut moved = 0;
    while moved < job.bytes {
        let len = chunk(job.bytes - moved);
        let got = splice(job.descriptor()?, None, job.sink, None, len, MOVE)?;
        if got == 0 {
            return Err(ended_early(moved));
        }
        moved += got as u64;
    }
    Ok(())
}

/// Moves all that is in the pipe on to the sink; `after` more bytes are certain to follow.
fn drain(job: &Job<'_>, pipe: &Pipe, mut held: usize, after: u64) -> io::Result<()> {
    let mut flags = MOVE;
    flags.set(SpliceFlags::MORE, after > 0);
    while held > 0 {
        held -= splice(&pipe.reader, None, job.sink, None, held, flags)?;
    }
    Ok(())
}

const MOVE: SpliceFlags = SpliceFlags::MOVE;

const PIPE_BYTES: usize = 256 << 10;
