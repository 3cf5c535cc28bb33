//! How far stopping a server has come, for all of its threads.

use tokio::sync::watch;

/// How far stopping has come; it only goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// The server serves.
    No,
    /// No new connections; what is under way may end.
    Drain,
    /// Everything ends at once.
    Now,
    /// The workers have ended.
    Done,
}

/// Holds the [`Stop`] of a server, and tells whoever waits for a change.
#[derive(Clone, Debug)]
pub struct StopSwitch(watch::Sender<Stop>);

impl Default for StopSwitch {
    fn default() -> Self {
        Self(watch::channel(Stop::No).0)
    }
}

impl StopSwitch {
    /// Moves on to a later state; false if it was reached before.
    pub fn advance(&self, to: Stop) -> bool {
        self.0.send_if_modified(|stop| {
            let moves = *stop < to;
            if moves {
                *stop = to;
            }
            moves
        })
    }

    /// How far stopping has come.
    pub fn state(&self) -> Stop {
        *self.0.borrow()
    }

    /// For whoever waits for a change.
    pub fn subscribe(&self) -> watch::Receiver<Stop> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stopping_only_goes_on() {
        let stop = StopSwitch::default();
        let seen = stop.subscribe();
        assert!(stop.advance(Stop::Now));
        assert!(!stop.advance(Stop::Drain) && !stop.advance(Stop::Now));
        assert_eq!((stop.state(), *seen.borrow()), (Stop::Now, Stop::Now));
    }
}
