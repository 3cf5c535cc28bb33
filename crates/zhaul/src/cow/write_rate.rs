//! How much is written during the life of a snapshot, and what is cheaper then.

/// Of one region.
#[derive(Clone, Debug)]
pub(super) struct WriteRate {
    /// More than this part written: copying everything up front is cheaper.
    pub(super) copy_above: f64,
    estimate: Option<f64>,
    /// Snapshots that were copied up front since the last that was not.
    copies: u32,
    /// Bytes that were copied for snapshots beside older ones of the same base.
    beside_older: usize,
}

impl WriteRate {
    pub(super) const fn new() -> Self {
        Self {
            copy_above: COPY_ABOVE,
            estimate: None,
            copies: 0,
            beside_older: 0,
        }
    }

    pub(super) const fn expect(&mut self, part: f64) {
        self.estimate = Some(part);
    }

    pub(super) const fn estimate(&self) -> Option<f64> {
        self.estimate
    }

    /// So many bytes of `len` were written while snapshots lived, and there are none now.
    pub(super) fn observe(&mut self, written: usize, len: usize) {
        let part = written as f64 / len as f64;
        self.estimate = Some(self.estimate.map_or(part, |before| (before + part) / 2.0));
        self.beside_older = 0;
    }

    /// Asked for each snapshot that could share its pages. While everything is copied nobody sees what
    /// is written, so now and then the answer is no.
    pub(super) fn is_copying_cheaper(&mut self) -> bool {
        // Below 0 means always.
        let always = self.copy_above < 0.0;
        let many = self.estimate.is_some_and(|part| part > self.copy_above);
        let copy = always || many && self.copies < COPIES_IN_A_ROW;
        self.copies = if copy {
            self.copies.saturating_add(1)
        } else {
            0
        };
        copy
    }

    /// So many bytes were copied for a snapshot because an older one lives.
    pub(super) const fn copied_beside_older(&mut self, bytes: usize) {
        self.beside_older = self.beside_older.saturating_add(bytes);
    }

    /// Whether these copies are as many as one of everything, `len` bytes, would be.
    pub(super) const fn is_base_outworn(&self, len: usize) -> bool {
        self.beside_older >= len
    }

    pub(super) const fn base_is_new(&mut self) {
        self.beside_older = 0;
    }
}

/// Where the two cross in docs/cow.md.
const COPY_ABOVE: f64 = 0.07;
/// So that seeing costs little beside copying, even where every page is written.
const COPIES_IN_A_ROW: u32 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_copied_before_anything_was_seen() {
        assert!(!WriteRate::new().is_copying_cheaper());
    }

    #[test]
    fn many_writes_are_copied_up_front_and_looked_at_again() {
        let mut rate = WriteRate::new();
        rate.observe(100, 100);
        for _ in 0..2 {
            assert!((0..COPIES_IN_A_ROW).all(|_| rate.is_copying_cheaper()));
            assert!(!rate.is_copying_cheaper());
        }
        while rate.estimate() > Some(COPY_ABOVE) {
            rate.observe(0, 100);
        }
        assert!(!rate.is_copying_cheaper());
    }

    #[test]
    fn what_is_expected_counts_until_something_was_seen() {
        let mut rate = WriteRate::new();
        rate.expect(1.0);
        assert!(rate.is_copying_cheaper());
        rate.observe(0, 100);
        assert_eq!(rate.estimate(), Some(0.5));
    }

    #[test]
    fn one_is_never_and_below_zero_is_always() {
        let mut never = WriteRate::new();
        never.copy_above = 1.0;
        never.observe(100, 100);
        assert!(!never.is_copying_cheaper());
        let mut always = WriteRate::new();
        always.copy_above = -1.0;
        assert!((0..2 * COPIES_IN_A_ROW).all(|_| always.is_copying_cheaper()));
    }

    #[test]
    fn a_base_is_outworn_when_it_cost_as_much_as_a_copy() {
        let mut rate = WriteRate::new();
        rate.copied_beside_older(60);
        assert!(!rate.is_base_outworn(100));
        rate.copied_beside_older(60);
        assert!(rate.is_base_outworn(100));
        rate.base_is_new();
        assert!(!rate.is_base_outworn(100));
    }
}
