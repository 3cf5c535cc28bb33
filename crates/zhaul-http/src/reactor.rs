//! The worker's reactor: its own epoll instance below the one of its runtime.
//!
//! A round takes what epoll reports, receives from every connection concerned, and only then
//! answers, so that one look at a file can serve all of them (see [`FileSet::check`]).
//!
//! The instance is nested: tokio watches it, edge-triggered, as one descriptor. So readiness is
//! taken back only when a round has taken all there was, and everything in the instance is either
//! edge-triggered itself or not reported any more before that.
//!
//! [`FileSet::check`]: crate::entry::FileSet::check

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zhaul_service::Wake;

use crate::accept::{Accepted, Acceptor, Attempt};
use crate::answer::Next;
use crate::attend::{Attended, Event, wait_for};
use crate::clock::Clock;
use crate::connection::{Connection, Phase};
use crate::linger::LEAVING;
use crate::worker::{SWEEP, Worker};

/// Room for the requests of one round.
const RECEIVE_BYTES: usize = 32 * 1024;
/// What the reactor calls the worker's [`Wake`].
const WAKE: u64 = u64::MAX;
/// What it calls listening sockets, counted up; connections are below.
const FIRST_LISTENER: u64 = 1 << 48;
/// Events taken from the reactor at a time.
const EVENTS: usize = 256;
/// What one connection gets of it; what is longer takes more than one recv.
const SLICE_BYTES: usize = 4 * 1024;
/// Receives at a time from a client to whom nothing more is said; it says more of its own accord.
const SEEING_OFF_READS: usize = 4;
/// How long rounds go on before the sweep has its turn.
const TURN_MS: u64 = SWEEP.as_millis() as u64;
const NO_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};
/// Longer than this the worker does not sleep, for the sweep's sake.
const SWEEP_TIMEOUT: Timespec = Timespec {
    tv_sec: SWEEP.as_secs().cast_signed(),
    tv_nsec: SWEEP.subsec_nanos() as i64,
};

/// How long somebody who was told to leave has before that is looked at.
const LEAVING_TIMEOUT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: LEAVING.subsec_nanos() as i64,
};

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
    /// Connections that were told to leave, the first first. See [`Worker::ask_to_leave`].
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

    /// Names the requests that were received together.
    pub(crate) fn batch(&self) -> u64 {
        self.batch.get()
    }

    fn intake(&self) -> Intake<'_> {
        Intake {
            buffer: self.receive.borrow_mut(),
            filled: 0,
            received: self.received.borrow_mut(),
        }
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

    /// Takes a listening socket out until the next sweep: it would be reported in each round, and
    /// nothing could be done about it.
    fn rest(&self, index: usize) {
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
struct Intake<'a> {
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

/// What one call of epoll_wait(2) brought.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    taken: usize,
    /// Another thread has left something for the runtime's tasks.
    woken: bool,
    /// More connections wait to be accepted than had their turn.
    backlog: bool,
}

impl Round {
    /// Whether the runtime's tasks should have their turn.
    fn is_quiet(self) -> bool {
        self.woken || self.taken == 0
    }

    /// Whether the instance was left with nothing that was ready.
    fn took_all(self) -> bool {
        self.taken < EVENTS && !self.backlog
    }
}

impl Worker {
    /// Takes events from the reactor and attends to the connections concerned, for ever.
    ///
    /// While no answer is waiting for anything, nobody else on this thread has work for the
    /// runtime, and the worker sleeps right here: one epoll_wait for each round, as a bare loop
    /// would have it. Otherwise the runtime sleeps, and watches the reactor.
    pub(crate) async fn react(self: Rc<Self>) -> io::Result<()> {
        let reactor = watch_reactor(Arc::clone(&self.reactor.epoll))?;
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            // First, so that what another thread left before it woke us is seen before we sleep.
            tokio::task::yield_now().await;
            let began_ms = Clock::now_ms();
            while self.may_sleep() && !self.round(&mut events, self.longest_sleep())?.is_quiet() {
                if Clock::now_ms() - began_ms >= TURN_MS {
                    break;
                }
            }
            if !self.may_sleep() {
                self.round_with_tasks(&reactor, &mut events).await?;
            }
        }
    }

    /// A round for which the runtime sleeps.
    async fn round_with_tasks(
        self: &Rc<Self>,
        reactor: &AsyncFd<Arc<OwnedFd>>,
        events: &mut Vec<epoll::Event>,
    ) -> io::Result<()> {
        let mut ready = if self.reactor.leaving.borrow().is_empty() {
            reactor.readable().await?
        } else {
            match tokio::time::timeout(LEAVING, reactor.readable()).await {
                Ok(ready) => ready?,
                Err(_) => {
                    self.see_who_left();
                    return Ok(());
                }
            }
        };
        if self.round(events, &NO_WAIT)?.took_all() {
            ready.clear_ready();
        }
        Ok(())
    }

    fn longest_sleep(&self) -> &'static Timespec {
        if self.reactor.leaving.borrow().is_empty() {
            &SWEEP_TIMEOUT
        } else {
            &LEAVING_TIMEOUT
        }
    }

    /// Whether the runtime has nothing to wait for.
    fn may_sleep(&self) -> bool {
        self.attending.get() == 0 && !self.is_draining() && !self.has_mail.get()
    }

    /// Waits for events and handles them.
    fn round(
        self: &Rc<Self>,
        events: &mut Vec<epoll::Event>,
        timeout: &Timespec,
    ) -> io::Result<Round> {
        match epoll::wait(&*self.reactor.epoll, spare_capacity(events), Some(timeout)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Round::default()),
            Err(errno) => return Err(errno.into()),
        }
        let told_all = u64::from(events.len() < EVENTS);
        self.reactor
            .rounds
            .set(self.reactor.rounds.get() + told_all);
        let mut round = Round {
            taken: events.len(),
            ..Round::default()
        };
        let mut intake = self.reactor.intake();
        for event in events.drain(..) {
            match event.data.u64() {
                WAKE => round.woken = true,
                key @ FIRST_LISTENER.. => round.backlog |= self.accept(key, &mut intake),
                key => self.take_in(key as usize, event.flags, &mut intake),
            }
        }
        self.answer_received(&mut intake);
        drop(intake);
        self.see_who_left();
        Ok(round)
    }

    /// Takes in a connection that another thread has accepted.
    pub(crate) fn welcome(self: &Rc<Self>, accepted: Accepted) {
        let mut intake = self.reactor.intake();
        self.begin_with(accepted, &mut intake);
        self.answer_received(&mut intake);
    }

    /// Begins a connection with what its client has sent already, which may be all it ever will.
    fn begin_with(self: &Rc<Self>, accepted: Accepted, intake: &mut Intake<'_>) {
        if let Some((key, connection)) = self.let_in(accepted) {
            self.receive(key, connection, intake);
        }
    }

    /// Answers what was received in this round. All of it was received before, so a look at a file
    /// from here on is later than every request that it serves.
    fn answer_received(self: &Rc<Self>, intake: &mut Intake<'_>) {
        self.reactor.batch.set(self.reactor.batch.get() + 1);
        let Intake {
            buffer,
            filled,
            received,
        } = intake;
        for Received {
            key,
            connection,
            bytes,
        } in received.drain(..)
        {
            connection.has_asked.set(false);
            self.attend(key, &connection, Some(&buffer[bytes]));
        }
        *filled = 0;
    }

    /// Takes in what epoll reported of a connection, and receives from it if it is waiting for a
    /// request.
    fn take_in(self: &Rc<Self>, key: usize, flags: EventFlags, intake: &mut Intake<'_>) {
        let Some(connection) = self.connections.borrow().get(key).map(Rc::clone) else {
            return;
        };
        connection.stream.note(flags);
        if connection.phase() == Phase::Departing {
            return self.see_off(key, &connection);
        }
        if let Some(task) = &*connection.task.borrow() {
            let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            if gone && connection.phase() == Phase::Working {
                // Nobody is left for what is being read from the disk.
                task.abort();
            }
            connection.stream.wake();
            return;
        }
        if !connection.stream.may_be_readable() {
            return;
        }
        if connection.phase() == Phase::Lingering {
            if !self.linger(&connection) {
                self.end(key);
            }
            return;
        }
        if !connection.input.borrow().bytes.is_empty() {
            // The rest of a request that came in pieces.
            return self.attend(key, &connection, None);
        }
        self.receive(key, connection, intake);
    }

    /// Reads off what a client says to whom nothing more is said: unread, it would have the kernel
    /// reset the connection when that is closed, and what the client has yet to take would be lost.
    fn see_off(&self, key: usize, connection: &Connection) {
        let mut buffer = self.reactor.receive_more.borrow_mut();
        for _ in 0..SEEING_OFF_READS {
            if !matches!(connection.stream.try_recv(&mut buffer), Ok(1..)) {
                break;
            }
        }
        if !connection.is_undelivered() {
            self.remove(key);
        }
    }

    fn receive(self: &Rc<Self>, key: usize, connection: Rc<Connection>, intake: &mut Intake<'_>) {
        if intake.buffer.len() - intake.filled < SLICE_BYTES {
            self.answer_received(intake);
        }
        let free = intake.filled..intake.filled + SLICE_BYTES;
        match connection.stream.try_recv(&mut intake.buffer[free]) {
            Ok(n @ 1..) => {
                let bytes = intake.filled..intake.filled + n;
                intake.filled += n;
                connection.has_asked.set(true);
                intake.received.push(Received {
                    key,
                    connection,
                    bytes,
                });
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.watch(key, &connection);
            }
            Ok(0) | Err(_) => self.end(key),
        }
    }

    /// Has the rest of a connection's life reported; false if that is over.
    pub(crate) fn watch(&self, key: usize, connection: &Connection) -> bool {
        let watched = connection.stream.watch();
        if let Err(e) = &watched {
            self.error_report(|| format!("cannot watch a connection: {e}"));
            self.remove(key);
        }
        watched.is_ok()
    }

    /// Answers what a connection has sent, `received` first; what takes waiting gets a task.
    fn attend(self: &Rc<Self>, key: usize, connection: &Rc<Connection>, received: Option<&[u8]>) {
        // A defect that one request can trigger ends its own connection, and no other.
        let answering = AssertUnwindSafe(|| self.answer_requests(connection, received));
        let Ok(event) = catch_unwind(answering) else {
            tracing::error!("a defect ended the connection of {}", connection.peer);
            return self.remove(key);
        };
        match event {
            Some(event) => self.go_on(key, connection, event),
            None => {
                self.watch(key, connection);
            }
        }
    }

    /// Does what `event` says; what takes waiting gets a task.
    pub(crate) fn go_on(self: &Rc<Self>, key: usize, connection: &Rc<Connection>, event: Event) {
        match event {
            Event::Close | Event::Next(Next::Close) => return self.end(key),
            Event::Leave | Event::Next(Next::Leave) => {
                return self.ask_to_leave(key, connection);
            }
            _ => {}
        }
        if self.watch(key, connection) {
            let attended = Attended::new(self, key);
            let task = wait_for(attended, Rc::clone(connection), event);
            let task = tokio::task::spawn_local(task).abort_handle();
            connection.task.replace(Some(task));
        }
    }

    /// Accepts some of those who wait; true if there may be more.
    fn accept(self: &Rc<Self>, key: u64, intake: &mut Intake<'_>) -> bool {
        let index = (key - FIRST_LISTENER) as usize;
        let expected = match self.reactor.acceptors.borrow().get(index) {
            Some(acceptor) => acceptor.batch.size(),
            None => return false,
        };
        for _ in 0..expected {
            let attempt = match self.reactor.acceptors.borrow_mut().get_mut(index) {
                Some(acceptor) => acceptor.accept(),
                None => return false,
            };
            match attempt {
                Attempt::Accepted(accepted) => self.begin_with(accepted, intake),
                Attempt::Refused => {}
                Attempt::Nobody => return false,
                Attempt::Exhausted => {
                    self.yield_descriptors();
                    self.reactor.rest(index);
                    return false;
                }
            }
        }
        if let Some(acceptor) = self.reactor.acceptors.borrow_mut().get_mut(index) {
            acceptor.batch.filled(self.reactor.rounds.get());
        }
        true
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; an OwnedFd keeps the one promise asked for"
)]
fn watch_reactor(reactor: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    AsyncFd::with_interest(reactor, Interest::READABLE)
}
