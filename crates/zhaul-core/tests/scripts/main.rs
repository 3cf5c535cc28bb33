//! Scripted transfers: every errno that the mechanisms are known to answer with, and what becomes
//! of it.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../common/mod.rs"]
mod common;

mod changes;
mod ends;
mod fallbacks;
mod holes;
mod leases;
mod stops;
mod streams;

use zhaul_core::{
    Ask, Errno, HostFacts, InPlaceEnd, Length, Op, Operation, Plan, Route, SinkFacts, SourceFacts,
    SourceKind, Stability, Transfer,
};

use common::{Mood, World};

const LEN: u64 = 300_000;

fn immutable() -> Ask {
    Ask {
        stability: Stability::Immutable,
        length: Length::Exact(LEN),
        ..Ask::default()
    }
}

fn leased() -> Ask {
    Ask {
        stability: Stability::Leased,
        ..immutable()
    }
}

/// What each route needs at least.
fn leased_if_mapped(route: Route) -> Ask {
    if route == Route::MmapWrite {
        leased()
    } else {
        immutable()
    }
}

fn socket() -> SinkFacts {
    SinkFacts::stream_socket(InPlaceEnd::Acknowledged)
}

fn transfer(source: &SourceFacts, sink: &SinkFacts, ask: &Ask) -> Transfer {
    let host = HostFacts::default();
    Transfer::new(
        Plan::select(source, sink, &host, ask),
        source,
        sink,
        &host,
        ask,
    )
    .unwrap()
}

fn from_file(world: &World, sink: &SinkFacts, ask: &Ask) -> Transfer {
    transfer(&SourceFacts::regular(world.version()), sink, ask)
}

fn from_stream(sink: &SinkFacts, ask: &Ask) -> Transfer {
    transfer(&SourceFacts::new(SourceKind::StreamSocket), sink, ask)
}

fn refuse_after(bytes: u64, errno: Errno, victim: Operation) -> impl FnMut(&Op) -> Mood {
    let mut passed = 0;
    move |op| {
        if op.operation() != victim {
            return Mood::Full;
        }
        if passed >= bytes {
            return Mood::Fails(errno);
        }
        passed += 1000;
        Mood::Short(1000)
    }
}
