//! Where a source ends, held against the version that it had at the start.

use zhaul_core::{
    Ask, Cause, Ending, HostFacts, Length, Op, Plan, Refusal, Route, SinkFacts, SinkKind,
    SourceFacts, SourceKind, Stability, Step, Transfer, Version, Why,
};

use crate::common::{Mood, World, outcome, pattern};
use crate::{LEN, from_file, leased, leased_if_mapped, socket, transfer};

const ROUTES: [Route; 4] = [
    Route::Sendfile,
    Route::Splice,
    Route::MmapWrite,
    Route::ReadWrite,
];
const LENGTHS: [Length; 2] = [Length::ToEnd, Length::Exact(LEN)];

/// 1,000 bytes a call, and the tenth call meets this.
fn at_the_tenth_call(mood: Mood) -> impl FnMut(&Op) -> Mood {
    let mut calls = 0;
    move |op| {
        if *op == Op::Stat || matches!(op, Op::Map { .. }) {
            return Mood::Full;
        }
        calls += 1;
        if calls == 10 {
            mood
        } else {
            Mood::Short(1_000)
        }
    }
}

#[test]
fn an_end_before_the_size_at_the_start_is_a_truncation_whatever_was_asked() {
    let bytes = pattern(LEN as usize);
    let may_change = Ask::default();
    for (length, one_version) in [
        (Length::ToEnd, false),
        (Length::ToEnd, true),
        (Length::Exact(LEN), false),
    ] {
        for size in [0, 5_000, LEN - 1] {
            let mut world =
                World::file(bytes.clone()).with_mood(at_the_tenth_call(Mood::Cut(size)));
            let ask = Ask {
                length,
                one_version,
                ..may_change
            };
            let mut transfer = from_file(&world, &socket(), &ask);
            let error = world.run(&mut transfer, None).unwrap_err();
            assert_eq!(error.cause, Cause::Truncated { size }, "{ask:?}");
            assert_eq!(error.moved(), world.sink.len() as u64);
            assert!(world.sink == bytes[..world.sink.len()]);
        }
    }
    // The other routes of a default transfer: into a file, and of a sealed memfd.
    for route in ROUTES {
        let mut world = World::file(bytes.clone()).with_mood(at_the_tenth_call(Mood::Cut(5_000)));
        let ask = Ask {
            only: Some(route),
            length: Length::ToEnd,
            ..leased_if_mapped(route)
        };
        let mut transfer = from_file(&world, &socket(), &ask);
        let error = world.run(&mut transfer, None).unwrap_err();
        assert_eq!(error.cause, Cause::Truncated { size: 5_000 }, "{route}");
    }
}

#[test]
fn a_cut_below_what_a_growing_file_was_seen_to_have_is_a_truncation_too() {
    let bytes = pattern(LEN as usize);
    let mut world = World::file(bytes.clone()).with_mood(at_the_tenth_call(Mood::Cut(LEN)));
    let ask = Ask {
        chunk_bytes: 4096,
        length: Length::ToEnd,
        ..leased()
    };
    let mut transfer = from_file(&world, &socket(), &ask);
    world.source.extend_from_slice(&pattern(5_000));
    world.edits += 1;
    let error = world.run(&mut transfer, None).unwrap_err();
    assert_eq!(error.cause, Cause::Truncated { size: LEN });
}

#[test]
fn a_file_that_grew_is_moved_to_its_new_end() {
    let mut world = World::file(pattern(LEN as usize));
    let mut transfer = from_file(&world, &socket(), &Ask::default());
    world.source.extend_from_slice(b"appended meanwhile");
    world.edits += 1;
    let summary = world.run(&mut transfer, None).unwrap();
    assert!(world.sink == world.source);
    assert_eq!(summary.ending, Some(Ending::SourceEnd));
}

#[test]
fn an_end_where_it_was_announced_costs_no_look() {
    for source in [0, 1_000, LEN as usize] {
        let mut world = World::file(pattern(source));
        let mut transfer = from_file(&world, &socket(), &Ask::default());
        world.run(&mut transfer, None).unwrap();
        assert_eq!(world.stats, 0, "{source} bytes");
    }
}

#[test]
fn behind_the_end_there_is_nothing_and_nothing_was_cut() {
    let mut world = World::file(pattern(1_000));
    let ask = Ask {
        offset: 5_000,
        ..Ask::default()
    };
    let mut transfer = from_file(&world, &socket(), &ask);
    assert_eq!(world.run(&mut transfer, None).unwrap().moved, 0);
}

#[test]
fn a_file_that_gives_less_than_fstat_states_ends_where_it_ends() {
    for route in ROUTES.into_iter().map(Some).chain([None]) {
        for length in LENGTHS {
            for real in [0, 1_000, 100_000] {
                let bytes = pattern(real);
                let mut world = World::file(bytes.clone());
                world.stated_too_much = LEN - real as u64;
                world.faults_across_a_cut = true;
                let ask = Ask {
                    only: route.filter(|&route| route != Route::MmapWrite),
                    length,
                    ..route.map_or(Ask::default(), leased_if_mapped)
                };
                let host = HostFacts::default()
                    .without(Route::Splice)
                    .without(Route::Sendfile);
                let (source, sink) = (SourceFacts::regular(world.version()), socket());
                let mut transfer = match route {
                    Some(Route::MmapWrite) => {
                        let plan = Plan::select(&source, &sink, &host, &ask);
                        Transfer::new(plan, &source, &sink, &host, &ask).unwrap()
                    }
                    _ => from_file(&world, &sink, &ask),
                };
                let error = world.run(&mut transfer, None).unwrap_err();
                let what = format!("{route:?} {length:?} {real}");
                assert_eq!(error.cause, Cause::SourceEnded, "{what}");
                assert_eq!(error.moved(), real as u64, "{what}");
                assert!(world.sink == bytes, "{what}");
                assert!(error.summary.calls < 30, "{what}: {error:?}");
            }
        }
    }
}

#[test]
fn an_end_that_a_read_denies_was_none() {
    // A copy_file_range that says 0 in the middle of a file, as some file systems do.
    let bytes = pattern(LEN as usize);
    let mut calls = 0;
    let mut world = World::file(bytes.clone()).with_mood(move |op| {
        let copies = matches!(op, Op::CopyFileRange { .. });
        calls += u32::from(copies);
        match calls {
            3 if copies => Mood::Nothing,
            _ => Mood::Short(1_000),
        }
    });
    let ask = Ask {
        stability: Stability::Immutable,
        ..Ask::default()
    };
    let mut transfer = from_file(&world, &SinkFacts::new(SinkKind::Regular), &ask);
    assert_eq!(transfer.route(), Route::CopyFileRange);
    let summary = world.run(&mut transfer, None).unwrap();
    assert!(world.sink == bytes);
    assert_eq!(summary.changes[0].why, Why::EndUnconfirmed);
    assert_eq!(summary.changes[0].moved, 2_000);
}

#[test]
fn an_offset_that_the_kernel_does_not_know_is_refused() {
    let host = HostFacts::default();
    let (source, sink) = (
        SourceFacts::regular(Version::default()),
        SinkFacts::new(SinkKind::Regular),
    );
    for offset in [1 << 63, u64::MAX] {
        for ask in [
            Ask {
                offset,
                ..Ask::default()
            },
            Ask {
                sink_offset: Some(offset),
                ..Ask::default()
            },
        ] {
            let plan = Plan::select(&source, &sink, &host, &ask);
            let error = Transfer::new(plan, &source, &sink, &host, &ask).unwrap_err();
            let refusal = Refusal::OffsetTooLarge;
            assert_eq!(error.cause, Cause::Refused { refusal });
        }
    }
}

#[test]
fn no_call_reaches_behind_the_last_offset() {
    let last = i64::MAX as u64;
    let huge = Version {
        size: last,
        ..Version::default()
    };
    for route in ROUTES {
        for length in [Length::ToEnd, Length::Exact(u64::MAX), Length::Exact(10)] {
            let ask = Ask {
                offset: last - 10,
                length,
                only: Some(route),
                ..leased_if_mapped(route)
            };
            let mut transfer = transfer(&SourceFacts::regular(huge), &socket(), &ask);
            let mut moved = 0;
            let ended = loop {
                match transfer.next() {
                    Step::Submit(Op::Stat) => transfer.observed(Ok(huge)),
                    Step::Submit(op) => {
                        let (offset, len) = op.source_range().unwrap_or((0, 10));
                        if op.source_range().is_some() {
                            assert!(offset + len as u64 <= last, "{op:?}");
                            moved += len;
                        }
                        transfer.complete(op, Ok(len));
                    }
                    Step::AwaitRelease => transfer.released(),
                    Step::Done(_) => break outcome(&mut transfer),
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(moved, 10, "{route} {length:?}");
            match length {
                Length::Exact(u64::MAX) => assert_eq!(ended.unwrap_err().cause, Cause::SourceEnded),
                _ => assert_eq!(ended.unwrap().moved, 10),
            }
        }
    }
    // A device without a size.
    let zero = SourceFacts::new(SourceKind::Device);
    let ask = Ask {
        offset: last,
        length: Length::Exact(1),
        ..Ask::default()
    };
    let mut transfer = transfer(&zero, &socket(), &ask);
    while let Step::Submit(op) = transfer.next() {
        assert_eq!(op.source_range(), Some((last, 0)), "{op:?}");
        transfer.complete(op, Ok(0));
    }
    assert_eq!(
        outcome(&mut transfer).unwrap_err().cause,
        Cause::SourceEnded
    );
}
