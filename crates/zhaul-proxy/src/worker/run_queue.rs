//! Whose turn it is, where not all relays can be served at once: messages before bulk, and bulk at
//! least as long as everything else took, so that neither starves the other.

use std::collections::VecDeque;
use std::time::Duration;

use super::session::Session;

/// Turns of bulk, one after the other, before events are looked at again; beside messages it is after
/// each. One of 1 MiB takes about twice as long; to look costs a five-hundredth of it.
const LOOK_AGAIN_AFTER: Duration = Duration::from_micros(100);

/// What bulk takes in a turn while there is somebody whose messages would have to wait for it: a
/// message and its answer wait for a turn each. Measured beside four streams, a message waited at p99
/// 2.9 times as long as alone with 128 KiB, and 1.9 times with this, while bulk moved as much for as
/// much. With 40 KiB it is 1.7 times, and a tenth of the bulk is lost: more calls, and splices that
/// end within a segment. Bulk among itself has the whole budget.
const BUDGET_BESIDE_MESSAGES: usize = 48 << 10;

/// How long after a message more are expected.
const MESSAGES_EXPECTED_FOR: Duration = Duration::from_millis(20);

/// Relays that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct RunQueue {
    /// Relays that carry bulk or used up their turn, and wait for the next.
    bulk: VecDeque<u64>,
    /// Relays that found no buffer.
    starved: VecDeque<u64>,
    /// The last event of a relay that does not carry bulk.
    message_at: Duration,
}

impl RunQueue {
    /// Puts a session behind the others that wait for their turn.
    pub(super) fn push_bulk(&mut self, session: &mut Session) {
        if !session.is_queued_for_turn {
            session.is_queued_for_turn = true;
            self.bulk.push_back(session.name);
        }
    }

    /// The next whose turn it is.
    pub(super) fn pop_bulk(&mut self) -> Option<u64> {
        self.bulk.pop_front()
    }

    /// How many wait for their turn.
    pub(super) fn bulk(&self) -> usize {
        self.bulk.len()
    }

    /// Remembers a session that found no buffer.
    pub(super) fn push_starved(&mut self, session: &mut Session) {
        if !session.is_starved {
            session.is_starved = true;
            self.starved.push_back(session.name);
        }
    }

    /// The next that found no buffer.
    pub(super) fn pop_starved(&mut self) -> Option<u64> {
        self.starved.pop_front()
    }

    /// How many found no buffer.
    pub(super) fn starved(&self) -> usize {
        self.starved.len()
    }

    /// Something came in for a relay that does not carry bulk.
    pub(super) const fn saw_message(&mut self, now: Duration) {
        self.message_at = now;
    }

    /// Whether somebody may send a message at any moment.
    fn expects_messages(&self, now: Duration) -> bool {
        now <= self.message_at + MESSAGES_EXPECTED_FOR
    }

    /// What a relay may move in its turn, which is `whole` where nobody waits for it.
    pub(super) fn budget(&self, whole: usize, now: Duration) -> usize {
        match self.expects_messages(now) {
            true => BUDGET_BESIDE_MESSAGES,
            false => whole,
        }
    }

    /// How long bulk may go on before events are looked at again, of which the last took `events`.
    pub(super) fn slice(&self, events: Duration, now: Duration) -> Duration {
        let least = match self.expects_messages(now) {
            true => Duration::ZERO,
            false => LOOK_AGAIN_AFTER,
        };
        least.max(events)
    }
}
