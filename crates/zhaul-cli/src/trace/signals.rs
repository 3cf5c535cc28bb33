//! Ctrl-C and its like end a trace, not the process: the report is still to come.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// Signals that came.
pub(super) struct Signals {
    interrupts: UnixStream,
    terminations: UnixStream,
}

/// How many came since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Came {
    pub(super) interrupts: usize,
    pub(super) terminations: usize,
}

impl Signals {
    /// From now on they end nothing by themselves.
    pub(super) fn watch() -> io::Result<Self> {
        let (interrupts, interrupt) = pair()?;
        let (terminations, terminate) = pair()?;
        // A handler writes a byte for each.
        pipe::register(SIGINT, interrupt)?;
        pipe::register(SIGTERM, terminate)?;
        Ok(Self {
            interrupts,
            terminations,
        })
    }

    pub(super) fn came(&mut self) -> Came {
        Came {
            interrupts: count(&mut self.interrupts),
            terminations: count(&mut self.terminations),
        }
    }
}

/// The first end does not block.
fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    Ok((reader, writer))
}

fn count(stream: &mut UnixStream) -> usize {
    let mut bytes = [0; 64];
    let mut sum = 0;
    while let Ok(read @ 1..) = stream.read(&mut bytes) {
        sum += read;
    }
    sum
}
