//! The worker's event loop.
//!
//! A round takes what epoll reports, receives from every connection concerned, and only then
//! answers, so that one look at a file can serve all of them (see [`FileSet::check`]).
//!
//! [`FileSet::check`]: crate::files::entry::FileSet::check

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::host::clock::Clock;
use crate::run::accept::{Accepted, Attempt};
use crate::run::admission::{Entry, let_in, yield_descriptors};
use crate::run::answer::Next;
use crate::run::attend::{Attended, wait_for};
use crate::run::connection::{Connection, Phase};
use crate::run::linger::{ask_to_leave, linger, see_who_left};
use crate::run::reactor::{EVENTS, FIRST_LISTENER, Intake, WAKE};
use crate::run::requests::{answer_requests, reject};
use crate::run::worker::{SWEEP, Worker};

/// How long rounds go on before the sweep has its turn.
const TURN_MS: u64 = SWEEP.as_millis() as u64;
/// Longer than this the worker does not sleep, for the sweep's sake.
const SWEEP_TIMEOUT: Timespec = timeout(SWEEP);
/// Most clients that ask for the end close their side as soon as they have the answer. How long
/// somebody who was told to leave has before that is looked at.
const LEAVING: Duration = Duration::from_millis(2);
const LEAVING_TIMEOUT: Timespec = timeout(LEAVING);
const NO_WAIT: Timespec = timeout(Duration::ZERO);
/// Receives at a time from a client to whom nothing more is said; it says more of its own accord.
const SEEING_OFF_READS: usize = 4;

const fn timeout(time: Duration) -> Timespec {
    Timespec {
        tv_sec: time.as_secs().cast_signed(),
        tv_nsec: time.subsec_nanos() as i64,
    }
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

/// Takes events from the reactor and attends to the connections concerned, for ever.
///
/// While no answer is waiting for anything, nobody else on this thread has work for the
/// runtime, and the worker sleeps right here: one epoll_wait for each round, as a bare loop
/// would have it. Otherwise the runtime sleeps, and watches the reactor.
pub(crate) async fn react(worker: Rc<Worker>) -> io::Result<()> {
    let reactor = worker.reactor.watched_by_runtime()?;
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        // First, so that what another thread left before it woke us is seen before we sleep.
        tokio::task::yield_now().await;
        let began_ms = Clock::now_ms();
        while worker.may_sleep() && !round(&worker, &mut events, longest_sleep(&worker))?.is_quiet()
        {
            if Clock::now_ms() - began_ms >= TURN_MS {
                break;
            }
        }
        if !worker.may_sleep() {
            round_with_tasks(&worker, &reactor, &mut events).await?;
        }
    }
}

/// A round for which the runtime sleeps.
async fn round_with_tasks(
    worker: &Rc<Worker>,
    reactor: &AsyncFd<Arc<OwnedFd>>,
    events: &mut Vec<epoll::Event>,
) -> io::Result<()> {
    let mut ready = if worker.reactor.leaving.borrow().is_empty() {
        reactor.readable().await?
    } else {
        match tokio::time::timeout(LEAVING, reactor.readable()).await {
            Ok(ready) => ready?,
            Err(_) => {
                see_who_left(worker);
                return Ok(());
            }
        }
    };
    if round(worker, events, &NO_WAIT)?.took_all() {
        ready.clear_ready();
    }
    Ok(())
}

fn longest_sleep(worker: &Worker) -> &'static Timespec {
    if worker.reactor.leaving.borrow().is_empty() {
        &SWEEP_TIMEOUT
    } else {
        &LEAVING_TIMEOUT
    }
}

/// Waits for events and handles them.
fn round(
    worker: &Rc<Worker>,
    events: &mut Vec<epoll::Event>,
    timeout: &Timespec,
) -> io::Result<Round> {
    match worker.reactor.wait(events, timeout) {
        Ok(()) => {}
        Err(Errno::INTR) => return Ok(Round::default()),
        Err(errno) => return Err(errno.into()),
    }
    let mut round = Round {
        taken: events.len(),
        ..Round::default()
    };
    let mut intake = worker.reactor.intake();
    for event in events.drain(..) {
        match event.data.u64() {
            WAKE => round.woken = true,
            key @ FIRST_LISTENER.. => round.backlog |= accept(worker, key, &mut intake),
            key => take_in(worker, key as usize, event.flags, &mut intake),
        }
    }
    answer_received(worker, &mut intake);
    drop(intake);
    see_who_left(worker);
    Ok(round)
}

/// Takes in a connection that another thread has accepted.
pub(crate) fn welcome(worker: &Rc<Worker>, accepted: Accepted) {
    let mut intake = worker.reactor.intake();
    begin_with(worker, accepted, &mut intake);
    answer_received(worker, &mut intake);
}

/// Begins a connection with what its client has sent already, which may be all it ever will.
fn begin_with(worker: &Rc<Worker>, accepted: Accepted, intake: &mut Intake<'_>) {
    match let_in(worker, accepted) {
        Entry::Granted(key, connection) => receive(worker, key, &connection, intake),
        Entry::Refused(key, connection, why) => {
            let next = reject(worker, &connection, b"", why);
            go_on(worker, key, &connection, next);
        }
    }
}

/// Answers what was received in this round. All of it was received before, so a look at a file
/// from here on is later than every request that it serves.
fn answer_received(worker: &Rc<Worker>, intake: &mut Intake<'_>) {
    worker.reactor.end_batch();
    intake.drain(|key, connection, bytes| attend(worker, key, connection, Some(bytes)));
}

/// Takes in what epoll reported of a connection, and receives from it if it is waiting for a
/// request.
fn take_in(worker: &Rc<Worker>, key: usize, flags: EventFlags, intake: &mut Intake<'_>) {
    let Some(connection) = worker.connections.get(key) else {
        return;
    };
    connection.stream.note(flags);
    if connection.phase() == Phase::Departing {
        return see_off(worker, key, &connection);
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
        let lingers = linger(&connection, &mut worker.reactor.receive_more.borrow_mut());
        if !lingers {
            worker.connections.end(key);
        }
        return;
    }
    if !connection.input.borrow().bytes.is_empty() {
        // The rest of a request that came in pieces.
        return attend(worker, key, &connection, None);
    }
    receive(worker, key, &connection, intake);
}

/// Reads off what a client says to whom nothing more is said: unread, it would have the kernel
/// reset the connection when that is closed, and what the client has yet to take would be lost.
fn see_off(worker: &Worker, key: usize, connection: &Connection) {
    let mut buffer = worker.reactor.receive_more.borrow_mut();
    for _ in 0..SEEING_OFF_READS {
        if !matches!(connection.stream.try_recv(&mut buffer), Ok(1..)) {
            break;
        }
    }
    if !connection.is_undelivered() {
        worker.connections.remove(key);
    }
}

fn receive(worker: &Rc<Worker>, key: usize, connection: &Rc<Connection>, intake: &mut Intake<'_>) {
    if intake.is_full() {
        answer_received(worker, intake);
    }
    match intake.receive(key, connection) {
        Ok(1..) => {}
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            worker.watch(key, connection);
        }
        Ok(0) | Err(_) => worker.connections.end(key),
    }
}

/// Answers what a connection has sent, `received` first; what takes waiting gets a task.
fn attend(worker: &Rc<Worker>, key: usize, connection: &Rc<Connection>, received: Option<&[u8]>) {
    connection.begin_turn();
    // A defect that one request can trigger ends its own connection, and no other.
    let answering = AssertUnwindSafe(|| answer_requests(worker, connection, received));
    let Ok(next) = catch_unwind(answering) else {
        tracing::error!("a defect ended the connection of {}", connection.peer);
        return worker.connections.remove(key);
    };
    match next {
        Some(next) => go_on(worker, key, connection, next),
        None => {
            worker.watch(key, connection);
        }
    }
}

/// Does what `next` says; what takes waiting gets a task.
pub(crate) fn go_on(worker: &Rc<Worker>, key: usize, connection: &Rc<Connection>, next: Next) {
    match next {
        Next::Close => return worker.connections.end(key),
        Next::Leave => return ask_to_leave(worker, key, connection),
        _ => {}
    }
    if worker.watch(key, connection) {
        let attended = Attended::new(worker, key);
        let task = wait_for(attended, Rc::clone(connection), next);
        let task = tokio::task::spawn_local(task).abort_handle();
        connection.task.replace(Some(task));
    }
}

/// Accepts some of those who wait; true if there may be more.
fn accept(worker: &Rc<Worker>, key: u64, intake: &mut Intake<'_>) -> bool {
    let index = (key - FIRST_LISTENER) as usize;
    let Some(expected) = worker.reactor.expected(index) else {
        return false;
    };
    for _ in 0..expected {
        match worker.reactor.accept(index) {
            Some(Attempt::Accepted(accepted)) => begin_with(worker, accepted, intake),
            Some(Attempt::Refused) => {}
            Some(Attempt::Nobody) | None => return false,
            Some(Attempt::Exhausted) => {
                yield_descriptors(worker);
                worker.reactor.rest(index);
                return false;
            }
        }
    }
    worker.reactor.found_expected(index);
    true
}
