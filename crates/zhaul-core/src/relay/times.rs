//! Time limits, and how a relay ends.

use std::time::Duration;

use super::ending::{RelayCause, RelayEnding};
use super::options::Abort;
use super::side::{Side, Way};
use super::step::{Call, RelayStep, Wants};
use super::{Broken, Phase, RelayMachine};

impl RelayMachine {
    pub(super) fn moved(&mut self) {
        self.last_moved = self.now;
        self.idle_check.queued = [None; 2];
    }

    pub(super) fn take_suspect(&mut self) -> Option<Side> {
        Side::BOTH
            .into_iter()
            .find(|side| std::mem::take(&mut self.suspects[side.index()]))
    }

    /// The next moment at which a limit may run out.
    pub(super) fn next_limit(&self) -> Option<Duration> {
        let limits = [
            self.deadline(),
            self.idle_end(),
            self.grace_end(),
            self.drain_end,
        ];
        limits.into_iter().fold(None, earlier)
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.options
            .deadline
            .map(|limit| self.began.saturating_add(limit))
    }

    pub(super) fn idle_end(&self) -> Option<Duration> {
        let limit = self.options.inactivity(self.first)?;
        Some(self.last_moved.saturating_add(limit))
    }

    pub(super) fn grace_end(&self) -> Option<Duration> {
        let broken = self.broken?;
        Some(broken.since.saturating_add(self.options.reset_grace))
    }

    /// `Some` if a limit ran out: the step that follows from it, or that it runs no longer.
    pub(super) fn check_times(&mut self) -> Option<Option<RelayStep>> {
        let is_up = |at: Option<Duration>| at.is_some_and(|at| at <= self.now);
        if is_up(self.grace_end()) {
            self.finish_broken();
            return Some(None);
        }
        if is_up(self.deadline()) {
            self.cut(RelayCause::Deadline);
            return Some(None);
        }
        if is_up(self.drain_end) {
            self.cut(RelayCause::Cancelled);
            return Some(None);
        }
        if !is_up(self.idle_end()) {
            return None;
        }
        // Whoever waits for its limit is not idle.
        if self.ways.iter().any(|way| way.is_paused(self.now)) {
            self.moved();
            return None;
        }
        match self.idle_check.next() {
            Some(side) => Some(Some(RelayStep::Call(Call::Unsent { side }))),
            None if self.idle_check.moves => {
                self.last_moved = self.now;
                None
            }
            None => {
                self.cut(self.idle_cause());
                Some(None)
            }
        }
    }

    pub(super) fn idle_cause(&self) -> RelayCause {
        match self.first {
            Some(closed) if self.options.fin_timeout[closed.index()].is_some() => {
                RelayCause::HalfClosed { closed }
            }
            _ => RelayCause::Idle,
        }
    }

    /// Both directions are over.
    pub(super) fn all_said(&mut self) -> Option<RelayStep> {
        let has_ended = |way: Way| {
            self.ways[way.index()].stats().ended || (self.options.one_way && way == Way::BToA)
        };
        if self.drain_end.is_some() && !Way::BOTH.into_iter().all(has_ended) {
            return self.settle();
        }
        let Some(broken) = self.broken else {
            let first = self.first.unwrap_or(Side::A);
            self.phase = Phase::Over(RelayCause::Closed { first });
            return None;
        };
        let delivered = self.ways[broken.side.outward().index()].stats().delivered;
        if delivered == 0 {
            self.finish_broken();
            return None;
        }
        self.phase = Phase::Lingering {
            side: broken.side.other(),
            look_at: self.now,
            pause: FIRST_LINGER_PAUSE,
        };
        self.linger()
    }

    pub(super) fn linger(&mut self) -> Option<RelayStep> {
        let (Phase::Lingering { side, look_at, .. }, Some(end)) = (self.phase, self.grace_end())
        else {
            return None;
        };
        if self.now >= end {
            self.finish_broken();
            return None;
        }
        if self.now >= look_at {
            return Some(RelayStep::Call(Call::Unacknowledged { side }));
        }
        let wants = Wants {
            wake_at: Some(look_at.min(end)),
            ..Wants::default()
        };
        Some(RelayStep::Wait(wants))
    }

    /// The last calls, then the end.
    pub(super) fn close(&mut self) -> RelayStep {
        if let Some(call) = self.last_calls.iter_mut().find_map(Option::take) {
            return RelayStep::Call(call);
        }
        if let Phase::Closing(cause) = self.phase {
            self.phase = Phase::Over(cause);
        }
        match self.phase {
            Phase::Over(cause) => RelayStep::Done(RelayEnding::new(cause, self.stats())),
            _ => RelayStep::Yield,
        }
    }

    /// A connection broke: nothing reaches that side any more, and what it sent is all there will
    /// be.
    pub(super) fn broke(&mut self, side: Side, cause: RelayCause) {
        let since = self.now;
        self.broken.get_or_insert(Broken { side, cause, since });
        self.ways[side.inward().index()].sink_is_broken();
        self.ways[side.outward().index()].source_is_failing();
    }

    pub(super) fn saw_unacknowledged(&mut self, bytes: usize) {
        let Phase::Lingering { look_at, pause, .. } = &mut self.phase else {
            return;
        };
        *look_at = self.now.saturating_add(*pause);
        *pause = (*pause * 2).min(MAX_LINGER_PAUSE);
        if bytes == 0 {
            self.finish_broken();
        }
    }

    /// Ends a relay one of whose connections broke: the other is reset.
    pub(super) fn finish_broken(&mut self) {
        let Some(broken) = self.broken else { return };
        let gone = matches!(broken.cause, RelayCause::Reset { .. }).then_some(broken.side);
        for side in Side::BOTH {
            if gone != Some(side) {
                self.last_calls[side.index()] = Some(Call::Reset { side });
            }
        }
        self.phase = Phase::Closing(broken.cause);
    }

    /// Ends a relay before its streams have ended.
    pub(super) fn cut(&mut self, cause: RelayCause) {
        for side in Side::BOTH {
            let way = side.inward();
            let is_sink = !(self.options.one_way && way == Way::BToA);
            let direction = &self.ways[way.index()];
            let lost = direction.stats().in_transit() > 0;
            self.last_calls[side.index()] = match self.options.abort {
                Abort::Fin if !lost => {
                    (is_sink && direction.may_be_shut()).then_some(Call::ShutdownWrite { way })
                }
                _ => Some(Call::Reset { side }),
            };
        }
        self.phase = Phase::Closing(cause);
    }
}

/// Whether the send queues move although nothing was added to them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IdleCheck {
    /// What they held at the last look, if nothing moved since.
    pub(super) queued: [Option<usize>; 2],
    /// Sides looked at in this check.
    looks: usize,
    moves: bool,
}

impl IdleCheck {
    /// The next queue to look at; `None` after both.
    pub(super) fn next(&mut self) -> Option<Side> {
        if self.looks == 0 {
            self.moves = false;
        }
        let side = Side::BOTH.get(self.looks).copied();
        self.looks = if side.is_some() { self.looks + 1 } else { 0 };
        side
    }

    pub(super) fn saw(&mut self, side: Side, queued: usize) {
        let before = self.queued[side.index()].replace(queued);
        // Of a queue that was not looked at before nothing is known yet.
        self.moves |= before.map_or(queued > 0, |before| queued < before);
    }
}

pub(super) const fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(a), Some(b)) if a.as_nanos() <= b.as_nanos() => Some(a),
        (Some(_), Some(b)) => Some(b),
        (Some(at), None) | (None, Some(at)) => Some(at),
        (None, None) => None,
    }
}

pub(super) const FIRST_LINGER_PAUSE: Duration = Duration::from_millis(1);
pub(super) const MAX_LINGER_PAUSE: Duration = Duration::from_millis(64);
