//! The worker's clocks: coarse readings that cost no system call, and the Date line.

use std::cell::{Cell, RefCell};

use rustix::time::{ClockId, clock_gettime};

use crate::message::validators::{DATE_BYTES, format_date};

/// Coarse time and the text of the current second.
#[derive(Debug)]
pub(crate) struct Clock {
    second: Cell<u64>,
    date: RefCell<[u8; DATE_BYTES]>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let clock = Self {
            second: Cell::new(u64::MAX),
            date: RefCell::new([0; DATE_BYTES]),
        };
        clock.second();
        clock
    }

    /// Milliseconds on a clock that is never set, at the resolution of the kernel's tick.
    #[inline]
    pub(crate) fn now_ms() -> u64 {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
    }

    /// Seconds since the epoch, at the resolution of the kernel's tick.
    #[inline]
    pub(crate) fn now_s() -> u64 {
        clock_gettime(ClockId::RealtimeCoarse).tv_sec.unsigned_abs()
    }

    /// [`Clock::now_s`], for which [`Clock::date`] is then right.
    #[inline]
    pub(crate) fn second(&self) -> u64 {
        let second = Self::now_s();
        if self.second.get() != second {
            self.turn_to(second);
        }
        second
    }

    /// The Date field's value for the second last asked for.
    pub(crate) fn date(&self) -> [u8; DATE_BYTES] {
        *self.date.borrow()
    }

    #[cold]
    fn turn_to(&self, second: u64) {
        self.date.replace(format_date(second));
        self.second.set(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_that_of_the_second() {
        let clock = Clock::new();
        clock.turn_to(784_111_777);
        assert_eq!(&clock.date(), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
