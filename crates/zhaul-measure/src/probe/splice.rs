//! `splice(2)`: from a file through a pipe to a socket, and from a socket through a pipe to another.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with};

use super::context::Context;
use super::ends::Ends;
use super::pattern;
use super::place::Subject;
use super::report::Group;
use super::scratch;
use super::seen::{Mechanism, Seen};
use super::trouble::{During, Trouble};

pub(super) const TO_SOCKET: Mechanism = Mechanism {
    id: "splice",
    name: "splice",
    call: "splice",
    group: Group::ToSocket,
    since: (2, 6),
    since_text: "2.6.17",
};

pub(super) const OF_FILES: Mechanism = Mechanism {
    group: Group::Files,
    ..TO_SOCKET
};

pub(super) const RELAY: Mechanism = Mechanism {
    id: "splice_relay",
    name: "splice",
    group: Group::FromSocket,
    since: (2, 6),
    since_text: "2.6.25",
    ..TO_SOCKET
};

/// A pipe whose ends do not block.
pub(super) struct Pipe {
    pub(super) reader: OwnedFd,
    pub(super) writer: OwnedFd,
}

impl Pipe {
    pub(super) fn new() -> Result<Self, Trouble> {
        let (reader, writer) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).preparing("pipe2")?;
        Ok(Self { reader, writer })
    }
}

/// A file in memory, through a pipe, to a socket.
pub(super) fn to_socket(_: &Context) -> Result<Seen, Trouble> {
    let content = pattern::bytes(pattern::FEW);
    let file = scratch::holding(content)?;
    from_file(file.as_fd(), content)
}

/// A file of this file system, through a pipe, to a socket.
pub(super) fn of_files(subject: &Subject) -> Result<Seen, Trouble> {
    let content = &subject.content[..subject.content.len().min(pattern::FEW)];
    from_file(subject.readable()?, content)
}

fn from_file(file: BorrowedFd<'_>, content: &[u8]) -> Result<Seen, Trouble> {
    let pipe = Pipe::new()?;
    let ends = Ends::stream()?;
    let mut in_pipe = 0;
    ends.carry(content, "splice", |at| {
        if in_pipe == 0 {
            let mut offset = at as u64;
            let len = content.len() - at;
            in_pipe = rustix::pipe::splice(
                file,
                Some(&mut offset),
                &pipe.writer,
                None,
                len,
                SpliceFlags::NONBLOCK,
            )?;
        }
        let moved = move_on(pipe.reader.as_fd(), ends.near.as_fd(), in_pipe)?;
        in_pipe -= moved;
        Ok(moved)
    })?;
    Ok(Seen::works(format!(
        "{} bytes from a file through a pipe to {} arrived unchanged",
        content.len(),
        ends.kind
    )))
}

/// A socket, through a pipe, to another socket.
pub(super) fn relay(_: &Context) -> Result<Seen, Trouble> {
    let content = pattern::bytes(pattern::FEW);
    let pipe = Pipe::new()?;
    let (inward, onward) = (Ends::stream()?, Ends::stream()?);
    inward.fill(content)?;
    let mut in_pipe = 0;
    onward.carry(content, "splice", |_| {
        if in_pipe == 0 {
            in_pipe = move_on(inward.far.as_fd(), pipe.writer.as_fd(), content.len())?;
        }
        let moved = move_on(pipe.reader.as_fd(), onward.near.as_fd(), in_pipe)?;
        in_pipe -= moved;
        Ok(moved)
    })?;
    Ok(Seen::works(format!(
        "{} bytes from {} through a pipe to another arrived unchanged",
        content.len(),
        inward.kind
    )))
}

/// Between two streams, of which one is a pipe.
pub(super) fn move_on(
    source: BorrowedFd<'_>,
    sink: BorrowedFd<'_>,
    len: usize,
) -> io::Result<usize> {
    let flags = SpliceFlags::NONBLOCK;
    Ok(rustix::pipe::splice(source, None, sink, None, len, flags)?)
}
