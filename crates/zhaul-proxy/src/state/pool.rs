//! A pool at run time: choosing a server, and waiting for one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zhaul::relay::RelayOptions;

use crate::balance::{Balancer, Candidate, Choice, Turns};
use crate::config::{self, WhenDown};
use crate::health::{Change, Status};
use crate::mailbox::{Letter, Mailbox};
use crate::server::Server;

/// The servers of one name in one configuration.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) name: String,
    pub(crate) config: config::Pool,
    /// In the order of `config.servers`.
    pub(crate) servers: Vec<Arc<Server>>,
    /// What holds for every relay.
    pub(crate) relay_options: Arc<RelayOptions>,
    balancer: Balancer,
    /// Shared with the pools of this name before and after a reload.
    queue: Arc<Queue>,
}

/// What a pool has in common with those of its name before and after a reload.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    queue: Arc<Queue>,
    turns: Arc<Turns>,
}

/// Those who wait for a place, in the order in which they came.
#[derive(Debug, Default)]
struct Queue(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    /// By ticket, so that whoever was told in vain gets its old position back.
    waiting: BTreeMap<u64, Waiter>,
    next_ticket: u64,
    /// Told of a place, and not heard of since. They come before everybody who arrives.
    called: usize,
}

/// A session that waits for a place, on some worker.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) worker: Mailbox,
    pub(crate) session: u64,
}

/// A place at a server; given back on drop, and then somebody who waits is told.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) pool: Arc<Pool>,
    /// Index into the pool's servers.
    pub(crate) index: usize,
}

/// What choosing came to.
#[derive(Debug)]
pub(crate) enum Chosen {
    Place(Place),
    /// Somebody may leave or come back: wait.
    Wait,
    /// There is no server, and none to wait for.
    Nobody,
}

fn relay_options(config: &config::Pool) -> RelayOptions {
    let some = |time: Duration| (!time.is_zero()).then_some(time);
    let mut options = RelayOptions::default();
    options.idle = some(config.idle_timeout);
    options.fin_timeout = [some(config.fin_timeout); 2];
    options.deadline = some(config.session_timeout);
    options
}

impl Place {
    pub(crate) fn server(&self) -> &Arc<Server> {
        &self.pool.servers[self.index]
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.server().leave();
        self.pool.call_next();
    }
}

impl Pool {
    pub(crate) fn new(
        name: &str,
        config: config::Pool,
        servers: Vec<Arc<Server>>,
        carried: Carried,
    ) -> Self {
        let Carried { queue, turns } = carried;
        let is_there = |identity| servers.iter().any(|server| server.identity == identity);
        turns.retain(is_there);
        Self {
            name: name.to_owned(),
            balancer: Balancer::new(config.balance, turns),
            relay_options: Arc::new(relay_options(&config)),
            config,
            servers,
            queue,
        }
    }

    /// Chooses a server that was not tried before, and takes a place at it.
    pub(crate) fn choose(
        self: &Arc<Self>,
        client: Option<IpAddr>,
        tried: &[usize],
        random: &mut fastrand::Rng,
        now: Duration,
    ) -> Chosen {
        // Another worker may take the last place between the look and the taking.
        for _ in 0..=self.servers.len() {
            let candidates = self.candidates(tried, now);
            match self.balancer.choose(&candidates, client, random) {
                Choice::Server(index) => {
                    let max = self.config.servers[index].max_connections;
                    if self.servers[index].enter(max) {
                        let patience = self.config.connect_timeout;
                        self.servers[index].health().trying(patience, now);
                        return Chosen::Place(Place {
                            pool: Arc::clone(self),
                            index,
                        });
                    }
                }
                Choice::Full => return Chosen::Wait,
                Choice::Down => return self.when_down(tried),
            }
        }
        Chosen::Wait
    }

    /// A connection for which every server was tried is not to wait for them.
    fn when_down(&self, tried: &[usize]) -> Chosen {
        match self.config.when_down {
            WhenDown::Queue if tried.is_empty() => Chosen::Wait,
            WhenDown::Queue | WhenDown::Close => Chosen::Nobody,
        }
    }

    fn candidates(&self, tried: &[usize], now: Duration) -> Vec<Candidate> {
        let slow_start = self.config.slow_start;
        let of = |(index, server): (usize, &Arc<Server>)| {
            let config = &self.config.servers[index];
            let health = server.health();
            let share = health.share(server.weight(config), slow_start, now);
            let is_up = health.status(now) == Status::Up;
            drop(health);
            Candidate {
                share,
                connections: server.connections(),
                max_connections: config.max_connections,
                up: is_up && server.is_resolved(),
                backup: config.backup,
                tried: tried.contains(&index),
                identity: server.identity,
            }
        };
        let mut candidates: Vec<_> = self.servers.iter().enumerate().map(of).collect();
        let stands = |c: &Candidate| c.up && c.share > 0 && !c.tried;
        if self.config.when_down == WhenDown::Close && !candidates.iter().any(stands) {
            // With nobody else to go to, one that failed connections counted out is better than none.
            for (candidate, server) in candidates.iter_mut().zip(&self.servers) {
                candidate.up |= server.status(now) == Status::Out;
            }
        }
        candidates
    }

    /// Takes in how connecting to a server went, and tells those who wait if it came up. The last one
    /// standing is not counted out: nobody would be served any sooner.
    pub(crate) fn connected(self: &Arc<Self>, index: usize, made: bool, now: Duration) {
        let stands = |(other, server): (usize, &Arc<Server>)| {
            let weight = server.weight(&self.config.servers[other]);
            other != index && weight > 0 && server.status(now) == Status::Up
        };
        let may_go = made
            || self.config.when_down == WhenDown::Queue
            || self.servers.iter().enumerate().any(stands);
        let passive = self.config.passive.as_ref().filter(|_| may_go);
        let change = self.servers[index].connected(made, passive, now);
        if change == Some(Change::CameUp) {
            self.call_all();
        }
    }

    /// When the next server that failed connections counted out may be tried again, which nobody
    /// will tell those who wait.
    pub(crate) fn back_at(&self, now: Duration) -> Option<Duration> {
        let back = |server: &Arc<Server>| server.health().back_at(now);
        self.servers.iter().filter_map(back).min()
    }

    /// What goes on in the pool of this name in another configuration.
    pub(crate) fn carried(&self) -> Carried {
        Carried {
            queue: Arc::clone(&self.queue),
            turns: self.balancer.turns(),
        }
    }

    /// Whether those who wait in one wait in the other.
    pub(crate) fn shares_queue_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.queue, &other.queue)
    }

    /// Whether somebody was here first.
    pub(crate) fn has_queue(&self) -> bool {
        let line = self.line();
        line.called > 0 || !line.waiting.is_empty()
    }

    /// Lets a session wait, and says under which ticket; `None` if too many do.
    pub(crate) fn wait(&self, waiter: Waiter) -> Option<u64> {
        let mut line = self.line();
        if line.waiting.len() >= self.config.when_full.queue {
            return None;
        }
        let ticket = line.next_ticket;
        line.next_ticket += 1;
        line.waiting.insert(ticket, waiter);
        Some(ticket)
    }

    /// Lets a session that was told in vain wait on where it was.
    pub(crate) fn wait_on(&self, ticket: u64, waiter: Waiter) {
        self.line().waiting.insert(ticket, waiter);
    }

    /// Takes a session that has gone, or waited long enough, out of the queue.
    pub(crate) fn forget(&self, ticket: u64) {
        self.line().waiting.remove(&ticket);
    }

    /// Tells the first of those who wait that there may be a place.
    pub(crate) fn call_next(self: &Arc<Self>) {
        self.call_from(0);
    }

    /// Tells the first who came after somebody that had no use for a free place.
    pub(crate) fn call_behind(self: &Arc<Self>, ticket: u64) {
        self.call_from(ticket + 1);
    }

    fn call_from(self: &Arc<Self>, ticket: u64) {
        let mut line = self.line();
        let first = line.waiting.range(ticket..).next().map(|(&t, _)| t);
        let Some(waiter) = first.and_then(|ticket| line.waiting.remove(&ticket)) else {
            return;
        };
        line.called += 1;
        // The lock is given back before a letter is sent.
        drop(line);
        self.call(waiter);
    }

    /// Tells all who wait: a server came up.
    pub(crate) fn call_all(self: &Arc<Self>) {
        let mut line = self.line();
        let all = std::mem::take(&mut line.waiting);
        line.called += all.len();
        drop(line);
        for waiter in all.into_values() {
            self.call(waiter);
        }
    }

    /// Somebody who was told has taken a place, or waits again, or has gone.
    pub(crate) fn answered(&self) {
        let mut line = self.line();
        line.called = line.called.saturating_sub(1);
    }

    fn call(self: &Arc<Self>, Waiter { worker, session }: Waiter) {
        let pool = Arc::clone(self);
        worker.send(Letter::PlaceFree { pool, session });
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.line().waiting.len()
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.queue.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
