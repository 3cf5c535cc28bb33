//! The planner's decisions, one claim each.

use super::*;
use crate::facts::Seals;
use crate::version::Version;

fn file() -> SourceFacts {
    SourceFacts::regular(Version {
        size: 1 << 30,
        ..Version::default()
    })
}

fn memfd(seals: Seals) -> SourceFacts {
    SourceFacts::new(SourceKind::Memfd)
        .with_version(Some(Version {
            size: 1 << 30,
            ..Version::default()
        }))
        .with_seals(seals)
}

fn remote() -> SinkFacts {
    SinkFacts::stream_socket(InPlaceEnd::Acknowledged)
}

fn local() -> SinkFacts {
    SinkFacts::stream_socket(InPlaceEnd::Never)
}

fn select(source: &SourceFacts, sink: &SinkFacts, ask: &Ask) -> Plan {
    Plan::select(source, sink, &HostFacts::default(), ask)
}

fn asking(stability: Stability) -> Ask {
    Ask {
        stability,
        ..Ask::default()
    }
}

#[test]
fn a_file_that_may_change_is_copied_into_sockets_and_pipes() {
    for sink in [remote(), local(), SinkFacts::new(SinkKind::Pipe)] {
        let plan = select(&file(), &sink, &asking(Stability::MayChange));
        assert_eq!(plan.route, Route::ReadWrite);
        assert_eq!(
            plan.objection(Route::Sendfile),
            Some(Rejection::SourceMayChange)
        );
        assert_eq!(
            plan.objection(Route::Splice),
            Some(Rejection::SourceMayChange)
        );
        assert_eq!(
            plan.objection(Route::MmapWrite),
            Some(Rejection::SourceMayShrink)
        );
    }
}

#[test]
fn a_file_that_may_change_is_sent_to_sinks_that_copy_or_drop_at_once() {
    let plan = select(
        &file(),
        &SinkFacts::new(SinkKind::Null),
        &asking(Stability::MayChange),
    );
    assert_eq!(
        (plan.route, plan.because),
        (Route::Sendfile, Reason::CopiedByTheSink)
    );
    let plan = select(
        &file(),
        &SinkFacts::new(SinkKind::Regular),
        &asking(Stability::Immutable),
    );
    assert_eq!(
        (plan.route, plan.because),
        (Route::CopyFileRange, Reason::InKernelCopy)
    );
}

#[test]
fn a_file_that_may_change_is_copied_into_files_by_reading() {
    let sealed = memfd(Seals {
        shrink: true,
        write: false,
    });
    for kind in [SinkKind::Regular, SinkKind::Block] {
        let sink = SinkFacts::new(kind);
        let plan = select(&file(), &sink, &asking(Stability::MayChange));
        assert_eq!(plan.route, Route::ReadWrite, "{kind:?}");
        for route in [Route::CopyFileRange, Route::Sendfile, Route::Splice] {
            assert!(plan.objection(route).is_some(), "{route} to {kind:?}");
        }
        for stability in [Stability::Immutable, Stability::Leased] {
            let plan = select(&file(), &sink, &asking(stability));
            assert_ne!(plan.route, Route::ReadWrite, "{stability:?} to {kind:?}");
        }
        let plan = select(&sealed, &sink, &asking(Stability::MayChange));
        assert_ne!(plan.route, Route::ReadWrite, "it cannot be cut");
    }
}

#[test]
fn an_immutable_file_goes_out_in_place() {
    let plan = select(&file(), &local(), &asking(Stability::Immutable));
    assert_eq!(
        (plan.route, plan.because),
        (Route::Sendfile, Reason::PagesByReference)
    );
    assert_eq!(plan.expected.cpu_copies, 0);
    assert_eq!(plan.expected.mode_switches, 2);
}

#[test]
fn a_leased_file_goes_out_in_place_only_where_the_flight_ends() {
    let plan = select(&file(), &remote(), &asking(Stability::Leased));
    assert_eq!(plan.route, Route::Sendfile);
    let plan = select(&file(), &local(), &asking(Stability::Leased));
    assert_eq!(plan.route, Route::MmapWrite, "one copy, under the lease");
    assert_eq!(
        plan.objection(Route::Sendfile),
        Some(Rejection::FlightEndUnknown)
    );
    assert_eq!(
        plan.objection(Route::Splice),
        Some(Rejection::FlightEndUnknown)
    );
    let short = Ask {
        length: Length::Exact(1000),
        ..asking(Stability::Leased)
    };
    assert_eq!(select(&file(), &local(), &short).route, Route::ReadWrite);
}

#[test]
fn a_sealed_memfd_needs_no_promise() {
    let sealed = memfd(Seals {
        shrink: true,
        write: true,
    });
    assert_eq!(
        select(&sealed, &local(), &asking(Stability::MayChange)).route,
        Route::Sendfile
    );
    let cannot_shrink = memfd(Seals {
        shrink: true,
        write: false,
    });
    let plan = select(&cannot_shrink, &local(), &asking(Stability::MayChange));
    assert_eq!(plan.route, Route::MmapWrite);
    let plan = select(
        &memfd(Seals::default()),
        &local(),
        &asking(Stability::MayChange),
    );
    assert_eq!(plan.route, Route::ReadWrite);
}

#[test]
fn mmap_needs_a_lease_or_a_seal() {
    let ask = Ask {
        only: Some(Route::MmapWrite),
        ..asking(Stability::Immutable)
    };
    for kind in [SinkKind::Pipe, SinkKind::Regular, SinkKind::StreamSocket] {
        let plan = select(&file(), &SinkFacts::new(kind), &ask);
        assert_eq!(
            plan.objection(Route::MmapWrite),
            Some(Rejection::SourceMayShrink),
            "{kind:?}"
        );
    }
    let leased = Ask {
        stability: Stability::Leased,
        ..ask
    };
    assert_eq!(
        select(&file(), &SinkFacts::new(SinkKind::Pipe), &leased).route,
        Route::MmapWrite
    );
}

#[test]
fn streams_are_spliced_and_messages_are_not() {
    for kind in [SourceKind::Pipe, SourceKind::StreamSocket] {
        let plan = select(&SourceFacts::new(kind), &local(), &Ask::default());
        assert_eq!(
            (plan.route, plan.because),
            (Route::Splice, Reason::BuffersThroughPipe)
        );
    }
    let plan = select(
        &SourceFacts::new(SourceKind::MessageSocket),
        &local(),
        &Ask::default(),
    );
    assert_eq!(plan.route, Route::ReadWrite);
    let sink = SinkFacts::new(SinkKind::MessageSocket);
    let plan = select(&SourceFacts::new(SourceKind::Pipe), &sink, &Ask::default());
    assert_eq!(
        plan.objection(Route::Splice),
        Some(Rejection::SinkKeepsMessages)
    );
}

#[test]
fn a_pipe_at_one_end_halves_the_calls() {
    let between = select(
        &SourceFacts::new(SourceKind::StreamSocket),
        &local(),
        &Ask::default(),
    );
    assert_eq!(between.expected.mode_switches, 4);
    let direct = select(
        &SourceFacts::new(SourceKind::Pipe),
        &local(),
        &Ask::default(),
    );
    assert_eq!(direct.expected.mode_switches, 2);
}

#[test]
fn an_appending_sink_is_written_to() {
    let sink = SinkFacts::new(SinkKind::Regular).with_append(true);
    for source in [file(), SourceFacts::new(SourceKind::Pipe)] {
        let plan = select(&source, &sink, &Ask::default());
        assert_eq!(plan.route, Route::ReadWrite);
        assert_eq!(plan.objection(Route::Splice), Some(Rejection::SinkAppends));
    }
    let plan = select(&file(), &sink, &Ask::default());
    assert_eq!(
        plan.objection(Route::CopyFileRange),
        Some(Rejection::SinkAppends)
    );
    assert_eq!(
        plan.objection(Route::Sendfile),
        Some(Rejection::SinkAppends)
    );
}

#[test]
fn an_offset_in_the_sink_rules_sendfile_out_only() {
    let ask = Ask {
        sink_offset: Some(10),
        ..asking(Stability::Immutable)
    };
    let plan = Plan::select(
        &file(),
        &SinkFacts::new(SinkKind::Regular),
        &HostFacts::default().without(Route::CopyFileRange),
        &ask,
    );
    assert_eq!(
        plan.objection(Route::Sendfile),
        Some(Rejection::SinkOffsetAsked)
    );
    assert_eq!(
        plan.objection(Route::CopyFileRange),
        Some(Rejection::HostRefuses)
    );
    assert_eq!(plan.route, Route::Splice);
}

#[test]
fn made_up_content_has_no_pages_to_protect() {
    for kind in [SourceKind::Pseudo, SourceKind::Device] {
        let plan = select(&SourceFacts::new(kind), &local(), &Ask::default());
        assert_eq!(
            (plan.route, plan.because),
            (Route::Sendfile, Reason::Generated)
        );
        assert_eq!(
            plan.objection(Route::MmapWrite),
            Some(Rejection::SourceNotMappable)
        );
    }
    let terminal = SourceFacts::new(SourceKind::Device).with_seekable(false);
    assert_eq!(
        select(&terminal, &local(), &Ask::default()).route,
        Route::ReadWrite
    );
}

#[test]
fn thresholds_apply_to_known_lengths() {
    let mut host = HostFacts::default();
    host.thresholds.sendfile_min_bytes = 4096;
    let ask = |length| Ask {
        length,
        ..asking(Stability::Immutable)
    };
    let below = Plan::select(&file(), &local(), &host, &ask(Length::Exact(4095)));
    assert_eq!(
        below.objection(Route::Sendfile),
        Some(Rejection::BelowThreshold)
    );
    let at = Plan::select(&file(), &local(), &host, &ask(Length::Exact(4096)));
    assert_eq!(at.route, Route::Sendfile);
    assert_eq!(
        Plan::select(&file(), &local(), &host, &ask(Length::ToEnd)).route,
        Route::Sendfile
    );
}

#[test]
fn below_the_threshold_of_sendfile_a_file_is_copied() {
    let mut host = HostFacts::default();
    host.thresholds.sendfile_min_bytes = 4096;
    let ask = Ask {
        length: Length::Exact(100),
        ..asking(Stability::Immutable)
    };
    let plan = Plan::select(&file(), &local(), &host, &ask);
    // Not by splice, which is sendfile with one call more.
    assert_eq!(plan.route, Route::ReadWrite);
    assert_eq!(
        plan.objection(Route::Splice),
        Some(Rejection::BelowThreshold)
    );
    let stream = SourceFacts::new(SourceKind::StreamSocket);
    let relay = Plan::select(&stream, &local(), &host, &ask);
    assert_eq!(relay.route, Route::Splice, "a stream has no such threshold");
}

#[test]
fn a_route_asked_for_has_no_threshold() {
    let mut host = HostFacts::default();
    host.thresholds.sendfile_min_bytes = u64::MAX;
    for only in [Route::Sendfile, Route::Splice] {
        let ask = Ask {
            length: Length::Exact(1),
            only: Some(only),
            ..asking(Stability::Immutable)
        };
        let plan = Plan::select(&file(), &local(), &host, &ask);
        assert_eq!((plan.route, plan.objection(only)), (only, None));
    }
}

#[test]
fn every_route_but_the_chosen_one_is_accounted_for() {
    let plan = select(
        &file(),
        &SinkFacts::new(SinkKind::Regular),
        &asking(Stability::Leased),
    );
    let rejected: Vec<_> = plan.rejected().collect();
    assert_eq!(rejected.len(), Route::BY_COST.len() - 1);
    assert!(rejected.contains(&(Route::ReadWrite, Rejection::CheaperRouteExists)));
    assert!(rejected.iter().all(|&(route, _)| route != plan.route));
}

#[test]
fn read_and_write_exist_between_any_two_ends() {
    use SinkKind as K;
    use SourceKind as S;
    let sources = [
        S::Regular,
        S::Memfd,
        S::Block,
        S::Pipe,
        S::StreamSocket,
        S::MessageSocket,
    ];
    let more_sources = [S::Device, S::Pseudo, S::Other];
    let sinks = [
        K::Regular,
        K::Block,
        K::Pipe,
        K::StreamSocket,
        K::MessageSocket,
        K::Null,
    ];
    let more_sinks = [K::Device, K::Other];
    for source in sources.into_iter().chain(more_sources) {
        for sink in sinks.into_iter().chain(more_sinks) {
            let plan = select(
                &SourceFacts::new(source),
                &SinkFacts::new(sink),
                &Ask::default(),
            );
            assert_eq!(plan.objection(Route::ReadWrite), None);
            // And the chain of fallbacks from any route ends there.
            let mut route = plan.route;
            while let Some(next) = plan.after(route) {
                route = next;
            }
            assert_eq!(route, Route::ReadWrite);
        }
    }
}
