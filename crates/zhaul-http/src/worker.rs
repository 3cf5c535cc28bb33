//! A worker: one thread, one event loop, its connections and its cache.
//!
//! Connections are registered with an epoll instance of the worker's own, which the runtime of
//! tokio watches as one descriptor. A connection that waits for requests is an entry in a list and
//! nothing more: no task, no buffer. What epoll reports in one round is received, parsed and, where
//! the answer is in memory, answered in the same round, on the stack of the reactor. Only an
//! answer that has to wait (for the client to take it, for a disk, for an editor) gets a task.
//! Measured against a task for each connection on tokio's own readiness, at 1,000 keep-alive
//! connections this took a sixth off the CPU time of a small answer (ARCHITECTURE.md).
//!
//! Time limits cost a request a coarse clock reading; a sweep over all connections twice a second
//! enforces them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::num::NonZeroU64;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;
use zhaul_service::{LogSender, Peer, Trouble, Wake};

use crate::accept::{Accepted, Acceptor, Door};
use crate::attend::Event;
use crate::cache::{Cache, Weight};
use crate::clock::Clock;
use crate::connection::{Connection, Overdue, Phase};
use crate::entry::FileSet;
use crate::loading::Loading;
use crate::reactor::Reactor;
use crate::record::Lines;
use crate::server::Stop;
use crate::site::Site;
use crate::stream::Stream;

/// How often time limits are looked at and the log is flushed.
pub(crate) const SWEEP: Duration = Duration::from_millis(500);
/// How long a draining worker waits for the first request of a connection.
const FRESH_MS: u64 = 1000;
/// Where connections are short, the rate of taking is averaged over no longer than this.
const CROWDED_SEND_WINDOW: Duration = Duration::from_secs(10);

impl Weight for FileSet {
    fn bytes(&self) -> usize {
        self.memory()
    }

    fn files(&self) -> usize {
        self.open_files()
    }
}

/// One event loop's state.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) site: Arc<Site>,
    pub(crate) cache: RefCell<Cache<FileSet>>,
    pub(crate) clock: Clock,
    /// Which parts of files were found in the page cache lately.
    pub(crate) residency: zhaul::residency::ResidencyCache,
    /// Look-ups under way on file systems that may not answer.
    pub(crate) loading: RefCell<HashMap<Box<[u8]>, Loading>>,
    /// Room for the key of a look-up.
    pub(crate) key: RefCell<Vec<u8>>,
    pub(crate) log: Option<LogSender>,
    pub(crate) log_lines: RefCell<Lines>,
    pub(crate) reactor: Reactor,
    pub(crate) connections: RefCell<Slab<Rc<Connection>>>,
    door: Arc<Door>,
    /// Shortages of descriptors that something was done about.
    shortages: Cell<usize>,
    draining: Cell<bool>,
    one_less: Notify,
    /// Connections with a task.
    pub(crate) attending: Cell<usize>,
    /// Connections that another thread has accepted wait to be taken in.
    pub(crate) has_mail: Cell<bool>,
    trouble: RefCell<Trouble>,
}

/// Connections that another thread accepts for this worker; `None` if it accepts by itself.
type Inbox = Option<mpsc::UnboundedReceiver<Accepted>>;

async fn next_of(inbox: &mut Inbox) -> Option<Accepted> {
    match inbox {
        Some(inbox) => inbox.recv().await,
        None => std::future::pending().await,
    }
}

impl Worker {
    pub(crate) fn new(
        site: Arc<Site>,
        cached_files: usize,
        cached_bytes: usize,
        log: Option<LogSender>,
        door: Arc<Door>,
        wake: &Wake,
    ) -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            reactor: Reactor::new(wake)?,
            cache: RefCell::new(Cache::new(cached_files, cached_bytes)),
            clock: Clock::new(),
            residency: zhaul::residency::ResidencyCache::new(),
            loading: RefCell::default(),
            key: RefCell::default(),
            site,
            log,
            log_lines: RefCell::default(),
            connections: RefCell::default(),
            door,
            shortages: Cell::new(0),
            draining: Cell::new(false),
            one_less: Notify::new(),
            attending: Cell::new(0),
            has_mail: Cell::new(false),
            trouble: RefCell::default(),
        }))
    }

    /// Serves what comes through `inbox`, or what `acceptors` let in, until it is told to stop and
    /// the last answer is sent.
    pub(crate) async fn run(
        self: Rc<Self>,
        mut inbox: Inbox,
        acceptors: Vec<Acceptor>,
        mut stop: watch::Receiver<Stop>,
    ) -> io::Result<()> {
        self.reactor.listen(acceptors)?;
        let reacting = tokio::task::spawn_local(Rc::clone(&self).react());
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told_to_stop = false;
        while !told_to_stop && !reacting.is_finished() {
            tokio::select! {
                accepted = next_of(&mut inbox) => match accepted {
                    Some(accepted) => {
                        self.welcome(accepted);
                        // The runtime interrupts a task that always finds something.
                        let has_mail = inbox.as_ref().is_some_and(|inbox| !inbox.is_empty());
                        self.has_mail.set(has_mail);
                    }
                    None => break,
                },
                _ = sweep.tick() => self.sweep(),
                told = stop.wait_for(|stop| *stop != Stop::No) => told_to_stop = told.is_ok(),
            }
        }
        // Whoever comes now is refused.
        self.reactor.close_listeners();
        self.drain(inbox, stop).await;
        self.flush_log();
        if reacting.is_finished() {
            return reacting.await.map_err(io::Error::other)?;
        }
        reacting.abort();
        Ok(())
    }

    async fn drain(self: &Rc<Self>, mut inbox: Inbox, mut stop: watch::Receiver<Stop>) {
        self.draining.set(true);
        // Accepted before the socket was closed: these clients were promised an answer.
        while let Some(Ok(accepted)) = inbox.as_mut().map(mpsc::UnboundedReceiver::try_recv) {
            self.welcome(accepted);
        }
        self.close_idle();
        // A limit beyond what a clock can say is none.
        let mut deadline = pin!(tokio::time::sleep(self.site.config.limits.drain_timeout));
        let mut sweep = tokio::time::interval(SWEEP);
        while !self.connections.borrow().is_empty() {
            tokio::select! {
                () = self.one_less.notified() => {}
                Some(accepted) = next_of(&mut inbox) => self.welcome(accepted),
                _ = sweep.tick() => self.sweep(),
                _ = stop.wait_for(|stop| *stop == Stop::Now) => break,
                () = &mut deadline => break,
            }
        }
        let left = self.connections.borrow().len();
        if left > 0 {
            tracing::warn!("{left} connections were cut off when the time to drain had passed");
            self.end_all(|_| Some(Overdue::Slow));
        }
        while !self.connections.borrow().is_empty() {
            self.one_less.notified().await;
        }
    }

    /// Ends a connection: at once, or when the client has acknowledged all that was said to it. Until
    /// then it counts against every limit, as its bytes do in the kernel.
    pub(crate) fn end(&self, key: usize) {
        let connection = self.connections.borrow().get(key).map(Rc::clone);
        if let Some(connection) = connection {
            let undelivered = connection.is_undelivered();
            if undelivered && connection.stream.watch().is_ok() {
                return connection.depart();
            }
        }
        self.remove(key);
    }

    /// Forgets a connection, and closes it.
    pub(crate) fn remove(&self, key: usize) {
        let removed = self.connections.borrow_mut().try_remove(key);
        drop(removed);
        self.one_less.notify_one();
    }

    /// Reports what goes wrong, as far as clients may make it be reported.
    pub(crate) fn warn(&self, what: impl FnOnce() -> String) {
        self.trouble.borrow_mut().warn(what);
    }

    /// Reports what the machine does wrong.
    pub(crate) fn error_report(&self, what: impl FnOnce() -> String) {
        self.trouble.borrow_mut().error(what);
    }

    /// Names the requests that were received together.
    pub(crate) fn batch(&self) -> u64 {
        self.reactor.batch()
    }

    /// Whether connections are to be closed behind their current answer.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Makes a place for a new connection.
    pub(crate) fn adopt(&self, accepted: Accepted) -> (usize, Rc<Connection>) {
        let Accepted {
            fd,
            peer,
            admission,
        } = accepted;
        let is_tcp = matches!(peer, Peer::Ip(_));
        let mut connections = self.connections.borrow_mut();
        let entry = connections.vacant_entry();
        let key = entry.key();
        let mut stream = Stream::new(fd, is_tcp, self.reactor.epoll(), key as u64);
        if let Some(rate) = NonZeroU64::new(self.site.config.limits.rate)
            && let Err(e) = stream.set_pace(rate)
        {
            tracing::warn!("cannot limit the rate of a connection: {e}");
        }
        let connection = Rc::new(Connection::new(stream, peer, admission));
        entry.insert(Rc::clone(&connection));
        (key, connection)
    }

    fn sweep(self: &Rc<Self>) {
        let now_ms = Clock::now_ms();
        let limits = &self.site.config.limits;
        let storage = self.site.storage.limit();
        // Who takes hardly anything takes a place from others, too.
        let window = match self.door.is_crowded() {
            true => limits.send_window.min(CROWDED_SEND_WINDOW),
            false => limits.send_window,
        };
        self.end_all(|connection| connection.overdue(now_ms, limits, window, storage));
        let shortages = self.door.shortages();
        if self.shortages.replace(shortages) != shortages {
            self.yield_descriptors();
        }
        if self.is_draining() {
            self.close_idle();
        }
        self.reactor.end_rest();
        self.cache.borrow_mut().sweep(self.clock.second());
        self.flush_log();
    }

    fn close_idle(self: &Rc<Self>) {
        let now_ms = Clock::now_ms();
        self.end_all(|connection| {
            // A client that has just connected may have sent a request that is not here yet.
            let spared = connection.served.get() == 0 && connection.age_ms(now_ms) < FRESH_MS;
            let idle = connection.phase() == Phase::Idle && !connection.has_task();
            (idle && !spared).then_some(Overdue::Quiet)
        });
    }

    fn end_all(self: &Rc<Self>, why: impl Fn(&Connection) -> Option<Overdue>) {
        let mut over = Vec::new();
        for (key, connection) in self.connections.borrow().iter() {
            let Some(why) = why(connection) else { continue };
            if why == Overdue::Starved {
                let peer = connection.peer;
                self.error_report(|| {
                    format!(
                        "the answer to {peer} is cut short: its file system did not answer in time"
                    )
                });
            }
            if matches!(why, Overdue::Slow | Overdue::Starved) {
                connection.stream.abort_queued();
            }
            match &*connection.task.borrow() {
                Some(task) => task.abort(),
                None => over.push((key, Rc::clone(connection), why)),
            }
        }
        for (key, connection, why) in over {
            match why {
                Overdue::Header => {
                    let answer = self.too_late(&connection);
                    self.go_on(key, &connection, Event::Next(answer));
                }
                Overdue::Quiet | Overdue::Slow | Overdue::Starved => self.end(key),
            }
        }
    }
}
