//! Refusals and errors: another route, or the end.

use zhaul_core::{
    Ask, Cause, End, Ending, Errno, HostFacts, Length, Op, Operation, Plan, Refusal, Route,
    SinkFacts, SinkKind, SourceFacts, SourceKind, Step, Stop, Transfer, TransferError, Version,
    Why,
};

use crate::common::{Mood, World, outcome, pattern};
use crate::{LEN, from_file, from_stream, immutable, refuse_after, socket, transfer};

#[test]
fn sendfile_falls_back_at_a_byte_exact_point_and_says_why() {
    for errno in [
        Errno::EINVAL,
        Errno::ENOSYS,
        Errno::EOPNOTSUPP,
        Errno::ESPIPE,
        Errno::EPERM,
        Errno::ENOMEM,
        Errno::ENOBUFS,
    ] {
        for after in [0, 7000] {
            let bytes = pattern(LEN as usize);
            let mood = refuse_after(after, errno, Operation::Sendfile);
            let mut world = World::file(bytes.clone()).with_mood(mood);
            let mut transfer = from_file(&world, &socket(), &immutable());
            let summary = world.run(&mut transfer, None).unwrap();
            assert!(world.sink == bytes, "{errno:?} after {after}");
            let change = summary.changes[0];
            assert_eq!(
                (change.from, change.to, change.moved),
                (Route::Sendfile, Route::Splice, after)
            );
            assert_eq!(
                change.why,
                Why::Refused {
                    operation: Operation::Sendfile,
                    errno
                }
            );
        }
    }
}

#[test]
fn copy_file_range_falls_back_for_each_errno_it_is_known_for() {
    for errno in [
        Errno::EXDEV,
        Errno::EBADF,
        Errno::EINVAL,
        Errno::EOPNOTSUPP,
        Errno::ETXTBSY,
    ] {
        let bytes = pattern(LEN as usize);
        let mood = refuse_after(3000, errno, Operation::CopyFileRange);
        let mut world = World::file(bytes.clone()).with_mood(mood);
        let ask = Ask {
            length: Length::ToEnd,
            ..immutable()
        };
        let mut transfer = from_file(&world, &SinkFacts::new(SinkKind::Regular), &ask);
        assert_eq!(transfer.route(), Route::CopyFileRange);
        let summary = world.run(&mut transfer, None).unwrap();
        assert!(world.sink == bytes);
        assert_eq!(summary.changes[0].to, Route::Sendfile, "{errno:?}");
        assert_eq!(summary.ending, Some(Ending::SourceEnd));
    }
}

#[test]
fn all_routes_refused_one_after_the_other_end_at_read_and_write() {
    let bytes = pattern(LEN as usize);
    let mut world = World::file(bytes.clone()).with_mood(|op| match op.operation() {
        Operation::Read | Operation::Write | Operation::Stat => Mood::Full,
        _ => Mood::Fails(Errno::EINVAL),
    });
    let mut transfer = from_file(&world, &socket(), &immutable());
    let summary = world.run(&mut transfer, None).unwrap();
    assert!(world.sink == bytes);
    let path: Vec<_> = summary.changes.iter().map(|change| change.to).collect();
    assert_eq!(path, [Route::Splice, Route::ReadWrite]);
}

#[test]
fn a_refusal_is_an_error_if_the_route_was_the_only_one_asked_for() {
    let mut world = World::file(pattern(LEN as usize)).with_mood(refuse_after(
        2000,
        Errno::EINVAL,
        Operation::Sendfile,
    ));
    let ask = Ask {
        only: Some(Route::Sendfile),
        ..immutable()
    };
    let mut transfer = from_file(&world, &socket(), &ask);
    let error = world.run(&mut transfer, None).unwrap_err();
    assert_eq!(
        error.cause,
        Cause::Io {
            operation: Operation::Sendfile,
            errno: Errno::EINVAL
        }
    );
    assert_eq!((error.moved(), error.summary.changes.len()), (2000, 0));
}

#[test]
fn a_route_that_something_speaks_against_is_refused_at_the_start() {
    let (source, sink, host) = (
        SourceFacts::new(SourceKind::Pipe),
        socket(),
        HostFacts::default(),
    );
    let ask = Ask {
        only: Some(Route::Sendfile),
        ..Ask::default()
    };
    let plan = Plan::select(&source, &sink, &host, &ask);
    let error = Transfer::new(plan, &source, &sink, &host, &ask).unwrap_err();
    assert!(matches!(
        error.cause,
        Cause::RouteRefused {
            route: Route::Sendfile,
            ..
        }
    ));
}

#[test]
fn a_reset_ends_the_transfer_with_its_errno_and_the_bytes_moved() {
    for errno in [Errno::EPIPE, Errno::ECONNRESET, Errno::ETIMEDOUT] {
        let mood = refuse_after(5000, errno, Operation::Sendfile);
        let mut world = World::file(pattern(LEN as usize)).with_mood(mood);
        let mut transfer = from_file(&world, &socket(), &immutable());
        let error = world.run(&mut transfer, None).unwrap_err();
        assert_eq!((error.errno(), error.moved()), (Some(errno), 5000));
        assert!(error.is_disconnect());
    }
    let mood = refuse_after(5000, Errno::EIO, Operation::Sendfile);
    let mut world = World::file(pattern(LEN as usize)).with_mood(mood);
    let mut transfer = from_file(&world, &socket(), &immutable());
    let error = world.run(&mut transfer, None).unwrap_err();
    assert_eq!(
        (error.errno(), error.is_disconnect()),
        (Some(Errno::EIO), false)
    );
}

#[test]
fn an_empty_answer_at_the_start_is_confirmed_by_reading() {
    let bytes = pattern(500);
    let mut world = World::file(bytes.clone());
    // procfs: size 0, and sendfile says that there is nothing.
    let source = SourceFacts::new(SourceKind::Pseudo);
    let mut transfer = transfer(&source, &socket(), &Ask::default());
    let Step::Submit(op @ Op::Sendfile { .. }) = transfer.next() else {
        panic!()
    };
    transfer.complete(op, Ok(0));
    let summary = world.run(&mut transfer, None).unwrap();
    assert!(world.sink == bytes);
    assert_eq!(summary.changes[0].why, Why::EndUnconfirmed);
    assert_eq!(summary.ending, Some(Ending::SourceEnd));
}

#[test]
fn a_write_that_takes_nothing_is_an_error_and_no_loop() {
    let appending = SinkFacts::new(SinkKind::Regular).with_append(true);
    let mut transfer = from_stream(&appending, &Ask::default());
    let Step::Submit(read) = transfer.next() else {
        panic!()
    };
    transfer.complete(read, Ok(10));
    let Step::Submit(write) = transfer.next() else {
        panic!()
    };
    transfer.complete(write, Ok(0));
    let error = outcome(&mut transfer).unwrap_err();
    assert_eq!(
        (error.cause, error.summary.stranded),
        (Cause::SinkStalled, 10)
    );
}

#[test]
fn what_no_route_can_do_is_refused_before_anything_moves() {
    let host = HostFacts::default();
    let file = SourceFacts::regular(Version::default());
    let messages = SourceFacts::new(SourceKind::MessageSocket);
    let appending = SinkFacts::new(SinkKind::Regular).with_append(true);
    let pipe = SinkFacts::new(SinkKind::Pipe);
    let stream = SourceFacts::new(SourceKind::Pipe);
    let datagrams = SinkFacts::new(SinkKind::MessageSocket);
    let somewhere = Ask {
        sink_offset: Some(100),
        ..Ask::default()
    };
    let no_chunk = Ask {
        chunk_bytes: 0,
        ..Ask::default()
    };
    let no_budget = Ask {
        budget_bytes: 0,
        ..Ask::default()
    };
    let from_there = Ask {
        offset: 100,
        ..Ask::default()
    };
    for (source, sink, ask, expected) in [
        (
            &messages,
            &socket(),
            Ask::default(),
            Refusal::SourceKeepsMessages,
        ),
        (&file, &appending, somewhere, Refusal::SinkAppends),
        (&file, &socket(), somewhere, Refusal::SinkIsStream),
        (&file, &pipe, somewhere, Refusal::SinkIsStream),
        (
            &file,
            &datagrams,
            Ask::default(),
            Refusal::SinkKeepsMessages,
        ),
        (&stream, &socket(), from_there, Refusal::SourceIsStream),
        (&file, &socket(), no_chunk, Refusal::ChunkIsZero),
        (&file, &socket(), no_budget, Refusal::BudgetIsZero),
    ] {
        let plan = Plan::select(source, sink, &host, &ask);
        let error = Transfer::new(plan, source, sink, &host, &ask).unwrap_err();
        assert_eq!(error.cause, Cause::Refused { refusal: expected });
    }
}

#[test]
fn a_reset_source_is_no_vanished_receiver() {
    let reset = |sink| {
        let mut world = World::stream(pattern(100)).with_mood(|_| Mood::Fails(Errno::ECONNRESET));
        let mut transfer = from_stream(&SinkFacts::new(sink), &Ask::default());
        world.run(&mut transfer, None).unwrap_err()
    };
    for sink in [SinkKind::StreamSocket, SinkKind::Pipe] {
        let error = reset(sink);
        assert_eq!(error.errno(), Some(Errno::ECONNRESET));
        assert!(!error.is_disconnect(), "{sink:?}");
    }
}

#[test]
fn a_copy_onto_itself_is_refused_where_it_overlaps() {
    let host = HostFacts::default();
    let version = Version {
        dev: 1,
        ino: 2,
        size: 1000,
        ..Version::default()
    };
    let source = SourceFacts::regular(version);
    let attempt = |position: Option<u64>, append: bool, length: Length| {
        let sink = SinkFacts::new(SinkKind::Regular)
            .with_file((1, 2), position)
            .with_append(append);
        let ask = Ask {
            length,
            ..Ask::default()
        };
        let plan = Plan::select(&source, &sink, &host, &ask);
        Transfer::new(plan, &source, &sink, &host, &ask)
            .map(drop)
            .map_err(|error| error.cause)
    };
    assert_eq!(
        attempt(Some(99), false, Length::Exact(100)),
        Err(Cause::SameFile)
    );
    assert_eq!(attempt(Some(100), false, Length::Exact(100)), Ok(()));
    assert_eq!(
        attempt(Some(1000), false, Length::ToEnd),
        Err(Cause::SameFile),
        "feeds itself"
    );
    let disk = SourceFacts::new(SourceKind::Block).with_device(77);
    for (device, outcome) in [(77, Err(Cause::SameFile)), (78, Ok(()))] {
        let sink = SinkFacts::new(SinkKind::Block).with_device(device, Some(0));
        let ask = Ask::default();
        let plan = Plan::select(&disk, &sink, &host, &ask);
        let started = Transfer::new(plan, &disk, &sink, &host, &ask);
        assert_eq!(started.map(drop).map_err(|error| error.cause), outcome);
    }
    assert_eq!(
        attempt(Some(0), true, Length::Exact(10)),
        Err(Cause::SameFile)
    );
}

#[test]
fn nothing_asked_for_is_done_at_once() {
    let world = World::file(pattern(10));
    let mut transfer = from_file(
        &world,
        &socket(),
        &Ask {
            length: Length::Exact(0),
            ..immutable()
        },
    );
    let Step::Done(Ok(summary)) = transfer.next() else {
        panic!("no call is needed")
    };
    assert_eq!((summary.moved, summary.calls), (0, 0));
}

#[test]
fn a_failed_stat_is_an_error_of_its_own() {
    let mut world = World::file(pattern(LEN as usize)).with_mood(|op| {
        if *op == Op::Stat {
            Mood::Fails(Errno::EIO)
        } else {
            Mood::Full
        }
    });
    let mut transfer = from_file(&world, &socket(), &immutable());
    let error: TransferError = world.run(&mut transfer, None).unwrap_err();
    assert_eq!(
        error.cause,
        Cause::Io {
            operation: Operation::Stat,
            errno: Errno::EIO
        }
    );
}

#[test]
fn an_error_converts_into_an_io_error_and_keeps_its_number() {
    let mood = refuse_after(5000, Errno::EPIPE, Operation::Sendfile);
    let mut world = World::file(pattern(LEN as usize)).with_mood(mood);
    let mut transfer = from_file(&world, &socket(), &immutable());
    let error = world.run(&mut transfer, None).unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.downcast_ref::<Errno>(), Some(&Errno::EPIPE));
    assert_eq!(error.end(), Some(End::Sink));
    assert!(error.to_string().contains("after 5000 bytes"), "{error}");
    let error = std::io::Error::from(error);
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    assert_eq!(error.raw_os_error(), Some(Errno::EPIPE.raw()));
    let mut transfer = from_file(&world, &socket(), &immutable());
    transfer.stop(Stop::Cancelled);
    let cancelled = std::io::Error::from(outcome(&mut transfer).unwrap_err());
    assert_ne!(
        cancelled.kind(),
        std::io::ErrorKind::Interrupted,
        "which std tries again"
    );
    let account = cancelled.get_ref().unwrap();
    let account = account.downcast_ref::<TransferError>().unwrap();
    assert_eq!((account.cause, account.end()), (Cause::Cancelled, None));
}

#[test]
fn an_error_names_the_end_it_is_about() {
    let reset = |operation| TransferError::before_start(operation, Errno::ECONNRESET);
    for (operation, end, words) in [
        (Operation::Read, Some(End::Source), "read from the source"),
        (Operation::SpliceIn, Some(End::Source), "from the source"),
        (Operation::Write, Some(End::Sink), "write to the sink"),
        (Operation::ExamineSource, Some(End::Source), "the source"),
        (Operation::ExamineSink, Some(End::Sink), "the sink"),
        // Only the sink of these can be a connection, unless it is said otherwise.
        (Operation::Sendfile, Some(End::Sink), "sendfile"),
        (Operation::Splice, Some(End::Sink), "splice"),
    ] {
        let error = reset(operation);
        assert_eq!(error.end(), end, "{operation:?}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let full = TransferError::before_start(Operation::CopyFileRange, Errno::ENOSPC);
    assert_eq!(full.end(), Some(End::Sink));
    let unreadable = TransferError::before_start(Operation::CopyFileRange, Errno::EIO);
    assert_eq!(unreadable.end(), None, "either disk");
}
