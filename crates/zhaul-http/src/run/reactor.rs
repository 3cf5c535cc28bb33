//! The worker's epoll instance, below the one of its runtime, and what a round needs.
//!
//! The instance is nested: tokio watches it, edge-triggered, as one descriptor. So readiness is
//! taken back only when a round has taken all there was, and everything in the instance is either
//! edge-triggered itself or not reported any more before that.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zhaul_service::Wake;

use crate::run::accept::{Acceptor, Attempt};
use crate::run::connection::Connection;

/// Room for the requests of one round.
const RECEIVE_BYTES: usize = 32 * 1024;
/// What the reactor calls the worker's [`Wake`].
pub(crate) const WAKE: u64 = u64::MAX;
/// What it calls listening sockets, counted up; connections are below.
pub(crate) const FIRST_LISTENER: u64 = 1 << 48;
/// Events taken from the reactor at a time.
pub(crate) const EVENTS: usize = 256;
/// What one connection gets of the room; what is longer takes more than one recv.
const SLICE_BYTES: usize = 4 * 1024;

/// The epoll instance, and what a round needs.
#[derive(Debug)]
pub(crate) struct Reactor {
    epoll: Arc<OwnedFd>,
    /// Counts calls of epoll_wait that told all there was.
    rounds: Cell<u64>,
    /// Counts sets of requests that were received before any of them was answered.
    batch: Cell<u64>,
    /// Where the requests of one round are received, one behind the other.
    receive: RefCell<Box<[u8]>>,
    /// The requests of one round.
    received: RefCell<Vec<Received>>,
    /// Where what comes meanwhile is received.
    pub(crate) receive_more: RefCell<Box<[u8]>>,
    /// Listening sockets, if this is the only worker.
    acceptors: RefCell<Vec<Acceptor>>,
    /// Which of them are out of the instance.
    resting: RefCell<Vec<usize>>,
    /// Connections that were told to leave, the first first. See [`crate::run::linger`].
    pub(crate) leaving: RefCell<VecDeque<Leaving>>,
}

/// A connection that was told that nothing more will be said, and is not registered.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) key: usize,
    pub(crate) connection: Rc<Connection>,
    pub(crate) since_ms: u64,
}

impl Reactor {
    pub(crate) fn new(wake: &Wake) -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&*epoll, wake, EventData::new_u64(WAKE), flags)?;
        Ok(Self {
            epoll,
            rounds: Cell::new(0),
            batch: Cell::new(0),
            receive: RefCell::new(vec![0; RECEIVE_BYTES].into_boxed_slice()),
            received: RefCell::default(),
            receive_more: RefCell::new(vec![0; RECEIVE_BYTES].into_boxed_slice()),
            acceptors: RefCell::default(),
            resting: RefCell::default(),
            leaving: RefCell::default(),
        })
    }

    /// The instance, for connections to be registered with.
    pub(crate) fn epoll(&self) -> &Arc<OwnedFd> {
        &self.epoll
    }

    /// The instance as the runtime watches it.
    #[expect(
        deprecated,
        reason = "its successor is unsafe; an OwnedFd keeps the one promise asked for"
    )]
    pub(crate) fn watched_by_runtime(&self) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
        AsyncFd::with_interest(Arc::clone(&self.epoll), Interest::READABLE)
    }

    /// Waits for events, which are appended to `events`.
    pub(crate) fn wait(
        &self,
        events: &mut Vec<epoll::Event>,
        timeout: &Timespec,
    ) -> Result<(), Errno> {
        epoll::wait(&*self.epoll, spare_capacity(events), Some(timeout))?;
        let told_all = u64::from(events.len() < EVENTS);
        self.rounds.set(self.rounds.get() + told_all);
        Ok(())
    }

    /// Names the requests that were received together.
    pub(crate) fn batch(&self) -> u64 {
        self.batch.get()
    }

    /// What was received together is answered from now on.
    pub(crate) fn end_batch(&self) {
        self.batch.set(self.batch.get() + 1);
    }

    /// Where what comes in this round is received.
    pub(crate) fn intake(&self) -> Intake<'_> {
        Intake {
            buffer: self.receive.borrow_mut(),
            filled: 0,
            received: self.received.borrow_mut(),
        }
    }

    /// Whoever was told to leave first, if that was before `now_ms`.
    pub(crate) fn next_to_leave(&self, now_ms: u64) -> Option<Leaving> {
        let is_due = |leaving: &mut Leaving| leaving.since_ms < now_ms;
        self.leaving.borrow_mut().pop_front_if(is_due)
    }

    /// Takes listening sockets in.
    pub(crate) fn listen(&self, acceptors: Vec<Acceptor>) -> io::Result<()> {
        for (index, acceptor) in acceptors.iter().enumerate() {
            self.watch_listener(index, acceptor)?;
        }
        self.acceptors.replace(acceptors);
        Ok(())
    }

    /// Closes the listening sockets.
    pub(crate) fn close_listeners(&self) {
        self.acceptors.take();
    }

    fn watch_listener(&self, index: usize, acceptor: &Acceptor) -> Result<(), Errno> {
        let key = EventData::new_u64(FIRST_LISTENER + index as u64);
        epoll::add(&*self.epoll, acceptor, key, EventFlags::IN)
    }

    /// How many connections are expected at a listening socket; `None` if it is closed.
    pub(crate) fn expected(&self, index: usize) -> Option<usize> {
        let acceptors = self.acceptors.borrow();
        Some(acceptors.get(index)?.batch.size())
    }

    /// Accepts one of those who wait at a listening socket; `None` if it is closed.
    pub(crate) fn accept(&self, index: usize) -> Option<Attempt> {
        Some(self.acceptors.borrow_mut().get_mut(index)?.accept())
    }

    /// As many as were expected at a listening socket were there.
    pub(crate) fn found_expected(&self, index: usize) {
        if let Some(acceptor) = self.acceptors.borrow_mut().get_mut(index) {
            acceptor.batch.filled(self.rounds.get());
        }
    }

    /// Takes a listening socket out until the next sweep: it would be reported in each round, and
    /// nothing could be done about it.
    pub(crate) fn rest(&self, index: usize) {
        let acceptors = self.acceptors.borrow();
        let Some(acceptor) = acceptors.get(index) else {
            return;
        };
        if epoll::delete(&*self.epoll, acceptor).is_ok() {
            self.resting.borrow_mut().push(index);
        }
    }

    /// Takes listening sockets that rested in again.
    pub(crate) fn end_rest(&self) {
        let acceptors = self.acceptors.borrow();
        self.resting
            .borrow_mut()
            .retain(|&index| match acceptors.get(index) {
                // Without memory for it now, there may be at the next sweep.
                Some(acceptor) => self.watch_listener(index, acceptor).is_err(),
                None => false,
            });
    }
}

/// What was received in a round and is not answered yet.
pub(crate) struct Intake<'a> {
    /// Where the requests are, one behind the other.
    buffer: RefMut<'a, Box<[u8]>>,
    filled: usize,
    received: RefMut<'a, Vec<Received>>,
}

/// Bytes that a connection has sent, for the time of one round.
#[derive(Debug)]
struct Received {
    key: usize,
    connection: Rc<Connection>,
    bytes: Range<usize>,
}

impl Intake<'_> {
    /// Whether there is no room for what another connection has sent.
    pub(crate) fn is_full(&self) -> bool {
        self.buffer.len() - self.filled < SLICE_BYTES
    }

    /// Receives what a connection has sent; how much that was.
    pub(crate) fn receive(&mut self, key: usize, connection: &Rc<Connection>) -> io::Result<usize> {
        let free = self.filled..self.filled + SLICE_BYTES;
        let received = connection.stream.try_recv(&mut self.buffer[free])?;
        if received > 0 {
            let bytes = self.filled..self.filled + received;
            self.filled = bytes.end;
            connection.has_asked.set(true);
            self.received.push(Received {
                key,
                connection: Rc::clone(connection),
                bytes,
            });
        }
        Ok(received)
    }

    /// Gives what was received to `answer`, each with its connection.
    pub(crate) fn drain(&mut self, mut answer: impl FnMut(usize, &Rc<Connection>, &[u8])) {
        for Received {
            key,
            connection,
            bytes,
        } in self.received.drain(..)
        {
            connection.has_asked.set(false);
            answer(key, &connection, &self.buffer[bytes]);
        }
        self.filled = 0;
    }
}
