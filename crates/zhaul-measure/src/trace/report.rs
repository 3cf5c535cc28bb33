//! What a trace found, whole: the form of `zhaul trace --json`.

use serde::{Deserialize, Serialize};

use super::ledger::Ledger;
use super::object::Kind;
use super::summary::{FlowLine, Summary};
use super::world::World;
use crate::figure::Method;

/// What the kernel accounted to the traced processes, exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Costs {
    /// Changes between user and kernel mode by system calls: two for each.
    pub mode_switches: u64,
    /// Times a thread left its CPU.
    pub context_switches: u64,
    /// Page faults that waited for a disk.
    pub major_faults: u64,
    /// CPU time, user and kernel, the instruments' own included.
    pub cpu_ns: u64,
}

/// Samples of where the CPU time of the traced processes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuParts {
    /// [`Method::Sampled`].
    pub method: Method,
    /// Samples in all.
    pub samples: u64,
    /// In the kernel's copy routines.
    pub copying: u64,
    /// In TCP, IP and sockets.
    pub network: u64,
    /// In files, page cache, pipes.
    pub files: u64,
    /// Elsewhere in the kernel.
    pub kernel: u64,
    /// In user mode.
    pub user: u64,
}

/// What a trace found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// How long it was watched.
    pub seconds: f64,
    /// Processes seen.
    pub processes: usize,
    /// Threads seen.
    pub threads: usize,
    /// What moved.
    #[serde(flatten)]
    pub summary: Summary,
    /// What it cost.
    pub costs: Costs,
    /// Where the CPU time went: sampled, and only where copies are added up by call.
    pub cpu: Option<CpuParts>,
    /// What the reader of the figures has to know about them.
    pub notes: Vec<String>,
}

impl Report {
    pub(super) fn new<W: World>(
        ledger: &mut Ledger<W>,
        seconds: f64,
        costs: Costs,
        (processes, threads): (usize, usize),
        mut notes: Vec<String>,
    ) -> Self {
        let summary = ledger.summary();
        if summary.unknown_bytes > 0 {
            notes.push(
                "\"unknown\" is what went out of a buffer that had gone out before (the same bytes or \
                 new ones: nobody can tell), and what could not be looked at in time."
                    .into(),
            );
        }
        let guessed = |flow: &FlowLine| {
            let opened = flow.source == Kind::Opened || flow.sink == Kind::Opened;
            opened || flow.guessed_bytes > 0
        };
        if summary.flows.iter().any(guessed) {
            notes.push(
                "Some paths were closed before they could be looked at: \"file?\", or taken for \
                 files where others that went the same way are."
                    .into(),
            );
        }
        Self {
            format: FORMAT,
            seconds,
            processes,
            threads,
            summary,
            costs,
            cpu: None,
            notes,
        }
    }
}

/// The number that goes up when a reader of older reports would misunderstand a newer one.
pub const FORMAT: u32 = 2;
