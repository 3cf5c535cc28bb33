//! A trace of real processes: the kernel's records in, the [`Ledger`] kept, a [`Report`] out.
//!
//! Nothing is stopped: the processes run on while the kernel records. Dropping a [`Tracer`] closes
//! all its events and leaves nothing behind.

use std::collections::HashSet;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::blind::{Blind, Sight};
use super::collector::{Collector, Round, Sources};
use super::event::Event;
use super::instruments::{Copies, DeviceInstruments, Instruments, copy_routines};
use super::ledger::{Ledger, Sums};
use super::object::Seen;
use super::procfs::{Procfs, descriptors, threads};
use super::report::{Costs, CpuParts, Report};
use super::world::World;
use crate::bench::results::Part;
use crate::figure::Method;
use crate::perf::{
    Builder, CopyRoutines, Error, Profiler, Samples, Session, Symbols, Target, Tracefs,
};

/// Processes being traced.
#[derive(Debug)]
pub struct Tracer {
    collector: Collector,
    ledger: Ledger<Procfs>,
    began: Instant,
    /// All that were traced at some time.
    pids: HashSet<u32>,
    threads: HashSet<u32>,
    /// Why copies are not exact.
    inexact: Option<String>,
    without_devices: bool,
    costs: Costs,
    misread: u64,
    foreign_calls: u64,
    sight: Sight,
    samples: Option<Samples>,
    ended: bool,
    over: bool,
}

/// What can be said while a trace goes on.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Progress {
    /// Seconds since the beginning.
    pub seconds: f64,
    /// What moved.
    #[serde(flatten)]
    pub sums: Sums,
    /// What it cost.
    #[serde(flatten)]
    pub costs: Costs,
}

impl Tracer {
    /// Attaches to processes that are there: all their threads, and what they start from now on. The
    /// trace ends with the first of them.
    ///
    /// # Errors
    /// As [`Builder::attach`](crate::perf::Builder::attach); with [`Copies::Exact`] also what
    /// stands against exact copies.
    pub fn attach(pids: &[u32], copies: Copies) -> Result<Self, Error> {
        let prepared = Prepared::new(copies)?;
        let inexact = prepared.inexact();
        let traced = pids.to_vec();
        let (collector, (opened, known)) = Collector::start(move || {
            let (mut builder, instruments, profile) = prepared.build()?;
            builder.inherit(true);
            let session = builder.attach_to_all(&traced)?;
            let devices = open_devices(&prepared.tracefs)?;
            session.enable()?;
            // What was open before is looked at after recording began, so that its end is seen.
            let known = traced.iter().flat_map(|&pid| {
                let found = descriptors(pid).into_iter();
                found.map(move |(fd, seen)| (pid, fd, seen))
            });
            let known: Vec<(u32, i32, Seen)> = known.collect();
            let pids: HashSet<u32> = traced.iter().copied().collect();
            let sources = Sources {
                session,
                instruments,
                devices,
                profile,
                pids,
            };
            let opened = Opened::of(&sources);
            Ok((sources, (opened, known)))
        })?;
        let mut this = Self::new(collector, opened, inexact);
        this.threads = pids.iter().flat_map(|&pid| threads(pid)).collect();
        this.pids.extend(pids);
        pids.iter().for_each(|&pid| this.sight.runs(pid));
        for (pid, fd, seen) in known {
            this.ledger.know(pid, fd, seen);
        }
        Ok(this)
    }

    /// Starts a program and traces it from its first instruction on, with all it starts.
    ///
    /// # Errors
    /// As [`attach`](Self::attach), and [`Error::Io`] if the program cannot be started.
    pub fn spawn(mut command: Command, copies: Copies) -> Result<(Self, Child), Error> {
        let prepared = Prepared::new(copies)?;
        let inexact = prepared.inexact();
        let (collector, (opened, child)) = Collector::start(move || {
            let (mut builder, instruments, profile) = prepared.build()?;
            builder.urgent(true);
            let devices = open_devices(&prepared.tracefs)?;
            let (session, child) = builder.spawn(&mut command)?;
            let sources = Sources {
                session,
                instruments,
                devices,
                profile,
                pids: HashSet::from([child.id()]),
            };
            let opened = Opened::of(&sources);
            Ok((sources, (opened, child)))
        })?;
        let mut this = Self::new(collector, opened, inexact);
        this.threads.insert(child.id());
        this.pids.insert(child.id());
        // It inherits ours, and may be gone before they can be looked up.
        for fd in 0..3 {
            if let Some(seen) = Procfs::default().object(std::process::id(), fd) {
                let looked_ns = 0;
                this.ledger.know(child.id(), fd, Seen { looked_ns, ..seen });
            }
        }
        Ok((this, child))
    }

    fn new(collector: Collector, opened: Opened, inexact: Option<String>) -> Self {
        Self {
            ledger: Ledger::new(Procfs::default(), opened.exact),
            began: Instant::now(),
            pids: HashSet::new(),
            threads: HashSet::new(),
            inexact,
            without_devices: !opened.devices,
            costs: Costs::default(),
            misread: 0,
            foreign_calls: 0,
            sight: Sight::default(),
            samples: None,
            ended: false,
            over: false,
            collector,
        }
    }

    /// Waits for records, and takes them in. Returns when some came, or when the time is up;
    /// `false` when the first process has ended.
    ///
    /// # Errors
    /// None that can be met.
    pub fn step(&mut self, timeout: Duration) -> Result<bool, Error> {
        if let Some(round) = self.collector.next(timeout)? {
            self.take(round);
        }
        Ok(!self.ended)
    }

    /// What moved so far, and what it cost.
    ///
    /// # Errors
    /// As `read(2)` on the kernel's counters.
    pub fn progress(&mut self) -> Result<Progress, Error> {
        self.collector.ask_for_costs();
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            let Some(round) = self.collector.next(PATIENCE)? else {
                break;
            };
            let answered = round.costs.is_some();
            self.take(round);
            if answered {
                break;
            }
        }
        Ok(Progress {
            seconds: self.began.elapsed().as_secs_f64(),
            sums: self.ledger.sums(),
            costs: self.costs,
        })
    }

    /// Stops recording, takes in what is left, and reports.
    ///
    /// # Errors
    /// As `read(2)` on the kernel's counters.
    pub fn finish(mut self) -> Result<Report, Error> {
        let seconds = self.began.elapsed().as_secs_f64();
        self.collector.stop();
        while !self.over {
            match self.collector.next(PATIENCE)? {
                Some(round) => self.take(round),
                None => break,
            }
        }
        let seen = (self.pids.len(), self.threads.len());
        let notes = self.notes();
        let mut report = Report::new(&mut self.ledger, seconds, self.costs, seen, notes);
        let mut blind = self.sight.blind(Vec::new());
        if self.foreign_calls > 0 {
            blind.push(Blind {
                what: "calls of 32-bit programs".to_owned(),
                times: Some(self.foreign_calls),
                hides_bytes: true,
            });
        }
        report.summary.blind.extend(blind);
        report.cpu = self.samples.as_ref().and_then(cpu_parts);
        Ok(report)
    }

    fn take(&mut self, round: Round) {
        for (_, event) in &round.events {
            match event {
                Event::Fork { child, .. } => {
                    self.pids.insert(child.pid);
                    self.threads.insert(child.tid);
                }
                Event::Exec { task, .. } => self.sight.runs(task.pid),
                _ => {}
            }
        }
        self.ledger.take(round.events);
        self.costs = round.costs.unwrap_or(self.costs);
        self.misread += round.misread;
        self.foreign_calls = round.foreign_calls;
        self.samples = round.samples.or(self.samples.take());
        self.ended |= round.ended;
        self.over |= round.last;
    }

    /// What the reader of the figures has to know about them.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(why) = &self.inexact {
            notes.push(format!(
                "Copies are added up by call and not counted one by one: {why}."
            ));
        }
        if self.ledger.headless_calls > 0 {
            let calls = self.ledger.headless_calls;
            notes.push(format!("{calls} calls had begun before and were left out."));
        }
        if self.without_devices {
            notes.push("Devices may not be watched: DMA and packets are missing.".to_owned());
        }
        if self.misread > 0 {
            notes.push(format!(
                "{} bytes of records were not understood.",
                self.misread
            ));
        }
        notes
    }
}

/// What could be opened.
#[derive(Clone, Copy, Debug)]
struct Opened {
    exact: bool,
    devices: bool,
}

impl Opened {
    fn of(sources: &Sources) -> Self {
        Self {
            exact: sources.instruments.are_exact(),
            devices: sources.devices.is_some(),
        }
    }
}

/// A session under construction, what its events mean, and who counts its samples.
type Built = (Builder, Instruments, Option<(Profiler, Symbols)>);

/// What has to be known before events can be opened.
struct Prepared {
    tracefs: Tracefs,
    routines: Result<CopyRoutines, Option<Error>>,
}

impl Prepared {
    fn new(copies: Copies) -> Result<Self, Error> {
        Ok(Self {
            tracefs: Tracefs::find()?,
            routines: copy_routines(copies)?,
        })
    }

    /// Why copies are not exact, if that was wanted.
    fn inexact(&self) -> Option<String> {
        self.routines.as_ref().err()?.as_ref().map(said)
    }

    fn build(&self) -> Result<Built, Error> {
        let mut builder = Session::builder();
        let routines = self.routines.as_ref().ok();
        let instruments = Instruments::add_to(&mut builder, &self.tracefs, routines)?;
        builder.tasks(true).ring_bytes(RING_BYTES);
        // Breakpoints would take most of the time that is sampled.
        let symbols = match routines {
            Some(_) => None,
            None => Symbols::load().ok(),
        };
        let profile = symbols.map(|symbols| (Profiler::new(&mut builder, PERIOD_NS), symbols));
        Ok((builder, instruments, profile))
    }
}

/// Where the CPU time went, if there are samples enough to say so.
fn cpu_parts(samples: &Samples) -> Option<CpuParts> {
    let part = |part| samples.parts.get(&part).copied().unwrap_or(0);
    (samples.total >= SAMPLES_AT_LEAST).then(|| CpuParts {
        method: Method::Sampled,
        samples: samples.total,
        copying: part(Part::Copy),
        network: part(Part::Tcp),
        files: part(Part::Vfs),
        kernel: part(Part::Kernel),
        user: part(Part::User),
    })
}

/// An error and its remedy, for the middle of a sentence.
fn said(error: &Error) -> String {
    match error.remedy() {
        Some(remedy) => format!("{error}; {remedy}"),
        None => error.to_string(),
    }
}

/// Already recording. `None` if whole CPUs may not be watched.
fn open_devices(tracefs: &Tracefs) -> Result<Option<(Session, DeviceInstruments)>, Error> {
    let mut builder = Session::builder();
    let instruments = DeviceInstruments::add_to(&mut builder, tracefs)?;
    builder.ring_bytes(DEVICE_RING_BYTES);
    match builder.attach(Target::System) {
        Ok(session) => {
            session.enable()?;
            Ok(Some((session, instruments)))
        }
        Err(Error::NotPermitted { .. } | Error::LockedMemory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// On each CPU; half of it holds some 20,000 calls.
const RING_BYTES: usize = 4 << 20;
const DEVICE_RING_BYTES: usize = 1 << 20;
/// The collector answers within a round, unless the machine is very busy.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of CPU time. No multiple of the kernel's own ticks.
const PERIOD_NS: u64 = 999_331;
const SAMPLES_AT_LEAST: u64 = 20;
