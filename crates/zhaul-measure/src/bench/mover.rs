//! One transfer, by either contender.

use std::io;
use std::os::fd::BorrowedFd;

use zhaul::{Lease, Route};

use super::floor::Floor;
use super::library;
use super::results::Contender;

/// What is to be moved, from where to where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job<'a> {
    pub(super) source: BorrowedFd<'a>,
    /// A source with places is read from its beginning, a stream from where it is.
    pub(super) seekable: bool,
    pub(super) sink: BorrowedFd<'a>,
    pub(super) bytes: u64,
    pub(super) promise: Promise<'a>,
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
    Floor(Floor),
    /// One that does it wrong, to see whether that is noticed.
    #[cfg(test)]
    Broken(fn(&Job<'_>) -> io::Result<()>),
}

impl Mover {
    pub(super) fn new(contender: Contender, route: Route) -> io::Result<Self> {
        Ok(match contender {
            Contender::Zhaul => Self::Library(route),
            Contender::Floor => Self::Floor(Floor::new(route)?),
        })
    }

    /// Makes the same transfer `repeats` times.
    pub(super) fn move_all(&mut self, job: &Job<'_>, repeats: u64) -> io::Result<()> {
        match self {
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

/// The source ended before the length asked for.
pub(super) fn ended_early(moved: u64) -> io::Error {
    let why = format!("the source ended after {moved} bytes");
    io::Error::new(io::ErrorKind::UnexpectedEof, why)
}
