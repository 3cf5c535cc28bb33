//! What an end is ready for, told apart from what lies in its error queue.
//!
//! `poll(2)` and `epoll(7)` report POLLERR unasked, both for an error of a socket and for as long
//! as something lies in its error queue: a completion of MSG_ZEROCOPY, a timestamp, an ICMP error
//! with IP_RECVERR. Nobody takes it out but its owner, so whoever waits for room or bytes with it
//! in the queue would not wait at all. Nor can it be told from an error without clearing that.
//!
//! So readiness is decided here:
//! - POLLIN, POLLOUT and POLLHUP are believed.
//! - POLLERR alone is worth one call, which reports the error if there is one. From then on the
//!   end is watched by an edge-triggered epoll instance ([`Edges`]), which tells of each message
//!   once.
//! - That something came into the error queue is an event of its own, for who takes it out.
//!
//! A socket that never has such a message is never watched that way, and costs nothing more.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno as Raw;

use zhaul_core::Errno;

use crate::cancel::CancelToken;
use crate::errno::of_rustix;

/// What makes a source ready.
pub(crate) const READABLE: PollFlags = PollFlags::IN.union(PollFlags::RDHUP);
/// What makes a sink ready.
pub(crate) const WRITABLE: PollFlags = PollFlags::OUT;
/// Something came into the error queue, or an error.
pub(crate) const ERROR: PollFlags = PollFlags::ERR;

/// True if an end of which this was reported has what is wanted of it.
pub(crate) fn has(reported: PollFlags, wanted: PollFlags) -> bool {
    reported.intersects(wanted.difference(ERROR) | PollFlags::HUP | PollFlags::NVAL)
}

/// What `poll(2)` reports now, without waiting.
pub(crate) fn reported_now(end: BorrowedFd<'_>, wanted: PollFlags) -> PollFlags {
    let mut fds = [PollFd::from_borrowed_fd(end, wanted)];
    loop {
        match poll(&mut fds, Some(&NOW)) {
            Err(Raw::INTR) => {}
            // An error of poll itself is left to the call that follows.
            Err(_) => return wanted,
            Ok(_) => return fds[0].revents(),
        }
    }
}

/// True if the end has what is wanted of it now.
#[cfg(feature = "tokio")]
pub(crate) fn is_ready(end: BorrowedFd<'_>, wanted: PollFlags) -> bool {
    has(reported_now(end, wanted), wanted)
}

/// An epoll instance that watches one end, edge-triggered.
#[derive(Debug)]
pub(crate) struct Edges {
    epoll: OwnedFd,
    /// An edge of the error queue that nobody has asked for yet.
    error: bool,
}

impl Edges {
    /// Watches for these events, and for errors. What there is already is the first edge.
    pub(crate) fn of(end: BorrowedFd<'_>, events: PollFlags) -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(of_rustix)?;
        // The two interfaces have their flags in common.
        let flags = EventFlags::from_bits_truncate(events.bits().into()) | EventFlags::ET;
        epoll::add(&epoll, end, EventData::new_u64(0), flags).map_err(of_rustix)?;
        Ok(Self {
            epoll,
            error: false,
        })
    }

    /// Takes the edges that came since the last time; the instance is readable while there are any.
    pub(crate) fn take(&mut self) -> Result<PollFlags, Errno> {
        let mut room = [MaybeUninit::uninit(); 1];
        let came = match epoll::wait(&self.epoll, &mut room, Some(&NOW)) {
            Ok((came, _)) => came.first().map(|event| event.flags),
            Err(Raw::INTR) => None,
            Err(errno) => return Err(of_rustix(errno)),
        };
        let came = came.unwrap_or(EventFlags::empty());
        self.error |= came.intersects(EventFlags::ERR);
        Ok(poll_flags(came))
    }

    /// True once for the edges of the error queue up to now.
    pub(crate) const fn takes_error(&mut self) -> bool {
        std::mem::replace(&mut self.error, false)
    }
}

fn poll_flags(flags: EventFlags) -> PollFlags {
    PollFlags::from_bits_truncate(u16::try_from(flags.bits() & 0xffff).unwrap_or(0))
}

impl AsFd for Edges {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl AsRawFd for Edges {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

/// Ends that a thread waits for in `poll(2)`.
#[derive(Debug)]
pub(crate) struct Ends<'a, const N: usize> {
    ends: [End<'a>; N],
}

#[derive(Debug)]
struct End<'a> {
    fd: BorrowedFd<'a>,
    /// All that is ever wanted of it.
    events: PollFlags,
    edges: Option<Edges>,
}

impl<'a, const N: usize> Ends<'a, N> {
    /// These ends, each with all that will ever be wanted of it.
    pub(crate) fn new(ends: [(BorrowedFd<'a>, PollFlags); N]) -> Self {
        Self {
            ends: ends.map(|(fd, events)| End {
                fd,
                events,
                edges: None,
            }),
        }
    }

    /// Waits until an end has what is wanted of it, one of the tokens is cancelled, or the time is
    /// up; ends of which `None` is wanted are left out. Returns what is reported of each end:
    /// [`ERROR`] without anything that was wanted means that a call is to find out.
    ///
    /// May return early with nothing, and does so at once if a token is cancelled.
    pub(crate) fn wait(
        &mut self,
        wanted: [Option<PollFlags>; N],
        tokens: &[Option<&CancelToken>],
        timeout: Option<Duration>,
    ) -> Result<[PollFlags; N], Errno> {
        let mut reports = [PollFlags::empty(); N];
        let tokens = tokens.iter().copied().flatten();
        let events: Vec<_> = tokens.clone().filter_map(CancelToken::event).collect();
        // The descriptors exist now, so cancelling from here on makes one of them readable.
        if tokens.clone().any(CancelToken::is_cancelled) {
            return Ok(reports);
        }
        // Without a descriptor to wake up by, a token is looked at every so often.
        let is_blind = events.len() < tokens.count();
        let blind = is_blind.then_some(BLIND_WAIT);
        let timeout = [timeout, blind].into_iter().flatten().min();
        for ((end, wanted), report) in self.ends.iter_mut().zip(wanted).zip(&mut reports) {
            *report = end.known(wanted)?;
        }
        if reports.iter().any(|report| !report.is_empty()) {
            return Ok(reports);
        }
        let polled = self.poll(wanted, &events, timeout)?;
        for (index, end) in self.ends.iter_mut().enumerate() {
            if let Some(wanted) = wanted[index] {
                reports[index] = end.settle(polled[index], wanted)?;
            }
        }
        Ok(reports)
    }

    fn poll(
        &self,
        wanted: [Option<PollFlags>; N],
        events: &[BorrowedFd<'_>],
        timeout: Option<Duration>,
    ) -> Result<[PollFlags; N], Errno> {
        let mut fds = Vec::with_capacity(N + events.len());
        for (end, wanted) in self.ends.iter().zip(wanted) {
            if let Some(wanted) = wanted {
                fds.push(end.poll_fd(wanted));
            }
        }
        let readable = |&event| PollFd::from_borrowed_fd(event, PollFlags::IN);
        fds.extend(events.iter().map(readable));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut polled = [PollFlags::empty(); N];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Raw::INTR) => return Ok(polled),
            Err(errno) => return Err(of_rustix(errno)),
        }
        let mut revents = fds.iter().map(PollFd::revents);
        for (polled, wanted) in polled.iter_mut().zip(wanted) {
            if wanted.is_some() {
                *polled = revents.next().unwrap_or(PollFlags::empty());
            }
        }
        Ok(polled)
    }
}

impl End<'_> {
    /// What is known without waiting, of an end whose edges are watched.
    fn known(&mut self, wanted: Option<PollFlags>) -> Result<PollFlags, Errno> {
        let Some(wanted) = wanted else {
            return Ok(PollFlags::empty());
        };
        if wanted.contains(ERROR) && self.edges.is_none() {
            match Edges::of(self.fd, self.events) {
                Ok(edges) => self.edges = Some(edges),
                // A call is to find out.
                Err(_) => {
                    std::thread::sleep(BLIND_WAIT);
                    return Ok(ERROR);
                }
            }
        }
        let Some(edges) = &mut self.edges else {
            return Ok(PollFlags::empty());
        };
        let mut report = reported_now(self.fd, wanted).difference(ERROR);
        if wanted.contains(ERROR) && edges.takes_error() {
            report |= ERROR;
        }
        Ok(report)
    }

    fn poll_fd(&self, wanted: PollFlags) -> PollFd<'_> {
        match &self.edges {
            Some(edges) => PollFd::new(edges, PollFlags::IN),
            None => PollFd::from_borrowed_fd(self.fd, wanted),
        }
    }

    fn settle(&mut self, polled: PollFlags, wanted: PollFlags) -> Result<PollFlags, Errno> {
        if polled.is_empty() {
            return Ok(polled);
        }
        let Some(edges) = &mut self.edges else {
            if !has(polled, wanted) {
                match Edges::of(self.fd, self.events) {
                    Ok(edges) => self.edges = Some(edges),
                    // Out of descriptors: not at once again.
                    Err(_) => std::thread::sleep(BLIND_WAIT),
                }
            }
            return Ok(polled);
        };
        let came = edges.take()?;
        if wanted.contains(ERROR) {
            edges.takes_error();
        }
        // Other edges are looked at before the next wait.
        Ok(came.intersection(ERROR))
    }
}

const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// How long a process without descriptors to spare does not look at its ends and tokens.
pub(crate) const BLIND_WAIT: Duration = Duration::from_millis(10);

#[cfg(test)]
#[path = "edges_tests.rs"]
mod tests;
