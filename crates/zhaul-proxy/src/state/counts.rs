//! What is counted: a few atomics for each listener and server, read by metrics and the
//! administrator.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::pure::termination::Termination;

/// Counts of one server.
#[derive(Debug, Default)]
pub(crate) struct ServerCounts {
    sessions: AtomicU64,
    failures: AtomicU64,
    downs: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
}

/// The same, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerTotals {
    /// Connections made.
    pub(crate) sessions: u64,
    /// Connections that could not be made.
    pub(crate) failures: u64,
    /// Times it went down or was counted out.
    pub(crate) downs: u64,
    /// Bytes from clients.
    pub(crate) to_server: u64,
    /// Bytes to clients.
    pub(crate) to_client: u64,
}

impl ServerCounts {
    pub(crate) fn connected(&self, made: bool) {
        let count = if made { &self.sessions } else { &self.failures };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn went_down(&self) {
        self.downs.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn moved(&self, to_server: u64, to_client: u64) {
        self.to_server.fetch_add(to_server, Ordering::Relaxed);
        self.to_client.fetch_add(to_client, Ordering::Relaxed);
    }

    pub(crate) fn totals(&self) -> ServerTotals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ServerTotals {
            sessions: read(&self.sessions),
            failures: read(&self.failures),
            downs: read(&self.downs),
            to_server: read(&self.to_server),
            to_client: read(&self.to_client),
        }
    }
}

/// Counts of one listener.
#[derive(Debug, Default)]
pub(crate) struct ListenerCounts {
    accepted: AtomicU64,
    refused: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
    /// How they ended, in the order of [`Termination::ALL`].
    ended: [AtomicU64; Termination::ALL.len()],
}

/// The same, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListenerTotals {
    /// Connections let in.
    pub(crate) accepted: u64,
    /// Connections closed at once: by a rule or a limit.
    pub(crate) refused: u64,
    /// Bytes from clients.
    pub(crate) to_server: u64,
    /// Bytes to clients.
    pub(crate) to_client: u64,
}

impl ListenerCounts {
    pub(crate) fn arrived(&self, let_in: bool) {
        if let_in {
            self.accepted.fetch_add(1, Ordering::Relaxed);
        } else {
            self.refused();
            self.ended(Termination::Refused);
        }
    }

    /// Takes in how a connection from a client ended.
    pub(crate) fn ended(&self, termination: Termination) {
        self.ended[termination as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many ended in each way.
    pub(crate) fn terminations(&self) -> impl Iterator<Item = (Termination, u64)> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Termination::ALL
            .into_iter()
            .zip(self.ended.iter().map(read))
    }

    /// One that was let in turned out to be from somebody who may not come.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn moved(&self, to_server: u64, to_client: u64) {
        self.to_server.fetch_add(to_server, Ordering::Relaxed);
        self.to_client.fetch_add(to_client, Ordering::Relaxed);
    }

    pub(crate) fn totals(&self) -> ListenerTotals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ListenerTotals {
            accepted: read(&self.accepted),
            refused: read(&self.refused),
            to_server: read(&self.to_server),
            to_client: read(&self.to_client),
        }
    }
}
