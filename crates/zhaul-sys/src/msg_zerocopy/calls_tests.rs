//! The accounting against a model that keeps a set of numbers and nothing clever.

use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;

/// What happens to a socket's calls.
#[derive(Clone, Debug)]
enum Event {
    Sent {
        bytes: usize,
    },
    Failed,
    /// Places among the outstanding calls, oldest first, that may be out of range on both sides.
    Completed {
        from: i64,
        len: u32,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (1..100_000_usize).prop_map(|bytes| Event::Sent { bytes }),
        1 => Just(Event::Failed),
        4 => (-4..40_i64, 0..12_u32).prop_map(|(from, len)| Event::Completed { from, len }),
    ];
    proptest::collection::vec(event, 0..120)
}

/// Miri is slow, and finds in few cases what it finds.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 512 },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// Whatever is completed, in whatever order: an owner is given up when a completion covers its
    /// call's number, never before, and once.
    #[test]
    fn an_owner_is_released_by_its_own_completion(
        start in prop_oneof![Just(0), Just(u32::MAX - 20), any::<u32>()],
        events in events(),
    ) {
        let mut calls = Calls::numbered_from(start);
        // By the unwrapped number: the owner, which counts who holds it, and its bytes.
        let mut model: BTreeMap<i64, (Rc<i64>, usize)> = BTreeMap::new();
        let mut next = 0_i64;
        let wrapped = |number: i64| start.wrapping_add(number as u32);
        for event in events {
            match event {
                Event::Sent { bytes } => {
                    let owner = Rc::new(next);
                    let number = calls.push(Rc::clone(&owner), bytes);
                    prop_assert_eq!(number, wrapped(next));
                    model.insert(next, (owner, bytes));
                    next += 1;
                }
                Event::Failed => {
                    calls.skip();
                    next += 1;
                }
                Event::Completed { from, len } => {
                    let oldest = model.keys().next().copied().unwrap_or(next);
                    let (first, last) = (oldest + from, oldest + from + i64::from(len));
                    let mut freed = Vec::new();
                    let released = calls.complete(wrapped(first), wrapped(last), &mut freed);
                    let covered: Vec<i64> = model.range(first..=last).map(|(n, _)| *n).collect();
                    let freed: Vec<i64> = freed.iter().map(|owner| **owner).collect();
                    prop_assert_eq!(&freed, &covered, "exactly those, in their order");
                    let mut bytes = 0;
                    for number in covered {
                        bytes += model.remove(&number).map_or(0, |(_, bytes)| bytes);
                    }
                    prop_assert_eq!(released.bytes, bytes);
                    prop_assert_eq!(released.calls as usize, freed.len());
                    prop_assert_eq!(released.is_ahead, last >= next);
                }
            }
            for (owner, _) in model.values() {
                prop_assert_eq!(Rc::strong_count(owner), 2, "held once, until then");
            }
            let pending: usize = model.values().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(calls.pending(), pending);
            prop_assert_eq!(calls.is_empty(), model.is_empty());
            prop_assert_eq!(calls.next(), wrapped(next));
        }
    }
}

#[test]
fn a_reset_completes_the_newer_calls_before_the_older() {
    let mut calls = Calls::numbered_from(0);
    for call in 0..301_u32 {
        calls.push(call, 10);
    }
    let mut freed = Vec::new();
    assert_eq!(calls.complete(175, 300, &mut freed).calls, 126);
    assert_eq!(freed.first(), Some(&175));
    assert_eq!((calls.pending(), calls.next()), (1750, 301));
    assert_eq!(calls.complete(0, 174, &mut freed).calls, 175);
    assert!(calls.is_empty());
    assert_eq!(calls.next(), 301);
}

#[test]
fn numbers_go_on_after_the_last() {
    let mut calls = Calls::numbered_from(u32::MAX);
    assert_eq!(calls.push('a', 1), u32::MAX);
    assert_eq!(calls.push('b', 1), 0);
    let mut freed = Vec::new();
    calls.complete(u32::MAX, 0, &mut freed);
    assert_eq!(freed, ['a', 'b']);
    assert_eq!(calls.next(), 1);
}
