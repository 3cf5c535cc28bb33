//! How far stopping has come.

/// What all threads of a server watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    No,
    /// No new connections; answers in progress may finish.
    Drain,
    /// At once.
    Now,
}
