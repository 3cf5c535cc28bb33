//! When to look at which session again.
//!
//! A relay moves its own deadline with every byte, so deadlines are not kept in order: each session
//! has at most one entry that matters, as early as its deadline or earlier, and whoever comes up too
//! early is put back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Entries in the order of time; each is a time and the name of a session.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    entries: BinaryHeap<Reverse<(Duration, u64)>>,
}

impl Timers {
    /// Sees to it that `session` comes up at `at` or earlier. `armed` is the session's note of its
    /// earliest entry.
    pub(crate) fn arm(&mut self, session: u64, at: Duration, armed: &mut Option<Duration>) {
        if armed.is_none_or(|earliest| at < earliest) {
            self.entries.push(Reverse((at, session)));
            *armed = Some(at);
        }
    }

    /// Takes the next entry that is due, with its time.
    pub(crate) fn due(&mut self, now: Duration) -> Option<(Duration, u64)> {
        let &Reverse((at, _)) = self.entries.peek()?;
        if at > now {
            return None;
        }
        self.entries.pop().map(|Reverse(entry)| entry)
    }

    /// How many entries there are, those that do not matter any more among them.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Keeps the entries that `matters` says so of, by time and session.
    pub(crate) fn retain(&mut self, mut matters: impl FnMut(Duration, u64) -> bool) {
        self.entries
            .retain(|&Reverse((at, name))| matters(at, name));
    }

    /// When the next entry is due.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.entries.peek().map(|&Reverse((at, _))| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_that_move_away_cost_no_entries() {
        let mut timers = Timers::default();
        let mut armed = None;
        for ms in 100..1100 {
            timers.arm(7, Duration::from_millis(ms), &mut armed);
        }
        assert_eq!(timers.entries.len(), 1);
        timers.arm(7, Duration::from_millis(50), &mut armed);
        assert_eq!(timers.next(), Some(Duration::from_millis(50)));
        assert_eq!(timers.due(Duration::from_millis(49)), None);
        let due = timers.due(Duration::from_millis(60));
        assert_eq!(due, Some((Duration::from_millis(50), 7)));
    }
}
