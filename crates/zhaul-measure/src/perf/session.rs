//! Events of a thread, a process or the whole machine, recorded and put in the order of time.
//!
//! Each CPU has one ring into which all events of the session on that CPU are stored. The ring
//! belongs to an event on our own thread that never happens, so that it outlives whatever is
//! watched.

mod attach;
mod builder;
mod merge;
mod once;

use std::io::{self, ErrorKind};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::time::{ClockId, Timespec};
use zhaul_sys::perf_event::{self, Count, PerfEvent, ReadFormat, Ring};

use super::record::EventKey;
use super::{Error, Record};
use merge::Merge;

pub(super) use attach::pid_of;
pub use builder::{Builder, Target, UserSide};

/// Events being recorded. Dropping it closes all of them.
#[derive(Debug)]
pub struct Session {
    lanes: Vec<Lane>,
    switch: Switch,
    merge: Merge,
    /// Readable when the watched process has ended.
    process: Option<OwnedFd>,
}

/// Begins and ends recording, from any thread: one may drain a session while another, which is
/// watched, says when.
#[derive(Clone, Debug)]
pub struct Switch {
    events: Arc<Vec<Opened>>,
    read_format: ReadFormat,
    begin: Begin,
}

/// How recording begins.
#[derive(Clone, Debug)]
enum Begin {
    /// With the call that enables events.
    Enable,
    /// With exec.
    Exec,
    /// Events that threads and children inherit are enabled when they are opened, and what they tell
    /// is let through from some time on. Enabling them later would miss threads: one that is made
    /// meanwhile may inherit an event that is still off, after the kernel has passed over the list
    /// of those to enable (seen on Linux 6.18).
    Gate(Arc<Gate>),
}

/// The time in which records count.
#[derive(Debug)]
struct Gate {
    from_ns: AtomicU64,
    to_ns: AtomicU64,
}

/// The ring of one CPU, or of one thread wherever it runs.
#[derive(Debug)]
struct Lane {
    /// `None`: of a thread, on every CPU.
    cpu: Option<u32>,
    /// An event that never happens and owns the ring.
    carrier: PerfEvent,
    ring: Ring,
}

/// One event on one thread and CPU.
#[derive(Debug)]
struct Opened {
    event: PerfEvent,
    /// `None` for the carrier of fork, exit and names.
    key: Option<EventKey>,
    /// What it had counted when recording began.
    before: AtomicU64,
    lost_before: AtomicU64,
}

/// What [`Session::drain`] handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Records.
    pub records: u64,
    /// Records the kernel says it lost, as far as [`Kind::Lost`](super::Kind::Lost) told so.
    pub lost: u64,
    /// Records handed out after a later one, because their CPU stored them very late.
    pub late: u64,
    /// Bytes of records that could not be understood. Never seen; it would be a defect.
    pub misread: u64,
}

/// Why [`Session::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// A ring is half full.
    Records,
    /// The watched process has ended, and what is left can be drained.
    Ended,
    /// The descriptor given to [`Session::wait_or`] is ready.
    Other,
    /// None of it, for as long as it should wait.
    Timeout,
}

impl Session {
    /// Begins to say what to record.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Begins to record, or goes on. Not needed after [`Builder::spawn`].
    ///
    /// # Errors
    /// None that can be met.
    pub fn enable(&self) -> Result<(), Error> {
        self.switch.enable()
    }

    /// Stops recording.
    ///
    /// # Errors
    /// None that can be met.
    pub fn disable(&self) -> Result<(), Error> {
        self.switch.disable()
    }

    /// Begins or stops to count one event, while the others go on as they are.
    ///
    /// # Errors
    /// None that can be met.
    pub fn switch_one(&self, key: EventKey, on: bool) -> Result<(), Error> {
        let events = self.switch.events.iter();
        for opened in events.filter(|opened| opened.key == Some(key)) {
            let switched = if on {
                opened.event.enable()
            } else {
                opened.event.disable()
            };
            switched.map_err(|error| Error::io("switching an event", error))?;
        }
        Ok(())
    }

    /// To enable and disable from elsewhere. It keeps the events open, but not the rings.
    pub fn switch(&self) -> Switch {
        self.switch.clone()
    }

    /// Sleeps until a ring is half full or the watched process has ended, at most `timeout`.
    ///
    /// # Errors
    /// As `poll(2)`; a signal is no error but a `Timeout`.
    pub fn wait(&self, timeout: Duration) -> Result<Woken, Error> {
        self.wait_or(None, timeout)
    }

    /// The same, and until `other` is readable, such as the end of a pipe that a signal handler
    /// writes to.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_or(
        &self,
        other: Option<BorrowedFd<'_>>,
        timeout: Duration,
    ) -> Result<Woken, Error> {
        let rings = self.lanes.iter().map(|lane| &lane.carrier);
        let process = self.process.as_ref().map(AsFd::as_fd);
        let others = process.into_iter().chain(other);
        let until = Timespec::try_from(timeout).unwrap_or(LONG);
        let reported = match perf_event::wait(rings, others, &until) {
            Ok(reported) => reported,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Woken::Timeout),
            Err(error) => return Err(Error::io("waiting for records", error)),
        };
        let ready = |reported: &PollFlags| !reported.is_empty();
        let (rings, rest) = reported.split_at(self.lanes.len());
        let (process, other) = rest.split_at(usize::from(process.is_some()));
        Ok(if other.iter().any(ready) {
            Woken::Other
        } else if process.iter().any(ready) {
            Woken::Ended
        } else if rings
            .iter()
            .any(|reported| reported.contains(PollFlags::IN))
        {
            Woken::Records
        } else {
            if rings.iter().any(ready) {
                // The thread that opened the session has ended, and the rings, which still fill,
                // no longer wake anybody.
                std::thread::sleep(timeout.min(NAP));
            }
            Woken::Timeout
        })
    }

    /// Hands out what was recorded, in the order of time. What is so new that another CPU may
    /// still be storing something older is kept for the next time.
    pub fn drain(&mut self, each: impl FnMut(Record<'_>)) -> Drained {
        let before = now_ns();
        self.take();
        self.merge.emit(before, each)
    }

    /// Hands out all that is left. To be called after [`disable`](Self::disable), or when the
    /// process has ended.
    pub fn drain_all(&mut self, each: impl FnMut(Record<'_>)) -> Drained {
        self.take();
        self.merge.emit_all(each)
    }

    fn take(&mut self) {
        let within = self.switch.within();
        for lane in &mut self.lanes {
            self.merge.add(&within, |bytes| lane.ring.take(bytes));
        }
    }

    /// All records lost so far, those included that no later record told of. Only the kernel from
    /// 6.0 on keeps that count; before, it is what [`Drained::lost`] added up to.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn lost(&self) -> Result<u64, Error> {
        if !self.switch.read_format.lost {
            return Ok(self.merge.lost());
        }
        let mut lost = 0;
        for opened in self.switch.events.iter() {
            let before = opened.lost_before.load(Ordering::Relaxed);
            lost += self.switch.count(opened)?.lost.unwrap_or(0) - before;
        }
        Ok(lost)
    }

    /// How often an event happened, as the kernel counted, whether or not a record was stored. A
    /// thread that was made in the moment we attached to the one that made it may be counted
    /// twice here, though not in records.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn total(&self, key: EventKey) -> Result<u64, Error> {
        let mut total = 0;
        for opened in self.switch.events.iter() {
            if opened.key == Some(key) {
                let before = opened.before.load(Ordering::Relaxed);
                total += self.switch.count(opened)?.value - before;
            }
        }
        Ok(total)
    }
}

impl Switch {
    /// As [`Session::enable`].
    ///
    /// # Errors
    /// None that can be met.
    pub fn enable(&self) -> Result<(), Error> {
        let gate = match &self.begin {
            Begin::Exec => return Ok(()),
            Begin::Enable => return self.all(PerfEvent::enable),
            Begin::Gate(gate) => gate,
        };
        if gate.from_ns.load(Ordering::Relaxed) < u64::MAX {
            // Not for the first time, and so disabled meanwhile.
            gate.to_ns.store(u64::MAX, Ordering::Relaxed);
            return self.all(PerfEvent::enable);
        }
        for opened in self.events.iter() {
            let count = self.count(opened)?;
            opened.before.store(count.value, Ordering::Relaxed);
            let lost = count.lost.unwrap_or(0);
            opened.lost_before.store(lost, Ordering::Relaxed);
        }
        gate.from_ns.store(now_ns(), Ordering::Relaxed);
        Ok(())
    }

    /// As [`Session::disable`].
    ///
    /// # Errors
    /// None that can be met.
    pub fn disable(&self) -> Result<(), Error> {
        if let Begin::Gate(gate) = &self.begin {
            gate.to_ns.store(now_ns(), Ordering::Relaxed);
        }
        self.all(PerfEvent::disable)
    }

    /// The time from which and to which records count.
    fn within(&self) -> RangeInclusive<u64> {
        match &self.begin {
            Begin::Enable | Begin::Exec => 0..=u64::MAX,
            Begin::Gate(gate) => {
                gate.from_ns.load(Ordering::Relaxed)..=gate.to_ns.load(Ordering::Relaxed)
            }
        }
    }

    fn count(&self, opened: &Opened) -> Result<Count, Error> {
        opened
            .event
            .read(self.read_format)
            .map_err(|error| Error::io("reading a counter", error))
    }

    fn all(&self, act: impl Fn(&PerfEvent) -> io::Result<()>) -> Result<(), Error> {
        for opened in self.events.iter() {
            act(&opened.event).map_err(|error| Error::io("switching events", error))?;
        }
        Ok(())
    }
}

/// The clock of the records.
pub(super) const CLOCK: ClockId = ClockId::Monotonic;

const LONG: Timespec = Timespec {
    tv_sec: 3600,
    tv_nsec: 0,
};
const NAP: Duration = Duration::from_millis(10);

fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(CLOCK);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
