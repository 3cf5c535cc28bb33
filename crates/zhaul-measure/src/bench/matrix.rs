//! Which routes a path allows, and what the library and the floor are given to do there.

use std::io;

use zhaul::{Cause, Route};

use super::ends::Ends;
use super::files::SourceFile;
use super::library;
use super::mover::{Job, Promise};
use super::results::{Expected, Path};

/// A route over a path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    pub(super) path: Path,
    pub(super) route: Route,
    pub(super) expected: Expected,
}

/// What `route` has to do here. A stream source ignores `file`.
pub(super) fn job<'a>(
    ends: &'a Ends,
    file: Option<&'a SourceFile>,
    route: Route,
    bytes: u64,
) -> Job<'a> {
    let sink = ends.sink.mover();
    let (source, promise) = match (ends.source.stream(), file) {
        (Some(stream), _) => (stream, Promise::None),
        (None, None) => unreachable!("a path from a file has one of every size"),
        (None, Some(file)) => match route {
            // Copies of what it reads: no promise needed, and none asked for.
            Route::ReadWrite => (file.file(), Promise::None),
            Route::MmapWrite => {
                let (source, lease) = file.mappable();
                (source, lease.map_or(Promise::None, Promise::Lease))
            }
            _ => (file.file(), Promise::Immutable),
        },
    };
    Job {
        source,
        seekable: ends.source.stream().is_none(),
        sink,
        bytes,
        promise,
    }
}

/// Asks the planner what it thinks of the route; in words, if it says no.
pub(super) fn lane(path: Path, route: Route, job: &Job<'_>) -> io::Result<Result<Lane, String>> {
    let plan = match library::haul(job, route).plan() {
        Ok(plan) => plan,
        Err(error) => match error.cause {
            Cause::RouteRefused { rejection, .. } => return Ok(Err(rejection.to_string())),
            _ => return Err(error.into()),
        },
    };
    Ok(match plan.objection(route) {
        Some(rejection) => Err(rejection.to_string()),
        None => Ok(Lane {
            path,
            route,
            expected: Expected {
                mode_switches: plan.expected.mode_switches,
                cpu_copies: plan.expected.cpu_copies,
                dma_copies: plan.expected.dma_copies,
            },
        }),
    })
}
