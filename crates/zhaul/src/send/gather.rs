//! `sendmsg(2)` of the memory of an aggregate.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use rustix::net::{SendAncillaryBuffer, SendFlags};

use zhaul_core::Errno;
use zhaul_core::outbound::Gather;

use crate::errno::of_rustix;
use crate::memory::{Aggregate, Segment};

/// Sends what `gather` names by copying it; without SIGPIPE. In blocking mode the call waits only if
/// it may.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    aggregate: &Aggregate,
    gather: &Gather,
    may_wait: bool,
) -> Result<usize, Errno> {
    let mut flags = SendFlags::NOSIGNAL;
    flags.set(SendFlags::DONTWAIT, !may_wait);
    flags.set(SendFlags::MORE, gather.more);
    let first = first_piece(aggregate, gather);
    if gather.segments == 1 {
        return until_done(|| rustix::net::send(socket, first, flags));
    }
    let mut few = [IoSlice::new(&[]); FEW];
    let mut many = Vec::new();
    let pieces = if gather.segments <= FEW {
        &mut few[..gather.segments]
    } else {
        many.resize(gather.segments, IoSlice::new(&[]));
        &mut many[..]
    };
    let mut left = gather.len;
    for (index, piece) in pieces.iter_mut().enumerate() {
        let bytes = match index {
            0 => first,
            _ => memory(aggregate, gather.segment + index),
        };
        let bytes = &bytes[..bytes.len().min(left)];
        left -= bytes.len();
        *piece = IoSlice::new(bytes);
    }
    let mut no_control = SendAncillaryBuffer::default();
    until_done(|| rustix::net::sendmsg(socket, pieces, &mut no_control, flags))
}

/// What is named of the first of the segments.
fn first_piece<'a>(aggregate: &'a Aggregate, gather: &Gather) -> &'a [u8] {
    let bytes = memory(aggregate, gather.segment);
    let bytes = bytes.get(gather.offset..).unwrap_or_default();
    &bytes[..bytes.len().min(gather.len)]
}

fn memory(aggregate: &Aggregate, index: usize) -> &[u8] {
    match aggregate.get(index) {
        Some(Segment::Memory(memory)) => memory,
        _ => &[],
    }
}

fn until_done(mut call: impl FnMut() -> rustix::io::Result<usize>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            done => return done.map_err(of_rustix),
        }
    }
}

/// So many pieces need no memory of their own to be listed.
const FEW: usize = 16;
