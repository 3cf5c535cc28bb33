//! What a route is expected to cost per chunk.
//!
//! These are figures *from the plan*: claims to be checked by measurement, never a substitute
//! for one.

use crate::facts::{InPlaceEnd, SinkFacts, SinkKind, SourceFacts, SourceKind};
use crate::route::Route;

/// Expected cost of moving one chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cost {
    /// Changes between user and kernel mode: two for each system call.
    pub mode_switches: u32,
    /// Times the CPU touches each byte.
    pub cpu_copies: u32,
    /// Times a device moves each byte, if the source is not in memory yet.
    pub dma_copies: u32,
}

impl Cost {
    /// The cost of `route` between these two ends.
    pub fn expected(route: Route, source: &SourceFacts, sink: &SinkFacts) -> Self {
        let calls = match route {
            Route::ReadWrite => 2,
            Route::Splice if !source.kind.is_pipe() && !sink.kind.is_pipe() => 2,
            Route::Splice | Route::MmapWrite | Route::Sendfile | Route::CopyFileRange => 1,
        };
        Self {
            mode_switches: 2 * calls,
            cpu_copies: cpu_copies(route, source, sink),
            dma_copies: u32::from(source.kind == SourceKind::Regular)
                + u32::from(sink.in_place_ends_at == InPlaceEnd::Acknowledged),
        }
    }
}

/// Pages enter a socket or a pipe by reference; a file system copies them into its own pages;
/// `/dev/null` drops the reference. A generated source (procfs, a character device) has no pages
/// to refer to and is copied once into fresh ones.
fn cpu_copies(route: Route, source: &SourceFacts, sink: &SinkFacts) -> u32 {
    let delivered = u32::from(sink.kind != SinkKind::Null);
    let generated = u32::from(source.kind.is_generated());
    match route {
        Route::ReadWrite => 1 + delivered,
        Route::MmapWrite => delivered,
        Route::Sendfile | Route::Splice if sink.kind.queues_page_references() => generated,
        Route::Sendfile | Route::Splice => generated + delivered,
        Route::CopyFileRange => 1,
    }
}
