//! Whether a direction carries bulk, as measured in the stream itself.
//!
//! Copying has the lowest latency for small messages and costs the CPU every byte twice; splicing
//! costs per call and per page. A receive that fills its buffer left more behind, so a few of
//! those in a row are bulk; a few short splices in a row are not.

use super::options::FlowThresholds;

#[derive(Debug)]
pub(super) struct Flow {
    bulk: bool,
    /// Observations in a row that speak for the other route.
    streak: u8,
    /// Splicing between these two sockets is possible.
    spliceable: bool,
    /// To be copied before a pipe is asked for again.
    retry_after: u64,
}

impl Flow {
    pub(super) const fn new(spliceable: bool) -> Self {
        Self {
            bulk: false,
            streak: 0,
            spliceable,
            retry_after: 0,
        }
    }

    /// Whether the next bytes are to go through a pipe.
    pub(super) const fn splices(&self) -> bool {
        self.bulk && self.spliceable && self.retry_after == 0
    }

    /// Whether it is bulk that a pipe can carry, even if there is none for it at the moment.
    pub(super) const fn is_bulk(&self) -> bool {
        self.bulk && self.spliceable
    }

    /// The source has nothing more: what it had was not the beginning of bulk.
    pub(super) const fn paused(&mut self) {
        if !self.bulk {
            self.streak = 0;
        }
    }

    /// A receive brought `read` bytes and had room for `room`.
    pub(super) fn received(&mut self, read: usize, room: usize, thresholds: &FlowThresholds) {
        self.retry_after = self.retry_after.saturating_sub(read as u64);
        if self.bulk {
            // Copied for want of a pipe.
            return;
        }
        self.observe(read >= room, thresholds.full_reads);
    }

    /// A splice into an empty pipe brought `spliced` bytes.
    pub(super) fn spliced(&mut self, spliced: usize, thresholds: &FlowThresholds) {
        let short = spliced < thresholds.short_splice_bytes;
        self.observe(short, thresholds.short_splices);
    }

    /// There was no pipe.
    pub(super) const fn pipe_refused(&mut self, thresholds: &FlowThresholds) {
        self.retry_after = thresholds.pipe_retry_bytes;
        if self.retry_after == 0 {
            self.retry_after = 1;
        }
    }

    /// The kernel does not splice between these two.
    pub(super) const fn not_spliceable(&mut self) {
        self.spliceable = false;
    }

    const fn observe(&mut self, speaks_against: bool, enough: u8) {
        if !speaks_against {
            self.streak = 0;
            return;
        }
        self.streak = self.streak.saturating_add(1);
        if self.streak >= enough {
            self.bulk = !self.bulk;
            self.streak = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 65_536;

    fn thresholds() -> FlowThresholds {
        FlowThresholds {
            full_reads: 2,
            short_splices: 3,
            ..FlowThresholds::default()
        }
    }

    fn bulk() -> Flow {
        let mut flow = Flow::new(true);
        flow.received(ROOM, ROOM, &thresholds());
        flow.received(ROOM, ROOM, &thresholds());
        flow
    }

    #[test]
    fn full_reads_in_a_row_are_bulk_and_one_in_between_is_not() {
        let mut flow = Flow::new(true);
        for read in [ROOM, ROOM - 1, ROOM] {
            flow.received(read, ROOM, &thresholds());
            assert!(!flow.splices());
        }
        flow.received(ROOM, ROOM, &thresholds());
        assert!(flow.splices());
    }

    #[test]
    fn short_splices_in_a_row_are_interactive_and_one_long_one_starts_the_count_anew() {
        let mut flow = bulk();
        for spliced in [1, 1, ROOM, 1, 1] {
            flow.spliced(spliced, &thresholds());
            assert!(flow.splices());
        }
        flow.spliced(1, &thresholds());
        assert!(!flow.splices());
    }

    #[test]
    fn a_refused_pipe_is_asked_for_again_after_a_while() {
        let mut flow = bulk();
        flow.pipe_refused(&thresholds());
        let mut copied = 0;
        while !flow.splices() {
            flow.received(ROOM, ROOM, &thresholds());
            copied += ROOM as u64;
        }
        assert_eq!(copied, thresholds().pipe_retry_bytes);
    }

    #[test]
    fn what_cannot_be_spliced_is_copied_for_good() {
        let mut flow = bulk();
        flow.not_spliceable();
        for _ in 0..100 {
            flow.received(ROOM, ROOM, &thresholds());
            assert!(!flow.splices());
        }
    }
}
