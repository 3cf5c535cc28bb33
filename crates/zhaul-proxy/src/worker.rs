//! A worker: one thread, one epoll instance, its sessions.
//!
//! Everything is edge-triggered except listening sockets. Nothing here waits but `epoll_wait(2)`, and
//! nothing on the path of bytes allocates or locks. Time is read once for each round.

mod accepting;
mod beginning;
mod connecting;
mod ending;
mod serving;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use slab::Slab;
use zhaul::relay::{Resources, Side};
use zhaul_service::{AcceptBatch, LogSender, Trouble};

use crate::client_hello::MAX_STREAM_BYTES;
use crate::connect;
use crate::log::Lines;
use crate::mailbox::{Letter, Mailbox};
use crate::pool::Pool;
use crate::session::{End, Phase, Session};
use crate::site::{Site, Socket};
use crate::timers::Timers;

/// Events taken at a time.
const EVENTS: usize = 256;
/// What the worker calls its wake-up.
const WAKE: u64 = u64::MAX;
/// What it calls listening sockets, counted up; sessions are below.
const FIRST_SOCKET: u64 = 0xffff_ffff_0000_0000;
/// Timers of sessions that have ended are thrown out when there are so many more than sessions.
const TIMERS_TO_SPARE: usize = 1024;
/// How long log lines are held back.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// One event loop's state.
#[derive(Debug)]
pub(crate) struct Worker {
    index: usize,
    epoll: OwnedFd,
    mailbox: Mailbox,
    site: Arc<Site>,
    sockets: Vec<Listening>,
    /// Rounds of the loop so far in which everything was heard.
    round: u64,
    /// Batches of events so far.
    batch: u64,
    sessions: Slab<Session>,
    /// Goes up with each session.
    generation: u32,
    timers: Timers,
    /// Relays that carry bulk or used up their turn, and wait for the next.
    line: VecDeque<u64>,
    /// The last event of a relay that does not carry bulk.
    chatted_at: Duration,
    /// Relays that found no buffer.
    starved: VecDeque<u64>,
    resources: Resources,
    /// Where beginnings are looked at.
    peek: Box<[u8]>,
    random: fastrand::Rng,
    /// The zero of all times.
    zero: Instant,
    now: Duration,
    log: Option<LogSender>,
    lines: Lines,
    flush_at: Option<Duration>,
    trouble: Trouble,
    state: State,
}

/// A socket this worker accepts on.
#[derive(Debug)]
struct Listening {
    socket: Socket,
    /// Not looked at until then: there was nothing to be done about whoever waits there.
    rests_until: Option<Duration>,
    /// Whether its connections are TCP, which they inherit.
    is_tcp: bool,
    /// Connections may wait there from before it had the options of this configuration.
    has_older: bool,
    batch: AcceptBatch,
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
    pub(crate) mailbox: Mailbox,
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
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, mailbox.wake(), EventData::new_u64(WAKE), flags)?;
        let lines = Lines::new(site.config.log.as_ref());
        let mut worker = Self {
            index,
            epoll,
            mailbox,
            sockets: Vec::new(),
            round: 0,
            batch: 0,
            sessions: Slab::new(),
            generation: 0,
            timers: Timers::default(),
            line: VecDeque::new(),
            chatted_at: Duration::ZERO,
            starved: VecDeque::new(),
            resources,
            peek: vec![0; MAX_STREAM_BYTES].into_boxed_slice(),
            random: fastrand::Rng::new(),
            zero,
            now: zero.elapsed(),
            log,
            lines,
            flush_at: None,
            trouble: Trouble::default(),
            state: State::Serving,
            site: Arc::clone(&site),
        };
        worker.take_site(site);
        Ok(worker)
    }

    /// Serves until it was told to stop and the last session has ended.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        while self.state == State::Serving || !self.sessions.is_empty() {
            let timeout = self.timeout();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            self.now = self.zero.elapsed();
            self.batch += 1;
            // With more events than are taken at a time, a socket is not heard of in each of them.
            self.round += u64::from(events.len() < EVENTS);
            for event in events.drain(..) {
                match event.data.u64() {
                    WAKE => {}
                    socket @ FIRST_SOCKET.. => self.accept((socket - FIRST_SOCKET) as usize),
                    name => self.guarded(name, |worker, key| {
                        worker.event(key, side_of(name), event.flags);
                    }),
                }
            }
            self.read_letters();
            self.serve_line();
            self.look_at_the_clock();
            self.serve_starved();
        }
        self.flush();
        Ok(())
    }

    /// Until when nothing has to be done that no event tells of.
    fn timeout(&self) -> Option<Timespec> {
        let wait = if self.line.is_empty() {
            let rests = self.sockets.iter().filter_map(|s| s.rests_until);
            let next = rests.chain(self.timers.next()).chain(self.flush_at).min()?;
            next.saturating_sub(self.zero.elapsed())
        } else {
            Duration::ZERO
        };
        Timespec::try_from(wait).ok()
    }

    fn look_at_the_clock(&mut self) {
        while let Some((at, name)) = self.timers.due(self.now) {
            self.guarded(name, |worker, key| worker.timer(key, at));
        }
        for index in 0..self.sockets.len() {
            if self.sockets[index]
                .rests_until
                .is_some_and(|until| until <= self.now)
            {
                self.end_rest(index);
            }
        }
        if self.flush_at.is_some_and(|at| at <= self.now) {
            self.flush();
        }
        if self.timers.len() > 2 * self.sessions.len() + TIMERS_TO_SPARE {
            let sessions = &self.sessions;
            self.timers.retain(|at, name| {
                find(sessions, name).is_some_and(|key| sessions[key].armed == Some(at))
            });
        }
    }

    /// Does something to a session, if it is still there. A defect that one session triggers ends
    /// that session, and no other.
    fn guarded(&mut self, name: u64, what: impl FnOnce(&mut Self, usize)) {
        let Some(key) = self.find(name) else { return };
        let doing = AssertUnwindSafe(|| what(self, key));
        if catch_unwind(doing).is_err() {
            tracing::error!("a defect ended a session");
            if self.find(name).is_some() {
                self.end(key, &End::Defect);
            }
        }
    }

    fn find(&self, name: u64) -> Option<usize> {
        find(&self.sessions, name)
    }

    /// What epoll, timers and others call a session's client side.
    fn name(&self, key: usize) -> u64 {
        name_of(self.sessions[key].generation, key)
    }

    /// Registers a socket of a session. Once, for everything, and never again.
    fn watch(&self, fd: &OwnedFd, name: u64) -> Result<(), Errno> {
        epoll::add(
            &self.epoll,
            fd.as_fd(),
            EventData::new_u64(name),
            EventFlags::from_bits_retain(zhaul::relay::WATCH),
        )
    }

    fn read_letters(&mut self) {
        for letter in self.mailbox.take() {
            match letter {
                Letter::PlaceFree { pool, session } => self.place_free(&pool, session),
                Letter::Site(site) if self.state == State::Serving => self.take_site(site),
                Letter::Site(_) => {}
                Letter::Drain(site) => self.drain(site),
                Letter::Stop => self.stop(),
                Letter::List(reply) => {
                    let views = self.sessions.iter().map(|(_, s)| s.view(self.now));
                    // Whoever asked may have gone.
                    let _ = reply.send(views.collect());
                }
                Letter::Kill { number } => {
                    let key = self.sessions.iter().find(|(_, s)| s.number == number);
                    if let Some((key, _)) = key {
                        self.kill(key);
                    }
                }
            }
        }
    }

    /// A place may be free for a session that waits. If it does not wait any more, the next may.
    fn place_free(&mut self, pool: &Arc<Pool>, name: u64) {
        let waits = self.find(name).filter(|&key| {
            matches!(&self.sessions[key].phase, Phase::Queued { pool: its, .. } if its.shares_queue_with(pool))
        });
        match waits {
            Some(_) => self.guarded(name, Self::leave_queue),
            None => pool.call_next(),
        }
        // Only now, so that nobody who has just arrived comes in between.
        pool.answered();
    }

    /// Serves by another configuration from now on. Nothing about it can end the worker: what cannot
    /// be watched rests, as a listening socket does that nothing could be done about, and says so.
    fn take_site(&mut self, site: Arc<Site>) {
        // Taken out and in again: their numbers are their places in the list.
        for listening in &self.sockets {
            if listening.rests_until.is_none() {
                // It is not watched any more in any case: whoever has it closes it.
                let _ = epoll::delete(&self.epoll, &listening.socket.listening.fd);
            }
        }
        self.sockets.clear();
        for socket in &site.sockets {
            if socket
                .asked
                .worker
                .is_none_or(|worker| worker == self.index)
            {
                self.listen(socket.clone());
            }
        }
        self.site = site;
        self.count_sources();
    }

    fn listen(&mut self, socket: Socket) {
        let index = self.sockets.len();
        let (name, address) = (
            socket.listener.name.clone(),
            socket.listening.address.clone(),
        );
        self.sockets.push(Listening {
            is_tcp: connect::is_tcp(&socket.listening.fd),
            socket,
            rests_until: None,
            batch: AcceptBatch::default(),
            has_older: true,
        });
        if let Err(errno) = self.watch_socket(index) {
            self.sockets[index].rests_until = Some(self.now + accepting::REST);
            self.trouble.error(|| {
                format!("listener {name}: {address} rests: it cannot be watched: {errno}")
            });
        }
    }

    /// A limit on one source's connections may be new: those that it has already count.
    fn count_sources(&mut self) {
        for (_, session) in &mut self.sessions {
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

    fn drain(&mut self, site: Arc<Site>) {
        self.take_site(site);
        if self.state == State::Serving {
            self.state = State::Draining;
        }
    }

    fn stop(&mut self) {
        self.state = State::Stopped;
        let keys: Vec<usize> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.kill(key);
        }
    }
}

fn find(sessions: &Slab<Session>, name: u64) -> Option<usize> {
    let key = (name as u32 >> 1) as usize;
    let session = sessions.get(key)?;
    (session.generation == (name >> 32) as u32).then_some(key)
}

fn name_of(generation: u32, key: usize) -> u64 {
    u64::from(generation) << 32 | (key as u64) << 1
}

/// The lowest bit of a name tells the sides of a session apart.
fn side_of(name: u64) -> Side {
    if name & 1 == 0 { Side::A } else { Side::B }
}

#[cfg(test)]
mod tests {
    use zhaul::PipePool;
    use zhaul::relay::BufferPool;

    use super::*;
    use crate::config;

    pub(super) fn site(text: &str) -> Site {
        let config = config::file::parse("test", text).unwrap();
        Site::new(config, None, &mut Vec::new(), 1, 10).unwrap()
    }

    pub(super) fn worker(site: Arc<Site>) -> Worker {
        let parts = Parts {
            index: 0,
            mailbox: Mailbox::new().unwrap(),
            site,
            resources: Resources {
                pipes: PipePool::new(1, 1 << 16),
                buffers: BufferPool::new(1, 1 << 16),
            },
            zero: Instant::now(),
            log: None,
        };
        Worker::new(parts).unwrap()
    }

    #[test]
    fn a_socket_that_cannot_be_watched_rests_and_the_worker_goes_on() {
        let text = r#"
            [listeners.l]
            listen = ["127.0.0.1:0", "127.0.0.1:0"]
            to = "p"
            [pools.p]
            servers = [{ address = "192.0.2.1:1" }]
        "#;
        let mut site = site(text);
        // The kernel does not watch one descriptor twice.
        let first = site.sockets[0].clone();
        site.sockets.insert(1, first);
        let site = Arc::new(site);
        let mut worker = worker(Arc::clone(&site));
        let rests = |worker: &Worker| {
            let rests = worker.sockets.iter().map(|s| s.rests_until.is_some());
            rests.collect::<Vec<_>>()
        };
        assert_eq!(rests(&worker), [false, true, false]);
        worker.end_rest(1);
        assert_eq!(rests(&worker), [false, true, false]);
        // What rested, and what the kernel was never told of, is taken out as well as the rest.
        worker.take_site(Arc::new(site.without_sockets()));
        assert!(worker.sockets.is_empty());
        worker.take_site(site);
        assert_eq!(rests(&worker), [false, true, false]);
    }
}
