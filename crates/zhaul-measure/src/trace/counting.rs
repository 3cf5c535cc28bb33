//! A trace that only counts: no record of any call is made, so that the traced program is slowed
//! down as little as possible. How many bytes went where is then not known.
//!
//! Each kind of call has a counter on a tracepoint of its own, and all of them together have one on
//! the entry of calls. The kernel counts in the thread that makes the call, and threads and processes
//! that are made inherit the counters; so every figure is exact, at whatever rate.

use std::collections::HashSet;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use zhaul_sys::perf_event::software;

use super::blind::{Blind, Sight};
use super::calls::{self, Followed, Role};
use super::procfs::threads;
use crate::figure::Method;
use crate::perf::{Builder, Error, EventKey, Kind, Record, Session, Tracefs, Woken};

/// Processes whose calls are counted.
#[derive(Debug)]
pub struct Counting {
    session: Session,
    keys: Keys,
    began: Instant,
    pids: HashSet<u32>,
    threads: HashSet<u32>,
    sight: Sight,
}

/// Calls of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCount {
    /// Its name.
    pub name: String,
    /// How often it was entered.
    pub calls: u64,
}

/// What was counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// For how long.
    pub seconds: f64,
    /// How all of the following was found: [`Method::Exact`].
    pub method: Method,
    /// Calls that move data, the most frequent first; those that never were are left out.
    pub calls: Vec<CallCount>,
    /// Changes between user and kernel mode by system calls: two for each call of any kind.
    pub mode_switches: u64,
    /// Times a thread left its CPU.
    pub context_switches: u64,
    /// Page faults that waited for a disk.
    pub major_faults: u64,
    /// CPU time, user and kernel, the counters' own included.
    pub cpu_ns: u64,
    /// Additions to the page cache, of one page or several.
    pub page_cache_adds: Option<u64>,
    /// Requests to block devices, made while a traced thread ran, for whomever.
    pub block_requests: Option<u64>,
    /// Packets with payload in page fragments, sent while a traced thread ran, for whomever.
    pub packets_gathered: Option<u64>,
    /// Packets without.
    pub packets_linear: Option<u64>,
}

/// What a counting trace found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CountReport {
    /// [`FORMAT`](super::FORMAT).
    pub format: u32,
    /// Processes seen.
    pub processes: usize,
    /// Threads seen.
    pub threads: usize,
    /// The figures.
    #[serde(flatten)]
    pub counted: Counted,
    /// What happened where no counter sees it.
    pub blind: Vec<Blind>,
}

impl Counting {
    /// Attaches to processes that are there; see [`Tracer::attach`](super::Tracer::attach).
    ///
    /// # Errors
    /// As [`Builder::attach`](crate::perf::Builder::attach).
    pub fn attach(pids: &[u32]) -> Result<Self, Error> {
        let (mut builder, keys) = counters()?;
        builder.inherit(true);
        let session = builder.attach_to_all(pids)?;
        session.enable()?;
        let mut this = Self::new(session, keys);
        this.threads = pids.iter().flat_map(|&pid| threads(pid)).collect();
        for &pid in pids {
            this.pids.insert(pid);
            this.sight.runs(pid);
        }
        Ok(this)
    }

    /// Starts a program and counts from its first instruction on.
    ///
    /// # Errors
    /// As [`attach`](Self::attach), and [`Error::Io`] if the program cannot be started.
    pub fn spawn(mut command: Command) -> Result<(Self, Child), Error> {
        let (builder, keys) = counters()?;
        let (session, child) = builder.spawn(&mut command)?;
        let mut this = Self::new(session, keys);
        this.threads.insert(child.id());
        this.pids.insert(child.id());
        Ok((this, child))
    }

    fn new(session: Session, keys: Keys) -> Self {
        Self {
            session,
            keys,
            began: Instant::now(),
            pids: HashSet::new(),
            threads: HashSet::new(),
            sight: Sight::default(),
        }
    }

    /// Waits, at most so long; `false` when the first process has ended.
    ///
    /// # Errors
    /// As `ppoll(2)`.
    pub fn step(&mut self, timeout: Duration) -> Result<bool, Error> {
        let woken = self.session.wait(timeout.min(ROUND))?;
        self.note_tasks();
        Ok(woken != Woken::Ended)
    }

    fn note_tasks(&mut self) {
        let (pids, threads, sight) = (&mut self.pids, &mut self.threads, &mut self.sight);
        self.session.drain(|record: Record<'_>| match record.kind {
            Kind::Fork { .. } => {
                pids.insert(record.pid);
                threads.insert(record.tid);
            }
            Kind::Comm { exec: true, .. } => sight.runs(record.pid),
            _ => {}
        });
    }

    /// What was counted so far.
    ///
    /// # Errors
    /// As `read(2)` on the kernel's counters.
    pub fn counted(&self) -> Result<Counted, Error> {
        let total = |key: EventKey| self.session.total(key);
        let optional = |key: Option<EventKey>| key.map(total).transpose();
        let mut calls = Vec::new();
        for &(name, key) in &self.keys.calls {
            let name = name.to_owned();
            let calls_of_it = total(key)?;
            calls.push(CallCount {
                name,
                calls: calls_of_it,
            });
        }
        calls.retain(|line| line.calls > 0);
        calls.sort_by_key(|line| std::cmp::Reverse(line.calls));
        let keys = &self.keys;
        Ok(Counted {
            seconds: self.began.elapsed().as_secs_f64(),
            method: Method::Exact,
            calls,
            mode_switches: 2 * total(keys.entered)?,
            context_switches: total(keys.context_switches)?,
            major_faults: total(keys.major_faults)?,
            cpu_ns: total(keys.cpu_ns)?,
            page_cache_adds: optional(keys.page_cache_adds)?,
            block_requests: optional(keys.block_requests)?,
            packets_gathered: optional(keys.packets_gathered)?,
            packets_linear: optional(keys.packets_linear)?,
        })
    }

    /// Stops, and says what was counted.
    ///
    /// # Errors
    /// As `read(2)` on the kernel's counters.
    pub fn finish(mut self) -> Result<CountReport, Error> {
        self.session.disable()?;
        let counted = self.counted()?;
        // The second round is there for the records of the first.
        self.note_tasks();
        self.note_tasks();
        let of_role = |role: Role| {
            let names = calls::all().iter().filter(move |call| call.role == role);
            let counted = names.filter_map(|call| {
                let line = counted.calls.iter().find(|line| line.name == call.name);
                Some((call.name, line?.calls))
            });
            counted.collect::<Vec<_>>()
        };
        let elsewhere = of_role(Role::Elsewhere);
        let blind = self.sight.blind(elsewhere);
        // The kernel takes some 50 ms to be rid of each tracepoint: nobody waits for it with the
        // report. Without a thread it is done here.
        let session = self.session;
        let closing = std::thread::Builder::new().name("zhaul-closing".to_owned());
        drop(closing.spawn(move || drop(session)));
        Ok(CountReport {
            format: super::FORMAT,
            processes: self.pids.len(),
            threads: self.threads.len(),
            counted,
            blind,
        })
    }
}

/// The counters of a session.
#[derive(Debug)]
struct Keys {
    calls: Vec<(&'static str, EventKey)>,
    entered: EventKey,
    context_switches: EventKey,
    major_faults: EventKey,
    cpu_ns: EventKey,
    page_cache_adds: Option<EventKey>,
    block_requests: Option<EventKey>,
    packets_gathered: Option<EventKey>,
    packets_linear: Option<EventKey>,
}

/// Each kind of call has a tracepoint of its own: a call passes its own counter and that of all
/// calls, and no other. Filters on one tracepoint would cost each call a comparison for each kind.
fn counters() -> Result<(Builder, Keys), Error> {
    let tracefs = Tracefs::find()?;
    let mut builder = Session::builder();
    builder.tasks(true).ring_bytes(RING_BYTES);
    let enter = tracefs.tracepoint("raw_syscalls:sys_enter")?;
    let mut calls = Vec::new();
    for call in calls::all().iter().filter(|call| call.role.moves_data()) {
        let key = match tracefs.tracepoint(&tracepoint_of(call)) {
            Ok(tracepoint) => builder.count(&tracepoint, None),
            // Kernels without CONFIG_FTRACE_SYSCALLS.
            Err(Error::NoTracepoint(_)) => {
                builder.count(&enter, Some(&format!("id == {}", call.number)))
            }
            Err(error) => return Err(error),
        };
        calls.push((call.name, key));
    }
    let mut optional = |name: &str, filter: Option<&str>| match tracefs.tracepoint(name) {
        Ok(tracepoint) => Ok(Some(builder.count(&tracepoint, filter))),
        Err(Error::NoTracepoint(_)) => Ok(None),
        Err(error) => Err(error),
    };
    let transmit = "net:net_dev_start_xmit";
    let page_cache_adds = optional("filemap:mm_filemap_add_to_page_cache", None)?;
    let block_requests = optional("block:block_rq_issue", Some("bytes > 0"))?;
    let packets_gathered = optional(transmit, Some("data_len > 0"))?;
    let packets_linear = optional(transmit, Some("data_len == 0"))?;
    let keys = Keys {
        calls,
        entered: builder.count(&enter, None),
        context_switches: builder.count_software("context switches", software::CONTEXT_SWITCHES),
        major_faults: builder.count_software("major faults", software::PAGE_FAULTS_MAJ),
        cpu_ns: builder.count_software("CPU time", software::TASK_CLOCK),
        page_cache_adds,
        block_requests,
        packets_gathered,
        packets_linear,
    };
    Ok((builder, keys))
}

/// The kernel names them after its own functions.
fn tracepoint_of(call: &Followed) -> String {
    let name = match call.name {
        "sendfile" => "sendfile64",
        name => name,
    };
    format!("syscalls:sys_enter_{name}")
}

/// Forks and executions are looked at so often.
const ROUND: Duration = Duration::from_millis(25);
/// Only forks, executions and exits are recorded.
const RING_BYTES: usize = 64 << 10;
