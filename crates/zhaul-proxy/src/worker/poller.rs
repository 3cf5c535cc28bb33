//! The worker's epoll instance, and what its events are called: everything is edge-triggered except
//! listening sockets.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use zhaul_service::Wake;

/// Events taken at a time.
pub(super) const EVENTS: usize = 256;
/// What the wake-up is called.
const WAKE: u64 = u64::MAX;
/// What listening sockets are called, counted up; sessions are below.
const FIRST_SOCKET: u64 = 0xffff_ffff_0000_0000;

/// What a worker sleeps in.
#[derive(Debug)]
pub(super) struct Poller(OwnedFd);

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// There are messages.
    Wake,
    /// The listening socket of this index.
    Socket(usize),
    /// The session of this name.
    Session(u64),
}

impl Poller {
    /// Watches the wake-up alone.
    pub(super) fn new(wake: &Wake) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, wake, EventData::new_u64(WAKE), flags)?;
        Ok(Self(epoll))
    }

    /// Registers a socket of a session. Once, for everything, and never again.
    pub(super) fn watch(&self, fd: &OwnedFd, name: u64) -> Result<(), Errno> {
        epoll::add(
            &self.0,
            fd.as_fd(),
            EventData::new_u64(name),
            EventFlags::from_bits_retain(zhaul::relay::WATCH),
        )
    }

    /// Level-triggered: what is left in the backlog is reported again. Exclusive: of several workers
    /// that share the socket not all are woken for each connection.
    pub(super) fn watch_listening(&self, fd: &OwnedFd, index: usize) -> Result<(), Errno> {
        let name = EventData::new_u64(FIRST_SOCKET + index as u64);
        let flags = EventFlags::IN | EventFlags::EXCLUSIVE;
        epoll::add(&self.0, fd, name, flags)
    }

    /// Watches a listening socket no more.
    pub(super) fn forget(&self, fd: &OwnedFd) -> Result<(), Errno> {
        epoll::delete(&self.0, fd)
    }

    /// Sleeps until something happens, or for as long; `None` is for ever.
    pub(super) fn wait(
        &self,
        events: &mut Vec<Event>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match epoll::wait(&self.0, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl About {
    pub(super) fn of(event: &Event) -> Self {
        match event.data.u64() {
            WAKE => Self::Wake,
            socket @ FIRST_SOCKET.. => Self::Socket((socket - FIRST_SOCKET) as usize),
            name => Self::Session(name),
        }
    }
}
