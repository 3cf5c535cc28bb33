//! The contender: the library, told to take this way and no other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use zhaul::send::ZeroCopySender;
use zhaul::{Haul, Route, Stability, ZeroCopy};
use zhaul_sys::msg_zerocopy::Sender;

use super::datagrams::{DATAGRAM_BYTES, Window};
use super::mover::{Job, Promise};
use super::way::Way;

/// Describes the transfer, as a program that uses the library would.
pub(super) fn haul<'a>(
    job: &Job<'a>,
    route: Route,
) -> io::Result<Haul<'a, BorrowedFd<'a>, BorrowedFd<'a>>> {
    let haul = zhaul::transfer(job.descriptor()?, job.sink)
        .length(job.bytes)
        .only(route);
    Ok(match job.promise {
        Promise::None => haul,
        Promise::Immutable => haul.stability(Stability::Immutable),
        Promise::Lease(lease) => haul.lease(lease),
    })
}

/// Makes it.
pub(super) fn transfer(job: &Job<'_>, route: Route) -> io::Result<()> {
    haul(job, route)?.run()?;
    Ok(())
}

/// Sends from memory, with what a connection's owner keeps: the sender by reference.
#[derive(Debug)]
pub(super) enum Sending {
    Plainly,
    ByReference { kept: Option<Kept>, copied: u64 },
}

#[derive(Debug)]
pub(super) enum Kept {
    Stream(ZeroCopySender),
    Datagrams(Sender),
}

impl Sending {
    pub(super) fn new(way: Way) -> Self {
        match way {
            Way::SendZeroCopy => Self::ByReference {
                kept: None,
                copied: 0,
            },
            _ => Self::Plainly,
        }
    }

    /// Ends when the kernel is done with the memory, as for a program that uses it again.
    pub(super) fn send_all(&mut self, job: &Job<'_>, repeats: u64) -> io::Result<()> {
        let memory = job.memory()?;
        let window = Window::of(job.sink)?;
        let Self::ByReference { kept, copied } = self else {
            return send_plainly(job, memory, repeats, window);
        };
        let kept = match kept {
            Some(kept) => kept,
            none => none.insert(match &window {
                None => Kept::Stream(ZeroCopySender::new(job.sink, ZeroCopy::Always)?),
                Some(_) => Kept::Datagrams(Sender::new(job.sink)?),
            }),
        };
        match (kept, window) {
            (Kept::Datagrams(sender), Some(window)) => {
                *copied += send_datagrams(sender, memory, repeats, window)?;
                Ok(())
            }
            (Kept::Stream(sender), None) => {
                for _ in 0..repeats {
                    let sent = zhaul::send(memory.clone(), job.sink).zero_copy_sender(sender);
                    *copied += sent.run().map_err(io::Error::other)?.copied_after_all;
                }
                Ok(())
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Bytes that the kernel copied after all, since the last time; `None` if it was not asked.
    pub(super) const fn take_copied(&mut self) -> Option<u64> {
        match self {
            Self::Plainly => None,
            Self::ByReference { copied, .. } => Some(std::mem::replace(copied, 0)),
        }
    }
}

/// The whole as an aggregate, or each datagram as one.
fn send_plainly(
    job: &Job<'_>,
    memory: &Bytes,
    repeats: u64,
    mut window: Option<Window<'_>>,
) -> io::Result<()> {
    for _ in 0..repeats {
        let mut left = memory.clone();
        while !left.is_empty() {
            let mut piece = left.len();
            if let Some(window) = &mut window {
                window.wait_for_room()?;
                piece = piece.min(DATAGRAM_BYTES);
            }
            let sent = zhaul::send(left.split_to(piece), job.sink).run();
            sent.map_err(io::Error::other)?;
        }
    }
    window.map_or(Ok(()), Window::close)
}

/// One call for each datagram. Returns the bytes that the kernel copied after all.
fn send_datagrams(
    sender: &mut Sender,
    memory: &Bytes,
    repeats: u64,
    mut window: Window<'_>,
) -> io::Result<u64> {
    let mut copied = 0;
    for _ in 0..repeats {
        let mut left = memory.clone();
        while !left.is_empty() {
            window.wait_for_room()?;
            let datagram = left.split_to(DATAGRAM_BYTES.min(left.len()));
            let datagram = [datagram];
            while let Err(error) = sender.send(&datagram, false) {
                let room = match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => PollFlags::OUT,
                    Some(Errno::NOBUFS) => PollFlags::empty(),
                    _ => return Err(error),
                };
                wait_for(sender.as_fd(), room)?;
                copied += sender.reap()?.copied_bytes as u64;
            }
            copied += sender.reap()?.copied_bytes as u64;
        }
    }
    while sender.pending() > 0 {
        wait_for(sender.as_fd(), PollFlags::empty())?;
        copied += sender.reap()?.copied_bytes as u64;
    }
    window.close()?;
    Ok(copied)
}

/// A message in the error queue is reported unasked.
fn wait_for(socket: BorrowedFd<'_>, wanted: PollFlags) -> io::Result<()> {
    poll(&mut [PollFd::from_borrowed_fd(socket, wanted)], None)?;
    Ok(())
}
