//! The three stages with pipes of 1 MiB.
#![allow(clippy::print_stderr)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::{CHUNK, CHUNKS, Outcome};

pub(crate) fn connect() -> Outcome<[OwnedFd; 2]> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setpipe_size(&writer, 1 << 20)?;
    Ok([writer, reader])
}

pub(crate) fn run(stage: &str, input: OwnedFd, output: OwnedFd) -> Outcome {
    let (mut input, mut output) = (File::from(input), File::from(output));
    let mut chunk = vec![0; CHUNK];
    for _ in 0..CHUNKS {
        input.read_exact(&mut chunk)?;
        if stage == "transform" {
            chunk.iter_mut().for_each(|byte| *byte = !*byte);
        }
        output.write_all(&chunk)?;
    }
    if stage == "serve" {
        let bytes = CHUNK * CHUNKS;
        eprintln!("  {bytes} bytes: each copied 4 times between processes, once into the socket");
    }
    Ok(())
}
