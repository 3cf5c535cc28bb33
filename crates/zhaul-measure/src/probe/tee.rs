//! `tee(2)`: what is in a pipe goes into a second one, too, without being read.

use std::os::fd::AsFd;

use rustix::pipe::SpliceFlags;

use super::context::Context;
use super::ends::{Checker, Ends};
use super::pattern;
use super::report::Group;
use super::seen::{Mechanism, Seen};
use super::splice::{Pipe, move_on};
use super::trouble::{During, Trouble};

pub(super) const TEE: Mechanism = Mechanism {
    id: "tee",
    name: "tee",
    call: "tee",
    group: Group::FromSocket,
    since: (2, 6),
    since_text: "2.6.17",
};

/// Few enough for the smallest pipe.
const LEN: usize = 4096;

pub(super) fn try_it(_: &Context) -> Result<Seen, Trouble> {
    let content = pattern::bytes(LEN);
    let (first, second) = (Pipe::new()?, Pipe::new()?);
    rustix::io::write(&first.writer, content).preparing("write to a pipe")?;
    let teed = rustix::pipe::tee(&first.reader, &second.writer, LEN, SpliceFlags::NONBLOCK);
    if teed.during("tee")? != LEN {
        return Err(Trouble::Stuck("tee"));
    }
    // The copy is compared in the second pipe, the original where it goes on to.
    let mut checker = Checker::of(content, "tee");
    while !checker.is_done() && checker.take_from(second.reader.as_fd())? {}
    if !checker.is_done() {
        return Err(Trouble::Stuck("tee"));
    }
    let ends = Ends::stream()?;
    ends.carry(content, "splice after tee", |at| {
        move_on(first.reader.as_fd(), ends.near.as_fd(), LEN - at)
    })?;
    Ok(Seen::works(format!(
        "{LEN} bytes came out of a second pipe, and of the first one as well"
    )))
}
