//! Holes of a sparse file.

use zhaul_core::{
    Ask, Cause, Errno, Length, Op, Operation, Route, SinkFacts, SinkKind, SourceFacts, Stability,
};

use crate::common::{Mood, World, pattern};
use crate::{refuse_after, transfer};

/// Data, a hole, data, a hole at the end.
fn sparse() -> Vec<u8> {
    let mut bytes = vec![0; 100 * 512];
    bytes[10 * 512..20 * 512].copy_from_slice(&pattern(10 * 512));
    bytes[60 * 512..70 * 512].copy_from_slice(&pattern(10 * 512));
    bytes
}

fn facts(world: &World) -> SourceFacts {
    SourceFacts::regular(world.version()).with_sparse(true)
}

fn file() -> SinkFacts {
    SinkFacts::new(SinkKind::Regular)
}

#[test]
fn holes_are_made_and_data_is_moved_on_either_route() {
    for (stability, route) in [
        (Stability::MayChange, Route::ReadWrite),
        (Stability::Immutable, Route::CopyFileRange),
    ] {
        let mut world = World::file(sparse());
        let ask = Ask {
            stability,
            ..Ask::default()
        };
        let mut transfer = transfer(&facts(&world), &file(), &ask);
        let summary = world.run(&mut transfer, None).unwrap();
        assert!(world.sink == sparse());
        assert_eq!((summary.route, summary.changes.len()), (route, 0));
        assert_eq!((summary.moved, summary.holes), (100 * 512, 80 * 512));
    }
}

#[test]
fn an_exact_length_ends_within_a_hole_and_within_data() {
    for length in [1, 512, 5 * 512, 15 * 512, 30 * 512 + 7, 65 * 512, 99 * 512] {
        let mut world = World::file(sparse());
        let ask = Ask {
            length: Length::Exact(length),
            ..Ask::default()
        };
        let mut transfer = transfer(&facts(&world), &file(), &ask);
        let summary = world.run(&mut transfer, None).unwrap();
        assert_eq!(summary.moved, length);
        assert!(world.sink == sparse()[..length as usize], "{length}");
    }
}

#[test]
fn where_holes_cannot_be_asked_or_made_they_are_copied() {
    for victim in [Operation::Seek, Operation::PunchHole] {
        for errno in [Errno::EOPNOTSUPP, Errno::EINVAL, Errno::ENOSYS] {
            let mut world = World::file(sparse()).with_mood(refuse_after(0, errno, victim));
            let mut transfer = transfer(&facts(&world), &file(), &Ask::default());
            let summary = world.run(&mut transfer, None).unwrap();
            assert!(world.sink == sparse(), "{victim:?} {errno}");
            assert_eq!(summary.holes, 0);
        }
    }
}

#[test]
fn a_hole_of_another_version_is_not_made_if_one_version_is_asked_for() {
    for at in [0, 20 * 512, 70 * 512] {
        let mut world = World::file(sparse()).with_mood(move |op| match op {
            Op::SeekData { offset } if *offset == at => Mood::Edit,
            _ => Mood::Full,
        });
        let ask = Ask {
            one_version: true,
            ..Ask::default()
        };
        let mut transfer = transfer(&facts(&world), &file(), &ask);
        let error = world.run(&mut transfer, None).unwrap_err();
        assert_eq!((error.cause, error.moved()), (Cause::Changed, at));
        assert_eq!(world.sink.len() as u64, at);
    }
}

#[test]
fn no_room_for_a_hole_is_an_error() {
    let mood = refuse_after(0, Errno::EFBIG, Operation::PunchHole);
    let mut world = World::file(sparse()).with_mood(mood);
    let mut transfer = transfer(&facts(&world), &file(), &Ask::default());
    let error = world.run(&mut transfer, None).unwrap_err();
    assert_eq!(
        error.cause,
        Cause::Io {
            operation: Operation::PunchHole,
            errno: Errno::EFBIG
        }
    );
}

#[test]
fn only_files_are_asked_for_holes() {
    for sink in [
        SinkFacts::new(SinkKind::StreamSocket),
        SinkFacts::new(SinkKind::Null),
        file().with_append(true),
    ] {
        let mut world = World::file(sparse()).with_mood(|op: &Op| {
            assert!(op.operation() != Operation::Seek, "{op:?}");
            Mood::Full
        });
        let mut transfer = transfer(&facts(&world), &sink, &Ask::default());
        world.run(&mut transfer, None).unwrap();
        assert!(world.sink == sparse());
    }
}
