//! What bears on a plan and is not in it: what another promise would allow, what the kernel is
//! likely to refuse, what the figures leave out.

use zhaul::{
    Ask, HostFacts, InPlaceEnd, LeaseError, Length, Plan, Route, SinkKind, SourceKind, Stability,
};

use super::about::FoundBy;
use super::error::{Error, Problem};
use super::expected::Expected;
use super::look::{Sink, Source};
use super::units::amount;

/// What was found out about a transfer.
pub(crate) struct Context<'a> {
    pub(crate) source: &'a Source,
    pub(crate) sink: &'a Sink,
    pub(crate) ask: &'a Ask,
    pub(crate) plan: &'a Plan,
    pub(crate) host: &'a HostFacts,
    pub(crate) expected: &'a Expected,
    pub(crate) no_lease: Option<LeaseError>,
}

/// The notes, the most useful first.
pub(crate) fn of(context: &Context<'_>) -> Vec<String> {
    let notes = [
        nothing_to_move(context),
        endless(context),
        no_lease(context),
        another_promise(context),
        other_file_system(context),
        small_buffer(context),
        overwrite(context),
        not_contacted(context),
        not_opened(context),
        on_this_machine(context),
        gathers(context),
        from_memory(context),
    ];
    notes.into_iter().flatten().collect()
}

fn nothing_to_move(context: &Context<'_>) -> Option<String> {
    (context.expected.bytes == Some(0)).then(|| {
        let is_empty = context.source.about.size_bytes == Some(0);
        let what = if is_empty {
            "the source is empty"
        } else {
            "no bytes are asked for"
        };
        format!("{what}: a valid transfer of nothing")
    })
}

fn endless(context: &Context<'_>) -> Option<String> {
    let no_end = context.source.facts.kind == SourceKind::Device && context.source.facts.seekable;
    (no_end && context.ask.length == Length::ToEnd)
        .then(|| "such a device may never end: give --length for --run".to_owned())
}

fn no_lease(context: &Context<'_>) -> Option<String> {
    let error = context.no_lease?;
    let remedy = Problem::NoLease(error);
    Some(format!(
        "a lease cannot be had now ({error}), so --run would stop before it begins: {}",
        remedy.remedy()
    ))
}

/// What would be planned if nobody edited the source.
fn another_promise(context: &Context<'_>) -> Option<String> {
    let (source, sink) = (&context.source.facts, &context.sink.facts);
    if context.ask.only.is_some() || context.ask.stability == Stability::Immutable {
        return None;
    }
    let ask = Ask {
        stability: Stability::Immutable,
        ..*context.ask
    };
    let other = Plan::select(source, sink, context.host, &ask);
    (other.route != context.plan.route).then(|| {
        format!(
            "if nobody edits the source in place, say --stability immutable: {} then, and {} CPU \
             copies of each byte instead of {}",
            other.route, other.expected.cpu_copies, context.plan.expected.cpu_copies
        )
    })
}

/// The kernel copies between file systems of one kind at best.
fn other_file_system(context: &Context<'_>) -> Option<String> {
    if context.plan.route != Route::CopyFileRange {
        return None;
    }
    let from = context.source.about.file_system.as_deref()?;
    let to = context.sink.about.file_system.as_deref()?;
    let next = context.plan.rejected().find(|(route, rejection)| {
        *route != Route::CopyFileRange && *rejection == zhaul::Rejection::CheaperRouteExists
    });
    (from != to).then(|| {
        let next = next.map_or("another route", |(route, _)| route.name());
        format!(
            "source and sink lie on different file systems ({from}, {to}): copy_file_range is \
             likely to refuse (EXDEV), and {next} takes over"
        )
    })
}

/// read + write has a buffer of its own size.
fn small_buffer(context: &Context<'_>) -> Option<String> {
    let per_chunk = context.expected.calls_per_chunk;
    (context.plan.route == Route::ReadWrite && per_chunk > 4.0).then(|| {
        format!(
            "read+write takes {} at a time, so that the bytes are still in the processor's cache \
             when they are written",
            amount(BUFFER_BYTES.min(context.expected.chunk_bytes))
        )
    })
}

fn overwrite(context: &Context<'_>) -> Option<String> {
    let about = &context.sink.about;
    match (context.sink.facts.kind, about.found_by) {
        (SinkKind::Block, FoundBy::Name) => {
            Some("--run would write over the device, and asks for --overwrite".to_owned())
        }
        (SinkKind::Regular, FoundBy::Name) if about.exists == Some(true) => {
            let size = about
                .size_bytes
                .map_or_else(String::new, |size| format!(" of {}", amount(size)));
            Some(format!(
                "--run would replace the sink's content{size}, and asks for --overwrite"
            ))
        }
        _ => None,
    }
}

fn not_contacted(context: &Context<'_>) -> Option<String> {
    let (source, sink) = (&context.source.about, &context.sink.about);
    let route = source.found_by == FoundBy::Route || sink.found_by == FoundBy::Route;
    let unix = |kind: &str, found_by| kind == "stream_socket" && found_by == FoundBy::Name;
    let socket = unix(&source.kind, source.found_by) || unix(&sink.kind, sink.found_by);
    (route || socket).then(|| "nobody was contacted: --run shows whether a peer answers".to_owned())
}

fn not_opened(context: &Context<'_>) -> Option<String> {
    let kinds = [(
        context.source.about.found_by,
        context.source.facts.kind == SourceKind::Device,
    )];
    kinds
        .contains(&(FoundBy::Name, true))
        .then(|| "the device was not opened, and is taken for one without positions".to_owned())
}

/// On loopback the receiver's copy costs this machine as well.
fn on_this_machine(context: &Context<'_>) -> Option<String> {
    let is_socket = context.sink.facts.kind == SinkKind::StreamSocket;
    let never = context.sink.facts.in_place_ends_at == InPlaceEnd::Never;
    (is_socket && never).then(|| {
        "the receiver is on this machine, or reached as if it were: it copies the bytes once more \
         when it reads them, which is not in these figures"
            .to_owned()
    })
}

fn gathers(context: &Context<'_>) -> Option<String> {
    let acknowledged = context.sink.facts.in_place_ends_at == InPlaceEnd::Acknowledged;
    let by_reference = matches!(context.plan.route, Route::Sendfile | Route::Splice);
    (acknowledged && by_reference).then(|| {
        "0 CPU copies need a device that gathers pages (scatter/gather; zhaul doctor tells): one \
         that does not costs one more copy"
            .to_owned()
    })
}

/// What becomes of bytes that a program has in its memory, on the way to such a sink.
fn from_memory(context: &Context<'_>) -> Option<String> {
    if context.sink.about.found_by != FoundBy::Route {
        return None;
    }
    let by_reference = match context.sink.facts.in_place_ends_at {
        InPlaceEnd::Acknowledged => {
            let least = amount(context.host.thresholds.zero_copy_min_bytes);
            format!(
                "with MSG_ZEROCOPY (ZeroCopy::Auto, pieces from {least} on) 0, if the device gathers"
            )
        }
        _ => "MSG_ZEROCOPY gains nothing, since on this way the kernel copies after all".to_owned(),
    };
    Some(format!(
        "what a program has in memory goes there by send, 1 CPU copy; {by_reference}"
    ))
}

/// The part of a chunk that read + write moves at a time.
const BUFFER_BYTES: u64 = 64 << 10;

/// For the run: a lease that cannot be had.
pub(crate) fn lease_error(name: &str, error: LeaseError) -> Error {
    Error::new(name, Problem::NoLease(error))
}
