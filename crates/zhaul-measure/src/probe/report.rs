//! What a survey found, as plain data; serialised, it is the format of `zhaul doctor --json`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// What one survey found.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Version of this format. It grows when a field changes its meaning or goes away.
    pub schema: u32,
    /// The kernel, and as whom it was asked.
    pub kernel: Kernel,
    /// What it comes down to, in a few sentences.
    pub verdict: Vec<String>,
    /// What the kernel can do, whatever the file system.
    pub mechanisms: Vec<Finding>,
    /// What the file systems can do, one for each path.
    pub file_systems: Vec<FileSystem>,
    /// The network devices of this network namespace.
    pub devices: Vec<Device>,
    /// Limits that decide how far the mechanisms carry.
    pub limits: Vec<Limit>,
}

impl Report {
    /// The version of the format described here.
    pub const SCHEMA: u32 = 1;

    /// The mechanism with this id.
    pub fn mechanism(&self, id: &str) -> Option<&Finding> {
        self.mechanisms.iter().find(|finding| finding.id == id)
    }

    /// All findings: the mechanisms, then those of each file system.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        let of_file_systems = self.file_systems.iter().flat_map(|fs| &fs.findings);
        self.mechanisms.iter().chain(of_file_systems)
    }
}

/// The kernel, and as whom it was asked.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// `uname -m`.
    pub machine: String,
    /// Major and minor number; 0.0 if the release does not begin with them.
    pub version: (u32, u32),
    /// Cores this process may use.
    pub cores: usize,
    /// Effective user id.
    pub uid: u32,
    /// The effective capabilities that matter here, by name; `None` if they could not be read.
    pub capabilities: Option<Vec<&'static str>>,
    /// A seccomp filter decides about each system call; `None` if that could not be read.
    pub seccomp_filter: Option<bool>,
    /// Mode of the lockdown module: `none`, `integrity`, `confidentiality`; `None` if the kernel
    /// has none or does not let us look.
    pub lockdown: Option<String>,
    /// What was out of sight, and why.
    pub unseen: Vec<String>,
}

/// What a mechanism is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Group {
    /// Files and memory to sockets.
    ToSocket,
    /// Sockets to sockets, pipes and memory.
    FromSocket,
    /// Files on one file system.
    Files,
    /// Memory, and operations that complete later.
    Memory,
    /// Seeing what the kernel does.
    Proof,
}

/// Whether a mechanism can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It was tried and did what it is for.
    Available,
    /// It was tried and did part of what it is for.
    Limited,
    /// It was tried and refused, or did not do what it is for.
    Missing,
    /// It could not be tried.
    Unknown,
}

impl Status {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Limited => "limited",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a mechanism is not simply available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// The kernel is older, or was built without it, or has not loaded the module.
    KernelLacks,
    /// The file system does not have it.
    FileSystemLacks,
    /// There is no device for it, or the one that was tried does without it.
    DeviceLacks,
    /// A privilege is missing, or a filter or security module forbids it.
    NotPermitted,
    /// A setting switches it off, or a limit is used up.
    Configured,
    /// Something that the try needs was not to be had.
    NotTried,
    /// It was accepted and did something else than it should.
    Misbehaves,
}

/// What was found out about one mechanism.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// A name for programs.
    pub id: &'static str,
    /// A name for people.
    pub name: &'static str,
    /// The system call and its flag or option.
    pub call: &'static str,
    /// What it is for.
    pub group: Group,
    /// The verdict.
    pub status: Status,
    /// Why it is not [`Status::Available`].
    pub cause: Option<Cause>,
    /// The first kernel version that has it.
    pub since: &'static str,
    /// What was tried, and what was seen.
    pub evidence: String,
    /// Why it is not available, in a few words.
    pub reason: Option<String>,
    /// What would make it available.
    pub remedy: Option<String>,
    /// What else was measured, by name.
    pub facts: BTreeMap<&'static str, Value>,
}

/// A file system, and what it can do.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct FileSystem {
    /// The path that was asked about.
    pub path: String,
    /// The directory in which it was tried.
    pub directory: String,
    /// Type of the file system, such as `ext4`.
    pub kind: String,
    /// Where it is mounted, if that could be found out.
    pub mount_point: Option<String>,
    /// Why nothing could be written there.
    pub not_writable: Option<String>,
    /// Name of the file that was there and was read instead.
    pub read_from: Option<String>,
    /// What was found out.
    pub findings: Vec<Finding>,
}

/// A network device.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Device {
    /// Name of the interface.
    pub name: String,
    /// Its driver.
    pub driver: Option<String>,
    /// There is a device behind it that takes bytes out of memory; loopback, bridges and tunnels
    /// have none.
    pub physical: bool,
    /// It is up.
    pub up: bool,
    /// Megabits a second, if it says so.
    pub speed_mbit: Option<u64>,
    /// It gathers a packet from several pages.
    pub scatter_gather: Option<bool>,
    /// It computes checksums of what it sends.
    pub tx_checksum: Option<bool>,
    /// It cuts large TCP segments into packets.
    pub tso: Option<bool>,
    /// The kernel cuts large segments just before the device.
    pub gso: Option<bool>,
    /// It puts TCP payload that it receives into buffers apart from headers; none: it does not tell,
    /// or cannot.
    pub header_split: Option<bool>,
    /// It steers flows to receive queues by rules.
    pub flow_steering: Option<bool>,
    /// What that means for the pages that sendfile sends.
    pub sendfile: Gathering,
    /// Why, in a few words.
    pub reason: String,
}

/// What becomes of pages that are sent through a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Gathering {
    /// It takes them from where they lie.
    Gathers,
    /// They are copied once, just before the device.
    CopiesOnce,
    /// They are handed to the receiver on this machine as they are.
    PassesOn,
    /// It could not be found out.
    Unknown,
}

/// A limit of this process or of the kernel.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Limit {
    /// Its name.
    pub name: &'static str,
    /// Where it is set.
    pub set_in: &'static str,
    /// Its value in `unit`; `None` for no limit, or if it could not be read (see `text`).
    pub value: Option<u64>,
    /// What it counts.
    pub unit: &'static str,
    /// The value for people.
    pub text: String,
    /// The capability that lifts it for this process.
    pub lifted_by: Option<&'static str>,
    /// Whether it is in the way.
    pub judgement: Judgement,
    /// What a low value costs.
    pub cost: Option<String>,
    /// How to raise it.
    pub remedy: Option<String>,
}

/// Whether a limit is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// It is not.
    Fine,
    /// It is, or will be under load.
    Low,
    /// It could not be read.
    Unknown,
}
