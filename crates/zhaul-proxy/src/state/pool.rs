//! A pool at run time: choosing a server.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use zhaul::relay::RelayOptions;

use super::queue::Queue;
use super::server::Server;
use crate::config::{self, WhenDown};
use crate::pure::balance::{Balancer, Candidate, Choice, Turns};
use crate::pure::health::{Change, Status};

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
    /// Those who wait for a place. Shared with the pools of this name before and after a reload.
    pub(crate) queue: Arc<Queue>,
}

/// What a pool has in common with those of its name before and after a reload.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    queue: Arc<Queue>,
    turns: Arc<Turns>,
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
        self.pool.queue.call_next();
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
                        let timeout = self.config.connect_timeout;
                        self.servers[index].health().trying(timeout, now);
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
    pub(crate) fn connected(&self, index: usize, made: bool, now: Duration) {
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
            self.queue.call_all();
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
}
