//! `perf_event_open(2)`: counters, tracepoints, breakpoints and samples of the kernel.
//!
//! [`PerfEvent`] is one event on one task or CPU, [`Ring`] the memory in which the kernel stores its
//! records. What the bytes of a record mean is not known here.
//!
//! Closing the descriptor ends the event; a [`Ring`] keeps its event alive until it is dropped, too.

mod attributes;
mod ring;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Pid;

pub use attributes::{Attributes, ReadFormat, SampleType, Source, Wakeup, software};
pub use ring::Ring;

use crate::{check, check_len};

/// Whose events, and on which CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The calling thread, on every CPU it runs on.
    ThisThread,
    /// A thread, by its id in our PID namespace: on one CPU, or on all. A ring of an event that is
    /// inherited is refused (EINVAL) without a CPU.
    Thread(Pid, Option<u32>),
    /// Whatever runs on this CPU.
    Cpu(u32),
}

/// An event that the kernel counts or records until this is dropped.
#[derive(Debug)]
pub struct PerfEvent {
    fd: OwnedFd,
    /// Its records have a place: a [`Ring`] of its own, or that of another event.
    ///
    /// The kernel maps the same memory for whoever maps such an event again, and two rings over the
    /// same memory would each free what the other still reads.
    has_output: AtomicBool,
}

/// What a counter shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Events seen, those of inheriting children included.
    pub value: u64,
    /// How long the event was enabled.
    pub enabled_ns: u64,
    /// How long it really counted: less than enabled if counters had to be shared.
    pub running_ns: u64,
    /// Records that found no room in the ring (Linux 6.0; [`ReadFormat::lost`]), else `None`.
    pub lost: Option<u64>,
}

impl PerfEvent {
    /// Opens an event; it is closed on exec.
    ///
    /// # Errors
    /// EACCES or EPERM: not permitted (`kernel.perf_event_paranoid`, `CAP_PERFMON`, a seccomp
    /// filter); ENOENT: no such event; ESRCH: no such task; EINVAL: attributes the kernel does not
    /// know, a breakpoint where there may be none; EMFILE; ENOSPC: no breakpoint register left;
    /// EOPNOTSUPP and ENODEV: not on this machine; ENOSYS: a kernel without it.
    pub fn open(attributes: &Attributes, target: Target) -> io::Result<Self> {
        let mut raw = attributes.to_raw();
        let (pid, cpu) = match target {
            Target::ThisThread => (0, -1),
            Target::Thread(tid, None) => (tid.as_raw_nonzero().get(), -1),
            Target::Thread(tid, Some(cpu)) => (tid.as_raw_nonzero().get(), cpu_number(cpu)?),
            Target::Cpu(cpu) => (-1, cpu_number(cpu)?),
        };
        let no_group: libc::c_int = -1;
        // SAFETY: the kernel reads raw.size bytes at the pointer, which is this stack's for the
        // length of the call (and with E2BIG stores the size it knows there); the
        // other arguments are plain numbers.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw mut raw,
                pid,
                cpu,
                no_group,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        let fd = check(libc::c_int::try_from(fd).unwrap_or(-1))?;
        // SAFETY: the call succeeded, so fd is a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self {
            fd,
            has_output: AtomicBool::new(false),
        })
    }

    /// Begins or goes on to count, in inheriting children as well.
    ///
    /// # Errors
    /// None that can be met.
    pub fn enable(&self) -> io::Result<()> {
        self.ioctl(ENABLE, 0).map(drop)
    }

    /// Stops counting; what was counted stays.
    ///
    /// # Errors
    /// None that can be met.
    pub fn disable(&self) -> io::Result<()> {
        self.ioctl(DISABLE, 0).map(drop)
    }

    /// Sets the count to 0, but not the times.
    ///
    /// # Errors
    /// None that can be met.
    pub fn reset(&self) -> io::Result<()> {
        self.ioctl(RESET, 0).map(drop)
    }

    /// Stores this event's records in the ring of `other`, which is on the same CPU (or, without
    /// CPUs, on the same task) and has the same clock.
    ///
    /// # Errors
    /// EINVAL if they do not match; EBUSY if this event has or had a ring, or another's, already.
    pub fn set_output(&self, other: &Self) -> io::Result<()> {
        let other = libc::c_ulong::try_from(other.fd.as_raw_fd())
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        self.claim_output(|| self.ioctl(SET_OUTPUT, other).map(drop))
    }

    /// Gives its records a place, once and for all.
    fn claim_output<T>(&self, give: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.has_output.swap(true, Ordering::AcqRel) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let given = give();
        if given.is_err() {
            self.has_output.store(false, Ordering::Release);
        }
        given
    }

    /// Lets only those occurrences of a tracepoint count that match the expression, in the words
    /// of the kernel's `Documentation/trace/events.rst`: `ret > 0 && id == 1`.
    ///
    /// # Errors
    /// EINVAL for an expression the kernel does not understand.
    pub fn set_filter(&self, expression: &CStr) -> io::Result<()> {
        // SAFETY: the kernel reads a NUL-terminated string, which lives through the call.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), SET_FILTER, expression.as_ptr()) })
            .map(drop)
    }

    /// The number that marks this event's records ([`SampleType::IDENTIFIER`]); those of inheriting
    /// children carry it, too.
    ///
    /// # Errors
    /// None that can be met.
    pub fn id(&self) -> io::Result<u64> {
        let mut id = 0_u64;
        // SAFETY: the kernel stores one u64 at the pointer, which is this stack's for the length of
        // the call.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), ID, &raw mut id) })?;
        Ok(id)
    }

    /// Reads the counter. `format` is that of the attributes it was opened with.
    ///
    /// # Errors
    /// ENOSPC if the format is larger than said; 0 bytes (an event in error) give
    /// `UnexpectedEof`.
    pub fn read(&self, format: ReadFormat) -> io::Result<Count> {
        let mut words = [0_u64; 4];
        // SAFETY: the kernel stores at most size_of(words) bytes at the pointer, which is this
        // stack's for the length of the call.
        let read = check_len(unsafe {
            libc::read(
                self.fd.as_raw_fd(),
                words.as_mut_ptr().cast(),
                size_of_val(&words),
            )
        })?;
        let mut words = words.into_iter().take(read / 8);
        let mut next = || words.next().ok_or(io::ErrorKind::UnexpectedEof);
        let mut count = Count {
            value: next()?,
            ..Count::default()
        };
        if format.times {
            count.enabled_ns = next()?;
            count.running_ns = next()?;
        }
        if format.lost {
            count.lost = Some(next()?);
        }
        Ok(count)
    }

    fn ioctl(&self, request: libc::Ioctl, argument: libc::c_ulong) -> io::Result<libc::c_int> {
        // SAFETY: the requests that come here take a plain number or nothing; no memory is
        // touched.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), request, argument) })
    }
}

/// Sleeps until one of the events wants its ring to be emptied, one of the others is readable, or the
/// time is up, and returns what `poll(2)` reports of each, the events first.
///
/// Events hand out no descriptor for this: whoever maps one first, without the right to write, makes
/// its ring one in which the kernel writes over records that were not taken yet.
///
/// # Errors
/// As `poll(2)`.
pub fn wait<'a>(
    events: impl Iterator<Item = &'a PerfEvent>,
    others: impl Iterator<Item = BorrowedFd<'a>>,
    timeout: &Timespec,
) -> io::Result<Vec<PollFlags>> {
    let mut polled: Vec<PollFd<'_>> = events
        .map(|event| event.fd.as_fd())
        .chain(others)
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    rustix::event::poll(&mut polled, Some(timeout))?;
    Ok(polled.iter().map(PollFd::revents).collect())
}

fn cpu_number(cpu: u32) -> io::Result<libc::c_int> {
    Ok(libc::c_int::try_from(cpu).map_err(|_| io::ErrorKind::InvalidInput)?)
}

const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;

// From linux/perf_event.h: `_IO('$', n)`, and `_IOW`/`_IOR` with a pointer's size.
const ENABLE: libc::Ioctl = 0x2400;
const DISABLE: libc::Ioctl = 0x2401;
const RESET: libc::Ioctl = 0x2403;
const SET_OUTPUT: libc::Ioctl = 0x2405;
const SET_FILTER: libc::Ioctl = 0x4008_2406_u32 as libc::Ioctl;
const ID: libc::Ioctl = 0x8008_2407_u32 as libc::Ioctl;

#[cfg(test)]
mod tests;
