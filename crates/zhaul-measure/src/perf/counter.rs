//! How often something happened, counted by the kernel without a record of each.

use zhaul_sys::perf_event::{self, Attributes, Count, PerfEvent, ReadFormat, Source};

use super::session::pid_of;
use super::{Error, Tracepoint};

/// A counter on one thread, which goes with it to whatever CPU it runs on.
///
/// It costs the thread a fraction of a microsecond for each event while it is enabled, and nothing
/// otherwise.
#[derive(Debug)]
pub struct Counter {
    event: PerfEvent,
    what: String,
}

impl Counter {
    /// How often the calling thread passes a tracepoint. Disabled at first.
    ///
    /// # Errors
    /// As [`Counter::of_thread`].
    pub fn of_this_thread(tracepoint: &Tracepoint) -> Result<Self, Error> {
        let source = Source::Tracepoint(tracepoint.id);
        Self::open(&tracepoint.name, source, perf_event::Target::ThisThread)
    }

    /// How often the thread `tid` passes a tracepoint. Disabled at first.
    ///
    /// # Errors
    /// [`Error::NoProcess`], [`Error::NotPermitted`], [`Error::TooManyFiles`],
    /// [`Error::Unsupported`].
    pub fn of_thread(tracepoint: &Tracepoint, tid: u32) -> Result<Self, Error> {
        let source = Source::Tracepoint(tracepoint.id);
        let target = perf_event::Target::Thread(pid_of(tid)?, None);
        Self::open(&tracepoint.name, source, target)
    }

    /// How often a software event (`zhaul_sys::perf_event::software`) happens to the calling
    /// thread. Disabled at first.
    ///
    /// # Errors
    /// As [`Counter::of_thread`].
    pub fn software(what: &str, number: u64) -> Result<Self, Error> {
        let target = perf_event::Target::ThisThread;
        Self::open(what, Source::Software(number), target)
    }

    /// The same for the thread `tid`.
    ///
    /// # Errors
    /// As [`Counter::of_thread`].
    pub fn software_of_thread(what: &str, number: u64, tid: u32) -> Result<Self, Error> {
        let target = perf_event::Target::Thread(pid_of(tid)?, None);
        Self::open(what, Source::Software(number), target)
    }

    fn open(what: &str, source: Source, target: perf_event::Target) -> Result<Self, Error> {
        let mut attributes = Attributes::counting(source);
        attributes.read_format = FORMAT;
        let event = PerfEvent::open(&attributes, target).map_err(|error| {
            match (error.raw_os_error(), target) {
                (Some(ESRCH), perf_event::Target::Thread(tid, _)) => {
                    Error::NoProcess(tid.as_raw_nonzero().get().unsigned_abs())
                }
                _ => Error::of_open(what, &attributes, error),
            }
        })?;
        Ok(Self {
            event,
            what: what.into(),
        })
    }

    /// Begins, or goes on.
    ///
    /// # Errors
    /// None that can be met.
    pub fn enable(&self) -> Result<(), Error> {
        self.event.enable().map_err(|error| self.error(error))
    }

    /// Stops.
    ///
    /// # Errors
    /// None that can be met.
    pub fn disable(&self) -> Result<(), Error> {
        self.event.disable().map_err(|error| self.error(error))
    }

    /// Sets the count to 0.
    ///
    /// # Errors
    /// None that can be met.
    pub fn reset(&self) -> Result<(), Error> {
        self.event.reset().map_err(|error| self.error(error))
    }

    /// The count, and how much of the time it counted.
    ///
    /// # Errors
    /// None that can be met.
    pub fn read(&self) -> Result<Count, Error> {
        self.event.read(FORMAT).map_err(|error| self.error(error))
    }

    fn error(&self, source: std::io::Error) -> Error {
        Error::io(self.what.clone(), source)
    }
}

const FORMAT: ReadFormat = ReadFormat {
    times: true,
    lost: false,
};
const ESRCH: i32 = 3;
