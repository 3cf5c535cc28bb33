//! `struct perf_event_attr`, as far as it is used.

use rustix::time::ClockId;

/// What to count or record. Everything not named here is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Where events come from.
    pub source: Source,
    /// Events from one record to the next; 0 counts only. For [`software::CPU_CLOCK`] in
    /// nanoseconds.
    pub sample_period: u64,
    /// What a record holds.
    pub sample_type: SampleType,
    /// Registers in [`SampleType::REGS_INTR`], by the bits of the architecture's `perf_regs.h`.
    pub regs_intr: u64,
    /// Registers of user mode in [`SampleType::REGS_USER`], by the same bits.
    pub regs_user: u64,
    /// Bytes of the user stack in [`SampleType::STACK_USER`], a multiple of 8.
    pub stack_user_bytes: u32,
    /// Frames of a call chain at most; 0 is the kernel's limit.
    pub max_stack: u16,
    /// What [`PerfEvent::read`](super::PerfEvent::read) gives.
    pub read_format: ReadFormat,
    /// When a poll of the descriptor returns.
    pub wakeup: Wakeup,
    /// The clock of [`SampleType::TIME`]; the CPU's own by default.
    pub clock: Option<ClockId>,
    /// Opened without counting.
    pub disabled: bool,
    /// Children and threads that the task makes from now on are counted with it.
    pub inherit: bool,
    /// Enabled when the task calls exec.
    pub enable_on_exec: bool,
    /// Not what happens in user mode.
    pub exclude_user: bool,
    /// Not what happens in the kernel. Without privilege only such events may be opened.
    pub exclude_kernel: bool,
    /// Call chains stop at the border of user mode.
    pub exclude_callchain_user: bool,
    /// Records of fork and exit.
    pub task: bool,
    /// Records of new names (exec, `prctl`).
    pub comm: bool,
    /// Records other than samples end with the same time, task and CPU.
    pub sample_id_all: bool,
}

impl Attributes {
    /// Counts events of `source` once enabled, and nothing else.
    pub fn counting(source: Source) -> Self {
        Self {
            source,
            sample_period: 0,
            sample_type: SampleType::empty(),
            regs_intr: 0,
            regs_user: 0,
            stack_user_bytes: 0,
            max_stack: 0,
            read_format: ReadFormat::default(),
            wakeup: Wakeup::default(),
            clock: None,
            disabled: true,
            inherit: false,
            enable_on_exec: false,
            exclude_user: false,
            exclude_kernel: false,
            exclude_callchain_user: false,
            task: false,
            comm: false,
            sample_id_all: false,
        }
    }
}

/// Where events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// One of [`software`].
    Software(u64),
    /// A tracepoint, by the number in `events/*/*/id` of tracefs.
    Tracepoint(u64),
    /// The instruction at this address is about to be executed.
    Execution(u64),
}

/// Numbers of [`Source::Software`].
pub mod software {
    /// CPU time passes, measured by a timer on the CPU.
    pub const CPU_CLOCK: u64 = 0;
    /// CPU time of the task passes.
    pub const TASK_CLOCK: u64 = 1;
    /// Page faults.
    pub const PAGE_FAULTS: u64 = 2;
    /// Context switches.
    pub const CONTEXT_SWITCHES: u64 = 3;
    /// Moves to another CPU.
    pub const CPU_MIGRATIONS: u64 = 4;
    /// Page faults served without input.
    pub const PAGE_FAULTS_MIN: u64 = 5;
    /// Page faults that waited for input.
    pub const PAGE_FAULTS_MAJ: u64 = 6;
    /// Nothing at all: carries records of fork, exit and names (Linux 3.12).
    pub const DUMMY: u64 = 9;
}

/// What a record of an event holds: `PERF_SAMPLE_*`. The order of the fields in a record is that
/// of `perf_event_open(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleType(u64);

impl SampleType {
    /// Where the CPU was.
    pub const IP: Self = Self(1);
    /// Process and thread.
    pub const TID: Self = Self(1 << 1);
    /// When.
    pub const TIME: Self = Self(1 << 2);
    /// The frames above.
    pub const CALLCHAIN: Self = Self(1 << 5);
    /// Which CPU.
    pub const CPU: Self = Self(1 << 7);
    /// The tracepoint's own fields.
    pub const RAW: Self = Self(1 << 10);
    /// Registers of user mode, as they were on entry to the kernel.
    pub const REGS_USER: Self = Self(1 << 12);
    /// The top of the user stack.
    pub const STACK_USER: Self = Self(1 << 13);
    /// The event's number, at the same place in every record.
    pub const IDENTIFIER: Self = Self(1 << 16);
    /// Registers of the CPU.
    pub const REGS_INTR: Self = Self(1 << 18);

    /// Nothing.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// All of `other` is in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The number the kernel knows.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// What a counter shows beside its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadFormat {
    /// The times enabled and running.
    pub times: bool,
    /// Records lost (Linux 6.0; EINVAL before).
    pub lost: bool,
}

/// When a poll of the descriptor returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakeup {
    /// When this many records were stored; 0 is never, until the ring is half full.
    Records(u32),
    /// When this many bytes wait in the ring.
    Bytes(u32),
}

impl Default for Wakeup {
    fn default() -> Self {
        Self::Records(0)
    }
}

/// `struct perf_event_attr` of Linux 5.8 and before (`PERF_ATTR_SIZE_VER6`); later kernels take the
/// rest as zeros.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Raw {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    bp_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clockid: i32,
    sample_regs_intr: u64,
    aux_watermark: u32,
    sample_max_stack: u16,
    reserved_2: u16,
    aux_sample_size: u32,
    reserved_3: u32,
}

const _: () = assert!(size_of::<Raw>() == 120, "PERF_ATTR_SIZE_VER6");

impl Attributes {
    pub(super) fn to_raw(&self) -> Raw {
        let (kind, config, bp_type, bp_addr, bp_len) = match self.source {
            Source::Software(number) => (PERF_TYPE_SOFTWARE, number, 0, 0, 0),
            Source::Tracepoint(id) => (PERF_TYPE_TRACEPOINT, id, 0, 0, 0),
            Source::Execution(address) => (
                PERF_TYPE_BREAKPOINT,
                0,
                HW_BREAKPOINT_X,
                address,
                size_of::<libc::c_long>() as u64,
            ),
        };
        let (wakeup, by_bytes) = match self.wakeup {
            Wakeup::Records(records) => (records, false),
            Wakeup::Bytes(bytes) => (bytes, true),
        };
        let bits = [
            (self.disabled, 0),
            (self.inherit, 1),
            (self.exclude_user, 4),
            (self.exclude_kernel, 5),
            (self.comm, 9),
            (self.enable_on_exec, 12),
            (self.task, 13),
            (by_bytes, 14),
            (self.sample_id_all, 18),
            (self.exclude_callchain_user, 22),
            (self.comm, 24),
            (self.clock.is_some(), 25),
        ];
        let flags = bits
            .into_iter()
            .fold(0, |flags, (on, bit)| flags | (u64::from(on) << bit));
        let read_format = u64::from(self.read_format.times) * 3
            + u64::from(self.read_format.lost) * PERF_FORMAT_LOST;
        Raw {
            kind,
            size: size_of::<Raw>() as u32,
            config,
            sample_period: self.sample_period,
            sample_type: self.sample_type.bits(),
            read_format,
            flags,
            wakeup,
            bp_type,
            config1: bp_addr,
            config2: bp_len,
            clockid: self.clock.map_or(0, |clock| clock as i32),
            sample_regs_intr: self.regs_intr,
            sample_regs_user: self.regs_user,
            sample_stack_user: self.stack_user_bytes,
            sample_max_stack: self.max_stack,
            ..Raw::default()
        }
    }
}

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_TYPE_BREAKPOINT: u32 = 5;
const HW_BREAKPOINT_X: u32 = 4;
const PERF_FORMAT_LOST: u64 = 1 << 4;
