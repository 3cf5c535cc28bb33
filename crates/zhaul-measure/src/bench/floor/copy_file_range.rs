//! `copy_file_range(2)`.

use std::io;

use super::chunk;
use crate::bench::mover::{Job, ended_early};

pub(super) fn transfer(job: &Job<'_>) -> io::Result<()> {
    let mut offset = 0;
    while offset < job.bytes {
        let len = chunk(job.bytes - offset);
        if rustix::fs::copy_file_range(job.descriptor()?, Some(&mut offset), job.sink, None, len)?
            == 0
        {
            return Err(ended_early(offset));
        }
    }
    Ok(())
}
