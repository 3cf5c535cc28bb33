//! How a figure was found: no figure is printed without it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a figure was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Method {
    /// Every event was counted.
    Exact,
    /// Added up from the results of system calls, each of which copies what it says it moved by
    /// its contract (a `read(2)` of 100 bytes of a file copied 100 bytes). What the kernel did
    /// inside was not seen.
    ByCall,
    /// Estimated from samples.
    Sampled,
    /// What the plan expects. Not a measurement, and never in the place of one.
    Plan,
}

impl Method {
    /// The word printed beside a figure.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::ByCall => "by call",
            Self::Sampled => "sampled",
            Self::Plan => "from the plan",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
