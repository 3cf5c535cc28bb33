//! The kernel's counters of a counting trace.
//!
//! All calls are counted at one tracepoint, with a filter for each kind. A tracepoint for each kind
//! would cost a call less, but the kernel takes some 40 ms to be rid of each when it is closed.

use std::collections::BTreeSet;
use std::process::{Child, Command};
use std::sync::OnceLock;

use zhaul_sys::perf_event::software;

use super::super::calls;
use crate::perf::{Builder, Error, EventKey, Session, Tracefs};

/// Counters on processes, and where each one's count goes.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) session: Session,
    keys: Vec<Option<EventKey>>,
    /// Comparisons that each call of the traced threads goes through.
    comparisons: usize,
}

/// Where counts go, behind those of the calls that move data.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slots {
    /// Calls that move data and have no counter of their own.
    OtherCalls,
    /// All calls.
    Entered,
    ContextSwitches,
    MajorFaults,
    CpuNs,
    PageCacheAdds,
    BlockRequests,
    PacketsGathered,
    PacketsLinear,
}

impl Slots {
    pub(super) fn at(self) -> usize {
        names().len() + self as usize
    }
}

/// The calls that move data, by their slots.
pub(super) fn names() -> &'static [&'static str] {
    static NAMES: OnceLock<Vec<&'static str>> = OnceLock::new();
    NAMES.get_or_init(|| moving().map(|call| call.name).collect())
}

/// How many there are in all.
pub(super) fn slots() -> usize {
    names().len() + OTHERS
}

fn moving() -> impl Iterator<Item = &'static calls::Followed> {
    calls::all().iter().filter(|call| call.role.moves_data())
}

impl Counters {
    /// On processes that are there, and what they start. With `met`, only these calls have counters
    /// of their own.
    pub(super) fn attach(pids: &[u32], met: Option<&BTreeSet<usize>>) -> Result<Self, Error> {
        let mut building = Building::new(met)?;
        building.builder.inherit(true);
        let session = building.builder.attach_to_all(pids)?;
        session.enable()?;
        Ok(Self {
            session,
            keys: building.keys,
            comparisons: building.comparisons,
        })
    }

    /// On a program from its first instruction on.
    pub(super) fn spawn(command: &mut Command) -> Result<(Self, Child), Error> {
        let building = Building::new(None)?;
        let (session, child) = building.builder.spawn(command)?;
        let this = Self {
            session,
            keys: building.keys,
            comparisons: building.comparisons,
        };
        Ok((this, child))
    }

    /// What they show.
    pub(super) fn totals(&self) -> Result<Vec<u64>, Error> {
        let keys = self.keys.iter();
        keys.map(|key| key.map_or(Ok(0), |key| self.session.total(key)))
            .collect()
    }

    /// What counting costs in a second with these rates: measured on Linux 6.18 in a virtual
    /// machine, rounded up.
    pub(super) fn cost_ns(&self, rates: &[f64]) -> f64 {
        const ENTERED_NS: f64 = 150.0;
        const COMPARISON_NS: f64 = 32.0;
        const PACKET_NS: f64 = 300.0;
        const SWITCH_NS: f64 = 400.0;
        let of = |slot: Slots| rates[slot.at()];
        of(Slots::Entered) * (ENTERED_NS + COMPARISON_NS * self.comparisons as f64)
            + (of(Slots::PacketsGathered) + of(Slots::PacketsLinear)) * PACKET_NS
            + of(Slots::ContextSwitches) * SWITCH_NS
    }

    /// Stops counting at once; that the kernel is rid of the tracepoints takes longer, and nobody
    /// waits for it.
    pub(super) fn close(self) -> Result<(), Error> {
        self.session.disable()?;
        let closing = std::thread::Builder::new().name("zhaul-closing".to_owned());
        // Without a thread it is closed here.
        drop(closing.spawn(move || drop(self)));
        Ok(())
    }
}

/// Counters to be opened.
struct Building {
    tracefs: Tracefs,
    builder: Builder,
    keys: Vec<Option<EventKey>>,
    comparisons: usize,
}

impl Building {
    fn new(met: Option<&BTreeSet<usize>>) -> Result<Self, Error> {
        let mut builder = Session::builder();
        builder.tasks(true).ring_bytes(RING_BYTES);
        let mut this = Self {
            tracefs: Tracefs::find()?,
            builder,
            keys: Vec::with_capacity(slots()),
            comparisons: 0,
        };
        this.calls(met.filter(|met| !met.is_empty()))?;
        let switches = ("context switches", software::CONTEXT_SWITCHES);
        let faults = ("major faults", software::PAGE_FAULTS_MAJ);
        let cpu = ("CPU time", software::TASK_CLOCK);
        for (name, number) in [switches, faults, cpu] {
            let key = this.builder.count_software(name, number);
            this.keys.push(Some(key));
        }
        let transmit = "net:net_dev_start_xmit";
        this.optional("filemap:mm_filemap_add_to_page_cache", None)?;
        this.optional("block:block_rq_issue", Some("bytes > 0"))?;
        this.optional(transmit, Some("data_len > 0"))?;
        this.optional(transmit, Some("data_len == 0"))?;
        Ok(this)
    }

    fn calls(&mut self, met: Option<&BTreeSet<usize>>) -> Result<(), Error> {
        let enter = self.tracefs.tracepoint("raw_syscalls:sys_enter")?;
        let mut others = Vec::new();
        for (slot, call) in moving().enumerate() {
            let filter = format!("id == {}", call.number);
            if met.is_none_or(|met| met.contains(&slot)) {
                self.comparisons += 1;
                let key = self.builder.count(&enter, Some(&filter));
                self.keys.push(Some(key));
            } else {
                others.push(filter);
                self.keys.push(None);
            }
        }
        let other = (!others.is_empty()).then(|| {
            // One filter is quicker than as many counters.
            self.comparisons += others.len().div_ceil(LONG_FILTER);
            self.builder.count(&enter, Some(&others.join(" || ")))
        });
        self.keys.push(other);
        let entered = self.builder.count(&enter, None);
        self.keys.push(Some(entered));
        Ok(())
    }

    fn optional(&mut self, name: &str, filter: Option<&str>) -> Result<(), Error> {
        let key = match self.tracefs.tracepoint(name) {
            Ok(tracepoint) => Some(self.builder.count(&tracepoint, filter)),
            Err(Error::NoTracepoint(_)) => None,
            Err(error) => return Err(error),
        };
        self.keys.push(key);
        Ok(())
    }
}

/// Slots behind those of the calls.
const OTHERS: usize = Slots::PacketsLinear as usize + 1;
/// Comparisons of a filter that cost as much as a counter.
const LONG_FILTER: usize = 4;
/// Only forks and exits are recorded.
const RING_BYTES: usize = 64 << 10;
