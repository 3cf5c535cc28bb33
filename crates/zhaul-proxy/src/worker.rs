//! A worker: one thread, one epoll instance, its sessions.
//!
//! Nothing here waits but `epoll_wait(2)`, and nothing on the path of bytes allocates or locks. Time is
//! read once for each round. The worker accepts and hears messages; its sessions are its driver's.

mod accepting;
mod connect;
mod connecting;
mod driver;
mod end;
mod hello;
mod log;
mod message;
mod poller;
mod queueing;
mod relaying;
mod run_queue;
mod session;
mod sessions;
mod socket;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use zhaul::relay::Resources;
use zhaul_service::{LogSender, Mailbox};

pub(crate) use message::Message;
pub(crate) use session::SessionView;

use accepting::{Accepted, Acceptors};
use driver::Driver;
use log::SessionLog;
use poller::{About, EVENTS};
use sessions::side_of;

use crate::state::site::Site;

/// One event loop's state.
#[derive(Debug)]
pub(crate) struct Worker {
    index: usize,
    mailbox: Mailbox<Message>,
    acceptors: Acceptors,
    driver: Driver,
    /// Rounds of the loop so far in which everything was heard.
    round: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Serving,
    /// Accepts nothing more.
    Draining,
    /// Every session has been ended.
    Stopped,
}

/// What a worker is made from.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) index: usize,
    pub(crate) mailbox: Mailbox<Message>,
    pub(crate) site: Arc<Site>,
    pub(crate) resources: Resources,
    pub(crate) zero: Instant,
    pub(crate) log: Option<LogSender>,
}

impl Worker {
    pub(crate) fn new(parts: Parts) -> io::Result<Self> {
        let Parts {
            index,
            mailbox,
            site,
            resources,
            zero,
            log,
        } = parts;
        let log = SessionLog::new(log, site.config.log.as_ref());
        let mut worker = Self {
            index,
            driver: Driver::new(&mailbox, Arc::clone(&site), resources, zero, log)?,
            mailbox,
            acceptors: Acceptors::default(),
            round: 0,
            state: State::Serving,
        };
        worker.take_site(site);
        Ok(worker)
    }

    /// Serves until it was told to stop and the last session has ended.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        while self.state == State::Serving || !self.driver.sessions.is_empty() {
            let timeout = self.driver.timeout(self.acceptors.next_end_of_rest());
            self.driver.poller.wait(&mut events, timeout)?;
            self.driver.begin_batch();
            // With more events than are taken at a time, a socket is not heard of in each of them.
            self.round += u64::from(events.len() < EVENTS);
            for event in events.drain(..) {
                match About::of(&event) {
                    About::Wake => {}
                    About::Socket(index) => self.accept(index),
                    About::Session(name) => self.driver.guarded(name, |driver, key| {
                        driver.event(key, side_of(name), event.flags);
                    }),
                }
            }
            self.read_messages();
            self.driver.serve_bulk();
            self.driver.look_at_the_clock();
            self.driver.serve_starved();
            self.end_rests();
        }
        self.driver.log.flush();
        Ok(())
    }

    fn read_messages(&mut self) {
        for message in self.mailbox.take() {
            match message {
                Message::PlaceFree { queue, session } => self.driver.place_free(&queue, session),
                Message::Site(site) if self.state == State::Serving => self.take_site(site),
                Message::Site(_) => {}
                Message::Drain(site) => {
                    self.take_site(site);
                    if self.state == State::Serving {
                        self.state = State::Draining;
                    }
                }
                Message::Stop => {
                    self.state = State::Stopped;
                    self.driver.kill_all();
                }
                Message::List(reply) => {
                    // Whoever asked may have gone.
                    let _ = reply.send(self.driver.views());
                }
                Message::Kill { number } => self.driver.kill_number(number),
            }
        }
    }

    /// Serves by another configuration from now on. Nothing about it can end the worker.
    fn take_site(&mut self, site: Arc<Site>) {
        let index = self.index;
        let is_own = |worker: Option<usize>| worker.is_none_or(|worker| worker == index);
        let sockets = site.sockets.iter().filter(|s| is_own(s.asked.worker));
        let driver = &mut self.driver;
        let (poller, trouble) = (&driver.poller, &mut driver.trouble);
        self.acceptors
            .replace(sockets.cloned(), poller, trouble, driver.now);
        driver.take_site(site);
    }

    /// Accepts some of those who wait.
    fn accept(&mut self, index: usize) {
        for _ in 0..self.acceptors.batch_size(index) {
            // A place that became free before is no reason to end a rest that begins now.
            self.end_rests_for_a_place();
            let driver = &mut self.driver;
            let (site, poller, trouble) = (&driver.site, &driver.poller, &mut driver.trouble);
            match self
                .acceptors
                .accept(index, site, poller, trouble, driver.now)
            {
                Accepted::Client(client) => driver.open(client),
                Accepted::Gone => {}
                Accepted::Nobody => return,
            }
        }
        self.acceptors.filled(index, self.round);
    }

    /// Looks again at listening sockets that rest: those that have rested long enough, or all, if a
    /// place has become free, for which somebody may wait there.
    fn end_rests(&mut self) {
        self.end_rests_for_a_place();
        let (poller, now) = (&self.driver.poller, self.driver.now);
        self.acceptors.end_rests_due(poller, now);
    }

    fn end_rests_for_a_place(&mut self) {
        if self.driver.take_freed_a_place() {
            let (poller, now) = (&self.driver.poller, self.driver.now);
            self.acceptors.end_rests(poller, now);
        }
    }
}

#[cfg(test)]
mod tests;
