//! Opening the events of a session on threads that come and go.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags};
use zhaul_sys::perf_event::{self, Attributes, PerfEvent, ReadFormat, Ring, Source, software};
use zhaul_sys::sched_setscheduler::this_thread_first;

use super::super::Error;
use super::super::record::COMMON;
use super::builder::{Builder, Target, Wanted, carrier};
use super::merge::{Merge, Origin};
use super::{Begin, Gate, Lane, Opened, Session, Switch, now_ns};

impl Builder {
    /// Opens the events, all disabled.
    ///
    /// # Errors
    /// [`Error::NoProcess`] if there is none, or it ends meanwhile; [`Error::NotPermitted`];
    /// [`Error::TooManyFiles`]: each event takes a descriptor for each thread and CPU;
    /// [`Error::LockedMemory`]; [`Error::Filter`]; [`Error::NoKernelBreakpoints`];
    /// [`Error::NoBreakpointRegister`]; [`Error::Unsupported`].
    pub fn attach(self, target: Target) -> Result<Session, Error> {
        let mut opening = Opening::new(&self, target, false)?;
        match target {
            Target::ThisThread => {
                opening.open_all(Whom::ThisThread)?;
            }
            Target::System => {
                opening.open_all(Whom::Cpus)?;
            }
            Target::Thread(tid) => {
                if !opening.open_all(Whom::Thread(tid))? {
                    return Err(Error::NoProcess(tid));
                }
            }
            Target::Process(pid) => opening.open_process(pid)?,
        }
        Ok(opening.finish())
    }

    /// Opens the events, all disabled, on several processes. The session ends with the first.
    ///
    /// # Errors
    /// As [`attach`](Self::attach), [`Error::NoProcess`] only for the first: the others may end.
    pub fn attach_to_all(self, pids: &[u32]) -> Result<Session, Error> {
        let first = *pids.first().ok_or(Error::NoProcess(0))?;
        let mut opening = Opening::new(&self, Target::Process(first), false)?;
        opening.open_process(first)?;
        let process = opening.session.process.take();
        for &pid in &pids[1..] {
            match opening.open_process(pid) {
                Ok(()) | Err(Error::NoProcess(_)) => {}
                Err(error) => return Err(error),
            }
        }
        opening.session.process = process;
        Ok(opening.finish())
    }

    /// Starts a program and records from its exec on: it, and all it starts.
    ///
    /// # Errors
    /// As [`attach`](Self::attach), and [`Error::Io`] if the program cannot be started.
    pub fn spawn(mut self, command: &mut Command) -> Result<(Session, Child), Error> {
        self.inherit = true;
        let urgent = self.urgent;
        let mut opening = Opening::new(&self, Target::ThisThread, true)?;
        // The events are attached to a thread that ends at once, so that nothing else this process
        // starts inherits them.
        let child = thread::scope(|scope| {
            let started = scope.spawn(|| {
                if urgent {
                    // Not permitted: then it is as quick as others.
                    let _ = this_thread_first();
                }
                opening.open_all(Whom::ThisThread)?;
                command.spawn().map_err(|error| {
                    Error::io(format!("starting {:?}", command.get_program()), error)
                })
            });
            started
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        opening.session.process = pidfd(child.id());
        Ok((opening.finish(), child))
    }
}

/// A session under construction.
struct Opening {
    session: Session,
    wanted: Vec<Wanted>,
    inherit: bool,
    on_exec: bool,
    /// Without events until the end.
    events: Vec<Opened>,
}

#[derive(Clone, Copy)]
enum Whom {
    ThisThread,
    Thread(u32),
    Cpus,
}

impl Opening {
    fn new(builder: &Builder, target: Target, on_exec: bool) -> Result<Self, Error> {
        let mut wanted = builder.events.clone();
        if builder.tasks || builder.inherit {
            wanted.push(Wanted::tasks(wanted.len()));
        }
        // Inherited events need a CPU to have a ring, and a ring of a foreign thread would end with
        // it; one for this thread alone can do without.
        let cpus = if target == Target::ThisThread && !builder.inherit {
            vec![None]
        } else {
            online_cpus()?.into_iter().map(Some).collect()
        };
        let mut session = Session {
            lanes: Vec::with_capacity(cpus.len()),
            switch: Switch {
                events: Arc::default(),
                read_format: read_format(),
                begin: match (on_exec, builder.inherit) {
                    (true, _) => Begin::Exec,
                    (false, true) => Begin::Gate(Arc::new(Gate {
                        from_ns: AtomicU64::new(u64::MAX),
                        to_ns: AtomicU64::new(u64::MAX),
                    })),
                    (false, false) => Begin::Enable,
                },
            },
            merge: Merge::default(),
            process: None,
        };
        for cpu in cpus {
            session.open_lane(cpu, builder.ring_pages())?;
        }
        Ok(Self {
            session,
            wanted,
            inherit: builder.inherit,
            on_exec,
            events: Vec::new(),
        })
    }

    fn finish(mut self) -> Session {
        self.session.switch.events = Arc::new(self.events);
        self.session
    }

    /// Attaches to all threads of a process, and to those that appear meanwhile unless they
    /// inherited every event: then their fork was recorded, long enough after the thread that made
    /// them had all events. Who inherits an event and is given one of its own is counted once all
    /// the same, except in [`Session::total`].
    fn open_process(&mut self, pid: u32) -> Result<(), Error> {
        self.session.process = pidfd(pid);
        // By thread, since when it passes everything on.
        let mut whole: HashMap<u32, u64> = HashMap::new();
        let mut seen = HashSet::new();
        for scan in 0..SCANS {
            let mut fresh = threads(pid)?;
            fresh.retain(|&tid| seen.insert(tid));
            if scan > 0 && self.inherit && !fresh.is_empty() {
                // The record of a fork is stored a moment after the thread is visible.
                thread::sleep(Duration::from_millis(1));
                self.session.take();
                let forks = self.session.merge.forks();
                fresh.retain(|tid| {
                    let inherited = forks.get(tid).is_some_and(|fork| {
                        let since = whole.get(&fork.parent_tid);
                        since.is_some_and(|&since_ns| fork.time_ns > since_ns)
                    });
                    if inherited {
                        whole.insert(*tid, 0);
                    }
                    !inherited
                });
            }
            if fresh.is_empty() {
                break;
            }
            for tid in fresh {
                // What happens before the start is not to fill the rings.
                self.session.take();
                if self.open_all(Whom::Thread(tid))? {
                    whole.insert(tid, now_ns() + FORK_NS);
                }
            }
        }
        if whole.is_empty() {
            Err(Error::NoProcess(pid))
        } else {
            Ok(())
        }
    }

    /// Opens every event on every CPU. The carriers of fork records come last: who is seen to fork
    /// by one has all the others. `false` if the thread has ended.
    fn open_all(&mut self, whom: Whom) -> Result<bool, Error> {
        if let Whom::Thread(tid) = whom {
            self.session.merge.attached_to(tid, now_ns());
        }
        for number in 0..self.wanted.len() {
            // What has no records needs no ring, and so no event for each CPU.
            let counts = self.wanted[number].only_counts() && !matches!(whom, Whom::Cpus);
            let lanes = if counts { 1 } else { self.session.lanes.len() };
            for lane in 0..lanes {
                if !self.open(number, lane, whom)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn open(&mut self, number: usize, lane: usize, whom: Whom) -> Result<bool, Error> {
        let wanted = &self.wanted[number];
        let lane = &self.session.lanes[lane];
        let mut attributes = wanted.attributes(self.session.switch.read_format);
        attributes.inherit = self.inherit && !matches!(whom, Whom::Cpus);
        attributes.enable_on_exec = self.on_exec;
        let tasks = wanted.is_tasks();
        let gated = matches!(self.session.switch.begin, Begin::Gate(_));
        attributes.disabled = !(tasks || gated) || self.on_exec;
        let cpu = lane.cpu.filter(|_| !wanted.only_counts());
        let (target, tid) = match whom {
            Whom::ThisThread => (this_thread(cpu), Some(own_tid())),
            Whom::Thread(tid) => (thread_on(tid, cpu)?, Some(tid)),
            Whom::Cpus => (perf_event::Target::Cpu(lane.cpu.unwrap_or(0)), None),
        };
        let event = match PerfEvent::open(&attributes, target) {
            Ok(event) => event,
            Err(error) if error.raw_os_error() == Some(ESRCH) => return Ok(false),
            Err(error) => return Err(self.open_error(&wanted.name, &attributes, error)),
        };
        if let Some(filter) = &wanted.filter {
            set_filter(&event, wanted, filter)?;
        }
        if attributes.sample_id_all {
            event
                .set_output(&lane.carrier)
                .map_err(|error| Error::io("sharing a ring", error))?;
            let identifier = event
                .id()
                .map_err(|error| Error::io("reading an event's number", error))?;
            let layout = wanted.layout;
            self.session.merge.learn(identifier, Origin { layout, tid });
        }
        self.events.push(Opened {
            event,
            key: (!tasks).then_some(wanted.layout.event),
            before: AtomicU64::new(0),
            lost_before: AtomicU64::new(0),
        });
        Ok(true)
    }

    fn open_error(&self, name: &str, attributes: &Attributes, error: io::Error) -> Error {
        match Error::of_open(name, attributes, error) {
            Error::TooManyFiles { .. } => Error::TooManyFiles {
                wanted: self.wanted.len() * self.session.lanes.len(),
            },
            other => other,
        }
    }
}

impl Session {
    fn open_lane(&mut self, cpu: Option<u32>, pages: usize) -> Result<(), Error> {
        let attributes = carrier();
        let carrier = PerfEvent::open(&attributes, this_thread(cpu))
            .map_err(|error| Error::of_open("a ring", &attributes, error))?;
        let ring = map_ring(&carrier, pages)?;
        self.lanes.push(Lane { cpu, carrier, ring });
        Ok(())
    }
}

/// The largest ring that may be had, up to `pages`.
fn map_ring(carrier: &PerfEvent, mut pages: usize) -> Result<Ring, Error> {
    loop {
        match Ring::map(carrier, pages) {
            Ok(ring) => return Ok(ring),
            Err(error) if error.raw_os_error() == Some(EPERM) => {
                if pages <= LEAST_PAGES {
                    return Err(Error::LockedMemory);
                }
                pages /= 2;
            }
            Err(error) => return Err(Error::io("mapping a ring", error)),
        }
    }
}

fn set_filter(event: &PerfEvent, wanted: &Wanted, filter: &str) -> Result<(), Error> {
    let refused = || Error::Filter {
        tracepoint: wanted.name.clone(),
        filter: filter.into(),
    };
    let expression = std::ffi::CString::new(filter).map_err(|_| refused())?;
    event
        .set_filter(&expression)
        .map_err(|error| match error.raw_os_error() {
            Some(EINVAL) => refused(),
            _ => Error::io(format!("filtering {}", wanted.name), error),
        })
}

fn this_thread(cpu: Option<u32>) -> perf_event::Target {
    match cpu {
        None => perf_event::Target::ThisThread,
        Some(_) => perf_event::Target::Thread(rustix::thread::gettid(), cpu),
    }
}

fn own_tid() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs()
}

fn thread_on(tid: u32, cpu: Option<u32>) -> Result<perf_event::Target, Error> {
    Ok(perf_event::Target::Thread(pid_of(tid)?, cpu))
}

/// A number that no thread can have is that of no process.
pub(in super::super) fn pid_of(tid: u32) -> Result<Pid, Error> {
    let number = i32::try_from(tid).ok().and_then(Pid::from_raw);
    number.ok_or(Error::NoProcess(tid))
}

/// Readable once the process has ended; Linux 5.3.
fn pidfd(pid: u32) -> Option<std::os::fd::OwnedFd> {
    rustix::process::pidfd_open(pid_of(pid).ok()?, PidfdFlags::empty()).ok()
}

/// The threads of a process now.
fn threads(pid: u32) -> Result<Vec<u32>, Error> {
    let entries =
        fs::read_dir(format!("/proc/{pid}/task")).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NoProcess(pid),
            _ => Error::io(format!("reading the threads of process {pid}"), error),
        })?;
    let names = entries.map_while(Result::ok).map(|entry| entry.file_name());
    Ok(names
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect())
}

/// The CPUs that are on: `0-3,8`.
fn online_cpus() -> Result<Vec<u32>, Error> {
    let text = fs::read_to_string("/sys/devices/system/cpu/online")
        .map_err(|error| Error::io("reading which CPUs are on", error))?;
    parse_cpus(&text).ok_or_else(|| {
        Error::io(
            "reading which CPUs are on",
            io::Error::from(io::ErrorKind::InvalidData),
        )
    })
}

fn parse_cpus(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

/// Lost records are counted for each event where the kernel can.
fn read_format() -> ReadFormat {
    let lost = ReadFormat {
        times: true,
        lost: true,
    };
    let mut attributes = Attributes::counting(Source::Software(software::DUMMY));
    attributes.exclude_kernel = true;
    attributes.read_format = lost;
    attributes.sample_type = COMMON;
    match PerfEvent::open(&attributes, perf_event::Target::ThisThread) {
        Ok(_) => lost,
        Err(_) => ReadFormat {
            lost: false,
            ..lost
        },
    }
}

/// A fork that is recorded may have begun, and passed on what there was, this long before.
const FORK_NS: u64 = 50_000_000;
/// Looks for threads that appeared meanwhile at most this often.
const SCANS: usize = 64;
const LEAST_PAGES: usize = 4;
const EPERM: i32 = 1;
const ESRCH: i32 = 3;
const EINVAL: i32 = 22;

#[cfg(test)]
mod tests {
    use super::parse_cpus;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(parse_cpus("0-1\n").unwrap(), [0, 1]);
        assert_eq!(parse_cpus("0,2-4,9").unwrap(), [0, 2, 3, 4, 9]);
        assert_eq!(parse_cpus(""), None);
        assert_eq!(parse_cpus("0-x"), None);
    }
}
