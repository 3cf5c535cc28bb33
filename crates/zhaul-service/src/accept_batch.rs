//! How many connections to accept when a listening socket is reported.

/// Connections accepted at most before those that are there have their turn.
const MOST: usize = 16;

/// Rounds in a row that find as many as expected before more are expected. Under a steady load of
/// single connections, fewer would make every third call one in vain.
const PATIENCE: u32 = 8;

/// The number of accept(2) calls that one report is worth.
///
/// To find nobody is no small thing: accept(2) makes a socket before it looks, which costs several
/// µs. So it is called once for each report, and more often only while reports follow one upon the
/// other. The socket has to be watched level-triggered, so that whoever is left is reported again.
#[derive(Clone, Copy, Debug)]
pub struct AcceptBatch {
    size: usize,
    /// The last round in which so many were there.
    filled_in: u64,
    /// Such rounds in a row.
    in_a_row: u32,
}

impl Default for AcceptBatch {
    /// For a socket on which many may wait already.
    fn default() -> Self {
        Self {
            size: MOST,
            filled_in: 0,
            in_a_row: 0,
        }
    }
}

impl AcceptBatch {
    /// How many are accepted at the next report; at least one.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// As many were there as were expected. `round` counts calls of epoll_wait(2) that told all there
    /// was to tell: of a long list the kernel tells a part, and then the socket's turn comes later.
    pub fn filled(&mut self, round: u64) {
        let follows = self.filled_in + 1 >= round;
        self.in_a_row = if follows {
            self.in_a_row.saturating_add(1)
        } else {
            1
        };
        self.filled_in = round;
        if self.in_a_row >= PATIENCE {
            self.size = (2 * self.size).min(MOST);
        }
    }

    /// Fewer were there.
    pub const fn found_nobody(&mut self) {
        self.size = 1;
        self.in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_reports_follow_one_upon_the_other() {
        let mut batch = AcceptBatch::default();
        assert_eq!(batch.size(), MOST);
        batch.found_nobody();
        let mut fill = |rounds: std::ops::Range<u64>| {
            rounds.for_each(|round| batch.filled(round));
            batch.size()
        };
        assert_eq!(fill(10..17), 1, "seven in a row");
        assert_eq!(fill(18..25), 1, "after a round in which nobody was there");
        assert_eq!(fill(25..26), 2, "eight in a row");
        assert_eq!(fill(26..27), 4);
        assert_eq!(fill(27..40), MOST);
        batch.found_nobody();
        batch.filled(40);
        assert_eq!(batch.size(), 1);
    }
}
