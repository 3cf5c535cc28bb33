//! The contender: the library, told to take this route and no other.

use std::io;
use std::os::fd::BorrowedFd;

use zhaul::{Haul, Route, Stability};

use super::mover::{Job, Promise};

/// Describes the transfer, as a program that uses the library would.
pub(super) fn haul<'a>(job: &Job<'a>, route: Route) -> Haul<'a, BorrowedFd<'a>, BorrowedFd<'a>> {
    let haul = zhaul::transfer(job.source, job.sink)
        .length(job.bytes)
        .only(route);
    match job.promise {
        Promise::None => haul,
        Promise::Immutable => haul.stability(Stability::Immutable),
        Promise::Lease(lease) => haul.lease(lease),
    }
}

/// Makes it.
pub(super) fn transfer(job: &Job<'_>, route: Route) -> io::Result<()> {
    haul(job, route).run()?;
    Ok(())
}
