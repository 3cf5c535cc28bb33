//! Aggregates beside a model: for each byte, where it is.
//!
//! An address or an offset in a file instead of a value shows besides that nothing was copied.
#![allow(clippy::unwrap_used)]

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use zhaul::{Aggregate, FBuf, FileRange, Pool, Segment};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Memory(usize),
    File(i32, u64),
}

fn places_of(segment: &Segment) -> Vec<Place> {
    match segment {
        Segment::Memory(memory) => {
            let first = memory.as_ptr() as usize;
            (first..first + memory.len()).map(Place::Memory).collect()
        }
        Segment::File(file) => {
            let fd = file.file().as_fd().as_raw_fd();
            file.range().map(|at| Place::File(fd, at)).collect()
        }
    }
}

fn check(aggregate: &Aggregate, model: &[Place]) {
    assert_eq!(aggregate.len(), model.len() as u64);
    assert_eq!(aggregate.is_empty(), model.is_empty());
    assert!(aggregate.segments().all(|segment| !segment.is_empty()));
    let places: Vec<_> = aggregate.segments().flat_map(places_of).collect();
    assert!(places == model);
    let moved: Vec<_> = aggregate.clone().into_iter().collect();
    assert!(moved.iter().flat_map(places_of).eq(model.iter().copied()));
}

#[derive(Clone, Debug)]
enum Action {
    Push(usize, u16, u16),
    Prepend(usize, u16, u16),
    /// Of the two aggregates, the second goes behind the first.
    Append,
    SplitTo(u16),
    SplitOff(u16),
    Slice(u16, u16),
    Advance(u16),
    Truncate(u16),
    PopFront,
    Exchange,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0..5_usize, any::<u16>(), any::<u16>()).prop_map(|(of, a, b)| Action::Push(of, a, b)),
        4 => (0..5_usize, any::<u16>(), any::<u16>())
            .prop_map(|(of, a, b)| Action::Prepend(of, a, b)),
        2 => Just(Action::Append),
        2 => any::<u16>().prop_map(Action::SplitTo),
        2 => any::<u16>().prop_map(Action::SplitOff),
        1 => (any::<u16>(), any::<u16>()).prop_map(|(a, b)| Action::Slice(a, b)),
        1 => any::<u16>().prop_map(Action::Advance),
        1 => any::<u16>().prop_map(Action::Truncate),
        1 => Just(Action::PopFront),
        1 => Just(Action::Exchange),
    ]
}

/// What segments are made of.
struct Sources {
    buffer: FBuf,
    bytes: Bytes,
    file: Arc<std::fs::File>,
}

const STATIC: &[u8] = b"something that is part of the program";
const SOURCE_BYTES: u64 = 300;

impl Sources {
    fn new(pool: &Pool) -> Self {
        Self {
            buffer: pool.allocate().unwrap().freeze(SOURCE_BYTES as usize),
            bytes: Bytes::from(vec![1; SOURCE_BYTES as usize]),
            file: Arc::new(tempfile::tempfile().unwrap()),
        }
    }

    /// A segment and where its bytes are.
    fn segment(&self, of: usize, a: u16, b: u16) -> (Segment, Vec<Place>) {
        let len = if of == 2 {
            STATIC.len() as u64
        } else {
            SOURCE_BYTES
        };
        let (start, end) = between(a, b, len);
        let part = start as usize..end as usize;
        let segment = match of {
            0 => self.buffer.slice(part).into(),
            1 => self.bytes.slice(part).into(),
            2 => STATIC[part].into(),
            3 => FileRange::new(self.file.clone(), start..end).into(),
            _ => Segment::from(self.buffer.clone()).slice(start..end),
        };
        let places = places_of(&segment);
        (segment, places)
    }
}

/// A number up to `len`.
fn within(at: u16, len: u64) -> u64 {
    u64::from(at) % (len + 1)
}

fn between(a: u16, b: u16, len: u64) -> (u64, u64) {
    let (a, b) = (within(a, len), within(b, len));
    (a.min(b), a.max(b))
}

#[derive(Default)]
struct Modelled {
    aggregate: Aggregate,
    model: Vec<Place>,
}

impl Modelled {
    fn check(&self) {
        check(&self.aggregate, &self.model);
    }

    /// Performs the action, with what is cut off in `other`.
    fn perform(&mut self, other: &mut Self, sources: &Sources, action: &Action) {
        let len = self.aggregate.len();
        match *action {
            Action::Push(of, a, b) => {
                let (segment, places) = sources.segment(of, a, b);
                self.aggregate.push(segment);
                self.model.extend(places);
            }
            Action::Prepend(of, a, b) => {
                let (segment, places) = sources.segment(of, a, b);
                self.aggregate.prepend(segment);
                self.model.splice(0..0, places);
            }
            Action::Append => {
                self.aggregate.append(std::mem::take(&mut other.aggregate));
                self.model.append(&mut other.model);
            }
            Action::SplitTo(at) => {
                let at = within(at, len);
                other.aggregate = self.aggregate.split_to(at);
                other.model = self.model.drain(..at as usize).collect();
            }
            Action::SplitOff(at) => {
                let at = within(at, len);
                other.aggregate = self.aggregate.split_off(at);
                other.model = self.model.split_off(at as usize);
            }
            Action::Slice(a, b) => {
                let (start, end) = between(a, b, len);
                other.aggregate = self.aggregate.slice(start..end);
                other.model = self.model[start as usize..end as usize].to_vec();
            }
            Action::Advance(by) => {
                let by = within(by, len);
                self.aggregate.advance(by);
                self.model.drain(..by as usize);
            }
            Action::Truncate(at) => {
                self.aggregate.truncate(u64::from(at));
                self.model.truncate(usize::from(at));
            }
            Action::PopFront => {
                let places = self.aggregate.pop_front().map(|first| places_of(&first));
                let places = places.unwrap_or_default();
                assert!(self.model.drain(..places.len()).eq(places));
            }
            Action::Exchange => std::mem::swap(self, other),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn every_byte_is_where_the_model_says(actions in vec(action(), 1..60)) {
        let pool = Pool::new(1, 1).unwrap();
        let sources = Sources::new(&pool);
        let (mut one, mut other) = (Modelled::default(), Modelled::default());
        for action in &actions {
            one.perform(&mut other, &sources, action);
            one.check();
            other.check();
        }
        drop((one, other));
        prop_assert!(sources.buffer.try_mut().is_ok(), "a slice is left over");
    }
}
