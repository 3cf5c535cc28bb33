//! One server at run time: where it is, how it is, what it has.
//!
//! It outlives the configuration that named it: after a reload a server with the same pool, name
//! and address goes on with its health, its connections and its counts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::balance;
use crate::config::{self, Upstream};
use crate::counts::ServerCounts;
use crate::health::{Change, Health, Status, Wish};

/// The state of one server, shared by all workers.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) pool: String,
    pub(crate) name: String,
    pub(crate) address: Upstream,
    pub(crate) identity: u64,
    /// What the address stands for now; empty while a name does not resolve.
    endpoints: ArcSwap<Vec<Endpoint>>,
    /// Which of them is next.
    next_endpoint: AtomicUsize,
    health: Mutex<Health>,
    connections: AtomicUsize,
    /// The administrator's weight, or [`AS_CONFIGURED`].
    weight: AtomicU32,
    pub(crate) counts: ServerCounts,
}

/// Addresses of one name that are tried before it is the server's fault.
pub(crate) const MOST_ADDRESSES: usize = 4;

const AS_CONFIGURED: u32 = u32::MAX;

/// Something that can be connected to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Server {
    pub(crate) fn new(pool: &str, config: &config::Server) -> Self {
        let endpoints = match &config.address {
            Upstream::Ip(address) => vec![Endpoint::Tcp(*address)],
            Upstream::Unix(path) => vec![Endpoint::Unix(path.clone())],
            Upstream::Name(..) => Vec::new(),
        };
        Self {
            pool: pool.to_owned(),
            name: config.name.clone(),
            address: config.address.clone(),
            identity: balance::identity(&config.name),
            endpoints: ArcSwap::from_pointee(endpoints),
            next_endpoint: AtomicUsize::new(0),
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

    /// Whose turn it is among the addresses that a name stands for.
    pub(crate) fn turn(&self) -> usize {
        self.next_endpoint.fetch_add(1, Ordering::Relaxed)
    }

    /// Where to connect when it is this turn.
    pub(crate) fn endpoint(&self, turn: usize) -> Option<Endpoint> {
        let endpoints = self.endpoints.load();
        endpoints.get(turn.checked_rem(endpoints.len())?).cloned()
    }

    /// All that the address stands for now.
    pub(crate) fn endpoints(&self) -> Arc<Vec<Endpoint>> {
        self.endpoints.load_full()
    }

    /// Takes in what the name stands for; true if that is new.
    pub(crate) fn resolved(&self, mut endpoints: Vec<Endpoint>) -> bool {
        endpoints.sort();
        endpoints.dedup();
        let is_new = **self.endpoints.load() != endpoints;
        if is_new {
            self.endpoints.store(Arc::new(endpoints));
        }
        is_new
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
        self.health().wish = Wish::Ready;
    }

    pub(crate) fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::AcqRel);
    }

    /// Takes in how connecting went, and says so if that changes what the server is.
    pub(crate) fn connected(
        &self,
        made: bool,
        pool: &config::Pool,
        now: Duration,
    ) -> Option<Change> {
        let change = self.health().connected(made, pool.passive.as_ref(), now);
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
                let word = match self.health().status(now) {
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
    fn a_name_gives_its_addresses_in_turn() {
        let server = server("db.example:1");
        assert_eq!(server.endpoint(server.turn()), None);
        let tcp = |text: &str| Endpoint::Tcp(text.parse().unwrap());
        let both = [tcp("192.0.2.2:1"), tcp("192.0.2.1:1")];
        assert!(server.resolved(both.to_vec()));
        let mut order = both.clone();
        order.reverse();
        assert!(!server.resolved(order.to_vec()), "only the order differs");
        let given = [0; 3].map(|_| server.endpoint(server.turn()));
        assert_ne!(given[0], given[1]);
        assert_eq!(given[0], given[2]);
    }
}
