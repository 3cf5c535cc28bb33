//! Memory that the kernel still reads: sends by reference, until their completions came.
//!
//! The kernel numbers successful calls, not bytes, modulo 2^32; a partial send takes a number like
//! any other. Completions come as ranges of numbers, several calls in one, and in any order.

use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// In the order in which they were made.
    calls: VecDeque<Call>,
}

#[derive(Debug)]
struct Call {
    number: u32,
    /// First byte in the aggregate.
    start: u64,
    bytes: u64,
    is_complete: bool,
}

impl InFlight {
    pub(super) fn add(&mut self, number: u32, start: u64, bytes: u64) {
        self.calls.push_back(Call {
            number,
            start,
            bytes,
            is_complete: false,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// The first byte that the kernel may still read.
    pub(super) fn start(&self) -> Option<u64> {
        self.calls.front().map(|call| call.start)
    }

    /// How many bytes are done with by this that were not before.
    pub(super) fn complete(&mut self, first: u32, last: u32) -> u64 {
        let span = last.wrapping_sub(first);
        let mut bytes = 0;
        for call in &mut self.calls {
            if !call.is_complete && call.number.wrapping_sub(first) <= span {
                call.is_complete = true;
                bytes += call.bytes;
            }
        }
        while self.calls.front().is_some_and(|call| call.is_complete) {
            self.calls.pop_front();
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_from(number: u32) -> InFlight {
        let mut in_flight = InFlight::default();
        for call in 0..3 {
            in_flight.add(number.wrapping_add(call), u64::from(call) * 10, 10);
        }
        in_flight
    }

    #[test]
    fn completions_in_any_order_release_from_the_front_only() {
        let mut in_flight = three_from(7);
        assert_eq!(in_flight.complete(8, 9), 20);
        assert_eq!(in_flight.start(), Some(0));
        assert_eq!(in_flight.complete(7, 9), 10, "each byte once");
        assert!(in_flight.is_empty());
    }

    #[test]
    fn numbers_wrap_around() {
        let mut in_flight = three_from(u32::MAX);
        assert_eq!(in_flight.complete(0, 1), 20);
        assert_eq!(in_flight.complete(2, u32::MAX - 1), 0, "none of these");
        assert_eq!(in_flight.complete(u32::MAX, u32::MAX), 10);
        assert!(in_flight.is_empty());
    }
}
