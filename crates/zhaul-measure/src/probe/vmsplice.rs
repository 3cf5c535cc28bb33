//! `vmsplice(2)`: pages of this process into a pipe, and on to a socket.

use std::os::fd::AsFd;

use zhaul_sys::vmsplice::vmsplice_static;

use super::context::Context;
use super::ends::Ends;
use super::pattern;
use super::report::Group;
use super::seen::{Mechanism, Seen};
use super::splice::{Pipe, move_on};
use super::trouble::Trouble;

pub(super) const VMSPLICE: Mechanism = Mechanism {
    id: "vmsplice",
    name: "vmsplice",
    call: "vmsplice",
    group: Group::ToSocket,
    since: (2, 6),
    since_text: "2.6.17",
};

pub(super) fn to_socket(_: &Context) -> Result<Seen, Trouble> {
    let content = pattern::bytes(pattern::FEW);
    let pipe = Pipe::new()?;
    let ends = Ends::stream()?;
    let mut in_pipe = 0;
    ends.carry(content, "vmsplice", |at| {
        if in_pipe == 0 {
            in_pipe = vmsplice_static(pipe.writer.as_fd(), &content[at..])?;
        }
        let moved = move_on(pipe.reader.as_fd(), ends.near.as_fd(), in_pipe)?;
        in_pipe -= moved;
        Ok(moved)
    })?;
    Ok(Seen::works(format!(
        "{} bytes of memory through a pipe to {} arrived unchanged; \
         nothing tells when the pages may be used again",
        content.len(),
        ends.kind
    )))
}
