//! Reporting what goes wrong, without letting clients fill a disk with reports.

use std::time::{Duration, Instant};

/// Reports in one [`WINDOW`]; what comes beyond is counted.
const BURST: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);

/// Says the first things that go wrong, and then how many more there were.
#[derive(Debug, Default)]
pub struct Trouble {
    began: Option<Instant>,
    said: u32,
    unsaid: u64,
}

impl Trouble {
    /// Something that an operator may want to know.
    pub fn warn(&mut self, what: impl FnOnce() -> String) {
        self.say_at(Instant::now(), what, |text| tracing::warn!("{text}"));
    }

    /// Something that an operator has to see to.
    pub fn error(&mut self, what: impl FnOnce() -> String) {
        self.say_at(Instant::now(), what, |text| tracing::error!("{text}"));
    }

    fn say_at(&mut self, now: Instant, what: impl FnOnce() -> String, mut out: impl FnMut(&str)) {
        if self
            .began
            .is_none_or(|began| now.duration_since(began) >= WINDOW)
        {
            if self.unsaid > 0 {
                out(&format!(
                    "{} reports like the last ones were left out",
                    self.unsaid
                ));
            }
            *self = Self {
                began: Some(now),
                said: 0,
                unsaid: 0,
            };
        }
        if self.said == BURST {
            self.unsaid += 1;
        } else {
            self.said += 1;
            out(&what());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_the_next_window_says_how_much() {
        let mut trouble = Trouble::default();
        let mut lines = Vec::new();
        let start = Instant::now();
        for _ in 0..BURST + 5 {
            trouble.say_at(start, || "x".to_owned(), |text| lines.push(text.to_owned()));
        }
        assert_eq!(lines.len(), BURST as usize);
        trouble.say_at(
            start + WINDOW,
            || "y".to_owned(),
            |text| lines.push(text.to_owned()),
        );
        let last: Vec<_> = lines.iter().rev().take(2).collect();
        assert_eq!(last, ["y", "5 reports like the last ones were left out"]);
    }
}
