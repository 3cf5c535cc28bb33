//! Files that are cut, edited or appended to while they are sent.

use zhaul_core::{
    Ask, Cause, Errno, HostFacts, Length, Op, Operation, Plan, Route, SourceFacts, Stability, Step,
    Transfer, Version, Why,
};

use crate::common::{Mood, World, pattern};
use crate::{LEN, from_file, immutable, leased, leased_if_mapped, socket};

#[test]
fn a_cut_file_is_a_truncation_on_every_route() {
    for route in [
        Route::Sendfile,
        Route::Splice,
        Route::MmapWrite,
        Route::ReadWrite,
    ] {
        let bytes = pattern(LEN as usize);
        let mut calls = 0;
        let mut world = World::file(bytes.clone()).with_mood(move |op| {
            if *op == Op::Stat || matches!(op, Op::Map { .. }) {
                return Mood::Full;
            }
            calls += 1;
            if calls == 10 {
                Mood::Cut(5_000)
            } else {
                Mood::Short(1_000)
            }
        });
        let ask = Ask {
            only: Some(route),
            ..leased_if_mapped(route)
        };
        let mut transfer = from_file(&world, &socket(), &ask);
        let error = world.run(&mut transfer, None).unwrap_err();
        assert_eq!(error.cause, Cause::Truncated { size: 5_000 }, "{route}");
        let moved = error.moved() as usize;
        assert!(
            moved <= world.sink.len() && world.sink[..moved] == bytes[..moved],
            "{route}"
        );
    }
}

/// A lease that its holder held for too long is taken away, and the file is cut.
#[test]
fn a_cut_inside_the_page_being_written_counts_only_what_was_in_the_file() {
    let bytes = pattern(8192);
    let mut world = World::file(bytes.clone()).with_mood(|op| match op {
        Op::WriteMapped { .. } => Mood::Cut(100),
        _ => Mood::Full,
    });
    let ask = Ask {
        only: Some(Route::MmapWrite),
        length: Length::ToEnd,
        ..leased()
    };
    let mut transfer = from_file(&world, &socket(), &ask);
    let error = world.run(&mut transfer, None).unwrap_err();
    assert_eq!(
        (error.cause, error.moved()),
        (Cause::Truncated { size: 100 }, 100)
    );
    assert!(
        world.sink.len() == 4096 && world.sink[100..].iter().all(|&byte| byte == 0),
        "the kernel wrote zeros to the end of the page"
    );
}

#[test]
fn a_mapping_that_faults_without_a_cut_is_left_for_reading() {
    let bytes = pattern(LEN as usize);
    let mut world = World::file(bytes.clone()).with_mood(|op| match op {
        Op::WriteMapped { offset: 8192.., .. } => Mood::Fails(Errno::EFAULT),
        Op::WriteMapped { .. } => Mood::Short(4096),
        _ => Mood::Full,
    });
    let host = HostFacts::default()
        .without(Route::Sendfile)
        .without(Route::Splice);
    let (source, sink) = (SourceFacts::regular(world.version()), socket());
    let plan = Plan::select(&source, &sink, &host, &leased());
    let mut transfer = Transfer::new(plan, &source, &sink, &host, &leased()).unwrap();
    let summary = world.run(&mut transfer, None).unwrap();
    assert!(world.sink == bytes);
    assert_eq!(summary.changes[0].moved, 8192);
    let why = Why::Refused {
        operation: Operation::Write,
        errno: Errno::EFAULT,
    };
    assert_eq!(summary.changes[0].why, why);
}

#[test]
fn an_edit_between_chunks_stops_an_immutable_transfer() {
    for route in [Route::Sendfile, Route::Splice, Route::MmapWrite] {
        let mut calls = 0;
        let mut world = World::file(pattern(LEN as usize)).with_mood(move |op| {
            calls += u32::from(*op != Op::Stat);
            if calls == 4 { Mood::Edit } else { Mood::Full }
        });
        let ask = Ask {
            only: Some(route),
            chunk_bytes: 4096,
            ..leased_if_mapped(route)
        };
        let mut transfer = from_file(&world, &socket(), &ask);
        let error = world.run(&mut transfer, None).unwrap_err();
        assert_eq!(error.cause, Cause::Changed, "{route}");
        assert!(
            error.moved() > 0 && error.moved() <= 5 * 4096,
            "{route}: at the next border"
        );
    }
}

/// Calls that are each preceded by a change of metadata.
fn touched(world: World) -> World {
    world.with_mood(|op| match op {
        Op::Stat => Mood::Full,
        _ => Mood::Touch,
    })
}

#[test]
fn a_change_of_metadata_is_no_edit() {
    let bytes = pattern(LEN as usize);
    let asks = |route: Route| {
        let routed = Ask {
            only: Some(route),
            chunk_bytes: 4096,
            ..leased_if_mapped(route)
        };
        [
            routed,
            Ask {
                length: Length::ToEnd,
                ..routed
            },
            Ask {
                one_version: true,
                ..routed
            },
        ]
    };
    for route in [
        Route::Sendfile,
        Route::Splice,
        Route::MmapWrite,
        Route::ReadWrite,
    ] {
        for ask in asks(route) {
            let mut world = touched(World::file(bytes.clone()));
            let mut transfer = from_file(&world, &socket(), &ask);
            world
                .run(&mut transfer, None)
                .unwrap_or_else(|error| panic!("{ask:?}: {error}"));
            assert!(world.sink == bytes, "{route}");
            assert_eq!(world.looks, 0, "and nothing to look at twice");
        }
    }
    let copied = Ask {
        stability: Stability::MayChange,
        one_version: true,
        ..immutable()
    };
    let mut world = touched(World::file(bytes.clone()));
    let mut transfer = from_file(&world, &socket(), &copied);
    world.run(&mut transfer, None).unwrap();
    assert!(world.sink == bytes);
}

#[test]
fn who_counts_ctime_finds_an_edit_whose_mtime_was_set_back() {
    for (stability, one_version) in [
        (Stability::Immutable, false),
        (Stability::Leased, false),
        (Stability::MayChange, true),
    ] {
        let ask = Ask {
            stability,
            one_version,
            ctime_is_edit: true,
            chunk_bytes: 4096,
            ..immutable()
        };
        let mut world = touched(World::file(pattern(LEN as usize)));
        let mut transfer = from_file(&world, &socket(), &ask);
        let error = world.run(&mut transfer, None).unwrap_err();
        assert_eq!(error.cause, Cause::Changed, "{stability:?}");
        assert!(error.moved() <= 4096);
        assert_eq!(world.looks, 1, "it might have been an unlink in progress");
    }
}

#[test]
fn an_edit_during_the_last_chunk_is_still_reported() {
    let mut world = World::file(pattern(LEN as usize)).with_mood(|op| {
        if matches!(op, Op::Sendfile { .. }) {
            Mood::Edit
        } else {
            Mood::Full
        }
    });
    let mut transfer = from_file(&world, &socket(), &immutable());
    let error = world.run(&mut transfer, None).unwrap_err();
    assert_eq!((error.cause, error.moved()), (Cause::Changed, LEN));
}

#[test]
fn a_growing_file_is_sent_to_the_announced_length() {
    let bytes = pattern(LEN as usize);
    for route in [
        Route::Sendfile,
        Route::MmapWrite,
        Route::Splice,
        Route::ReadWrite,
    ] {
        let mut world = World::file(bytes.clone());
        let ask = Ask {
            only: Some(route),
            chunk_bytes: 4096,
            ..leased_if_mapped(route)
        };
        let mut transfer = from_file(&world, &socket(), &ask);
        world.source.extend_from_slice(b"appended meanwhile");
        world.edits += 1;
        let summary = world.run(&mut transfer, None).unwrap();
        assert!(world.sink == bytes, "{route}");
        assert!(summary.grew, "{route}");
    }
}

#[test]
fn an_append_in_progress_is_no_edit() {
    // The kernel stamps the times, then copies, then raises the size: a look in between shows new
    // times with the old size.
    let bytes = pattern(LEN as usize);
    for when in [1, 4, u32::MAX] {
        let mut calls = 0;
        let mut world = World::file(bytes.clone()).with_mood(move |op| {
            calls += u32::from(*op != Op::Stat);
            if calls == when {
                Mood::Edit
            } else {
                Mood::Full
            }
        });
        world.appending = b"the rest of the line".to_vec();
        let ask = Ask {
            chunk_bytes: 4096,
            ..immutable()
        };
        let mut transfer = from_file(&world, &socket(), &ask);
        let summary = world.run(&mut transfer, None).unwrap();
        assert!(world.sink == bytes);
        assert_eq!(summary.grew, when != u32::MAX);
        assert_eq!(
            world.looks,
            u32::from(when != u32::MAX),
            "one more look, and only in doubt"
        );
    }
}

#[test]
fn an_unlink_in_progress_is_no_edit() {
    // ext4 lowers the count of names before it moves ctime, tmpfs after.
    let before = World::file(pattern(LEN as usize)).version();
    let mut ctime = before.ctime;
    ctime.nanoseconds += 1;
    let uncounted = Version { nlink: 0, ..before };
    let stamped = Version { ctime, ..before };
    let unlinked = Version { ctime, ..uncounted };
    for middle in [uncounted, stamped] {
        // How often it is looked at before it begins, and in the middle of it.
        for (early, meanwhile) in [(0, 1), (1, 1), (3, 1), (1, 2)] {
            if middle == stamped && meanwhile > 1 {
                continue;
            }
            let mut looks = std::iter::repeat_n(before, early)
                .chain(std::iter::repeat_n(middle, meanwhile))
                .chain(std::iter::repeat(unlinked));
            let world = World::file(pattern(LEN as usize));
            let ask = Ask {
                chunk_bytes: 4096,
                ctime_is_edit: true,
                ..immutable()
            };
            let mut transfer = from_file(&world, &socket(), &ask);
            let moved = loop {
                match transfer.next() {
                    Step::Submit(Op::Stat) => transfer.observed(Ok(looks.next().unwrap())),
                    Step::Submit(op @ Op::Sendfile { len, .. }) => {
                        transfer.complete(op, Ok(len));
                    }
                    Step::StatAgain { .. } | Step::Yield => {}
                    Step::Done(Ok(summary)) => break summary.moved,
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(moved, LEN);
        }
    }
}

#[test]
fn what_was_read_while_the_file_changed_is_not_written_if_one_version_is_asked_for() {
    for (mood, cause) in [
        (Mood::Edit, Cause::Changed),
        (Mood::CutDuring(5000), Cause::Truncated { size: 5000 }),
    ] {
        let bytes = pattern(LEN as usize);
        let mut reads = 0;
        let mut world = World::file(bytes.clone()).with_mood(move |op| {
            reads += u32::from(matches!(op, Op::Read { .. }));
            match op {
                Op::Read { .. } if reads == 2 => mood,
                _ => Mood::Short(4096),
            }
        });
        let ask = Ask {
            one_version: true,
            length: Length::Exact(LEN),
            ..Ask::default()
        };
        let mut transfer = from_file(&world, &socket(), &ask);
        let error = world.run(&mut transfer, None).unwrap_err();
        assert_eq!(error.cause, cause);
        assert!(world.sink == bytes[..4096], "nothing of the second read");
    }
}

#[test]
fn versions_are_checked_once_a_chunk_and_once_at_the_end() {
    let count = |ask: Ask| {
        let mut world = World::file(pattern(8 * 4096)).with_mood(|_| Mood::Short(1000));
        let mut transfer = from_file(&world, &socket(), &ask);
        world.run(&mut transfer, None).unwrap();
        world.stats
    };
    let ask = Ask {
        chunk_bytes: 4096,
        length: Length::Exact(8 * 4096),
        ..immutable()
    };
    assert_eq!(count(ask), 9);
    assert_eq!(
        count(Ask {
            version_is_fresh: true,
            ..ask
        }),
        8
    );
    assert_eq!(
        count(Ask {
            stability: Stability::MayChange,
            ..ask
        }),
        0
    );
}

#[test]
fn chunks_end_at_their_multiples_in_the_file() {
    let world = World::file(pattern(100_000));
    let ask = Ask {
        offset: 5_000,
        chunk_bytes: 4096,
        length: Length::Exact(10_000),
        ..immutable()
    };
    let mut transfer = from_file(&world, &socket(), &ask);
    let mut borders = Vec::new();
    loop {
        match transfer.next() {
            Step::Submit(Op::Stat) => transfer.observed(Ok(world.version())),
            Step::Submit(op @ Op::Sendfile { offset, len }) => {
                borders.push((offset, len));
                transfer.complete(op, Ok(len));
            }
            Step::Done(Ok(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(borders, [(5_000, 3_192), (8_192, 4_096), (12_288, 2_712)]);
}
