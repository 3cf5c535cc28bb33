//! `mmap(2)` of one window after another, and `write(2)` out of it.

use std::io;

use zhaul_sys::mmap::Mapping;

use super::{WINDOW_BYTES, chunk};
use crate::bench::mover::Job;

pub(super) fn transfer(job: &Job<'_>) -> io::Result<()> {
    let mut start = 0;
    while start < job.bytes {
        // A window fits into any address space.
        let len = (job.bytes - start).min(WINDOW_BYTES) as usize;
        let window = Mapping::map(job.descriptor()?, start, len)?;
        let mut put = 0;
        while put < len {
            let end = put + chunk((len - put) as u64);
            put += window.write_to(job.sink, put..end)?;
        }
        start += len as u64;
    }
    Ok(())
}
