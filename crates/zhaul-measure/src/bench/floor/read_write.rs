//! `read(2)` (`pread(2)` from a file) and `write(2)`.

use std::io;

use rustix::io::{pread, read, write};

use crate::bench::mover::{Job, ended_early};

pub(super) fn transfer(job: &Job<'_>, buffer: &mut [u8]) -> io::Result<()> {
    let mut moved = 0;
    while moved < job.bytes {
        let room = usize::try_from(job.bytes - moved).map_or(buffer.len(), |n| n.min(buffer.len()));
        let got = if job.is_from_file() {
            pread(job.descriptor()?, &mut buffer[..room], moved)?
        } else {
            read(job.descriptor()?, &mut buffer[..room])?
        };
        if got == 0 {
            return Err(ended_early(moved));
        }
        let mut put = 0;
        while put < got {
            put += write(job.sink, &buffer[put..got])?;
        }
        moved += got as u64;
    }
    Ok(())
}
