//! `mmap(2)` of a file and `send(2)` or `write(2)` from it.

use std::os::fd::{AsFd, BorrowedFd};

use zhaul_sys::mmap::{Mapping, SendMode};

use super::context::Context;
use super::ends::Ends;
use super::pattern;
use super::place::Subject;
use super::report::Group;
use super::scratch;
use super::seen::{Mechanism, Seen};
use super::trouble::{During, Trouble};

pub(super) const TO_SOCKET: Mechanism = Mechanism {
    id: "mmap_write",
    name: "mmap+write",
    call: "mmap, send",
    group: Group::ToSocket,
    since: (1, 0),
    since_text: "1.0",
};

pub(super) const OF_FILES: Mechanism = Mechanism {
    group: Group::Files,
    ..TO_SOCKET
};

/// From a file in memory.
pub(super) fn to_socket(_: &Context) -> Result<Seen, Trouble> {
    let content = pattern::bytes(pattern::FEW);
    let file = scratch::holding(content)?;
    carry(file.as_fd(), content)
}

/// From a file of this file system.
pub(super) fn of_files(subject: &Subject) -> Result<Seen, Trouble> {
    let content = &subject.content[..subject.content.len().min(pattern::FEW)];
    carry(subject.readable()?, content)
}

fn carry(file: BorrowedFd<'_>, content: &[u8]) -> Result<Seen, Trouble> {
    let window = Mapping::map(file, 0, content.len()).during("mmap with MAP_SHARED")?;
    let ends = Ends::stream()?;
    let mode = SendMode {
        dont_wait: true,
        more: false,
    };
    ends.carry(content, "send from a mapping", |at| {
        window.send_to(ends.near.as_fd(), at..content.len(), mode)
    })?;
    Ok(Seen::works(format!(
        "{} bytes sent from a shared mapping to {} arrived unchanged, copied once",
        content.len(),
        ends.kind
    )))
}
