//! Which calls the kernel has not completed, and what each of them keeps alive. No I/O.
//!
//! The kernel numbers successful calls modulo 2^32 and reports ranges of numbers, in any order
//! after a reset. A call is released when a range covers its number, whatever is still missing
//! before it.

use std::collections::VecDeque;

/// Calls from the oldest that is not completed to the newest. `O` is what a call keeps alive.
#[derive(Debug)]
pub(super) struct Calls<O> {
    /// Number of `slots[0]`, or of the next call if there is none.
    oldest: u32,
    /// `None` was completed before an older one. The first is never `None`.
    slots: VecDeque<Option<Slot<O>>>,
    pending: usize,
}

#[derive(Debug)]
struct Slot<O> {
    owners: O,
    bytes: usize,
}

/// What a completion released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Released {
    pub(super) calls: u32,
    pub(super) bytes: usize,
    /// It tells of the number that is to come next, or of later ones.
    pub(super) is_ahead: bool,
}

impl<O> Calls<O> {
    /// None yet; the first gets this number.
    pub(super) const fn numbered_from(first: u32) -> Self {
        Self {
            oldest: first,
            slots: VecDeque::new(),
            pending: 0,
        }
    }

    /// The number of the next call.
    pub(super) fn next(&self) -> u32 {
        // Fewer than `Self::MOST`.
        self.oldest.wrapping_add(self.slots.len() as u32)
    }

    /// Bytes of calls that are not completed.
    pub(super) const fn pending(&self) -> usize {
        self.pending
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// True while another call can be told from those before: within half of the circle of numbers.
    pub(super) fn has_room(&self) -> bool {
        self.slots.len() < Self::MOST
    }

    /// Records the next call, which succeeded.
    pub(super) fn push(&mut self, owners: O, bytes: usize) -> u32 {
        let number = self.next();
        self.pending += bytes;
        self.slots.push_back(Some(Slot { owners, bytes }));
        number
    }

    /// Records that the next number went to a call that failed.
    pub(super) fn skip(&mut self) {
        self.slots.push_back(None);
        self.drop_completed();
    }

    /// Takes the owners of the calls from `first` to `last`, both included. Numbers that are not
    /// pending are passed over.
    pub(super) fn complete(&mut self, first: u32, last: u32, into: &mut Vec<O>) -> Released {
        let len = self.slots.len() as i64;
        // Serial numbers: less than half of the circle before or after the oldest.
        let place = |number: u32| i64::from(number.wrapping_sub(self.oldest).cast_signed());
        let (from, to) = (place(first), place(last));
        let mut released = Released {
            is_ahead: to >= len,
            ..Released::default()
        };
        let pending = from.clamp(0, len)..(to + 1).clamp(0, len);
        for index in pending {
            let slot = self.slots[index as usize].take();
            let Some(Slot { owners, bytes }) = slot else {
                continue;
            };
            released.calls += 1;
            released.bytes += bytes;
            into.push(owners);
        }
        self.pending -= released.bytes;
        self.drop_completed();
        released
    }

    fn drop_completed(&mut self) {
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.oldest = self.oldest.wrapping_add(1);
        }
    }

    const MOST: usize = 1 << 30;
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;
