//! What is in the pipes: bytes that calls moved into them without passing through a program come out
//! as what they were.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::memory::Portion;
use super::object::PipeId;

/// Bytes in a pipe.
#[derive(Clone, Debug)]
struct Parcel {
    portion: Portion,
    /// Spliced in, so that the pipe is only a station on their way. What was written into it has
    /// arrived, and sets out anew.
    passes: bool,
}

/// The contents of all pipes that were seen.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    by_id: HashMap<PipeId, VecDeque<Parcel>>,
}

/// What came out of a pipe.
#[derive(Debug)]
pub(crate) struct Taken {
    /// What had been spliced in.
    pub(crate) passing: Vec<Portion>,
    /// What had been written in, or had not been seen to go in.
    pub(crate) own_bytes: u64,
}

impl Pipes {
    /// A portion was spliced in. Returns what has to be given up because nobody is seen to read.
    pub(crate) fn splice_in(&mut self, pipe: PipeId, portion: Portion) -> Vec<Portion> {
        self.push(pipe, portion, true)
    }

    /// Bytes were written in.
    pub(crate) fn write_in(&mut self, pipe: PipeId, portion: Portion) -> Vec<Portion> {
        self.push(pipe, portion, false)
    }

    fn push(&mut self, pipe: PipeId, portion: Portion, passes: bool) -> Vec<Portion> {
        let parcels = self.by_id.entry(pipe).or_default();
        match parcels.back_mut() {
            Some(last)
                if last.passes == passes
                    && (!passes
                        || (Rc::ptr_eq(&last.portion.source, &portion.source)
                            && last.portion.route == portion.route)) =>
            {
                last.portion.bytes += portion.bytes;
                last.portion.copied += portion.copied;
            }
            _ => parcels.push_back(Parcel { portion, passes }),
        }
        let held: u64 = parcels.iter().map(|parcel| parcel.portion.bytes).sum();
        if held <= HELD_AT_MOST && parcels.len() <= PARCELS_AT_MOST {
            return Vec::new();
        }
        let given_up = std::mem::take(parcels).into_iter();
        given_up
            .filter(|parcel| parcel.passes)
            .map(|parcel| parcel.portion)
            .collect()
    }

    /// Bytes left the pipe.
    pub(crate) fn take(&mut self, pipe: PipeId, bytes: u64) -> Taken {
        let mut taken = Taken {
            passing: Vec::new(),
            own_bytes: 0,
        };
        let mut left = bytes;
        let Some(parcels) = self.by_id.get_mut(&pipe) else {
            taken.own_bytes = bytes;
            return taken;
        };
        while left > 0 {
            let Some(first) = parcels.front_mut() else {
                break;
            };
            let portion = first.portion.split_front(left);
            let passes = first.passes;
            if first.portion.bytes == 0 {
                parcels.pop_front();
            }
            left -= portion.bytes;
            if passes {
                taken.passing.push(portion);
            } else {
                taken.own_bytes += portion.bytes;
            }
        }
        taken.own_bytes += left;
        taken
    }

    /// What `tee(2)` of so many bytes sees. It has been paid for by who takes it out.
    pub(crate) fn look(&self, pipe: PipeId, bytes: u64) -> Taken {
        let mut copy = Self::default();
        if let Some(parcels) = self.by_id.get(&pipe) {
            copy.by_id.insert(pipe, parcels.clone());
        }
        let mut seen = copy.take(pipe, bytes);
        for portion in &mut seen.passing {
            portion.copied = 0;
        }
        seen
    }

    /// What was spliced into pipes and is not seen to have left them.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Portion> {
        let parcels = self.by_id.values().flatten();
        parcels
            .filter(|parcel| parcel.passes)
            .map(|parcel| &parcel.portion)
    }

    /// Forgets everything. Returns what was spliced in and is not seen to have left.
    pub(crate) fn drain(&mut self) -> Vec<Portion> {
        let parcels = std::mem::take(&mut self.by_id).into_values().flatten();
        parcels
            .filter(|parcel| parcel.passes)
            .map(|parcel| parcel.portion)
            .collect()
    }
}

/// More than any pipe holds: whoever takes it out is not traced.
const HELD_AT_MOST: u64 = 64 << 20;
const PARCELS_AT_MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::super::object::{Kind, Object};
    use super::super::route::Route;
    use super::*;

    const PIPE: PipeId = PipeId::Inode(7);

    fn portion(kind: Kind, bytes: u64) -> Portion {
        Portion {
            source: Object::of(kind),
            route: Route::of("splice"),
            bytes,
            copied: 0,
        }
    }

    #[test]
    fn bytes_come_out_in_the_order_they_went_in() {
        let mut pipes = Pipes::default();
        pipes.splice_in(PIPE, portion(Kind::File, 10));
        pipes.write_in(PIPE, portion(Kind::Program, 5));
        pipes.splice_in(PIPE, portion(Kind::Tcp, 10));
        let taken = pipes.take(PIPE, 18);
        let kinds: Vec<(Kind, u64)> = taken
            .passing
            .iter()
            .map(|p| (p.source.kind(), p.bytes))
            .collect();
        assert_eq!(kinds, [(Kind::File, 10), (Kind::Tcp, 3)]);
        assert_eq!(taken.own_bytes, 5);
        assert_eq!(
            pipes.take(PIPE, 10).own_bytes,
            3,
            "more than was seen to go in"
        );
    }

    #[test]
    fn a_pipe_that_an_unseen_reader_empties_does_not_grow_for_ever() {
        let mut pipes = Pipes::default();
        let mut given_up = 0;
        for _ in 0..1000 {
            let portions = pipes.splice_in(PIPE, portion(Kind::File, 1 << 20));
            given_up += portions.iter().map(|p| p.bytes).sum::<u64>();
        }
        let held: u64 = pipes.waiting().map(|p| p.bytes).sum();
        assert!(held <= HELD_AT_MOST);
        assert_eq!(given_up + held, 1000 << 20);
    }

    #[test]
    fn tee_leaves_everything_where_it_is() {
        let mut pipes = Pipes::default();
        pipes.splice_in(PIPE, portion(Kind::File, 10));
        assert_eq!(pipes.look(PIPE, 4).passing[0].bytes, 4);
        assert_eq!(pipes.take(PIPE, 10).passing[0].bytes, 10);
    }
}
