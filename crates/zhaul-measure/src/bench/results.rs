//! What a run of the bench found: raw samples, and what is needed to judge them.
//!
//! This is the format of `zhaul bench --json`. Tables, comparisons and the page are made from it,
//! so that a run can be looked at again later.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::figure::Method;
use crate::host::Host;
use crate::machine::Machine;

/// The number that goes up when a reader of older files would misunderstand a newer one.
pub const FORMAT: u32 = 1;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of zhaul.
    pub zhaul: String,
    /// When it began: RFC 3339, in UTC.
    pub began: String,
    /// How long it took.
    pub seconds: f64,
    /// It was stopped before its end; cells may lack rounds.
    pub interrupted: bool,
    /// Where it ran.
    pub host: Host,
    /// Bytes per system call at most.
    pub chunk_bytes: u64,
    /// Timed rounds planned for each cell.
    pub rounds: u32,
    /// The seed of the random order.
    pub seed: u64,
    /// How each figure was found, by its name in [`Cost`] or [`Counted`].
    pub methods: BTreeMap<String, Found>,
    /// Figures that could not be had here, by the same names, and why.
    #[serde(default)]
    pub missing: BTreeMap<String, String>,
    /// What else explains the figures: cores, load, stand-ins.
    #[serde(default)]
    pub notes: Vec<String>,
    /// One for each path, contender and size.
    pub cells: Vec<Cell>,
    /// Where the CPU time went, by path and contender, at one large size.
    pub profiles: Vec<Profile>,
    /// What could not run here, and why.
    pub skipped: Vec<Skipped>,
}

/// How a figure was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The kind of method.
    pub method: Method,
    /// In words: `counter on raw_syscalls:sys_enter`.
    pub how: String,
}

/// From what to what bytes are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// A cached file to a TCP connection.
    FileToTcp,
    /// A cached file to a file.
    FileToFile,
    /// A TCP connection to another: a relay.
    TcpToTcp,
    /// A TCP connection to a file.
    TcpToFile,
    /// A pipe to a TCP connection.
    PipeToTcp,
    /// Memory of the process to a TCP connection.
    MemoryToTcp,
    /// Memory of the process to a UDP socket, in datagrams.
    MemoryToUdp,
}

impl Path {
    /// All, in the order they are shown.
    pub const ALL: [Self; 7] = [
        Self::FileToTcp,
        Self::FileToFile,
        Self::TcpToTcp,
        Self::TcpToFile,
        Self::PipeToTcp,
        Self::MemoryToTcp,
        Self::MemoryToUdp,
    ];

    /// The words people see: `file → TCP`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::FileToTcp => "file → TCP",
            Self::FileToFile => "file → file",
            Self::TcpToTcp => "TCP → TCP",
            Self::TcpToFile => "TCP → file",
            Self::PipeToTcp => "pipe → TCP",
            Self::MemoryToTcp => "memory → TCP",
            Self::MemoryToUdp => "memory → UDP",
        }
    }
}

/// Who moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contender {
    /// The library, told to take this route.
    Zhaul,
    /// The same system calls in a bare loop.
    Floor,
}

/// One path, route, contender and size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// From what to what.
    pub path: Path,
    /// The name of the way ([`Way::name`](super::Way::name)).
    pub route: String,
    /// Who.
    pub contender: Contender,
    /// Bytes of one transfer.
    pub bytes: u64,
    /// The plan's claim.
    pub expected: Expected,
    /// The bytes received were compared, in a pass of its own, with those sent.
    pub verified: bool,
    /// Timed samples, without any instrument attached.
    pub samples: Vec<Sample>,
    /// Counted samples, made in passes of their own.
    pub counted: Vec<Counted>,
}

/// What the plan expects per chunk; see [`zhaul::Cost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Changes between user and kernel mode.
    pub mode_switches: u32,
    /// Times the CPU touches each byte at the mover's end.
    pub cpu_copies: u32,
    /// Times a device moves each byte.
    pub dma_copies: u32,
}

/// One timed sample: as many transfers as make it long enough to time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// The round it belongs to.
    pub round: u32,
    /// Bytes moved by all transfers of the sample.
    pub bytes: u64,
    /// Wall-clock time.
    pub wall_s: f64,
    /// What it cost the end that moves the bytes.
    pub mover: Cost,
    /// What it cost the end that receives them; for files, where nobody receives, nothing.
    pub receiver: Option<Cost>,
    /// What it cost whoever feeds a stream source; files need nobody.
    pub feeder: Option<Cost>,
    /// What the whole machine did from before it to after it.
    #[serde(default)]
    pub machine: Machine,
}

/// What the kernel accounts to a thread (`getrusage(2)`).
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    /// CPU time in user mode.
    pub user_s: f64,
    /// CPU time in the kernel.
    pub system_s: f64,
    /// Context switches because the thread waited.
    pub voluntary_switches: u64,
    /// Context switches because another thread was due.
    pub involuntary_switches: u64,
    /// Page faults served from memory.
    pub minor_faults: u64,
    /// Page faults that waited for a disk.
    pub major_faults: u64,
}

impl Cost {
    /// All CPU time.
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }
}

/// What was counted of the moving end in a pass with instruments.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Counted {
    /// Bytes moved.
    pub bytes: u64,
    /// System calls entered.
    pub calls: Option<u64>,
    /// Bytes the CPU copied, exactly (execution breakpoints) or by call; the methods say which.
    pub copied_bytes: Option<u64>,
    /// CPU copies per byte estimated from samples of the copy routines.
    pub sampled_copies_per_byte: Option<f64>,
    /// Two standard errors of it.
    #[serde(default)]
    pub sampled_plus_minus: Option<f64>,
    /// Bytes of MSG_ZEROCOPY sends of which the completions said that the kernel copied them after
    /// all. They are in `copied_bytes`, too.
    #[serde(default)]
    pub copied_after_all: Option<u64>,
}

/// Where the CPU time of the moving end went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// From what to what.
    pub path: Path,
    /// The name of the route.
    pub route: String,
    /// Who.
    pub contender: Contender,
    /// Bytes of one transfer.
    pub bytes: u64,
    /// Samples taken in all.
    pub samples: u64,
    /// Samples the kernel dropped.
    pub lost: u64,
    /// Samples by part.
    pub parts: BTreeMap<Part, u64>,
    /// The functions most often seen, with their samples.
    pub top: Vec<(String, u64)>,
}

/// A part of the kernel, or the program itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The copy routines.
    Copy,
    /// TCP, IP, sockets and buffers of the network.
    Tcp,
    /// Files, page cache, pipes, splice.
    Vfs,
    /// Entering and leaving the kernel, scheduling, memory, the rest of it.
    Kernel,
    /// User mode.
    User,
}

/// A combination that did not run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Skipped {
    /// From what to what.
    pub path: Path,
    /// The name of the route.
    pub route: String,
    /// Its size, or all.
    pub bytes: Option<u64>,
    /// Why.
    pub why: String,
}
