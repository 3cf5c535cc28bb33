//! Makes the calls that a relay names.

use std::os::fd::BorrowedFd;

use rustix::net::sockopt::{socket_domain, socket_error, socket_protocol};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown};
use rustix::pipe::SpliceFlags;

use zhaul_core::Errno;
use zhaul_core::relay::{Call, Side, Way};

use super::buffers::PooledBuffer;
use crate::errno::{errno_of, of_rustix};
use crate::pipe_pool::PooledPipe;

/// What a way holds between two calls.
#[derive(Debug, Default)]
pub(super) struct WayBuffers {
    pub(super) buffer: Option<PooledBuffer>,
    pub(super) pipe: Option<PooledPipe>,
}

/// Which event makes a call worth while that answered EAGAIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    Readable,
    Writable,
}

/// The two sockets of a relay, and who watches over them.
pub(super) trait Sockets {
    fn fd(&self, side: Side) -> BorrowedFd<'_>;

    /// Makes a call that may answer EAGAIN; `None` if the side is known not to be ready.
    fn attempt(
        &self,
        side: Side,
        awaits: Awaits,
        call: impl FnMut() -> Result<usize, Errno>,
    ) -> Option<Result<usize, Errno>>;

    /// Whether a splice from this side is worth trying. Its EAGAIN proves nothing.
    fn may_be_readable(&self, side: Side) -> bool;
}

/// What makes the calls of a relay.
pub(super) trait Calls {
    /// Makes the call; `None` if it was not made because the side is known not to be ready.
    fn perform(&self, call: Call, buffers: &mut [WayBuffers; 2]) -> Option<Result<usize, Errno>>;

    fn is_tcp(&self, side: Side) -> bool;
}

impl<S: Sockets> Calls for S {
    fn perform(&self, call: Call, buffers: &mut [WayBuffers; 2]) -> Option<Result<usize, Errno>> {
        perform(call, self, buffers)
    }

    fn is_tcp(&self, side: Side) -> bool {
        is_tcp(self.fd(side))
    }
}

/// Sockets that are not watched by anybody in between.
#[derive(Debug)]
pub(super) struct Bare<'a> {
    pub(super) a: BorrowedFd<'a>,
    pub(super) b: BorrowedFd<'a>,
}

impl Sockets for Bare<'_> {
    fn fd(&self, side: Side) -> BorrowedFd<'_> {
        match side {
            Side::A => self.a,
            Side::B => self.b,
        }
    }

    fn attempt(
        &self,
        _side: Side,
        _awaits: Awaits,
        mut call: impl FnMut() -> Result<usize, Errno>,
    ) -> Option<Result<usize, Errno>> {
        Some(call())
    }

    fn may_be_readable(&self, _side: Side) -> bool {
        true
    }
}

fn perform(
    call: Call,
    sockets: &impl Sockets,
    buffers: &mut [WayBuffers; 2],
) -> Option<Result<usize, Errno>> {
    match call {
        Call::Recv { way, len } => {
            let Some(buffer) = &mut buffers[way.index()].buffer else {
                return Some(Err(Errno::EFAULT));
            };
            let room = buffer.bytes_mut().get_mut(..len)?;
            let source = sockets.fd(way.source());
            sockets.attempt(way.source(), Awaits::Readable, || recv(source, room))
        }
        Call::Send { way, start, len } => {
            let Some(buffer) = &buffers[way.index()].buffer else {
                return Some(Err(Errno::EFAULT));
            };
            let bytes = buffer.bytes().get(start..start + len)?;
            let sink = sockets.fd(way.sink());
            sockets.attempt(way.sink(), Awaits::Writable, || send(sink, bytes))
        }
        Call::SpliceIn { way, len } => {
            if !sockets.may_be_readable(way.source()) {
                return None;
            }
            let pipe = buffers[way.index()].pipe.as_ref();
            let source = sockets.fd(way.source());
            Some(pipe.map_or(Err(Errno::EBADF), |pipe| splice(source, pipe.writer(), len)))
        }
        Call::SpliceOut { way, len } => {
            let Some(pipe) = &buffers[way.index()].pipe else {
                return Some(Err(Errno::EBADF));
            };
            let sink = sockets.fd(way.sink());
            let drain = || splice(pipe.reader(), sink, len);
            sockets.attempt(way.sink(), Awaits::Writable, drain)
        }
        Call::ReadPipe { way, len } => Some(read_pipe(&mut buffers[way.index()], len)),
        Call::ShutdownWrite { way } => Some(shutdown_write(sockets.fd(way.sink()))),
        Call::TakeError { side } => Some(Ok(take_error(sockets.fd(side)))),
        Call::Unsent { side } => Some(queued(sockets.fd(side))),
        Call::Unacknowledged { side } if is_unix(sockets.fd(side)) => Some(Ok(0)),
        Call::Unacknowledged { side } => Some(queued(sockets.fd(side))),
        Call::Reset { side } => Some(reset(sockets.fd(side))),
    }
}

fn shutdown_write(sink: BorrowedFd<'_>) -> Result<usize, Errno> {
    rustix::net::shutdown(sink, Shutdown::Write)
        .map(|()| 0)
        .map_err(of_rustix)
}

fn take_error(socket: BorrowedFd<'_>) -> usize {
    match socket_error(socket) {
        Ok(Err(errno)) => usize::try_from(errno.raw_os_error()).unwrap_or(0),
        _ => 0,
    }
}

fn retry(mut call: impl FnMut() -> rustix::io::Result<usize>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map_err(of_rustix),
        }
    }
}

fn recv(source: BorrowedFd<'_>, room: &mut [u8]) -> Result<usize, Errno> {
    retry(|| rustix::net::recv(source, &mut *room, RecvFlags::DONTWAIT).map(|(read, _)| read))
}

fn send(sink: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    retry(|| rustix::net::send(sink, bytes, flags))
}

fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> Result<usize, Errno> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    retry(|| rustix::pipe::splice(from, None, to, None, len, flags))
}

fn read_pipe(held: &mut WayBuffers, len: usize) -> Result<usize, Errno> {
    let (Some(pipe), Some(buffer)) = (&held.pipe, &mut held.buffer) else {
        return Err(Errno::EBADF);
    };
    let room = buffer.bytes_mut().get_mut(..len).ok_or(Errno::EFAULT)?;
    retry(|| rustix::io::read(pipe.reader(), &mut *room))
}

pub(super) fn queued(socket: BorrowedFd<'_>) -> Result<usize, Errno> {
    zhaul_sys::siocoutq::unacknowledged(socket).map_err(|error| errno_of(&error))
}

pub(super) fn is_unix(socket: BorrowedFd<'_>) -> bool {
    socket_domain(socket) == Ok(AddressFamily::UNIX)
}

/// MPTCP, for one, is not.
fn is_tcp(socket: BorrowedFd<'_>) -> bool {
    socket_protocol(socket) == Ok(Some(rustix::net::ipproto::TCP))
}

/// Dissolving the association is how `connect(2)` lets a TCP socket be reset and emptied while its
/// descriptor stays open; a close with a linger time of 0 does the same. A UNIX socket knows
/// neither.
pub(super) fn reset(socket: BorrowedFd<'_>) -> Result<usize, Errno> {
    rustix::net::connect_unspec(socket)
        .or_else(|_| rustix::net::shutdown(socket, Shutdown::Both))
        .map(|()| 0)
        .map_err(of_rustix)
}

/// Gives back what the ways have no use for.
pub(super) fn release(buffers: &mut [WayBuffers; 2], relay: &zhaul_core::relay::RelayMachine) {
    for way in Way::BOTH {
        let held = &mut buffers[way.index()];
        if held.buffer.is_some() && !relay.holds_buffer(way) {
            held.buffer = None;
        }
        if !relay.holds_pipe(way)
            && let Some(pipe) = held.pipe.take()
        {
            pipe.give_back_empty();
        }
    }
}
