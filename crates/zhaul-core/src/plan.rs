//! Which route to take, and why not another.
//!
//! [`Plan::select`] asks every route whether anything speaks against it and takes the cheapest
//! that is left. Nothing ever speaks against [`Route::ReadWrite`], so there is always a plan.
//! Safety comes first: a route that could put later edits of the source on the wire is refused,
//! however cheap.

use std::fmt;

use crate::ask::{Ask, Length, Stability};
use crate::cost::Cost;
use crate::facts::{HostFacts, InPlaceEnd, SinkFacts, SinkKind, SourceFacts, SourceKind};
use crate::route::Route;

/// The route chosen, and what became of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The route to start on.
    pub route: Route,
    /// Why this one.
    pub because: Reason,
    /// What it is expected to cost per chunk.
    pub expected: Cost,
    /// By [`Route::index`].
    verdicts: [Option<Rejection>; Route::BY_COST.len()],
}

/// Why a route was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The file system copies, or shares extents, without a buffer of ours.
    InKernelCopy,
    /// Pages go out by reference, and nobody will edit them meanwhile.
    PagesByReference,
    /// The sink copies or drops the pages before the call returns, so later edits cannot show.
    CopiedByTheSink,
    /// The bytes are made up by the kernel; no page of them is shared.
    Generated,
    /// Buffers of a stream move through a pipe without being touched.
    BuffersThroughPipe,
    /// One copy, made while the file cannot shrink.
    OneCopy,
    /// Copying is the only route that is safe or possible here.
    OnlyCopyingIsSafe,
    /// The caller asked for it.
    Asked,
}

/// Why a route was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// It reads from files only.
    SourceNotFile,
    /// `splice(2)` cannot take from such a source.
    SourceNotSpliceable,
    /// The source cannot be mapped.
    SourceNotMappable,
    /// It writes to regular files only.
    SinkNotFile,
    /// The sink keeps message boundaries, which only `write(2)` respects.
    SinkKeepsMessages,
    /// The sink is opened with `O_APPEND`.
    SinkAppends,
    /// It can write at the descriptor's own position only, and an offset was asked for.
    SinkOffsetAsked,
    /// Pages would show edits or a cut made while they are queued or copied, and others may edit
    /// the source.
    SourceMayChange,
    /// A lease is held, but the end of the flight cannot be observed at this sink.
    FlightEndUnknown,
    /// The tail of the last page past a truncation would leak as zeros.
    SourceMayShrink,
    /// Not worth it for so few bytes.
    BelowThreshold,
    /// This host is known to refuse it.
    HostRefuses,
    /// The caller asked for another route only.
    NotAsked,
    /// It would do, but a cheaper one does too.
    CheaperRouteExists,
}

impl Plan {
    /// Chooses the cheapest safe route.
    ///
    /// With [`Ask::only`] the route asked for is chosen if nothing speaks against it; otherwise
    /// the plan names [`Route::ReadWrite`] and keeps the rejection, and a
    /// [`Transfer`](crate::Transfer) refuses to start.
    pub fn select(source: &SourceFacts, sink: &SinkFacts, host: &HostFacts, ask: &Ask) -> Self {
        let mut verdicts = [None; Route::BY_COST.len()];
        let mut chosen = None;
        for route in Route::BY_COST {
            let verdict = match ask.only {
                Some(only) if only != route => Some(Rejection::NotAsked),
                _ => objection(route, source, sink, host, ask),
            };
            verdicts[route.index()] = verdict;
            if verdict.is_none() && chosen.is_none() {
                chosen = Some(route);
            }
        }
        let route = chosen.unwrap_or(Route::ReadWrite);
        Self {
            route,
            because: reason(route, source, sink, ask),
            expected: Cost::expected(route, source, sink),
            verdicts,
        }
    }

    /// What speaks against a route, or `None` if nothing does.
    pub const fn objection(&self, route: Route) -> Option<Rejection> {
        self.verdicts[route.index()]
    }

    /// Every route not chosen, with the reason; those that would have done as well, only at a
    /// higher cost, are [`Rejection::CheaperRouteExists`] and serve as fallbacks.
    pub fn rejected(&self) -> impl Iterator<Item = (Route, Rejection)> + '_ {
        Route::BY_COST
            .into_iter()
            .filter(|&route| route != self.route)
            .map(|route| {
                (
                    route,
                    self.objection(route)
                        .unwrap_or(Rejection::CheaperRouteExists),
                )
            })
    }

    /// The next possible route after `failed`, in the order of cost.
    pub(crate) fn after(&self, failed: Route) -> Option<Route> {
        let mut rest = Route::BY_COST
            .into_iter()
            .skip_while(|&route| route != failed);
        rest.next();
        rest.find(|&route| self.objection(route).is_none())
    }
}

fn objection(
    route: Route,
    source: &SourceFacts,
    sink: &SinkFacts,
    host: &HostFacts,
    ask: &Ask,
) -> Option<Rejection> {
    if route == Route::ReadWrite {
        return None;
    }
    if host.refuses(route) {
        return Some(Rejection::HostRefuses);
    }
    if sink.kind == SinkKind::MessageSocket {
        return Some(Rejection::SinkKeepsMessages);
    }
    match route {
        Route::ReadWrite => None,
        Route::CopyFileRange => copy_file_range(source, sink, ask),
        Route::Sendfile => sendfile(source, sink, host, ask),
        Route::Splice => splice(source, sink, host, ask),
        Route::MmapWrite => mmap_write(source, host, ask),
    }
}

fn copy_file_range(source: &SourceFacts, sink: &SinkFacts, ask: &Ask) -> Option<Rejection> {
    if !matches!(source.kind, SourceKind::Regular | SourceKind::Memfd) {
        return Some(Rejection::SourceNotFile);
    }
    if sink.kind != SinkKind::Regular {
        return Some(Rejection::SinkNotFile);
    }
    if sink.append {
        return Some(Rejection::SinkAppends);
    }
    in_place(source, sink, ask)
}

fn sendfile(
    source: &SourceFacts,
    sink: &SinkFacts,
    host: &HostFacts,
    ask: &Ask,
) -> Option<Rejection> {
    if !source.seekable || !(source.kind.is_page_cache() || source.kind.is_generated()) {
        return Some(Rejection::SourceNotFile);
    }
    if sink.append {
        return Some(Rejection::SinkAppends);
    }
    if ask.sink_offset.is_some() {
        return Some(Rejection::SinkOffsetAsked);
    }
    in_place(source, sink, ask).or(below(
        Route::Sendfile,
        host.thresholds.sendfile_min_bytes,
        ask,
    ))
}

fn splice(
    source: &SourceFacts,
    sink: &SinkFacts,
    host: &HostFacts,
    ask: &Ask,
) -> Option<Rejection> {
    match source.kind {
        SourceKind::MessageSocket | SourceKind::Other => {
            return Some(Rejection::SourceNotSpliceable);
        }
        SourceKind::Device if !source.seekable => return Some(Rejection::SourceNotSpliceable),
        _ => {}
    }
    if sink.append {
        return Some(Rejection::SinkAppends);
    }
    // From a file it is sendfile with one call more, so it pays no earlier.
    let least = if source.kind.is_page_cache() {
        host.thresholds.sendfile_min_bytes
    } else {
        0
    };
    in_place(source, sink, ask).or(below(Route::Splice, least, ask))
}

/// Whether page references to the source may go to the sink. In a socket or a pipe they stay behind
/// and show later edits. A file copies the pages before the call returns, but a truncation
/// meanwhile zeroes the page at the cut that the call holds, and the zeros count as copied (64 KiB
/// of them, a large folio, seen on Linux 6.18). For a read the same moment is as short as the copy
/// of that page.
fn in_place(source: &SourceFacts, sink: &SinkFacts, ask: &Ask) -> Option<Rejection> {
    let shared = source.kind.is_page_cache() && !source.is_sealed();
    if !shared || sink.kind == SinkKind::Null {
        return None;
    }
    let queued = sink.kind.queues_page_references();
    match ask.stability {
        Stability::Immutable => None,
        Stability::MayChange if !queued && source.seals.shrink => None,
        Stability::MayChange => Some(Rejection::SourceMayChange),
        Stability::Leased if !queued => None,
        Stability::Leased => match sink.in_place_ends_at {
            InPlaceEnd::Acknowledged => None,
            InPlaceEnd::Never => Some(Rejection::FlightEndUnknown),
        },
    }
}

/// A write out of a mapping copies at once, but when the file is cut inside the page being
/// written the rest of that page goes out as zeros, to whatever sink. Only a lease or a seal rules
/// the cut out; an immutable file has cheaper routes than this one.
fn mmap_write(source: &SourceFacts, host: &HostFacts, ask: &Ask) -> Option<Rejection> {
    if !source.kind.is_page_cache() || !source.seekable {
        return Some(Rejection::SourceNotMappable);
    }
    if source.version.is_none() && !source.seals.shrink {
        return Some(Rejection::SourceNotMappable);
    }
    let cannot_shrink = source.seals.shrink || ask.stability == Stability::Leased;
    if !cannot_shrink {
        return Some(Rejection::SourceMayShrink);
    }
    below(Route::MmapWrite, host.thresholds.mmap_min_bytes, ask)
}

/// Too few bytes for the route to pay. Whoever asks for it and nothing else gets it all the same.
fn below(route: Route, least: u64, ask: &Ask) -> Option<Rejection> {
    let too_few = matches!(ask.length, Length::Exact(n) if n < least);
    (too_few && ask.only != Some(route)).then_some(Rejection::BelowThreshold)
}

fn reason(route: Route, source: &SourceFacts, sink: &SinkFacts, ask: &Ask) -> Reason {
    if ask.only == Some(route) {
        return Reason::Asked;
    }
    match route {
        Route::ReadWrite => Reason::OnlyCopyingIsSafe,
        Route::MmapWrite => Reason::OneCopy,
        Route::CopyFileRange => Reason::InKernelCopy,
        Route::Sendfile | Route::Splice if source.kind.is_generated() => Reason::Generated,
        Route::Sendfile | Route::Splice if source.kind.is_page_cache() => {
            if sink.kind.queues_page_references() {
                Reason::PagesByReference
            } else {
                Reason::CopiedByTheSink
            }
        }
        Route::Sendfile | Route::Splice => Reason::BuffersThroughPipe,
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InKernelCopy => "the file system copies without a buffer of ours",
            Self::PagesByReference => "pages go out by reference and nobody edits them meanwhile",
            Self::CopiedByTheSink => "the sink takes its copy before the call returns",
            Self::Generated => "the kernel makes the bytes up, no page of them is shared",
            Self::BuffersThroughPipe => "a stream's buffers move through a pipe untouched",
            Self::OneCopy => "one copy, and a cut of the file is ruled out",
            Self::OnlyCopyingIsSafe => "copying is the only route that is safe or possible",
            Self::Asked => "asked for",
        })
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SourceNotFile => "the source is not a file",
            Self::SourceNotSpliceable => "splice cannot take from this source",
            Self::SourceNotMappable => "the source cannot be mapped",
            Self::SinkNotFile => "the sink is not a regular file",
            Self::SinkKeepsMessages => "the sink keeps message boundaries",
            Self::SinkAppends => "the sink is opened for appending",
            Self::SinkOffsetAsked => "it writes at the sink's own position only",
            Self::SourceMayChange => "edits of the source made meanwhile would go out",
            Self::FlightEndUnknown => "nobody can tell when the sink lets go of the pages",
            Self::SourceMayShrink => "a cut of the source would leak zeros",
            Self::BelowThreshold => "not worth it for so few bytes",
            Self::HostRefuses => "this host refuses it",
            Self::NotAsked => "another route was asked for",
            Self::CheaperRouteExists => "a cheaper route does as well",
        })
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
