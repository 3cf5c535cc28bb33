//! Stops, deadlines, throttles and fairness.

use std::num::NonZeroU64;
use std::time::Duration;

use zhaul_core::{Ask, Cause, End, Errno, Op, Route, Step, Stop};

use crate::common::{Mood, World, outcome, pattern};
use crate::{LEN, from_file, from_stream, immutable, leased, leased_if_mapped, socket};

#[test]
fn a_file_loses_nothing_because_it_can_be_read_again() {
    let mood = |op: &Op| match op {
        Op::Write { .. } => Mood::Fails(Errno::EPIPE),
        _ => Mood::Full,
    };
    let mut world = World::file(pattern(10_000)).with_mood(mood);
    let mut transfer = from_file(&world, &socket(), &Ask::default());
    let error = world.run(&mut transfer, None).unwrap_err();
    assert_eq!((error.moved(), error.summary.stranded), (0, 0));
}

#[test]
fn a_stop_flushes_what_was_taken_from_a_stream() {
    let bytes = pattern(10_000);
    let mood = |op: &Op| match op {
        Op::Splice {
            from: End::Pipe, ..
        } => Mood::Short(100),
        _ => Mood::Short(1_000),
    };
    for stop in [Stop::Cancelled, Stop::Deadline, Stop::LeaseBroken] {
        // Step 0 fills the pipe; the stop comes before the first drain.
        let mut world = World::stream(bytes.clone()).with_mood(mood);
        let mut transfer = from_stream(&socket(), &Ask::default());
        let error = world.run(&mut transfer, Some((1, stop))).unwrap_err();
        assert_eq!((error.moved(), error.summary.stranded), (1_000, 0));
        assert!(world.pipe.is_empty() && world.sink == bytes[..1_000]);
        let expected = match stop {
            Stop::Cancelled => Cause::Cancelled,
            Stop::Deadline => Cause::DeadlineExceeded,
            _ => Cause::LeaseBroken,
        };
        assert_eq!(error.cause, expected);
    }
}

#[test]
fn a_stop_does_not_wait_for_a_full_sink() {
    let mut drains = 0;
    let mut world = World::stream(pattern(10_000)).with_mood(move |op| match op {
        Op::Splice {
            from: End::Pipe, ..
        } => {
            drains += 1;
            if drains > 3 {
                Mood::WouldBlock
            } else {
                Mood::Short(100)
            }
        }
        _ => Mood::Short(1_000),
    });
    let mut transfer = from_stream(&socket(), &Ask::default());
    let error = world
        .run(&mut transfer, Some((1, Stop::Cancelled)))
        .unwrap_err();
    assert_eq!((error.cause, error.moved()), (Cause::Cancelled, 300));
    assert_eq!(error.summary.stranded, 700);
}

#[test]
fn a_stop_after_a_mapped_write_counts_it_first() {
    let mut world = World::file(pattern(LEN as usize)).with_mood(|op| match op {
        Op::WriteMapped { .. } => Mood::Short(1_000),
        _ => Mood::Full,
    });
    let ask = Ask {
        only: Some(Route::MmapWrite),
        ..leased()
    };
    let mut transfer = from_file(&world, &socket(), &ask);
    // Stat, map, stat, write: the stop comes before the stat that follows.
    let error = world
        .run(&mut transfer, Some((4, Stop::Cancelled)))
        .unwrap_err();
    assert_eq!((error.moved(), world.sink.len()), (1_000, 1_000));
}

#[test]
fn the_deadline_is_the_callers_clock() {
    let ask = Ask {
        deadline: Some(Duration::from_secs(3)),
        ..Ask::default()
    };
    let mut transfer = from_stream(&socket(), &ask);
    transfer.tick(Duration::from_millis(2_999));
    transfer.tick(Duration::from_secs(3));
    let error = outcome(&mut transfer).unwrap_err();
    assert_eq!(error.cause, Cause::DeadlineExceeded);
}

#[test]
fn an_end_is_final() {
    let mut world = World::file(pattern(10_000));
    let mut transfer = from_file(&world, &socket(), &Ask::default());
    world.run(&mut transfer, None).unwrap();
    transfer.stop(Stop::Cancelled);
    transfer.tick(Duration::from_secs(1));
    assert_eq!(outcome(&mut transfer).unwrap().moved, 10_000);
    let mut transfer = from_file(&world, &socket(), &Ask::default());
    transfer.stop(Stop::Deadline);
    transfer.stop(Stop::Cancelled);
    for _ in 0..2 {
        let error = outcome(&mut transfer).unwrap_err();
        assert_eq!(error.cause, Cause::DeadlineExceeded);
    }
}

#[test]
fn the_throttle_keeps_its_rate_on_every_route() {
    for route in [
        Route::Sendfile,
        Route::Splice,
        Route::MmapWrite,
        Route::ReadWrite,
    ] {
        let mut world = World::file(pattern(LEN as usize));
        let ask = Ask {
            only: Some(route),
            throttle: NonZeroU64::new(100_000),
            ..leased_if_mapped(route)
        };
        let mut transfer = from_file(&world, &socket(), &ask);
        world.run(&mut transfer, None).unwrap();
        // 300,000 bytes at 100,000 a second, the last tenth of a second not waited for.
        assert!(
            (2_800..=3_000).contains(&world.now.as_millis()),
            "{route}: {:?}",
            world.now
        );
    }
}

#[test]
fn others_get_their_turn_when_the_budget_is_used_up() {
    let world = World::file(pattern(LEN as usize));
    let ask = Ask {
        budget_bytes: 100_000,
        chunk_bytes: 50_000,
        ..immutable()
    };
    let mut transfer = from_file(&world, &socket(), &ask);
    let (mut yields, mut since) = (0, 0);
    loop {
        match transfer.next() {
            Step::Submit(Op::Stat) => transfer.observed(Ok(world.version())),
            Step::Submit(op @ Op::Sendfile { len, .. }) => {
                since += len;
                assert!(
                    since <= 100_000 + 50_000,
                    "the budget and at most one chunk more"
                );
                transfer.complete(op, Ok(len));
            }
            Step::Yield => (yields, since) = (yields + 1, 0),
            Step::Done(Ok(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(yields >= 2);
}
