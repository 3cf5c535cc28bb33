//! Splice and its pipe, urgent data, waiting.

use std::num::NonZeroU64;

use zhaul_core::{
    Ask, Cause, End, Errno, Interest, Length, Op, Operation, Route, SinkFacts, SinkKind,
    SourceFacts, SourceKind, Stability, Step, Transfer, Version, Why,
};

use crate::common::{Mood, World, pattern};
use crate::{LEN, from_file, from_stream, immutable, socket, transfer};

#[test]
fn would_block_is_a_state_and_names_the_end_to_wait_for() {
    let cases = [
        (SourceKind::Regular, SinkKind::StreamSocket, Interest::SINK),
        (SourceKind::Pipe, SinkKind::Device, Interest::EITHER),
        (SourceKind::Pipe, SinkKind::StreamSocket, Interest::EITHER),
        (SourceKind::StreamSocket, SinkKind::Pipe, Interest::EITHER),
    ];
    for (source, sink, interest) in cases {
        let source = SourceFacts::new(source);
        let ask = Ask {
            stability: Stability::Immutable,
            ..Ask::default()
        };
        let mut transfer = transfer(&source, &SinkFacts::new(sink), &ask);
        let Step::Submit(op) = transfer.next() else {
            panic!("a call comes first")
        };
        transfer.complete(op, Err(Errno::EAGAIN));
        assert_eq!(transfer.next(), Step::Wait(interest), "{source:?}");
        assert_eq!(transfer.next(), Step::Submit(op), "the same call again");
    }
}

#[test]
fn splice_does_not_have_the_last_word_on_a_socket() {
    let mut transfer = from_stream(&socket(), &Ask::default());
    let mut answer = |result| {
        let Step::Submit(op) = transfer.next() else {
            panic!("a call comes next")
        };
        transfer.complete(op, result);
        (op.operation(), transfer.next())
    };
    let (operation, _) = answer(Err(Errno::EAGAIN));
    assert_eq!(operation, Operation::Splice);
    let (operation, next) = answer(Err(Errno::EAGAIN));
    assert_eq!(
        (operation, next),
        (Operation::Read, Step::Wait(Interest::SOURCE)),
        "both say that there is nothing"
    );
    assert_eq!(answer(Ok(0)).0, Operation::Splice);
    assert_eq!(answer(Ok(13)).0, Operation::Read, "the end is doubted");
    assert_eq!(answer(Ok(13)).0, Operation::Write, "what it brought");
    assert_eq!(answer(Ok(0)).0, Operation::Splice, "and on");
    let (operation, next) = answer(Ok(0));
    assert_eq!(operation, Operation::Read);
    assert!(matches!(next, Step::Done(Ok(summary)) if summary.moved == 13));
}

#[test]
fn urgent_data_ends_no_stream_and_stops_none() {
    for sink in [SinkKind::StreamSocket, SinkKind::Pipe, SinkKind::Regular] {
        let bytes = pattern(10_000);
        let mut world = World::stream(bytes.clone());
        world.urgent_mark = Some(6_000);
        let mut transfer = from_stream(&SinkFacts::new(sink), &Ask::default());
        assert_eq!(transfer.route(), Route::Splice);
        let summary = world.run(&mut transfer, None).unwrap();
        assert!(world.sink == bytes, "{sink:?}: {summary:?}");
        assert_eq!(
            summary.route,
            Route::Splice,
            "one read, then splicing again"
        );
    }
}

#[test]
fn a_blocked_drain_waits_for_the_sink_and_drains_the_exact_rest() {
    let mut transfer = from_stream(&socket(), &Ask::default());
    let Step::Submit(fill) = transfer.next() else {
        panic!()
    };
    transfer.complete(fill, Ok(44_888));
    let Step::Submit(drain) = transfer.next() else {
        panic!()
    };
    assert!(matches!(
        drain,
        Op::Splice {
            from: End::Pipe,
            to: End::Sink,
            len: 44_888,
            ..
        }
    ));
    transfer.complete(drain, Ok(40_000));
    let Step::Submit(drain) = transfer.next() else {
        panic!()
    };
    assert!(matches!(
        drain,
        Op::Splice {
            from: End::Pipe,
            len: 4_888,
            ..
        }
    ));
    transfer.complete(drain, Err(Errno::EAGAIN));
    assert_eq!(transfer.pipe_bytes(), 4_888);
    assert_eq!(transfer.next(), Step::Wait(Interest::SINK));
}

#[test]
fn a_pipe_may_hold_more_than_its_nominal_size() {
    let mut transfer = from_stream(&socket(), &Ask::default());
    let Step::Submit(fill) = transfer.next() else {
        panic!()
    };
    transfer.complete(fill, Ok(264_704));
    assert_eq!(transfer.pipe_bytes(), 264_704);
    let Step::Submit(drain) = transfer.next() else {
        panic!()
    };
    assert!(matches!(drain, Op::Splice { len: 264_704, .. }));
}

#[test]
fn splice_never_asks_for_more_than_the_kernel_takes() {
    let ask = Ask {
        chunk_bytes: usize::MAX,
        ..Ask::default()
    };
    let mut transfer = from_stream(&socket(), &ask);
    let Step::Submit(Op::Splice { len, .. }) = transfer.next() else {
        panic!()
    };
    assert_eq!(len, 1 << 30);
}

#[test]
fn more_is_promised_only_when_more_is_certain() {
    let more_of = |transfer: &mut Transfer, filled: usize| {
        loop {
            match transfer.next() {
                Step::Submit(Op::Stat) => {
                    transfer.observed(Ok(Version {
                        size: LEN,
                        ..Version::default()
                    }));
                }
                Step::Submit(Op::Splice {
                    from: End::Pipe,
                    more,
                    ..
                }) => return more,
                Step::Submit(fill) => transfer.complete(fill, Ok(filled)),
                other => panic!("{other:?}"),
            }
        }
    };
    let ask = Ask {
        only: Some(Route::Splice),
        ..immutable()
    };
    let file = SourceFacts::regular(Version {
        size: LEN,
        ..Version::default()
    });
    let stream = SourceFacts::new(SourceKind::StreamSocket);
    assert!(more_of(&mut transfer(&file, &socket(), &ask), 1000));
    assert!(
        !more_of(&mut transfer(&file, &socket(), &ask), LEN as usize),
        "the last bytes"
    );
    let to_end = Ask {
        length: Length::ToEnd,
        ..ask
    };
    assert!(
        !more_of(&mut transfer(&file, &socket(), &to_end), 1000),
        "the end is not known"
    );
    assert!(
        !more_of(&mut transfer(&stream, &socket(), &ask), 1000),
        "a stream may pause"
    );
    let small_chunks = Ask {
        chunk_bytes: 1000,
        ..ask
    };
    assert!(
        !more_of(&mut transfer(&file, &socket(), &small_chunks), 1000),
        "the next chunk may be cold"
    );
    let throttled = Ask {
        throttle: NonZeroU64::new(1 << 20),
        ..ask
    };
    assert!(
        !more_of(&mut transfer(&file, &socket(), &throttled), 1000),
        "a throttle pauses"
    );
}

#[test]
fn a_sink_that_refuses_the_pipe_gets_its_content_by_write() {
    let bytes = pattern(50_000);
    let mut drains = 0;
    let mut world = World::stream(bytes.clone()).with_mood(move |op| match op {
        Op::Splice {
            from: End::Pipe, ..
        } => {
            drains += 1;
            if drains > 2 {
                Mood::Fails(Errno::EINVAL)
            } else {
                Mood::Short(900)
            }
        }
        Op::Splice { .. } => Mood::Short(9_000),
        Op::Read { .. } | Op::Write { .. } => Mood::Short(700),
        _ => Mood::Full,
    });
    let mut transfer = from_stream(&SinkFacts::new(SinkKind::Device), &Ask::default());
    let summary = world.run(&mut transfer, None).unwrap();
    assert!(world.sink == bytes && world.pipe.is_empty());
    assert_eq!(summary.route, Route::ReadWrite);
    let change = summary.changes[0];
    assert_eq!(
        (change.from, change.moved),
        (Route::Splice, 9_000),
        "the pipe was emptied first"
    );
}

#[test]
fn no_pipe_means_copying_and_is_reported() {
    let bytes = pattern(5_000);
    let mut world = World::stream(bytes.clone());
    let mut transfer = from_stream(&socket(), &Ask::default());
    assert!(matches!(
        transfer.next(),
        Step::Submit(Op::Splice { to: End::Pipe, .. })
    ));
    transfer.no_pipe();
    let summary = world.run(&mut transfer, None).unwrap();
    assert!(world.sink == bytes);
    assert_eq!(summary.changes[0].why, Why::PipePoolExhausted);
}

#[test]
fn a_stream_is_spliced_again_once_there_is_a_pipe() {
    let bytes = pattern(50_000);
    let mut world = World::stream(bytes.clone());
    let ask = Ask {
        chunk_bytes: 10_000,
        ..Ask::default()
    };
    let mut transfer = from_stream(&socket(), &ask);
    // Three times there is none.
    let mut denied = 0;
    while denied < 3 {
        match transfer.next() {
            Step::Submit(Op::Splice { to: End::Pipe, .. }) => {
                denied += 1;
                transfer.no_pipe();
            }
            Step::Submit(op) => {
                let result = world.execute(&op);
                transfer.complete(op, result);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(transfer.changes().len(), 1, "attempts are not changes");
    let summary = world.run(&mut transfer, None).unwrap();
    assert!(world.sink == bytes);
    let changes: Vec<_> = summary
        .changes
        .iter()
        .map(|change| (change.to, change.moved, change.why))
        .collect();
    assert_eq!(
        changes,
        [
            (Route::ReadWrite, 0, Why::PipePoolExhausted),
            (Route::Splice, 30_000, Why::PipeAgain),
        ]
    );
}

#[test]
fn an_early_end_of_a_stream_is_not_a_truncation() {
    let mut world = World::stream(pattern(1_000));
    let ask = Ask {
        length: Length::Exact(1_001),
        ..Ask::default()
    };
    let error = world
        .run(&mut from_stream(&socket(), &ask), None)
        .unwrap_err();
    assert_eq!((error.cause, error.moved()), (Cause::SourceEnded, 1_000));

    let mut world = World::file(pattern(1_000));
    let mut transfer = from_file(
        &world,
        &socket(),
        &Ask {
            length: Length::Exact(1_001),
            ..immutable()
        },
    );
    let error = world.run(&mut transfer, None).unwrap_err();
    assert_eq!((error.cause, error.moved()), (Cause::SourceEnded, 1_000));
}

#[test]
fn a_failed_write_reports_what_a_stream_lost() {
    let mood = |op: &Op| match op {
        Op::Splice {
            from: End::Pipe, ..
        } => Mood::Fails(Errno::EPIPE),
        _ => Mood::Short(777),
    };
    let mut world = World::stream(pattern(10_000)).with_mood(mood);
    let error = world
        .run(&mut from_stream(&socket(), &Ask::default()), None)
        .unwrap_err();
    assert_eq!((error.moved(), error.summary.stranded), (0, 777));
    assert!(error.to_string().contains("777 more lost"));
}

#[test]
fn a_trickle_does_not_hold_the_thread() {
    let mut transfer = from_stream(&socket(), &Ask::default());
    for _ in 0..1000 {
        match transfer.next() {
            Step::Submit(op) => transfer.complete(op, Ok(1)),
            Step::Yield => return,
            other => panic!("{other:?}"),
        }
    }
    panic!("a thousand one-byte calls without a rest");
}
