//! What a run cost: each figure with the method by which it was found, or the reason why it could
//! not be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zhaul::{RouteChange, Summary};

use super::memory::InMemory;
use crate::bench::results::Cost;
use crate::figure::Method;
use crate::meter::Copied;

/// What a run cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Analysis {
    /// It went to its end.
    pub finished: bool,
    /// What ended it.
    pub ending: String,
    /// Bytes that the sink took.
    pub bytes: u64,
    /// Bytes taken from a stream that reached nobody.
    pub stranded_bytes: u64,
    /// The source grew meanwhile; the length that was planned was moved.
    pub grew: bool,
    /// From the first call to the last.
    pub wall_s: f64,
    /// What was attached meanwhile, and slowed it down.
    pub instruments: Vec<String>,
    /// The route it ended on.
    pub route: String,
    /// Every change of route.
    pub changes: Vec<Change>,
    /// System calls.
    pub calls: Calls,
    /// Calls that move bytes or check the source, for a chunk.
    pub calls_per_chunk: Figure,
    /// Changes between user and kernel mode by those calls, for a chunk.
    pub mode_switches_per_chunk: Figure,
    /// Times the CPU touched each byte.
    pub cpu_copies_per_byte: Figure,
    /// Which way they were copied, where that was seen.
    pub copied: Option<CopiedBytes>,
    /// Part of the CPU time spent in the kernel's copy routines.
    pub copying_time: Figure,
    /// What the kernel accounted to the thread.
    pub cost: Cost,
    /// CPU time for 10^9 bytes; `None` if nothing was moved.
    pub cpu_s_per_gb: Option<f64>,
    /// Bytes that the thread had read from a disk.
    pub disk_read_bytes: Figure,
    /// Bytes that the thread left for the kernel to write to a disk.
    pub disk_write_bytes: Figure,
    /// How much of the source was in memory when it began.
    pub in_memory_before: Option<InMemory>,
    /// Where it differs from the plan, and why.
    pub deviations: Vec<String>,
}

/// A figure, or why there is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The figure.
    pub value: Option<f64>,
    /// Two standard errors, for an estimate.
    pub plus_minus: Option<f64>,
    /// How it was found.
    pub method: Option<Method>,
    /// The same in words.
    pub how: Option<String>,
    /// Why there is none.
    pub missing: Option<String>,
}

impl Figure {
    /// A figure that was found.
    pub fn found(value: f64, method: Method, how: impl Into<String>) -> Self {
        Self {
            value: Some(value),
            method: Some(method),
            how: Some(how.into()),
            ..Self::default()
        }
    }

    /// An estimate from samples.
    pub fn estimated(value: f64, plus_minus: f64, how: impl Into<String>) -> Self {
        Self {
            plus_minus: Some(plus_minus),
            ..Self::found(value, Method::Sampled, how)
        }
    }

    /// A figure that could not be had.
    pub fn missing(why: impl Into<String>) -> Self {
        Self {
            missing: Some(why.into()),
            ..Self::default()
        }
    }
}

/// System calls of the transferring thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Operations that the library submitted.
    pub operations: u64,
    /// By name, as the kernel counted them, without those that set the transfer up. `None` if it
    /// does not tell.
    pub by_name: Option<BTreeMap<String, u64>>,
    /// Calls that found out what the ends are, counted in a rehearsal just before.
    pub set_up: Option<u64>,
    /// Calls that waited for an end.
    pub waiting: Option<u64>,
    /// All of them, as the kernel counted them.
    pub total: Option<u64>,
}

/// Bytes copied, by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedBytes {
    /// From the kernel to user memory.
    pub to_user: u64,
    /// From user memory to the kernel.
    pub from_user: u64,
    /// From kernel memory to kernel memory.
    pub within: u64,
    /// Buffers copied within the kernel whose size is not known; they are in none of the others.
    pub unsized_buffers: u64,
    /// Events that were lost: if not 0, the others are too low.
    pub lost: u64,
}

impl CopiedBytes {
    pub(crate) fn of(copied: &Copied) -> Self {
        Self {
            to_user: copied.to_user,
            from_user: copied.from_user,
            within: copied.within,
            unsized_buffers: copied.unsized_buffers,
            lost: copied.lost,
        }
    }
}

/// A change of route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The route left.
    pub from: String,
    /// The route taken instead.
    pub to: String,
    /// Bytes moved until then.
    pub at_bytes: u64,
    /// Why.
    pub why: String,
}

impl Change {
    pub(crate) fn all_of(summary: &Summary) -> Vec<Self> {
        let plain = |change: &RouteChange| Self {
            from: change.from.name().to_owned(),
            to: change.to.name().to_owned(),
            at_bytes: change.moved,
            why: change.why.to_string(),
        };
        summary.changes.iter().map(plain).collect()
    }
}
