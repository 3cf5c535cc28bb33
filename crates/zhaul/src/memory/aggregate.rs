//! [`Aggregate`]: an ordered list of segments.

use std::collections::VecDeque;
use std::ops::Range;

use super::segment::Segment;

/// An ordered list of slices of immutable memory and of file ranges, taken for their bytes one after
/// another. It is put together, cut and joined without copying a byte; a clone refers to the same bytes.
///
/// The first two segments are held in place, so a header and a body need no memory for the list.
#[derive(Clone, Debug, Default)]
pub struct Aggregate {
    /// The first segments, filled from the left; all others are in `rest`, which is empty unless both
    /// are taken. None of them is empty.
    front: [Option<Segment>; 2],
    rest: VecDeque<Segment>,
    len: u64,
}

impl Aggregate {
    /// No bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// True for none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds bytes behind the last.
    pub fn push(&mut self, segment: impl Into<Segment>) {
        let segment = segment.into();
        if segment.is_empty() {
            return;
        }
        self.grow(segment.len());
        match self.front.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(segment),
            None => self.rest.push_back(segment),
        }
    }

    /// Adds bytes before the first.
    pub fn prepend(&mut self, segment: impl Into<Segment>) {
        let segment = segment.into();
        if segment.is_empty() {
            return;
        }
        self.grow(segment.len());
        let [first, second] = &mut self.front;
        if let Some(moved) = std::mem::replace(second, first.take()) {
            self.rest.push_front(moved);
        }
        *first = Some(segment);
    }

    /// Adds all bytes of another behind the last.
    pub fn append(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
        } else {
            self.extend(other);
        }
    }

    /// Takes the first segment out.
    pub fn pop_front(&mut self) -> Option<Segment> {
        let [first, second] = &mut self.front;
        let segment = first.take()?;
        *first = second.take();
        *second = self.rest.pop_front();
        self.len -= segment.len();
        Some(segment)
    }

    /// Takes the first `at` bytes out and leaves the others.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use = "advance() drops them"]
    pub fn split_to(&mut self, at: u64) -> Self {
        assert!(at <= self.len, "inside the aggregate");
        let mut head = Self::default();
        while head.len < at {
            head.push(self.take_first(at - head.len));
        }
        head
    }

    /// Takes the bytes from `at` on out and leaves the first.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use = "truncate() drops them"]
    pub fn split_off(&mut self, at: u64) -> Self {
        let head = self.split_to(at);
        std::mem::replace(self, head)
    }

    /// The bytes of a range, which both refer to afterwards.
    ///
    /// # Panics
    /// If the range is not inside.
    #[must_use]
    pub fn slice(&self, range: Range<u64>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "inside the aggregate"
        );
        let mut part = Self::default();
        let mut at = 0;
        for segment in self {
            let (start, end) = (range.start.max(at), range.end.min(at + segment.len()));
            if start < end {
                part.push(segment.slice(start - at..end - at));
            }
            at += segment.len();
        }
        part
    }

    /// Drops the first `bytes`.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn advance(&mut self, bytes: u64) {
        assert!(bytes <= self.len, "inside the aggregate");
        let left = self.len - bytes;
        while self.len > left {
            drop(self.take_first(self.len - left));
        }
    }

    /// Keeps at most the first `len` bytes.
    pub fn truncate(&mut self, len: u64) {
        if len < self.len {
            drop(self.split_off(len));
        }
    }

    /// The segments in order, none of which is empty.
    pub fn segments(&self) -> Segments<'_> {
        Segments {
            front: self.front.iter(),
            rest: self.rest.iter(),
        }
    }

    /// The segment at this index.
    pub fn get(&self, index: usize) -> Option<&Segment> {
        match self.front.get(index) {
            Some(segment) => segment.as_ref(),
            None => self.rest.get(index - self.front.len()),
        }
    }

    /// How many segments.
    pub fn segment_count(&self) -> usize {
        self.front.iter().flatten().count() + self.rest.len()
    }

    /// The first segment, or as many of its bytes as `most`, of an aggregate that has some.
    fn take_first(&mut self, most: u64) -> Segment {
        let first = self.front[0].as_mut().expect("there are bytes");
        if first.len() <= most {
            return self.pop_front().expect("there is a first");
        }
        let part = first.slice(0..most);
        first.narrow(most..first.len());
        self.len -= most;
        part
    }

    fn grow(&mut self, bytes: u64) {
        self.len = self.len.checked_add(bytes).expect("fewer than 2^64 bytes");
    }
}

impl<S: Into<Segment>> From<S> for Aggregate {
    fn from(segment: S) -> Self {
        let mut aggregate = Self::default();
        aggregate.push(segment);
        aggregate
    }
}

/// A header and a body.
impl<A: Into<Segment>, B: Into<Segment>> From<(A, B)> for Aggregate {
    fn from((first, second): (A, B)) -> Self {
        let mut aggregate = Self::from(first);
        aggregate.push(second);
        aggregate
    }
}

impl<S: Into<Segment>> FromIterator<S> for Aggregate {
    fn from_iter<I: IntoIterator<Item = S>>(segments: I) -> Self {
        let mut aggregate = Self::default();
        aggregate.extend(segments);
        aggregate
    }
}

impl<S: Into<Segment>> Extend<S> for Aggregate {
    fn extend<I: IntoIterator<Item = S>>(&mut self, segments: I) {
        for segment in segments {
            self.push(segment);
        }
    }
}

impl<'a> IntoIterator for &'a Aggregate {
    type Item = &'a Segment;
    type IntoIter = Segments<'a>;

    fn into_iter(self) -> Segments<'a> {
        self.segments()
    }
}

impl IntoIterator for Aggregate {
    type Item = Segment;
    type IntoIter = std::iter::Chain<
        std::iter::Flatten<std::array::IntoIter<Option<Segment>, 2>>,
        std::collections::vec_deque::IntoIter<Segment>,
    >;

    fn into_iter(self) -> Self::IntoIter {
        self.front.into_iter().flatten().chain(self.rest)
    }
}

/// The segments of an [`Aggregate`] in order.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    front: std::slice::Iter<'a, Option<Segment>>,
    rest: std::collections::vec_deque::Iter<'a, Segment>,
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a Segment;

    fn next(&mut self) -> Option<&'a Segment> {
        match self.front.next() {
            Some(Some(segment)) => Some(segment),
            _ => self.rest.next(),
        }
    }
}

#[cfg(test)]
mod tests;
