//! What a connection may be given before the others of its worker have their turn.
//!
//! It counts across answers, and across the tasks that send them: whoever finds it spent lets others
//! run, and begins anew. A connection that waits for its socket or a disk has let others run as well,
//! but need not say so; one turn more costs next to nothing.

use std::cell::Cell;

/// Pipelined requests.
const REQUESTS: u32 = 32;
/// Bytes that the socket takes. The answer that reaches this is sent up to a budget of its own
/// ([`zhaul::DEFAULT_BUDGET_BYTES`]).
const BYTES: u64 = 1024 * 1024;

/// What is left of a turn.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    requests: Cell<u32>,
    /// What the connection will have sent when it is spent.
    spent_at: Cell<u64>,
}

impl Allowance {
    /// A turn begins, of a connection that has sent so many bytes.
    pub(crate) fn refill(&self, sent: u64) {
        self.requests.set(REQUESTS);
        self.spent_at.set(sent.saturating_add(BYTES));
    }

    /// Takes leave to answer one more request; false if it is spent, with so many bytes sent.
    pub(crate) fn take_request(&self, sent: u64) -> bool {
        let left = self.requests.get();
        self.requests.set(left.saturating_sub(1));
        left > 0 && sent < self.spent_at.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests_granted(allowance: &Allowance, sent: u64) -> u32 {
        (0..).take_while(|_| allowance.take_request(sent)).count() as u32
    }

    #[test]
    fn requests_and_bytes_are_limited_until_others_had_their_turn() {
        let allowance = Allowance::default();
        assert_eq!(requests_granted(&allowance, 0), 0, "no turn has begun");
        allowance.refill(500);
        assert_eq!(requests_granted(&allowance, 500), REQUESTS);
        allowance.refill(500);
        assert!(allowance.take_request(499 + BYTES));
        assert!(!allowance.take_request(500 + BYTES));
        allowance.refill(500 + BYTES);
        assert!(allowance.take_request(500 + BYTES));
    }
}
