//! Records of made-up rings.

use proptest::prelude::*;

use super::super::super::record::Class;
use super::super::super::record::tests::{Stamp, exit, layout, lost, tracepoint};
use super::*;

const OF_FIRST: u64 = 71;
const OF_SECOND: u64 = 72;
const FIRST: u32 = 1;
const SECOND: u32 = 2;

/// Knows an event attached to each of two threads.
fn merge() -> Merge {
    let mut merge = Merge::default();
    for (identifier, tid) in [(OF_FIRST, FIRST), (OF_SECOND, SECOND)] {
        let layout = layout(Class::Tracepoint);
        merge.learn(
            identifier,
            Origin {
                layout,
                tid: Some(tid),
            },
        );
        merge.attached_to(tid, 0);
    }
    merge
}

fn at(time_ns: u64) -> Stamp {
    Stamp {
        identifier: OF_FIRST,
        tid: FIRST,
        time_ns,
    }
}

fn add(merge: &mut Merge, records: &[Vec<u8>]) {
    merge.add(&(0..=u64::MAX), |bytes| {
        records.iter().for_each(|record| bytes.extend(record));
        records.iter().map(Vec::len).sum()
    });
}

/// The times of what is handed out.
fn times(emit: impl FnOnce(&mut dyn FnMut(Record<'_>)) -> Drained) -> (Vec<u64>, Drained) {
    let mut times = Vec::new();
    let drained = emit(&mut |record| times.push(record.time_ns));
    (times, drained)
}

#[test]
fn records_of_all_rings_come_in_the_order_of_time() {
    let mut merge = merge();
    add(
        &mut merge,
        &[tracepoint(at(10), b"a"), tracepoint(at(40), b"b")],
    );
    add(
        &mut merge,
        &[tracepoint(at(20), b"c"), tracepoint(at(30), b"d")],
    );
    let (times, drained) = times(|each| merge.emit_all(each));
    assert_eq!(times, [10, 20, 30, 40]);
    let expected = Drained {
        records: 4,
        ..Drained::default()
    };
    assert_eq!(drained, expected);
}

#[test]
fn what_another_ring_may_still_precede_is_held_back() {
    let mut merge = merge();
    // The first round begins at 50, after which nothing is known to be complete.
    add(
        &mut merge,
        &[tracepoint(at(10), b"a"), tracepoint(at(60), b"b")],
    );
    assert!(times(|each| merge.emit(50, each)).0.is_empty());
    // The second ring comes late with 55; what is up to 50 is settled now.
    add(&mut merge, &[tracepoint(at(55), b"c")]);
    assert_eq!(times(|each| merge.emit(100, each)).0, [10]);
    assert_eq!(times(|each| merge.emit(200, each)).0, [55, 60]);
    assert!(times(|each| merge.emit_all(each)).0.is_empty());
}

#[test]
fn what_comes_too_late_is_handed_out_and_counted() {
    let mut merge = merge();
    add(&mut merge, &[tracepoint(at(60), b"a")]);
    merge.emit_all(|_| {});
    add(&mut merge, &[tracepoint(at(10), b"b")]);
    let (times, drained) = times(|each| merge.emit_all(each));
    assert_eq!((times, drained.late), (vec![10], 1));
}

#[test]
fn lost_records_are_handed_out_and_added_up() {
    let mut merge = merge();
    add(
        &mut merge,
        &[lost(at(10), 5), tracepoint(at(20), b"a"), lost(at(30), 7)],
    );
    let mut told = 0;
    let drained = merge.emit_all(|record| {
        if let Kind::Lost { records } = record.kind {
            told += records;
        }
    });
    assert_eq!((told, drained.lost, merge.lost()), (12, 12, 12));
    assert_eq!(merge.emit_all(|_| {}).lost, 0);
    assert_eq!(merge.lost(), 12);
}

#[test]
fn a_thread_with_events_of_its_own_is_counted_once() {
    let mut merge = merge();
    let own = |time_ns| Stamp {
        identifier: OF_SECOND,
        tid: SECOND,
        time_ns,
    };
    let inherited = |time_ns| Stamp {
        identifier: OF_FIRST,
        tid: SECOND,
        time_ns,
    };
    let stranger = |time_ns| Stamp {
        identifier: OF_FIRST,
        tid: 3,
        time_ns,
    };
    add(
        &mut merge,
        &[
            tracepoint(own(10), b"a"),
            tracepoint(inherited(11), b"a"),
            tracepoint(stranger(12), b"inherited alone"),
        ],
    );
    assert_eq!(times(|each| merge.emit_all(each)).0, [10, 12]);
}

#[test]
fn what_happened_outside_of_the_time_is_passed_over() {
    let mut merge = merge();
    let task = Stamp {
        identifier: 73,
        ..at(15)
    };
    let layout = layout(Class::Task);
    merge.learn(73, Origin { layout, tid: None });
    let ring: Vec<u8> = [10, 20, 30, 40]
        .into_iter()
        .flat_map(|time| tracepoint(at(time), b"a"))
        .chain(exit(task))
        .collect();
    merge.add(&(20..=30), |bytes| {
        bytes.extend(&ring);
        ring.len()
    });
    assert_eq!(times(|each| merge.emit_all(each)).0, [15, 20, 30]);
}

#[test]
fn bytes_that_are_no_records_are_counted_and_end_there() {
    let mut merge = merge();
    merge.add(&(0..=u64::MAX), |bytes| {
        bytes.extend(tracepoint(at(10), b"a"));
        bytes.extend([0; 24]);
        0
    });
    let unknown = Stamp {
        identifier: 5,
        ..at(15)
    };
    let unknown = tracepoint(unknown, b"x");
    add(&mut merge, &[unknown.clone(), tracepoint(at(20), b"b")]);
    let (times, drained) = times(|each| merge.emit_all(each));
    assert_eq!(times, [10, 20]);
    assert_eq!(drained.misread, 24 + unknown.len() as u64);
}

proptest! {
    #[test]
    fn every_record_comes_once_and_in_order(
        rounds in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(0_u64..1000, 0..6), 1..4), 1..6),
    ) {
        let mut merge = merge();
        let mut expected: Vec<u64> = Vec::new();
        let mut seen = Vec::new();
        let mut late = 0;
        for (round, rings) in rounds.iter().enumerate() {
            let start = round as u64 * 1000;
            for ring in rings {
                // A ring is in order itself.
                let mut ring: Vec<u64> = ring.iter().map(|offset| start + offset).collect();
                ring.sort_unstable();
                let records: Vec<_> = ring.iter().map(|&time| tracepoint(at(time), b"raw")).collect();
                add(&mut merge, &records);
                expected.extend(ring);
            }
            late += merge.emit(start + 1000, |record| seen.push(record.time_ns)).late;
        }
        late += merge.emit_all(|record| seen.push(record.time_ns)).late;
        expected.sort_unstable();
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(late, 0);
    }

    #[test]
    fn no_bytes_of_a_ring_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut merge = merge();
        merge.add(&(0..=u64::MAX), |into| { into.extend(&bytes); bytes.len() });
        let drained = merge.emit_all(|_| {});
        prop_assert!(drained.misread <= bytes.len() as u64);
    }
}
