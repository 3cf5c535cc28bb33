//! Which routes a path allows, and what the library and the floor are given to do there.

use std::io;

use bytes::Bytes;
use zhaul::{Cause, Route};

use super::ends::Ends;
use super::files::SourceFile;
use super::library;
use super::mover::{Job, Promise, Source};
use super::results::{Expected, Path};
use super::way::Way;

/// A route over a path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    pub(super) path: Path,
    pub(super) route: Way,
    pub(super) expected: Expected,
}

/// What `way` has to do here. A stream source ignores `file`, memory both.
pub(super) fn job<'a>(
    ends: &'a Ends,
    (file, memory): (Option<&'a SourceFile>, Option<&'a Bytes>),
    way: Way,
    bytes: u64,
) -> Job<'a> {
    let sink = ends.sink.mover();
    let (source, promise) = match (ends.source.stream(), file) {
        _ if way.is_from_memory() => {
            let memory = memory.expect("a path from memory has some of every size");
            (Source::Memory(memory), Promise::None)
        }
        (Some(stream), _) => (Source::Stream(stream), Promise::None),
        (None, None) => unreachable!("a path from a file has one of every size"),
        (None, Some(file)) => {
            let (source, promise) = match way {
                // Copies of what it reads: no promise needed, and none asked for.
                Way::Route(Route::ReadWrite) => (file.file(), Promise::None),
                Way::Route(Route::MmapWrite) => {
                    let (source, lease) = file.mappable();
                    (source, lease.map_or(Promise::None, Promise::Lease))
                }
                _ => (file.file(), Promise::Immutable),
            };
            (Source::File(source), promise)
        }
    };
    Job {
        source,
        sink,
        bytes,
        promise,
    }
}

/// Asks the planner what it thinks of the way; in words, if it says no.
pub(super) fn lane(path: Path, way: Way, job: &Job<'_>) -> io::Result<Result<Lane, String>> {
    let Way::Route(route) = way else {
        return Ok(Ok(from_memory(path, way)));
    };
    let plan = match library::haul(job, route)?.plan() {
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
            route: way,
            expected: Expected {
                mode_switches: plan.expected.mode_switches,
                cpu_copies: plan.expected.cpu_copies,
                dma_copies: plan.expected.dma_copies,
            },
        }),
    })
}

/// One call, and one copy either way: loopback copies what was sent by reference, after the call.
pub(super) const fn from_memory(path: Path, way: Way) -> Lane {
    Lane {
        path,
        route: way,
        expected: Expected {
            mode_switches: 2,
            cpu_copies: 1,
            dma_copies: 0,
        },
    }
}
