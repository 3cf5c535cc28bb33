//! One server at run time: where it is, how it is, what it has.
//!
//! It outlives the configuration that named it: after a reload a server with the same pool, name
//! and address goes on with its health, its connections and its counts.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::counts::ServerCounts;
use crate::config::{self, Upstream};
use crate::pure::addresses::{Addresses, Endpoint};
use crate::pure::balance;
use crate::pure::health::{AdminState, Change, Health, Status};

/// The state of one server, shared by all workers.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) pool: String,
    pub(crate) name: String,
    pub(crate) address: Upstream,
    pub(crate) identity: u64,
    addresses: ArcSwap<Addresses>,
    /// Its name was looked up, or is being.
    is_sought: AtomicBool,
    /// Which of them is next.
    turn: AtomicUsize,
    health: Mutex<Health>,
    connections: AtomicUsize,
    /// The administrator's weight, or [`AS_CONFIGURED`].
    weight: AtomicU32,
    pub(crate) counts: ServerCounts,
}

const AS_CONFIGURED: u32 = u32::MAX;

impl Server {
    pub(crate) fn new(pool: &str, config: &config::Server) -> Self {
        let endpoints = match &config.address {
            Upstream::Ip(address) => vec![Endpoint::Tcp(*address)],
            Upstream::Unix(addr) => vec![Endpoint::Unix(addr.clone())],
            Upstream::Name(..) => Vec::new(),
        };
        Self {
            pool: pool.to_owned(),
            name: config.name.clone(),
            address: config.address.clone(),
            identity: balance::identity(&config.name),
            addresses: ArcSwap::from_pointee(Addresses::new(endpoints, &Addresses::default())),
            is_sought: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            health: Mutex::default(),
            connections: AtomicUsize::new(0),
            weight: AtomicU32::new(AS_CONFIGURED),
            counts: ServerCounts::default(),
        }
    }

    /// Whether connections to it are TCP.
    pub(crate) const fn is_tcp(&self) -> bool {
        !matches!(self.address, Upstream::Unix(_))
    }

    /// The addresses to be tried, one after the other; none while its name does not resolve. Trying
    /// one takes `timeout` at most.
    pub(crate) fn addresses(&self, timeout: Duration, now: Duration) -> Vec<Endpoint> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.addresses.load().order(turn, timeout, now)
    }

    /// Takes in how one of its addresses is.
    pub(crate) fn learn(&self, address: &Endpoint, is_good: bool, now: Duration) {
        self.addresses.load().learn(address, is_good, now);
    }

    /// Whether there is an address to connect to.
    pub(crate) fn is_resolved(&self) -> bool {
        !self.addresses.load().is_empty()
    }

    /// Whether its name is to be looked up for the first time; who asks is who does it.
    pub(crate) fn is_unsought(&self) -> bool {
        !self.is_sought.swap(true, Ordering::Relaxed)
    }

    /// Takes in what the name stands for; true if that is new.
    pub(crate) fn resolved(&self, endpoints: Vec<Endpoint>) -> bool {
        let before = self.addresses.load();
        let addresses = Addresses::new(endpoints, &before);
        let is_new = !addresses.are(&before);
        if is_new {
            self.addresses.store(Arc::new(addresses));
        }
        is_new
    }

    /// What it is now.
    pub(crate) fn status(&self, now: Duration) -> Status {
        match self.health().status(now) {
            Status::Up | Status::Out if !self.is_resolved() => Status::Unresolved,
            status => status,
        }
    }

    pub(crate) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// The weight in force, before any slow start.
    pub(crate) fn weight(&self, config: &config::Server) -> u32 {
        match self.weight.load(Ordering::Relaxed) {
            AS_CONFIGURED => config.weight,
            weight => weight,
        }
    }

    /// Sets the weight until the next start, or back to the configured one.
    pub(crate) fn set_weight(&self, weight: Option<u32>) {
        let weight = weight.unwrap_or(AS_CONFIGURED);
        self.weight.store(weight, Ordering::Relaxed);
    }

    /// Takes a place, unless `max` are taken (0 means no limit).
    pub(crate) fn enter(&self, max: usize) -> bool {
        let enter = |connections| (max == 0 || connections < max).then_some(connections + 1);
        self.connections
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, enter)
            .is_ok()
    }

    /// It is in no configuration any more: what the administrator wanted of it is done with.
    pub(crate) fn depart(&self) {
        self.set_weight(None);
        self.health().admin_state = AdminState::Ready;
    }

    pub(crate) fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::AcqRel);
    }

    /// Takes in how connecting went, and says so if that changes what the server is.
    pub(crate) fn connected(
        &self,
        made: bool,
        passive: Option<&config::Passive>,
        now: Duration,
    ) -> Option<Change> {
        let change = self.health().connected(made, passive, now);
        self.report(change, "connections to it", now);
        change
    }

    /// Takes in the result of a check: what failed, if anything did.
    pub(crate) fn checked(
        &self,
        failed: Option<&str>,
        check: &config::Check,
        now: Duration,
    ) -> Option<Change> {
        let passed = failed.is_none();
        let change = self.health().checked(passed, check, now);
        self.report(change, failed.unwrap_or("checks"), now);
        change
    }

    fn report(&self, change: Option<Change>, why: &str, now: Duration) {
        let Self { pool, name, .. } = self;
        match change {
            Some(Change::WentDown) => {
                self.counts.went_down();
                let word = match self.status(now) {
                    Status::Out => "counted out",
                    _ => "down",
                };
                tracing::warn!("server {pool}/{name} is {word}: {why} failed");
            }
            Some(Change::CameUp) => {
                tracing::warn!("server {pool}/{name} is up again: {why} succeeded");
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &str) -> Server {
        Server::new(
            "p",
            &config::Server {
                name: "s".to_owned(),
                address: address.parse().unwrap(),
                weight: 5,
                backup: false,
                max_connections: 0,
                init: config::Init::default(),
            },
        )
    }

    #[test]
    fn places_are_limited_and_given_back() {
        let server = server("192.0.2.1:1");
        assert!(server.enter(2));
        assert!(server.enter(2));
        assert!(!server.enter(2));
        server.leave();
        assert!(server.enter(2));
        assert!(server.enter(0));
    }

    #[test]
    fn a_server_is_there_once_its_name_stands_for_something() {
        let server = server("db.example:1");
        let now = Duration::ZERO;
        assert_eq!(server.status(now), Status::Unresolved);
        let tcp = |text: &str| Endpoint::Tcp(text.parse().unwrap());
        let both = [tcp("192.0.2.2:1"), tcp("192.0.2.1:1")];
        assert!(server.resolved(both.to_vec()));
        let mut order = both.clone();
        order.reverse();
        assert!(!server.resolved(order.to_vec()), "only the order differs");
        assert_eq!(server.status(now), Status::Up);
        server.health().admin_state = AdminState::Drain;
        assert_eq!(server.status(now), Status::Drain);
    }
}
