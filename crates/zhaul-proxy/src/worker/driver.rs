//! Performs the steps of a worker's sessions: what an event, a timer or a message means for one of
//! them, and what follows.
//!
//! The driver owns sessions, their timers, the queue of those that wait for their turn, and the log. It
//! hands each step of a session what that step needs; the step says what follows ([`Next`]).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use zhaul::relay::{Resources, Side, Turn};
use zhaul_service::{Mailbox, Trouble};

use super::accepting::Client;
use super::connecting::Connector;
use super::end::End;
use super::log::SessionLog;
use super::message::Message;
use super::poller::Poller;
use super::queueing::Chooser;
use super::run_queue::RunQueue;
use super::session::{Next, Phase, Session, SessionView};
use super::sessions::Sessions;
use super::socket::{Unread, reset_on_close, unread};
use super::{hello, relaying};
use crate::pure::client_hello::MAX_STREAM_BYTES;
use crate::pure::timers::Timers;
use crate::state::queue::{Notify, Queue};
use crate::state::site::Site;

/// Timers of sessions that have ended are thrown out when there are so many more than sessions.
const TIMERS_TO_SPARE: usize = 1024;

/// Numbers of sessions, over all workers.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// The sessions of a worker, and everything by which they go on.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) poller: Poller,
    /// The worker's mailbox, for queues.
    notify: Arc<dyn Notify>,
    /// The configuration in force.
    pub(super) site: Arc<Site>,
    pub(super) sessions: Sessions,
    timers: Timers,
    run_queue: RunQueue,
    resources: Resources,
    /// Where beginnings are looked at.
    buffer: Box<[u8]>,
    random: fastrand::Rng,
    /// The zero of all times.
    zero: Instant,
    pub(super) now: Duration,
    /// Batches of events so far.
    pub(super) batch: u64,
    pub(super) log: SessionLog,
    pub(super) trouble: Trouble,
    /// A session has ended since somebody asked.
    has_freed_a_place: bool,
}

impl Driver {
    pub(super) fn new(
        mailbox: &Mailbox<Message>,
        site: Arc<Site>,
        resources: Resources,
        zero: Instant,
        log: SessionLog,
    ) -> io::Result<Self> {
        Ok(Self {
            poller: Poller::new(mailbox.wake())?,
            notify: Arc::new(mailbox.clone()),
            site,
            sessions: Sessions::default(),
            timers: Timers::default(),
            run_queue: RunQueue::default(),
            resources,
            buffer: vec![0; MAX_STREAM_BYTES].into_boxed_slice(),
            random: fastrand::Rng::new(),
            zero,
            now: zero.elapsed(),
            batch: 0,
            log,
            trouble: Trouble::default(),
            has_freed_a_place: false,
        })
    }

    /// A batch of events has come.
    pub(super) fn begin_batch(&mut self) {
        self.now = self.zero.elapsed();
        self.batch += 1;
    }

    /// For how long nothing has to be done that no event tells of, also not at `other`; `None` is for
    /// ever.
    pub(super) fn timeout(&self, other: Option<Duration>) -> Option<Duration> {
        if self.run_queue.bulk() > 0 {
            return Some(Duration::ZERO);
        }
        let times = [other, self.timers.next(), self.log.flush_at()];
        let next = times.into_iter().flatten().min()?;
        Some(next.saturating_sub(self.zero.elapsed()))
    }

    /// Whether a session has ended since this was asked last.
    pub(super) const fn take_freed_a_place(&mut self) -> bool {
        std::mem::replace(&mut self.has_freed_a_place, false)
    }

    /// Looks at the sessions whose time has come, and at the log.
    pub(super) fn look_at_the_clock(&mut self) {
        while let Some((at, name)) = self.timers.due(self.now) {
            self.guarded(name, |driver, key| driver.timer(key, at));
        }
        if self.log.flush_at().is_some_and(|at| at <= self.now) {
            self.log.flush();
        }
        if self.timers.len() > 2 * self.sessions.len() + TIMERS_TO_SPARE {
            let sessions = &self.sessions;
            self.timers.retain(|at, name| {
                let key = sessions.find(name);
                key.is_some_and(|key| sessions[key].armed == Some(at))
            });
        }
    }

    /// All sessions, as the administrator sees them.
    pub(super) fn views(&self) -> Vec<SessionView> {
        let views = self.sessions.iter().map(|(_, s)| s.view(self.now));
        views.collect()
    }

    /// Ends the session of this number, if it is here.
    pub(super) fn kill_number(&mut self, number: u64) {
        let found = self.sessions.iter().find(|(_, s)| s.number == number);
        if let Some((key, _)) = found {
            self.kill(key);
        }
    }

    /// Ends every session.
    pub(super) fn kill_all(&mut self) {
        let keys: Vec<usize> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.kill(key);
        }
    }

    /// Serves by another configuration from now on.
    pub(super) fn take_site(&mut self, site: Arc<Site>) {
        self.site = site;
        self.count_sources();
    }

    /// A limit on one source's connections may be new: those that it has already count.
    fn count_sources(&mut self) {
        for session in self.sessions.iter_mut() {
            // Behind another proxy the client is not known before its header has come.
            let is_known =
                session.introduction.is_some() || session.listener.config.proxy_from.is_none();
            if is_known {
                let client = session.counted();
                // Without a limit, there is nothing that it could be refused for.
                let _ = session.admission.count(0, client);
            }
        }
    }

    /// Does something to a session, if it is still there, and sets its timer. A defect that one session
    /// triggers ends that session, and no other.
    pub(super) fn guarded(&mut self, name: u64, what: impl FnOnce(&mut Self, usize)) {
        let Some(key) = self.sessions.find(name) else {
            return;
        };
        let doing = AssertUnwindSafe(|| what(self, key));
        let is_defect = catch_unwind(doing).is_err();
        if is_defect {
            tracing::error!("a defect ended a session");
        }
        if self.sessions.find(name).is_none() {
            return;
        }
        if is_defect {
            return self.end(key, &End::Defect);
        }
        let session = &mut self.sessions[key];
        if let Some(at) = session.wake_at {
            self.timers.arm(session.name, at, &mut session.armed);
        }
    }

    /// A place may be free for a session that waits. If it does not wait any more, the next may.
    pub(super) fn place_free(&mut self, queue: &Arc<Queue>, name: u64) {
        let key = self.sessions.find(name);
        let waits = key.is_some_and(|key| {
            matches!(&self.sessions[key].phase, Phase::Queued { pool, .. } if Arc::ptr_eq(&pool.queue, queue))
        });
        match waits {
            true => self.guarded(name, |driver, key| {
                let (session, mut chooser) = driver.chooser(key);
                let next = chooser.leave_queue(session);
                driver.go_on(key, next);
            }),
            false => queue.call_next(),
        }
        // Only now, so that nobody who has just arrived comes in between.
        queue.answered();
    }

    /// Opens a session for a client that was let in.
    pub(super) fn open(&mut self, client: Client) {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let now = self.now;
        let new = |name| Session::new(client, number, name, now);
        let key = self.sessions.insert(new);
        let session = &self.sessions[key];
        let name = session.name;
        if let Err(errno) = self.poller.watch(&session.client, name) {
            return self.end(key, &End::exhausted(errno));
        }
        self.guarded(name, |driver, key| {
            let next = hello::begin(&mut driver.sessions[key], now);
            driver.go_on(key, next);
        });
    }

    /// Something happened on a socket of a session.
    pub(super) fn event(&mut self, key: usize, side: Side, flags: EventFlags) {
        let session = &mut self.sessions[key];
        if side == Side::A {
            session.seen |= flags;
        }
        let is_stale = session.stale_in == Some(self.batch);
        if let Some(is_bulk) = relaying::note(session, side, flags, is_stale) {
            // Those for whom latency counts go first.
            if is_bulk {
                self.run_queue.push_bulk(session);
                return;
            }
            self.run_queue.saw_message(self.now);
            if !session.is_queued_for_turn {
                self.turn(key);
            }
            return;
        }
        let next = match (&session.phase, side) {
            (Phase::Connecting(_), Side::B) => {
                let (session, mut connector) = self.connector(key);
                connector.on_event(session, flags)
            }
            // About a socket that was given up earlier in this batch.
            (_, Side::B) => return,
            // A client that ended its stream may still want an answer; one that is gone does not,
            // unless it left something to be delivered (closing a UNIX socket is a hang-up at once).
            _ if flags.contains(EventFlags::ERR)
                || flags.contains(EventFlags::HUP) && unread(&session.client) != Unread::Bytes =>
            {
                Next::End(End::ClientGone)
            }
            (Phase::Hello { .. }, _) => hello::on_bytes(session, &mut self.buffer, self.now),
            _ => return,
        };
        self.go_on(key, next);
    }

    /// An entry of the timers came up; the session may have put its time off since.
    fn timer(&mut self, key: usize, at: Duration) {
        let session = &mut self.sessions[key];
        if session.armed == Some(at) {
            session.armed = None;
        }
        // The entry for the end of connecting comes up here, long after that in most cases.
        relaying::keep_alive_if_due(session);
        if session.wake_at.is_some_and(|wake_at| wake_at <= self.now) {
            session.wake_at = None;
            self.overdue(key);
        }
    }

    /// It is time to look at a session even if nothing has happened.
    pub(super) fn overdue(&mut self, key: usize) {
        let session = &mut self.sessions[key];
        let next = match &session.phase {
            Phase::Hello { .. } => hello::on_timer(session, self.now),
            Phase::Queued { .. } => {
                let (session, mut chooser) = self.chooser(key);
                chooser.on_timer(session)
            }
            Phase::Connecting(_) => {
                let (session, mut connector) = self.connector(key);
                connector.on_timer(session)
            }
            Phase::Relaying { .. } => return self.turn(key),
            Phase::Over => return,
        };
        self.go_on(key, next);
    }

    /// Does what follows for a session, and what follows from that.
    fn go_on(&mut self, key: usize, mut next: Next) {
        loop {
            next = match next {
                Next::Wait => return,
                Next::Choose(pool) => {
                    let (session, mut chooser) = self.chooser(key);
                    chooser.choose(session, &pool)
                }
                Next::Connect(place) => {
                    let (session, mut connector) = self.connector(key);
                    connector.connect(session, place)
                }
                Next::Relay(connected) => {
                    relaying::start(&mut self.sessions[key], connected, self.now);
                    return self.turn(key);
                }
                Next::End(end) => return self.end(key, &end),
            }
        }
    }

    fn chooser(&mut self, key: usize) -> (&mut Session, Chooser<'_>) {
        let chooser = Chooser {
            worker: &self.notify,
            site: &self.site,
            random: &mut self.random,
            now: self.now,
        };
        (&mut self.sessions[key], chooser)
    }

    fn connector(&mut self, key: usize) -> (&mut Session, Connector<'_>) {
        let connector = Connector {
            poller: &self.poller,
            trouble: &mut self.trouble,
            now: self.now,
            batch: self.batch,
        };
        (&mut self.sessions[key], connector)
    }

    /// Gives a relay its turn.
    fn turn(&mut self, key: usize) {
        let (queue, now) = (&mut self.run_queue, self.now);
        let session = &mut self.sessions[key];
        let budget = |whole| queue.budget(whole, now);
        match relaying::turn(session, &self.resources, budget, now) {
            Some(Turn::Wait(wants)) if wants.buffer => queue.push_starved(session),
            Some(Turn::Wait(_)) | None => {}
            Some(Turn::Done(ending)) => self.end(key, &End::Relay(ending)),
            Some(Turn::Again) => queue.push_bulk(session),
        }
    }

    /// Gives those their turn who carry bulk or used up their last one: each of them one, but no more
    /// than fit into the time for which everybody else can be kept waiting. That is at least as long
    /// as everybody else took, so that many messages do not leave bulk less than half of the time.
    pub(super) fn serve_bulk(&mut self) {
        let began = self.zero.elapsed();
        let events = began.saturating_sub(self.now);
        let until = began + self.run_queue.slice(events, self.now);
        for _ in 0..self.run_queue.bulk() {
            let Some(name) = self.run_queue.pop_bulk() else {
                return;
            };
            self.guarded(name, |driver, key| {
                driver.sessions[key].is_queued_for_turn = false;
                driver.turn(key);
            });
            self.now = self.zero.elapsed();
            if self.now >= until {
                return;
            }
        }
    }

    /// Gives those their turn who found no buffer, while there are some. No event tells of it.
    pub(super) fn serve_starved(&mut self) {
        for _ in 0..self.run_queue.starved() {
            if !self.resources.buffers.is_available() {
                return;
            }
            let Some(name) = self.run_queue.pop_starved() else {
                return;
            };
            self.guarded(name, |driver, key| {
                let session = &mut driver.sessions[key];
                session.is_starved = false;
                if !session.is_queued_for_turn {
                    driver.turn(key);
                }
            });
        }
    }

    fn kill(&mut self, key: usize) {
        let session = &mut self.sessions[key];
        let end = relaying::kill(session, &self.resources, self.now);
        self.end(key, &end);
    }

    /// Ends a session, for whatever reason; both sockets are closed, and its place is free.
    fn end(&mut self, key: usize, end: &End) {
        relaying::report(&mut self.sessions[key], 1);
        let mut session = self.sessions.remove(key);
        let stats = match (end, &session.phase) {
            (End::Relay(ending), _) => Some(ending.stats),
            (_, Phase::Relaying { relay, .. }) => Some(relay.stats()),
            _ => None,
        };
        session.leave_phase(self.now);
        if !matches!(end, End::Relay(_)) {
            reset_on_close(&session.client);
        }
        if let End::BadHeader(why) = end {
            let (name, peer) = (&session.listener.name, session.peer);
            self.trouble
                .warn(|| format!("listener {name}: bad PROXY header from {peer}: {why}"));
        }
        session.listener.gate.counts.ended(end.termination());
        self.log.push(&session, end, stats.as_ref(), self.now);
        drop(session);
        self.has_freed_a_place = true;
    }
}
