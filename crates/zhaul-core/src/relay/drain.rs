//! The graceful stop: nothing more is taken, what was taken is delivered and acknowledged, and each
//! stream is ended.

use std::time::Duration;

use super::ending::RelayCause;
use super::side::Side;
use super::step::{Call, RelayStep, Wants};
use super::times::{FIRST_LINGER_PAUSE, MAX_LINGER_PAUSE};
use super::{Phase, RelayMachine};

/// What is waited for after both streams were ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsettled {
    /// Sides whose peers have not acknowledged everything, as far as is known.
    sides: [bool; 2],
    look_at: Duration,
    pause: Duration,
}

impl Unsettled {
    pub(super) const fn look_at(&self) -> Duration {
        self.look_at
    }
}

impl RelayMachine {
    /// Stops gracefully, by this reading of the clock: takes nothing more, delivers what it has taken,
    /// ends both streams with a FIN, and waits until that is acknowledged, so that closing the
    /// sockets takes nothing back. Then it is over with [`RelayCause::Stopped`]. What is not done in
    /// time is [cancelled](Self::cancel).
    ///
    /// What peers send meanwhile is not taken; closing resets their connections, so they know.
    /// To be given a turn at once. Asking again changes nothing.
    pub fn drain(&mut self, until: Duration) {
        if !matches!(self.phase, Phase::Running) || self.drain_end.is_some() {
            return;
        }
        self.drain_end = Some(until);
        for direction in &mut self.ways {
            direction.take_no_more();
        }
    }

    /// Both directions are over: everything was delivered to the kernel.
    pub(super) fn settle(&mut self) -> Option<RelayStep> {
        if self.broken.is_some() {
            self.finish_broken();
            return None;
        }
        self.phase = Phase::Settling(Unsettled {
            sides: [!self.options.one_way, true],
            look_at: self.now,
            pause: FIRST_LINGER_PAUSE,
        });
        self.next_of_settling()
    }

    pub(super) fn next_of_settling(&mut self) -> Option<RelayStep> {
        let (Phase::Settling(unsettled), Some(end)) = (self.phase, self.drain_end) else {
            return None;
        };
        if let Some(side) = self.take_suspect() {
            return Some(RelayStep::Call(Call::TakeError { side }));
        }
        if self.broken.is_some() {
            self.finish_broken();
            return None;
        }
        let side = Side::BOTH
            .into_iter()
            .find(|side| unsettled.sides[side.index()]);
        let Some(side) = side else {
            self.phase = Phase::Over(RelayCause::Stopped);
            return None;
        };
        if self.now >= end {
            self.cut(RelayCause::Cancelled);
            return None;
        }
        if self.now >= unsettled.look_at {
            return Some(RelayStep::Call(Call::Unacknowledged { side }));
        }
        Some(RelayStep::Wait(Wants {
            wake_at: Some(unsettled.look_at.min(end)),
            ..Wants::default()
        }))
    }

    pub(super) fn saw_unsettled(&mut self, side: Side, bytes: usize) {
        let Phase::Settling(unsettled) = &mut self.phase else {
            return;
        };
        if bytes == 0 {
            unsettled.sides[side.index()] = false;
            return;
        }
        unsettled.look_at = self.now.saturating_add(unsettled.pause);
        unsettled.pause = (unsettled.pause * 2).min(MAX_LINGER_PAUSE);
    }
}
