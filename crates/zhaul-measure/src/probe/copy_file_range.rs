//! `copy_file_range(2)` between two files of a file system, and whether their blocks are shared.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use zhaul_sys::fiemap;

use super::pattern;
use super::place::Subject;
use super::report::Group;
use super::scratch;
use super::seen::{Mechanism, Seen};
use super::trouble::{During, Trouble};

pub(super) const COPY_FILE_RANGE: Mechanism = Mechanism {
    id: "copy_file_range",
    name: "copy_file_range",
    call: "copy_file_range",
    group: Group::Files,
    since: (4, 5),
    since_text: "4.5, across file systems 5.3",
};

pub(super) fn try_it(subject: &Subject) -> Result<Seen, Trouble> {
    let source = subject.writable()?;
    let sink = subject.another()?;
    copy(source, &sink, subject.content.len())?;
    if scratch::content_of(sink.as_fd(), subject.content.len()).preparing("read")?
        != subject.content
    {
        return Err(Trouble::Differs("copy_file_range"));
    }
    let shared = shares_blocks(sink.as_fd());
    let how = match shared {
        Some(true) => "the blocks are shared, nothing was copied",
        Some(false) => "copied within the kernel",
        None => "copied or shared, the file system does not tell",
    };
    let seen = Seen::works(format!(
        "{} bytes arrived in another file unchanged; {how}",
        subject.content.len()
    ));
    Ok(match shared {
        Some(shared) => seen.fact("shares_blocks", shared),
        None => seen,
    })
}

fn copy(source: BorrowedFd<'_>, sink: &OwnedFd, len: usize) -> Result<(), Trouble> {
    let mut at = 0;
    while at < len {
        let (mut from, mut to) = (at as u64, at as u64);
        let copied =
            rustix::fs::copy_file_range(source, Some(&mut from), sink, Some(&mut to), len - at)
                .during("copy_file_range")?;
        if copied == 0 {
            return Err(Trouble::Stuck("copy_file_range"));
        }
        at += copied;
    }
    Ok(())
}

/// Whether all extents of the file are shared with others; `None` if the file system does not tell.
pub(super) fn shares_blocks(file: BorrowedFd<'_>) -> Option<bool> {
    let extents = fiemap::extents(file).ok()?;
    (extents.count > 0).then_some(extents.shared == extents.count)
}

/// Between two files in memory, which shows whether the call is allowed at all.
pub(super) fn in_memory() -> Result<(), Trouble> {
    let content = pattern::bytes(pattern::FEW);
    let (source, sink) = (scratch::holding(content)?, scratch::holding(&[])?);
    copy(source.as_fd(), &sink, content.len())
}
