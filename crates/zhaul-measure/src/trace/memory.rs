//! What lies where in a process's memory: bytes that read-like calls put there, and mapped files.
//!
//! A write-like call out of such a range joins the two into a flow. Bytes that the program copies or
//! changes elsewhere in its memory are out of sight: they come from the program itself.
//!
//! An address says less the longer it is known. What went out once may have been overwritten since,
//! and so may what has lain there for long: what goes out of such a range comes from nobody knows
//! where. So no flow is larger than what was read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use super::object::Object;
use super::route::Route;

/// Bytes on their way, and what they have cost so far.
#[derive(Clone, Debug)]
pub(crate) struct Portion {
    /// Where they came from.
    pub(crate) source: Rc<Object>,
    /// By which calls.
    pub(crate) route: Route,
    pub(crate) bytes: u64,
    /// Bytes copied for them that no flow has been charged with yet.
    pub(crate) copied: u64,
}

impl Portion {
    /// Takes the first `bytes` of it away, with their share of the cost.
    pub(crate) fn split_front(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        let copied = share(self.copied, bytes, self.bytes);
        self.bytes -= bytes;
        self.copied -= copied;
        Self {
            bytes,
            copied,
            ..self.clone()
        }
    }
}

/// What `part` of `whole` costs, if the whole costs `cost`.
pub(crate) fn share(cost: u64, part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return 0;
    }
    // A part is not larger than the whole, so the result fits.
    (u128::from(cost) * u128::from(part) / u128::from(whole)) as u64
}

/// When bytes were put somewhere: by the clock, and by the calls of the process that moved data.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    pub(crate) time_ns: u64,
    pub(crate) calls: u64,
}

impl Moment {
    /// A thread that waits for its peer makes few calls, and a busy one many in a moment: only both
    /// together are long.
    fn is_long_before(self, now: Self) -> bool {
        now.time_ns.saturating_sub(self.time_ns) > OLD_NS
            && now.calls.saturating_sub(self.calls) > OLD_CALLS
    }
}

#[derive(Clone, Debug)]
struct Input {
    portion: Portion,
    put: Moment,
    /// It has gone on: what is there now nobody knows.
    sent: bool,
}

/// What goes out of a range.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// Put there by a call, and not gone on since.
    Known(Portion),
    /// It went on before.
    Sent,
    /// Put there so long ago that something else may be there now. That input went nowhere.
    Old(Portion),
    /// No call put anything there.
    Nothing,
}

/// Bytes that calls put into memory, by address. What a range holds is what was put there last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs {
    by_start: BTreeMap<u64, Input>,
}

impl Inputs {
    /// `portion` was put at `start`. Returns what was there and never went on.
    pub(crate) fn put(&mut self, start: u64, portion: Portion, put: Moment) -> Vec<Portion> {
        let mut unsent = self.clear(start..start.saturating_add(portion.bytes));
        if self.by_start.len() >= INPUTS_AT_MOST {
            unsent.extend(self.drain());
        }
        let input = Input {
            portion,
            put,
            sent: false,
        };
        self.by_start.insert(start, input);
        unsent
    }

    /// Something else is in this range from now on. Returns what never went on.
    pub(crate) fn clear(&mut self, range: Range<u64>) -> Vec<Portion> {
        self.cut(range.start);
        self.cut(range.end);
        let starts: Vec<u64> = self
            .by_start
            .range(range)
            .map(|(&start, _)| start)
            .collect();
        self.remove(&starts)
    }

    /// What was read of `source` is no data. Returns what never went on.
    pub(crate) fn forget(&mut self, source: &Rc<Object>) -> Vec<Portion> {
        let is_of_it = |input: &Input| Rc::ptr_eq(&input.portion.source, source);
        let inputs = self.by_start.iter().filter(|(_, input)| is_of_it(input));
        let starts: Vec<u64> = inputs.map(|(&start, _)| start).collect();
        self.remove(&starts)
    }

    fn remove(&mut self, starts: &[u64]) -> Vec<Portion> {
        let removed = starts
            .iter()
            .filter_map(|start| self.by_start.remove(start));
        removed
            .filter(|input| !input.sent)
            .map(|input| input.portion)
            .collect()
    }

    /// Forgets everything. Returns what never went on.
    pub(crate) fn drain(&mut self) -> Vec<Portion> {
        let all = std::mem::take(&mut self.by_start).into_values();
        all.filter(|input| !input.sent)
            .map(|input| input.portion)
            .collect()
    }

    /// Nothing waits to go on any more: somebody else answers for it.
    pub(crate) fn all_sent(&mut self) {
        for input in self.by_start.values_mut() {
            input.sent = true;
        }
    }

    /// What has not gone on so far.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Portion> {
        let unsent = self.by_start.values().filter(|input| !input.sent);
        unsent.map(|input| &input.portion)
    }

    /// The range goes out: what is known of it, piece by piece from its start, and gaps.
    pub(crate) fn send(&mut self, range: Range<u64>, now: Moment) -> Vec<(Range<u64>, Piece)> {
        self.cut(range.start);
        self.cut(range.end);
        let mut pieces = Vec::new();
        let mut at = range.start;
        for (&start, input) in self.by_start.range_mut(range.clone()) {
            if start > at {
                pieces.push((at..start, Piece::Nothing));
            }
            at = start + input.portion.bytes;
            let piece = if input.sent {
                Piece::Sent
            } else if input.put.is_long_before(now) {
                Piece::Old(input.portion.clone())
            } else {
                Piece::Known(input.portion.clone())
            };
            input.sent = true;
            pieces.push((start..at, piece));
        }
        if at < range.end {
            pieces.push((at..range.end, Piece::Nothing));
        }
        pieces
    }

    /// Makes a border at this address.
    fn cut(&mut self, at: u64) {
        let Some((&start, input)) = self.by_start.range_mut(..at).next_back() else {
            return;
        };
        if start + input.portion.bytes <= at {
            return;
        }
        let front = input.portion.split_front(at - start);
        let portion = std::mem::replace(&mut input.portion, front);
        let back = Input { portion, ..*input };
        self.by_start.insert(at, back);
    }
}

const OLD_NS: u64 = 1_000_000_000;
const OLD_CALLS: u64 = 4096;

/// A process that keeps more pieces of input than this at a time loses track of them.
const INPUTS_AT_MOST: usize = 1 << 16;

/// Files mapped into memory, by address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mappings {
    by_start: BTreeMap<u64, (u64, Rc<Object>)>,
}

impl Mappings {
    /// A file is mapped here.
    pub(crate) fn map(&mut self, range: Range<u64>, file: Rc<Object>) {
        self.unmap(range.clone());
        self.by_start.insert(range.start, (range.end, file));
    }

    /// No file is mapped here any more.
    pub(crate) fn unmap(&mut self, range: Range<u64>) {
        self.cut(range.start);
        self.cut(range.end);
        let starts: Vec<u64> = self
            .by_start
            .range(range)
            .map(|(&start, _)| start)
            .collect();
        for start in starts {
            self.by_start.remove(&start);
        }
    }

    /// The mapping moved, and perhaps changed its length (`mremap(2)`).
    pub(crate) fn remap(&mut self, from: Range<u64>, to: Range<u64>) {
        let file = self.at(from.start).map(|(_, file)| file);
        self.unmap(from);
        self.unmap(to.clone());
        if let Some(file) = file {
            self.by_start.insert(to.start, (to.end, file));
        }
    }

    /// The file that is mapped at this address, and where that ends.
    pub(crate) fn at(&self, address: u64) -> Option<(u64, Rc<Object>)> {
        let (_, (end, file)) = self.by_start.range(..=address).next_back()?;
        (address < *end).then(|| (*end, Rc::clone(file)))
    }

    /// Where the next mapping above this address begins.
    pub(crate) fn next_above(&self, address: u64) -> Option<u64> {
        let above = address.checked_add(1)?;
        self.by_start.range(above..).next().map(|(&start, _)| start)
    }

    fn cut(&mut self, at: u64) {
        let Some((_, (end, file))) = self.by_start.range_mut(..at).next_back() else {
            return;
        };
        if *end <= at {
            return;
        }
        let back = (*end, Rc::clone(file));
        *end = at;
        self.by_start.insert(at, back);
    }
}

#[cfg(test)]
mod tests {
    use super::super::object::Kind;
    use super::*;

    fn portion(bytes: u64) -> Portion {
        Portion {
            source: Object::of(Kind::File),
            route: Route::of("read"),
            bytes,
            copied: bytes,
        }
    }

    fn bytes_of(portions: &[Portion]) -> u64 {
        portions.iter().map(|portion| portion.bytes).sum()
    }

    const NOW: Moment = Moment {
        time_ns: 0,
        calls: 0,
    };

    #[test]
    fn a_later_input_replaces_what_it_covers() {
        let mut inputs = Inputs::default();
        assert!(inputs.put(1000, portion(100), NOW).is_empty());
        let unsent = inputs.put(1040, portion(20), NOW);
        assert_eq!(bytes_of(&unsent), 20);
        let lengths: Vec<u64> = inputs.waiting().map(|p| p.bytes).collect();
        assert_eq!(lengths, [40, 20, 40]);
    }

    #[test]
    fn what_was_put_once_goes_out_once() {
        let mut inputs = Inputs::default();
        inputs.put(1000, portion(100), NOW);
        let (mut copied, mut bytes) = (0, 0);
        for range in [1000..1030, 1030..1100, 1000..1100] {
            for (_, piece) in inputs.send(range, NOW) {
                if let Piece::Known(portion) = piece {
                    copied += portion.copied;
                    bytes += portion.bytes;
                }
            }
        }
        assert_eq!((bytes, copied), (100, 100));
        let unsent = inputs.put(1000, portion(100), NOW);
        assert!(unsent.is_empty(), "all went on");
    }

    #[test]
    fn what_lay_there_long_is_not_believed_to_be_there() {
        let after = |time_ns, calls| {
            let mut inputs = Inputs::default();
            inputs.put(1000, portion(100), NOW);
            let moment = Moment { time_ns, calls };
            inputs.send(1000..1100, moment).remove(0).1
        };
        assert!(
            matches!(after(60 * OLD_NS, 10), Piece::Known(_)),
            "a slow peer"
        );
        assert!(
            matches!(after(1, 100 * OLD_CALLS), Piece::Known(_)),
            "a busy program"
        );
        assert!(matches!(after(2 * OLD_NS, 2 * OLD_CALLS), Piece::Old(_)));
    }

    #[test]
    fn gaps_are_told_apart_from_input() {
        let mut inputs = Inputs::default();
        inputs.put(1000, portion(10), NOW);
        inputs.put(1020, portion(10), NOW);
        let pieces: Vec<(Range<u64>, bool)> = inputs
            .send(990..1040, NOW)
            .into_iter()
            .map(|(range, piece)| (range, matches!(piece, Piece::Known(_))))
            .collect();
        let expected = [
            (990..1000, false),
            (1000..1010, true),
            (1010..1020, false),
            (1020..1030, true),
            (1030..1040, false),
        ];
        assert_eq!(pieces, expected);
    }

    #[test]
    fn mappings_are_split_and_moved_like_the_kernels() {
        let mut mappings = Mappings::default();
        mappings.map(4096..16384, Object::of(Kind::File));
        mappings.unmap(8192..12288);
        assert_eq!(mappings.at(8191).map(|(end, _)| end), Some(8192));
        assert!(mappings.at(8192).is_none());
        assert_eq!(mappings.next_above(8192), Some(12288));
        mappings.remap(12288..16384, 65536..73728);
        assert!(mappings.at(12288).is_none());
        assert_eq!(mappings.at(65536).map(|(end, _)| end), Some(73728));
    }
}
