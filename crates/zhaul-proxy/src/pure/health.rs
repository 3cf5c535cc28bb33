//! Whether a server can take connections: what checks say, what connections say, what the
//! administrator says. Pure; time is a reading of the caller's clock.

use std::time::Duration;

use crate::config::{Check, Passive};

/// The share of a server with a weight of 1. Weights are small numbers, mostly 1, and a server that
/// starts slowly has less than that.
pub const SHARE: u32 = 256;

/// The state of one server.
#[derive(Clone, Debug)]
pub struct Health {
    checked_up: bool,
    /// Checks in a row that disagree with `checked_up`.
    disagreeing: u32,
    /// Connections in a row that failed.
    failures: u32,
    /// Counted out by failed connections until then.
    out_until: Option<Duration>,
    /// Checks in a row that have passed since.
    passed_since_out: u32,
    /// When it last came back; a server that was never away has nothing to be slow about.
    came_back: Option<Duration>,
    /// What the administrator wants.
    pub admin_state: AdminState,
}

/// What the administrator wants of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdminState {
    /// Use it.
    #[default]
    Ready,
    /// No new connections; those it has go on.
    Drain,
}

/// A change that is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It can take connections again.
    CameUp,
    /// It cannot take connections any more.
    WentDown,
}

/// What a server is at some moment, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It takes connections.
    Up,
    /// Checks failed.
    Down,
    /// Connections failed.
    Out,
    /// The administrator lets it run empty.
    Drain,
    /// Its name stands for no address.
    Unresolved,
}

impl Status {
    /// The word that people see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Out => "out",
            Self::Drain => "drain",
            Self::Unresolved => "unresolved",
        }
    }
}

impl Default for Health {
    /// Up until shown otherwise, so that a proxy serves from its first moment.
    fn default() -> Self {
        Self {
            checked_up: true,
            disagreeing: 0,
            failures: 0,
            out_until: None,
            passed_since_out: 0,
            came_back: None,
            admin_state: AdminState::Ready,
        }
    }
}

impl Health {
    /// Takes in the result of an active check.
    pub fn checked(&mut self, passed: bool, check: &Check, now: Duration) -> Option<Change> {
        self.passed_since_out = if passed {
            self.passed_since_out.saturating_add(1)
        } else {
            0
        };
        if passed == self.checked_up {
            self.disagreeing = 0;
            return self.readmit(check, now);
        }
        self.disagreeing += 1;
        let needed = if passed { check.rise } else { check.fall };
        if self.disagreeing < needed {
            return None;
        }
        self.disagreeing = 0;
        self.checked_up = passed;
        if passed {
            Some(self.come_back(now))
        } else {
            Some(Change::WentDown)
        }
    }

    /// Checks have the last word over connections that failed before: as many of them as bring a
    /// server up end its time out, too.
    fn readmit(&mut self, check: &Check, now: Duration) -> Option<Change> {
        self.out_until?;
        (self.passed_since_out >= check.rise).then(|| self.come_back(now))
    }

    fn come_back(&mut self, now: Duration) -> Change {
        self.failures = 0;
        self.out_until = None;
        self.came_back = Some(now);
        Change::CameUp
    }

    /// There are no checks any more: what the last ones said holds no longer. True if the server
    /// was down by them.
    pub fn unchecked(&mut self) -> bool {
        self.disagreeing = 0;
        !std::mem::replace(&mut self.checked_up, true)
    }

    /// A connection is about to be tried, which takes `timeout` at most. After its time out one is
    /// enough to see how the server is; for all others it stays out until then.
    pub fn trying(&mut self, timeout: Duration, now: Duration) {
        if let Some(until) = &mut self.out_until
            && *until <= now
        {
            *until = now + timeout;
        }
    }

    /// Takes in that a connection was made, or that it failed. Without `passive` nothing follows from
    /// that: there is no such rule, or nobody to go to instead.
    pub fn connected(
        &mut self,
        made: bool,
        passive: Option<&Passive>,
        now: Duration,
    ) -> Option<Change> {
        let passive = passive?;
        if made {
            self.failures = 0;
            let was_out = self.out_until.is_some();
            return was_out.then(|| self.come_back(now));
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < passive.failures {
            return None;
        }
        // If the one that tries after its time out fails too, it is out again at once.
        let was_out = self.out_until.is_some();
        self.passed_since_out = 0;
        self.out_until = Some(now + passive.out_for);
        (!was_out).then_some(Change::WentDown)
    }

    /// When the time is over for which failed connections count it out, if that is to come.
    pub fn back_at(&self, now: Duration) -> Option<Duration> {
        self.out_until.filter(|&until| until > now)
    }

    /// What the server is now.
    pub fn status(&self, now: Duration) -> Status {
        if self.admin_state == AdminState::Drain {
            Status::Drain
        } else if !self.checked_up {
            Status::Down
        } else if self.out_until.is_some_and(|until| now < until) {
            Status::Out
        } else {
            Status::Up
        }
    }

    /// Its share now, in parts of [`SHARE`]: it rises to `weight` within `slow_start` after the
    /// server came back.
    pub fn share(&self, weight: u32, slow_start: Duration, now: Duration) -> u32 {
        let whole = weight.saturating_mul(SHARE);
        let Some(since) = self.came_back.map(|back| now.saturating_sub(back)) else {
            return whole;
        };
        if whole == 0 || since >= slow_start {
            return whole;
        }
        let part = since.as_secs_f64() / slow_start.as_secs_f64();
        // Never nothing, or it would not start at all.
        ((f64::from(whole) * part) as u32).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn check() -> Check {
        Check {
            rise: 2,
            fall: 3,
            ..Check::default()
        }
    }

    const PASSIVE: Passive = Passive {
        failures: 2,
        out_for: Duration::from_secs(10),
    };

    #[test]
    fn after_its_time_out_one_connection_tries_for_all() {
        let mut health = Health::default();
        let at = |s| NOW + Duration::from_secs(s);
        for _ in 0..PASSIVE.failures {
            health.connected(false, Some(&PASSIVE), NOW);
        }
        assert_eq!(health.status(at(9)), Status::Out);
        assert_eq!(health.status(at(10)), Status::Up);
        health.trying(Duration::from_secs(5), at(10));
        assert_eq!(health.status(at(14)), Status::Out, "somebody tries already");
        assert_eq!(health.status(at(15)), Status::Up, "and was not heard of");
        health.trying(Duration::from_secs(5), at(15));
        assert_eq!(health.connected(false, Some(&PASSIVE), at(16)), None);
        assert_eq!(health.status(at(25)), Status::Out);
        health.trying(Duration::from_secs(5), at(26));
        let change = health.connected(true, Some(&PASSIVE), at(27));
        assert_eq!(change, Some(Change::CameUp));
        assert_eq!(health.status(at(27)), Status::Up);
    }

    #[test]
    fn without_checks_nobody_is_down_by_them() {
        let mut health = Health::default();
        for _ in 0..3 {
            health.checked(false, &check(), NOW);
        }
        assert_eq!(health.status(NOW), Status::Down);
        assert!(health.unchecked());
        assert_eq!(health.status(NOW), Status::Up);
        assert!(!health.unchecked());
    }

    #[test]
    fn it_takes_fall_failures_and_rise_successes_in_a_row() {
        let mut health = Health::default();
        let mut told = |passed| health.checked(passed, &check(), NOW);
        let results = [
            false, false, true, false, false, false, true, false, true, true,
        ];
        let changes: Vec<_> = results.into_iter().map(&mut told).collect();
        let mut expected = [None; 10];
        expected[5] = Some(Change::WentDown);
        expected[9] = Some(Change::CameUp);
        assert_eq!(changes, expected);
        assert_eq!(health.status(NOW), Status::Up);
    }

    #[test]
    fn failed_connections_count_a_server_out_for_a_while() {
        let mut health = Health::default();
        assert_eq!(health.connected(false, Some(&PASSIVE), NOW), None);
        let second = health.connected(false, Some(&PASSIVE), NOW);
        assert_eq!(second, Some(Change::WentDown));
        assert_eq!(health.status(NOW), Status::Out);
        let later = NOW + PASSIVE.out_for;
        assert_eq!(health.status(later), Status::Up);
        // The first that tries it decides.
        assert_eq!(health.connected(false, Some(&PASSIVE), later), None);
        assert_eq!(health.status(later), Status::Out);
        let again = later + PASSIVE.out_for;
        let made = health.connected(true, Some(&PASSIVE), again);
        assert_eq!(made, Some(Change::CameUp));
        assert_eq!(health.connected(false, Some(&PASSIVE), again), None);
    }

    #[test]
    fn without_passive_checks_failures_do_not_matter() {
        let mut health = Health::default();
        for _ in 0..10 {
            assert_eq!(health.connected(false, None, NOW), None);
        }
        assert_eq!(health.status(NOW), Status::Up);
    }

    #[test]
    fn a_check_that_passes_brings_back_what_connections_counted_out() {
        let mut health = Health::default();
        health.connected(false, Some(&PASSIVE), NOW);
        health.connected(false, Some(&PASSIVE), NOW);
        for _ in 0..3 {
            health.checked(false, &check(), NOW);
        }
        for _ in 0..2 {
            health.checked(true, &check(), NOW);
        }
        assert_eq!(health.status(NOW), Status::Up);
    }

    #[test]
    fn checks_that_pass_end_the_time_out_of_a_server_that_was_never_down() {
        let mut health = Health::default();
        health.connected(false, Some(&PASSIVE), NOW);
        health.connected(false, Some(&PASSIVE), NOW);
        let told = [true, false, true, true, true];
        let changes = told.map(|passed| health.checked(passed, &check(), NOW));
        assert_eq!(changes, [None, None, None, Some(Change::CameUp), None]);
        assert_eq!(health.status(NOW), Status::Up);
        // And it takes as many failures as before to count it out again.
        assert_eq!(health.connected(false, Some(&PASSIVE), NOW), None);
        assert_eq!(health.status(NOW), Status::Up);
    }

    #[test]
    fn what_the_administrator_wants_comes_first() {
        let mut health = Health {
            admin_state: AdminState::Drain,
            ..Health::default()
        };
        assert_eq!(health.status(NOW), Status::Drain);
        health.admin_state = AdminState::Ready;
        assert_eq!(health.status(NOW), Status::Up);
    }

    #[test]
    fn a_server_that_came_back_starts_slowly() {
        let slow = Duration::from_secs(10);
        let mut health = Health::default();
        assert_eq!(health.share(100, slow, NOW), 100 * SHARE);
        health.came_back = Some(NOW);
        let after = |seconds| health.share(100, slow, NOW + Duration::from_secs(seconds));
        assert_eq!([0, 1, 5, 10].map(after), [1, 2560, 12_800, 25_600]);
        // A weight of 1, as most servers have, is no reason to start at once.
        assert_eq!(
            health.share(1, slow, NOW + Duration::from_secs(5)),
            SHARE / 2
        );
        assert_eq!(health.share(0, slow, NOW), 0);
        assert_eq!(health.share(100, Duration::ZERO, NOW), 100 * SHARE);
    }
}
