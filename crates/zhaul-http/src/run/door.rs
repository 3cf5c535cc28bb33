//! The rules for whom a server lets in.
//!
//! Who comes when all places are taken is let in on approval ([`Terms`]): the worker that gets the
//! connection closes the ones that have rested longest instead, and refuses only if none rests. When
//! places are scarce, an address that holds half of them makes room among its own: the last ones are
//! for others. So silent connections, however many, lock nobody out.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use zhaul_service::{Peer, Sources, counted_address};

use crate::host::config::Limits;

/// Descriptors for connections that are let in on approval, or are told that they are not let in.
const ON_APPROVAL: usize = 16;
/// With fewer places than this, none is kept back for others.
const MANY: usize = 32;
/// What a large answer under way weighs against an open connection when load is compared.
const TRANSFER_WEIGHT: usize = 16;

/// Counts what is open; shared by the accepting loops and the workers.
#[derive(Debug)]
pub(crate) struct Door {
    max_open: usize,
    max_per_address: usize,
    open: AtomicUsize,
    /// Files that are open, and how many of them are provided for besides connections.
    files: Arc<AtomicUsize>,
    provided_files: usize,
    by_address: Sources<IpAddr>,
    /// How often the machine had no descriptor left.
    shortages: AtomicUsize,
    workers: Vec<Load>,
}

/// What a worker has to do.
#[derive(Debug, Default)]
struct Load {
    connections: AtomicUsize,
    /// Answers under way, by weight.
    answers: AtomicUsize,
}

/// A place among the open connections; given back on drop.
#[derive(Debug)]
pub(crate) struct Admission {
    door: Arc<Door>,
    address: Cell<Option<IpAddr>>,
    forfeited: Cell<bool>,
    worker: usize,
    pub(crate) terms: Terms,
}

/// On which terms a connection is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terms {
    /// There is a place for it.
    Free,
    /// If another one that rests is closed.
    InPlaceOfAny,
    /// If another one of its address that rests is closed.
    InPlaceOf(IpAddr),
    /// To be told that its address has too many.
    AddressFull,
}

/// There is no place even to be told so.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused;

impl Door {
    /// For so many connections, and so many open files besides, which `files` counts.
    pub(crate) fn new(
        limits: &Limits,
        max_open: usize,
        workers: usize,
        files: &Arc<AtomicUsize>,
        provided_files: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            max_open,
            max_per_address: limits.connections_per_address,
            open: AtomicUsize::new(0),
            files: Arc::clone(files),
            provided_files,
            by_address: Sources::default(),
            shortages: AtomicUsize::new(0),
            workers: (0..workers).map(|_| Load::default()).collect(),
        })
    }

    /// Whether places are scarce.
    pub(crate) fn is_crowded(&self) -> bool {
        self.taken() >= self.max_open - self.max_open / 8
    }

    /// Places that are taken: by connections, and by files that answers keep open beyond those that are
    /// provided for.
    fn taken(&self) -> usize {
        let files = self.files.load(Ordering::Relaxed);
        self.open.load(Ordering::Relaxed) + files.saturating_sub(self.provided_files)
    }

    /// How often the machine had no descriptor left.
    pub(crate) fn shortages(&self) -> usize {
        self.shortages.load(Ordering::Relaxed)
    }

    /// The machine had no descriptor left.
    pub(crate) fn note_shortage(&self) {
        self.shortages.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a place for a connection from `peer`.
    pub(crate) fn admit(self: &Arc<Self>, peer: Peer) -> Result<Admission, Refused> {
        let taken = self.taken();
        if taken >= self.max_open + ON_APPROVAL {
            return Err(Refused);
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        let address = match peer {
            Peer::Ip(addr) => Some(counted_address(addr.ip())),
            Peer::Unix => None,
        };
        let scarce = self.max_open >= MANY && taken >= self.max_open - self.max_open / 8;
        let mut terms = if taken >= self.max_open {
            Terms::InPlaceOfAny
        } else {
            Terms::Free
        };
        if let Some(address) = address {
            let judge = |count| self.terms_of(address, count, scarce, terms);
            match self.by_address.enter(address, judge) {
                Ok(its) => terms = its,
                Err(refused) => {
                    self.open.fetch_sub(1, Ordering::Relaxed);
                    return Err(refused);
                }
            }
        }
        let worker = match terms {
            // Where one that rests is found most likely.
            Terms::InPlaceOfAny | Terms::InPlaceOf(_) => {
                self.by_load(|load| usize::MAX - load.connections.load(Ordering::Relaxed))
            }
            Terms::Free | Terms::AddressFull => self.by_load(Load::sum),
        };
        self.workers[worker]
            .connections
            .fetch_add(1, Ordering::Relaxed);
        Ok(Admission {
            door: Arc::clone(self),
            address: Cell::new(address),
            forfeited: Cell::new(false),
            worker,
            terms,
        })
    }

    /// On which terms a connection is let in whose address has `count` already.
    fn terms_of(
        &self,
        address: IpAddr,
        count: usize,
        scarce: bool,
        terms: Terms,
    ) -> Result<Terms, Refused> {
        if self.max_per_address == 0 {
            return Ok(match scarce && count >= self.max_open / 2 {
                true => Terms::InPlaceOf(address),
                false => terms,
            });
        }
        match (count >= self.max_per_address, terms) {
            (false, terms) => Ok(terms),
            // The last places are for those who may get another's.
            (true, Terms::InPlaceOfAny) => Err(Refused),
            (true, _) => Ok(Terms::AddressFull),
        }
    }

    fn by_load(&self, load: impl Fn(&Load) -> usize) -> usize {
        let workers = self.workers.iter().enumerate();
        workers
            .min_by_key(|(_, worker)| load(worker))
            .map_or(0, |(worker, _)| worker)
    }
}

impl Load {
    fn sum(&self) -> usize {
        self.connections.load(Ordering::Relaxed) + self.answers.load(Ordering::Relaxed)
    }
}

impl Admission {
    /// What the connection's address is counted as.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address.get()
    }

    /// The connection is refused: until it is closed it takes a descriptor, but its address is not to
    /// blame for it.
    pub(crate) fn forfeit(&self) {
        self.forfeited.set(true);
        let Some(address) = self.address.take() else {
            return;
        };
        self.door.by_address.leave(&address);
    }

    /// The worker that it is for.
    pub(crate) fn worker(&self) -> usize {
        self.worker
    }

    pub(crate) fn is_forfeited(&self) -> bool {
        self.forfeited.get()
    }

    /// Says that a large answer is under way on this connection, until the result is dropped.
    pub(crate) fn carry_large_answer(&self) -> LargeAnswer<'_> {
        let load = &self.door.workers[self.worker].answers;
        load.fetch_add(TRANSFER_WEIGHT, Ordering::Relaxed);
        LargeAnswer { load }
    }
}

/// A large answer under way, counted in its worker's load.
#[derive(Debug)]
pub(crate) struct LargeAnswer<'a> {
    load: &'a AtomicUsize,
}

impl Drop for LargeAnswer<'_> {
    fn drop(&mut self) {
        self.load.fetch_sub(TRANSFER_WEIGHT, Ordering::Relaxed);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.door.open.fetch_sub(1, Ordering::Relaxed);
        self.door.workers[self.worker]
            .connections
            .fetch_sub(1, Ordering::Relaxed);
        self.forfeit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn door(max_open: usize, per_address: usize, workers: usize) -> Arc<Door> {
        let limits = Limits {
            connections_per_address: per_address,
            ..Limits::default()
        };
        Door::new(&limits, max_open, workers, &Arc::default(), 10)
    }

    fn from(ip: &str) -> Peer {
        Peer::Ip(SocketAddr::new(ip.parse().unwrap(), 1))
    }

    /// Lets so many in, and says on which terms the last one was.
    fn fill(door: &Arc<Door>, ip: &str, count: usize) -> (Vec<Admission>, Terms) {
        let held: Vec<_> = (0..count).map(|_| door.admit(from(ip)).unwrap()).collect();
        let terms = held.last().unwrap().terms;
        (held, terms)
    }

    #[test]
    fn a_full_door_asks_for_a_place_and_refuses_in_the_end() {
        let door = door(1, 0, 1);
        let (first, terms) = fill(&door, "192.0.2.1", 1);
        assert_eq!(terms, Terms::Free);
        let (others, terms) = fill(&door, "192.0.2.2", ON_APPROVAL);
        assert_eq!(terms, Terms::InPlaceOfAny);
        assert_eq!(door.admit(from("192.0.2.3")).unwrap_err(), Refused);
        drop((first, others));
        assert_eq!(fill(&door, "192.0.2.3", 1).1, Terms::Free);
    }

    #[test]
    fn the_last_places_are_for_others_than_who_holds_half() {
        let door = door(80, 0, 1);
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let (mut held, terms) = fill(&door, "192.0.2.1", 70);
        assert_eq!(terms, Terms::Free);
        let (more, terms) = fill(&door, "192.0.2.1", 1);
        assert_eq!(terms, Terms::InPlaceOf(one));
        held.extend(more);
        let (others, terms) = fill(&door, "192.0.2.2", 9);
        assert_eq!(terms, Terms::Free);
        drop(held);
        assert_eq!(fill(&door, "192.0.2.1", 60).1, Terms::Free);
        drop(others);
    }

    #[test]
    fn files_open_beyond_those_provided_for_take_places() {
        let door = door(20, 0, 1);
        door.files.store(10, Ordering::Relaxed);
        let (_held, terms) = fill(&door, "192.0.2.1", 3);
        assert_eq!(terms, Terms::Free);
        door.files.store(28, Ordering::Relaxed);
        assert_eq!(fill(&door, "192.0.2.2", 1).1, Terms::InPlaceOfAny);
    }

    #[test]
    fn an_ipv6_64_counts_as_one_address() {
        let door = door(10, 1, 1);
        let _held = door.admit(from("2001:db8::1")).unwrap();
        assert_eq!(fill(&door, "2001:db8::2", 1).1, Terms::AddressFull);
        assert_eq!(fill(&door, "2001:db8:0:1::1", 1).1, Terms::Free);
    }

    #[test]
    fn nothing_is_counted_for_those_who_left() {
        let door = door(10, 5, 2);
        drop(fill(&door, "192.0.2.1", 4));
        assert_eq!(door.taken(), 0);
        assert!(door.by_address.is_empty());
        assert!(door.workers.iter().all(|load| load.sum() == 0));
    }

    #[test]
    fn long_answers_do_not_pile_up_on_one_worker() {
        let door = door(10, 0, 2);
        let first = door.admit(from("192.0.2.1")).unwrap();
        let _download = first.carry_large_answer();
        let (next, _) = fill(&door, "192.0.2.1", 3);
        assert!(
            next.iter()
                .all(|admission| admission.worker != first.worker)
        );
    }
}
