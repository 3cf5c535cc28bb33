//! What a session records.

use zhaul_sys::perf_event::{Attributes, ReadFormat, SampleType, Source, Wakeup};

use super::super::Tracepoint;
use super::super::record::{COMMON, Class, EventKey, Layout};
use super::CLOCK;

/// Whom a session watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The calling thread.
    ThisThread,
    /// A thread.
    Thread(u32),
    /// All threads of a process.
    Process(u32),
    /// Every CPU, whatever runs there.
    System,
}

/// Says what a session records.
#[derive(Clone, Debug)]
pub struct Builder {
    pub(super) events: Vec<Wanted>,
    pub(super) inherit: bool,
    pub(super) tasks: bool,
    pub(super) ring_bytes: usize,
    pub(super) urgent: bool,
}

/// What a record tells of the user-mode side of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserSide {
    /// Registers, by the bits of the architecture's `perf_regs.h`.
    pub registers: u64,
    /// Bytes from the top of its stack, a multiple of 8.
    pub stack_bytes: u32,
}

/// One event of a session.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) source: Source,
    /// 0: counted, not recorded.
    pub(super) period: u64,
    pub(super) filter: Option<String>,
    pub(super) registers: u64,
    pub(super) user: UserSide,
    /// Records after which whoever waits is woken; 0 is when a ring is half full.
    pub(super) wakeup: u32,
    /// Of a call chain, at most; 0 is none.
    pub(super) frames: u16,
    pub(super) layout: Layout,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            events: Vec::new(),
            inherit: false,
            tasks: false,
            ring_bytes: 1 << 20,
            urgent: false,
        }
    }
}

impl Builder {
    /// Records each passing of a tracepoint, or of those that match the filter (in the words of
    /// the kernel's `events.rst`).
    pub fn tracepoint(&mut self, tracepoint: &Tracepoint, filter: Option<&str>) -> EventKey {
        self.tracepoint_with(tracepoint, filter, 1, false)
    }

    /// The same with call chains of the kernel.
    pub fn tracepoint_with_callchain(
        &mut self,
        tracepoint: &Tracepoint,
        filter: Option<&str>,
    ) -> EventKey {
        self.tracepoint_with(tracepoint, filter, 1, true)
    }

    /// Records each passing of a tracepoint that matches the filter, with a look at the user-mode
    /// side of the task. With `wakes`, each record ends a wait.
    pub fn tracepoint_with_user(
        &mut self,
        tracepoint: &Tracepoint,
        filter: Option<&str>,
        user: UserSide,
        wakes: bool,
    ) -> EventKey {
        let key = self.tracepoint_with(tracepoint, filter, 1, false);
        if let Some(wanted) = self.events.last_mut() {
            wanted.user = user;
            wanted.wakeup = u32::from(wakes);
            wanted.layout.user_registers = user.registers.count_ones();
            wanted.layout.user_stack = user.stack_bytes > 0;
        }
        key
    }

    /// Counts a tracepoint without a record of each ([`Session::total`](super::Session::total)).
    pub fn count(&mut self, tracepoint: &Tracepoint, filter: Option<&str>) -> EventKey {
        self.tracepoint_with(tracepoint, filter, 0, false)
    }

    /// Samples where the CPU is, each `period_ns` of CPU time, with at most `frames` of the
    /// kernel's call chain; the first of them is the sampled instruction itself.
    pub fn cpu_clock(&mut self, period_ns: u64, frames: u16) -> EventKey {
        let source = Source::Software(zhaul_sys::perf_event::software::CPU_CLOCK);
        self.add("cpu-clock", source, period_ns.max(1), Class::Clock, frames)
    }

    /// Counts a software event of `zhaul_sys::perf_event::software`, without a record of each.
    pub fn count_software(&mut self, name: &str, number: u64) -> EventKey {
        self.add(name, Source::Software(number), 0, Class::Clock, 0)
    }

    /// Records each execution of the instruction at `address`, with the registers of the mask (by
    /// the bits of the architecture's `perf_regs.h`).
    pub fn breakpoint(
        &mut self,
        name: &str,
        address: u64,
        registers: u64,
        callchain: bool,
    ) -> EventKey {
        let source = Source::Execution(address);
        let key = self.add(name, source, 1, Class::Breakpoint, frames(callchain));
        if let Some(wanted) = self.events.last_mut() {
            wanted.registers = registers;
            wanted.layout.registers = registers.count_ones();
        }
        key
    }

    /// Threads and processes made from now on are watched, too, and what they make.
    pub fn inherit(&mut self, inherit: bool) -> &mut Self {
        self.inherit = inherit;
        self
    }

    /// Records [`Kind::Fork`](super::super::Kind::Fork), `Exit` and `Comm` as well.
    pub fn tasks(&mut self, tasks: bool) -> &mut Self {
        self.tasks = tasks;
        self
    }

    /// The thread that starts a program ([`spawn`](Self::spawn)) comes before all ordinary ones, if
    /// that is permitted, so that it goes on at once and not when the program has had its turn.
    pub fn urgent(&mut self, urgent: bool) -> &mut Self {
        self.urgent = urgent;
        self
    }

    /// Room for records on each CPU, rounded up to a power of two of pages; 1 MiB by default.
    pub fn ring_bytes(&mut self, bytes: usize) -> &mut Self {
        self.ring_bytes = bytes;
        self
    }

    fn tracepoint_with(
        &mut self,
        tracepoint: &Tracepoint,
        filter: Option<&str>,
        period: u64,
        callchain: bool,
    ) -> EventKey {
        let source = Source::Tracepoint(tracepoint.id);
        let key = self.add(
            &tracepoint.name,
            source,
            period,
            Class::Tracepoint,
            frames(callchain),
        );
        if let Some(wanted) = self.events.last_mut() {
            wanted.filter = filter.map(Into::into);
        }
        key
    }

    fn add(
        &mut self,
        name: &str,
        source: Source,
        period: u64,
        class: Class,
        frames: u16,
    ) -> EventKey {
        let number = u16::try_from(self.events.len()).expect("fewer than 65,536 events");
        let event = EventKey(number);
        self.events.push(Wanted {
            name: name.into(),
            source,
            period,
            filter: None,
            registers: 0,
            user: UserSide::default(),
            wakeup: 0,
            frames,
            layout: Layout {
                event,
                class,
                callchain: frames > 0,
                registers: 0,
                user_registers: 0,
                user_stack: false,
            },
        });
        event
    }

    /// Pages of a ring.
    pub(super) fn ring_pages(&self) -> usize {
        let page = rustix::param::page_size();
        self.ring_bytes.div_ceil(page).max(1).next_power_of_two()
    }
}

impl Wanted {
    /// The carrier of fork, exit and names.
    pub(super) fn tasks(number: usize) -> Self {
        Self {
            name: "fork, exit and exec".into(),
            source: Source::Software(zhaul_sys::perf_event::software::DUMMY),
            period: 0,
            filter: None,
            registers: 0,
            user: UserSide::default(),
            wakeup: 0,
            frames: 0,
            layout: Layout {
                event: EventKey(u16::try_from(number).unwrap_or(u16::MAX)),
                class: Class::Task,
                callchain: false,
                registers: 0,
                user_registers: 0,
                user_stack: false,
            },
        }
    }

    pub(super) fn only_counts(&self) -> bool {
        self.period == 0 && !self.is_tasks()
    }

    pub(super) fn is_tasks(&self) -> bool {
        self.layout.class == Class::Task
    }

    pub(super) fn attributes(&self, read_format: ReadFormat) -> Attributes {
        let task = self.is_tasks();
        let records = self.period > 0 || task;
        Attributes {
            sample_period: self.period,
            sample_type: if records {
                self.layout.sample_type()
            } else {
                SampleType::empty()
            },
            regs_intr: self.registers,
            regs_user: self.user.registers,
            stack_user_bytes: self.user.stack_bytes,
            max_stack: self.frames,
            read_format,
            wakeup: Wakeup::Records(self.wakeup),
            clock: Some(CLOCK),
            exclude_callchain_user: self.layout.callchain,
            task,
            comm: task,
            sample_id_all: records,
            ..Attributes::counting(self.source)
        }
    }
}

/// The owner of a ring: an event that never happens.
pub(super) fn carrier() -> Attributes {
    Attributes {
        sample_type: COMMON,
        clock: Some(CLOCK),
        sample_id_all: true,
        exclude_kernel: true,
        ..Attributes::counting(Source::Software(zhaul_sys::perf_event::software::DUMMY))
    }
}

fn frames(callchain: bool) -> u16 {
    if callchain { MAX_STACK } else { 0 }
}

/// Frames from a copy routine up to the system call, with room to spare.
const MAX_STACK: u16 = 32;
