//! One transfer, by either contender.

use std::io;
use std::os::fd::BorrowedFd;

use bytes::Bytes;
use zhaul::{Lease, Route};

use super::floor::{self, Floor};
use super::library;
use super::results::Contender;
use super::way::Way;

/// What is to be moved, from where to where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job<'a> {
    pub(super) source: Source<'a>,
    pub(super) sink: BorrowedFd<'a>,
    pub(super) bytes: u64,
    pub(super) promise: Promise<'a>,
}

/// Where it comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    /// Read from its beginning.
    File(BorrowedFd<'a>),
    /// Read from where it is.
    Stream(BorrowedFd<'a>),
    /// All of it.
    Memory(&'a Bytes),
}

impl<'a> Job<'a> {
    /// The source of a route.
    ///
    /// # Errors
    /// If it is memory, which no route begins at.
    pub(super) fn descriptor(&self) -> io::Result<BorrowedFd<'a>> {
        match self.source {
            Source::File(source) | Source::Stream(source) => Ok(source),
            Source::Memory(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The source of a send.
    ///
    /// # Errors
    /// If it is a descriptor.
    pub(super) fn memory(&self) -> io::Result<&'a Bytes> {
        match self.source {
            Source::Memory(memory) => Ok(memory),
            Source::File(_) | Source::Stream(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    pub(super) const fn is_from_file(&self) -> bool {
        matches!(self.source, Source::File(_))
    }
}

/// What the library is told about others who may write to the source. The floor needs no promise:
/// it is as unsafe as bare calls are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Promise<'a> {
    None,
    Immutable,
    Lease(&'a Lease),
}

/// A contender on a route.
#[derive(Debug)]
pub(super) enum Mover {
    Library(Route),
    /// The library's sender from memory.
    Sender(library::Sending),
    Floor(Floor),
    /// Bare sends from memory.
    Bare(floor::Sending),
    /// One that does it wrong, to see whether that is noticed.
    #[cfg(test)]
    Broken(fn(&Job<'_>) -> io::Result<()>),
}

impl Mover {
    pub(super) fn new(contender: Contender, way: Way) -> io::Result<Self> {
        Ok(match (contender, way) {
            (Contender::Zhaul, Way::Route(route)) => Self::Library(route),
            (Contender::Zhaul, way) => Self::Sender(library::Sending::new(way)),
            (Contender::Floor, Way::Route(route)) => Self::Floor(Floor::new(route)?),
            (Contender::Floor, way) => Self::Bare(floor::Sending::new(way)),
        })
    }

    /// Makes the same transfer `repeats` times.
    pub(super) fn move_all(&mut self, job: &Job<'_>, repeats: u64) -> io::Result<()> {
        match self {
            Self::Sender(sending) => sending.send_all(job, repeats),
            Self::Bare(sending) => sending.send_all(job, repeats),
            Self::Library(route) => {
                for _ in 0..repeats {
                    library::transfer(job, *route)?;
                }
                Ok(())
            }
            Self::Floor(floor) => floor.move_all(job, repeats),
            #[cfg(test)]
            Self::Broken(transfer) => (0..repeats).try_for_each(|_| transfer(job)),
        }
    }
}

impl Mover {
    /// Bytes that the kernel copied after all, of what was sent by reference since the last time.
    pub(super) fn take_copied(&mut self) -> Option<u64> {
        match self {
            Self::Sender(sending) => sending.take_copied(),
            _ => None,
        }
    }
}

/// The source ended before the length asked for.
pub(super) fn ended_early(moved: u64) -> io::Error {
    let why = format!("the source ended after {moved} bytes");
    io::Error::new(io::ErrorKind::UnexpectedEof, why)
}
