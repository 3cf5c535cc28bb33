//! `sendfile(2)`.

use std::os::fd::{AsFd, BorrowedFd};

use super::context::Context;
use super::ends::Ends;
use super::pattern;
use super::place::Subject;
use super::report::Group;
use super::scratch;
use super::seen::{Mechanism, Seen};
use super::trouble::Trouble;

pub(super) const TO_SOCKET: Mechanism = Mechanism {
    id: "sendfile",
    name: "sendfile",
    call: "sendfile",
    group: Group::ToSocket,
    since: (2, 2),
    since_text: "2.2",
};

pub(super) const OF_FILES: Mechanism = Mechanism {
    group: Group::Files,
    ..TO_SOCKET
};

/// A file in memory to a socket, and to another file.
pub(super) fn to_socket(_: &Context) -> Result<Seen, Trouble> {
    let content = pattern::bytes(pattern::FEW);
    let file = scratch::holding(content)?;
    let ends = Ends::stream()?;
    carry(file.as_fd(), content, &ends)?;
    Ok(Seen::works(format!(
        "{} bytes from a file to {} arrived unchanged",
        content.len(),
        ends.kind
    )))
}

/// A file of this file system to a socket, and to a file in memory.
pub(super) fn of_files(subject: &Subject) -> Result<Seen, Trouble> {
    let file = subject.readable()?;
    let content = &subject.content[..subject.content.len().min(pattern::FEW)];
    let ends = Ends::stream()?;
    carry(file, content, &ends)?;
    let mut evidence = format!("{} bytes to {} arrived unchanged", content.len(), ends.kind);
    // Only on the way: another file as the sink is not what sendfile is for.
    if let Ok(sink) = scratch::in_memory() {
        let to_file = rustix::fs::sendfile(&sink, file, Some(&mut 0), content.len());
        let arrived = scratch::content_of(sink.as_fd(), content.len());
        match to_file {
            Ok(n) if arrived.as_deref().is_ok_and(|bytes| bytes == &content[..n]) => {
                evidence.push_str("; to a file as well");
            }
            Ok(_) => return Err(Trouble::Differs("sendfile to a file")),
            Err(errno) => {
                let error = super::trouble::described(errno);
                evidence.push_str(&format!("; to a file it failed: {error}"));
            }
        }
    }
    Ok(Seen::works(evidence))
}

fn carry(file: BorrowedFd<'_>, content: &[u8], ends: &Ends) -> Result<(), Trouble> {
    ends.carry(content, "sendfile", |at| {
        let mut offset = at as u64;
        let len = content.len() - at;
        Ok(rustix::fs::sendfile(
            &ends.near,
            file,
            Some(&mut offset),
            len,
        )?)
    })
}
