//! `read(2)` and `write(2)`: the yardstick, and where every fallback ends.

use super::context::Context;
use super::ends::Ends;
use super::pattern;
use super::report::Group;
use super::scratch;
use super::seen::{Mechanism, Seen};
use super::trouble::Trouble;

pub(super) const READ_WRITE: Mechanism = Mechanism {
    id: "read_write",
    name: "read+write",
    call: "read, write",
    group: Group::ToSocket,
    since: (1, 0),
    since_text: "1.0",
};

pub(super) fn to_socket(_: &Context) -> Result<Seen, Trouble> {
    let content = pattern::bytes(pattern::FEW);
    let file = scratch::holding(content)?;
    let ends = Ends::stream()?;
    let mut buffer = [0; 4096];
    ends.carry(content, "read and write", |at| {
        let read = rustix::io::pread(&file, &mut buffer, at as u64)?;
        Ok(rustix::io::write(&ends.near, &buffer[..read])?)
    })?;
    Ok(Seen::works(format!(
        "{} bytes from a file to {} arrived unchanged, copied twice",
        content.len(),
        ends.kind
    )))
}
