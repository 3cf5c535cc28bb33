//! Pages in flight under a lease.

use zhaul_core::{
    Ask, Cause, Errno, InPlaceEnd, Length, Op, SinkFacts, Stability, Step, Stop, Transfer,
};

use crate::common::{Mood, World, outcome, pattern};
use crate::{LEN, from_file, immutable, leased, socket};

#[test]
fn a_leased_transfer_is_done_when_the_sink_let_go() {
    let world = World::file(pattern(1000));
    let ask = Ask {
        stability: Stability::Leased,
        length: Length::Exact(1000),
        ..Ask::default()
    };
    let steps = |ask: &Ask, sink: &SinkFacts| {
        let mut transfer = from_file(&world, sink, ask);
        loop {
            match transfer.next() {
                Step::Submit(Op::Stat) => transfer.observed(Ok(world.version())),
                Step::Submit(op @ Op::Sendfile { len, .. }) => {
                    transfer.complete(op, Ok(len));
                }
                Step::Submit(op @ Op::Read { .. }) => transfer.complete(op, Ok(1000)),
                Step::Submit(op @ Op::Write { len, .. }) => {
                    transfer.complete(op, Ok(len));
                }
                Step::AwaitRelease => {
                    assert_eq!(transfer.next(), Step::AwaitRelease, "until it is released");
                    transfer.released();
                    assert_eq!(
                        transfer.next(),
                        Step::Submit(Op::Stat),
                        "the last look comes when nothing can change any more"
                    );
                    transfer.observed(Ok(world.version()));
                    assert!(matches!(transfer.next(), Step::Done(Ok(_))));
                    return true;
                }
                Step::Done(Ok(_)) => return false,
                other => panic!("{other:?}"),
            }
        }
    };
    assert!(steps(&ask, &socket()), "pages are in flight");
    assert!(!steps(
        &Ask {
            await_release: false,
            ..ask
        },
        &socket()
    ));
    let local = SinkFacts::stream_socket(InPlaceEnd::Never);
    assert!(!steps(&ask, &local), "a copy is in flight, not the file");
}

#[test]
fn a_broken_lease_stops_with_the_bytes_moved() {
    let mut world = World::file(pattern(LEN as usize)).with_mood(|_| Mood::Short(1_000));
    let ask = Ask {
        stability: Stability::Leased,
        ..immutable()
    };
    let mut transfer = from_file(&world, &socket(), &ask);
    let error = world
        .run(&mut transfer, Some((5, Stop::LeaseBroken)))
        .unwrap_err();
    assert_eq!(error.cause, Cause::LeaseBroken);
    assert_eq!(error.moved(), world.sink.len() as u64);
    assert!(error.moved() > 0);
}

/// Steps until pages are in flight.
fn in_flight(world: &mut World, ask: &Ask) -> Transfer {
    let mut transfer = from_file(world, &socket(), ask);
    while transfer.moved() == 0 {
        match transfer.next() {
            Step::Submit(Op::Stat) => transfer.observed(Ok(world.version())),
            Step::Submit(op) => {
                let result = world.execute(&op);
                transfer.complete(op, result);
            }
            other => panic!("{other:?}"),
        }
    }
    transfer
}

#[test]
fn a_broken_lease_is_not_let_go_while_pages_are_in_flight() {
    let new_world = || World::file(pattern(LEN as usize)).with_mood(|_| Mood::Short(1_000));
    let mut world = new_world();
    let mut transfer = in_flight(&mut world, &leased());
    transfer.stop(Stop::LeaseBroken);
    assert_eq!(transfer.next(), Step::AwaitRelease);
    transfer.released();
    let error = outcome(&mut transfer).unwrap_err();
    assert_eq!((error.cause, error.moved()), (Cause::LeaseBroken, 1_000));
    assert!(!error.in_flight, "the sink let go");

    // The driver cannot wait any longer, or the caller looks after the release himself.
    let mut transfer = in_flight(&mut new_world(), &leased());
    transfer.stop(Stop::LeaseBroken);
    transfer.stop(Stop::LeaseBroken);
    let error = outcome(&mut transfer).unwrap_err();
    assert!(error.in_flight && error.cause == Cause::LeaseBroken);
    let ask = Ask {
        await_release: false,
        ..leased()
    };
    let mut transfer = in_flight(&mut new_world(), &ask);
    transfer.stop(Stop::LeaseBroken);
    let error = outcome(&mut transfer).unwrap_err();
    assert!(error.in_flight && error.cause == Cause::LeaseBroken);
}

#[test]
fn every_other_error_waits_for_the_release_but_a_cancellation_does_not() {
    let mut world = World::file(pattern(LEN as usize)).with_mood(|_| Mood::Short(1_000));
    let mut transfer = in_flight(&mut world, &leased());
    let Step::Submit(op) = transfer.next() else {
        panic!("more to send")
    };
    transfer.complete(op, Err(Errno::EIO));
    assert_eq!(transfer.next(), Step::AwaitRelease);
    transfer.released();
    let error = outcome(&mut transfer).unwrap_err();
    assert_eq!((error.errno(), error.in_flight), (Some(Errno::EIO), false));
    for stop in [Stop::Cancelled, Stop::Deadline] {
        let mut transfer = in_flight(&mut world, &leased());
        transfer.stop(stop);
        assert!(outcome(&mut transfer).unwrap_err().in_flight);
    }
}

#[test]
fn an_edit_while_the_release_is_awaited_is_reported() {
    let mut world = World::file(pattern(LEN as usize));
    let mut transfer = in_flight(&mut world, &leased());
    while transfer.next() != Step::AwaitRelease {
        match transfer.next() {
            Step::Submit(Op::Stat) => transfer.observed(Ok(world.version())),
            Step::Submit(op) => {
                let result = world.execute(&op);
                transfer.complete(op, result);
            }
            other => panic!("{other:?}"),
        }
    }
    // The kernel took the lease away and let the editor in.
    world.edits += 1;
    transfer.released();
    let error = world.run(&mut transfer, None).unwrap_err();
    assert_eq!((error.cause, error.moved()), (Cause::Changed, LEN));
}
