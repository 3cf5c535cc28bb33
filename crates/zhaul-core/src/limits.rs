//! How much a machine does before others get their turn, and how fast it goes.
//!
//! One account for whatever moves bytes: a transfer, or the memory and the files of an aggregate,
//! which hand it to one another.

use std::time::Duration;

use crate::ask::Ask;
use crate::throttle::Throttle;

#[derive(Debug)]
pub(crate) struct Limits {
    budget_bytes: u64,
    budget_left: u64,
    calls_since_rest: u64,
    throttle: Option<Box<Throttle>>,
}

impl Limits {
    pub(crate) fn of(ask: &Ask) -> Self {
        let budget_bytes = ask.budget_bytes.max(1) as u64;
        Self {
            budget_bytes,
            budget_left: budget_bytes,
            calls_since_rest: 0,
            throttle: ask.throttle.map(|rate| Box::new(Throttle::new(rate))),
        }
    }

    pub(crate) const fn is_throttled(&self) -> bool {
        self.throttle.is_some()
    }

    /// Largest amount to take at once, where a rate is kept.
    pub(crate) fn quantum_bytes(&self) -> Option<u64> {
        let throttle = self.throttle.as_ref()?;
        Some(throttle.quantum_bytes())
    }

    /// What is left before others get their turn.
    pub(crate) const fn budget_left(&self) -> u64 {
        self.budget_left
    }

    pub(crate) fn take(&mut self, bytes: u64) {
        if let Some(throttle) = &mut self.throttle {
            throttle.take(bytes);
        }
    }

    pub(crate) const fn deliver(&mut self, bytes: u64) {
        self.budget_left = self.budget_left.saturating_sub(bytes);
    }

    pub(crate) const fn count_call(&mut self) {
        self.calls_since_rest += 1;
    }

    pub(crate) const fn is_budget_spent(&self) -> bool {
        self.budget_left == 0 || self.calls_since_rest >= MAX_CALLS_WITHOUT_REST
    }

    /// Others had their turn.
    pub(crate) const fn rest(&mut self) {
        self.budget_left = self.budget_bytes;
        self.calls_since_rest = 0;
    }

    pub(crate) fn tick(&mut self, now: Duration) {
        if let Some(throttle) = &mut self.throttle {
            throttle.tick(now);
        }
    }

    pub(crate) fn pause_until(&self) -> Option<Duration> {
        self.throttle
            .as_ref()
            .and_then(|throttle| throttle.pause_until())
    }
}

/// A source that trickles (one-byte segments) must not hold a thread by never spending its bytes.
const MAX_CALLS_WITHOUT_REST: u64 = 128;
