//! The calls by which bytes went from a source to a sink.

use std::fmt;

use super::calls::{self, Role};

/// A short list of calls, in the order in which they moved the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Route {
    calls: [&'static str; CALLS_AT_MOST],
    length: usize,
}

impl Route {
    /// One call.
    pub(crate) fn of(call: &'static str) -> Self {
        Self::default().then(call)
    }

    /// And then this call. The same one twice in a row is named once.
    pub(crate) fn then(mut self, call: &'static str) -> Self {
        if self.calls().last() != Some(&call) && self.length < CALLS_AT_MOST {
            self.calls[self.length] = call;
            self.length += 1;
        }
        self
    }

    /// Whether a program had the bytes in memory of its own, where it may change them: they were
    /// read into it, and not only mapped.
    pub(crate) fn passes_through_memory(&self) -> bool {
        let reads = |name: &&str| {
            let call = calls::all().iter().find(|call| call.name == *name);
            call.is_some_and(|call| matches!(call.role, Role::Input(..)))
        };
        self.calls().iter().any(reads)
    }

    /// Their names.
    pub(crate) fn calls(&self) -> &[&'static str] {
        &self.calls[..self.length]
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.calls().join(", "))
    }
}

const CALLS_AT_MOST: usize = 4;
