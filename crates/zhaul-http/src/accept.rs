//! Accepting connections, and the rules for whom a server lets in.
//!
//! With one worker, accepting is one more event of its reactor. With several, a thread of its own
//! accepts and hands each connection to the worker that has least to do, counted in open
//! connections and, heavier, in large answers under way: listening sockets with `SO_REUSEPORT`
//! would spread connections by a hash, and a few long downloads could then share one core while
//! others idle.
//!
//! Who comes when all places are taken is let in on approval ([`Terms`]): the worker that gets the
//! connection closes the ones that have rested longest instead, and refuses only if none rests. When
//! places are scarce, an address that holds half of them makes room among its own: the last ones are
//! for others. So silent connections, however many, lock nobody out.
//!
//! Failures to accept never end the loop and never spin: out of descriptors or memory, it rests
//! and the backlog holds the clients.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use zhaul_service::{AcceptBatch, Peer, Trouble, Wake, counted_address};

use crate::config::Limits;
use crate::server::Stop;

/// How long accepting rests when the machine has no descriptor or memory left.
const REST: Duration = Duration::from_millis(100);
/// Descriptors for connections that are let in on approval, or are told that they are not let in.
const ON_APPROVAL: usize = 16;
/// With fewer places than this, none is kept back for others.
const MANY: usize = 32;
/// What a large answer under way weighs against an open connection when load is compared.
const TRANSFER_WEIGHT: usize = 16;

/// A connection that was let in, on its way to a worker.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) fd: OwnedFd,
    pub(crate) peer: Peer,
    pub(crate) admission: Admission,
}

/// Counts what is open; shared by the accepting loops and the workers.
#[derive(Debug)]
pub(crate) struct Door {
    max_open: usize,
    max_per_address: usize,
    open: AtomicUsize,
    /// Files that are open, and how many of them are provided for besides connections.
    files: Arc<AtomicUsize>,
    provided_files: usize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
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
struct Refused;

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
            by_address: Mutex::default(),
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

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(self: &Arc<Self>, peer: Peer) -> Result<Admission, Refused> {
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
            let mut by_address = self.addresses();
            let count = by_address.entry(address).or_insert(0);
            if self.max_per_address > 0 {
                if *count >= self.max_per_address {
                    if terms == Terms::InPlaceOfAny {
                        // The last places are for those who may get another's.
                        self.open.fetch_sub(1, Ordering::Relaxed);
                        return Err(Refused);
                    }
                    terms = Terms::AddressFull;
                }
            } else if scarce && *count >= self.max_open / 2 {
                terms = Terms::InPlaceOf(address);
            }
            *count += 1;
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
        let mut by_address = self.door.addresses();
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
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

/// A listening socket with the rules for whom it lets in.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: OwnedFd,
    door: Arc<Door>,
    trouble: Trouble,
    /// For whoever watches it level-triggered.
    pub(crate) batch: AcceptBatch,
}

/// What one call of accept(2) came to.
#[derive(Debug)]
pub(crate) enum Attempt {
    Accepted(Accepted),
    /// Somebody was there and is not let in, or has left.
    Refused,
    /// Nobody waits to be accepted.
    Nobody,
    /// The machine has run out of something: try again after [`REST`].
    Exhausted,
}

impl Acceptor {
    pub(crate) fn new(listener: OwnedFd, door: Arc<Door>) -> Self {
        Self {
            listener,
            door,
            trouble: Trouble::default(),
            batch: AcceptBatch::default(),
        }
    }

    /// Accepts one connection, if one is waiting.
    pub(crate) fn accept(&mut self) -> Attempt {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match rustix::net::acceptfrom_with(&self.listener, flags) {
            Ok((fd, address)) => {
                let ip = address.and_then(|any| SocketAddr::try_from(any).ok());
                self.admit(fd, ip.map_or(Peer::Unix, Peer::Ip))
            }
            Err(Errno::AGAIN) => {
                self.batch.found_nobody();
                Attempt::Nobody
            }
            Err(errno) if must_rest(errno) => {
                self.door.shortages.fetch_add(1, Ordering::Relaxed);
                self.trouble.warn(|| {
                    format!("cannot accept a connection: {errno} (raise the limit on open files)")
                });
                Attempt::Exhausted
            }
            Err(_) => Attempt::Refused,
        }
    }

    fn admit(&mut self, fd: OwnedFd, peer: Peer) -> Attempt {
        match self.door.admit(peer) {
            Ok(admission) => Attempt::Accepted(Accepted {
                fd,
                peer,
                admission,
            }),
            Err(Refused) => {
                refuse(&fd, peer, &mut self.trouble);
                Attempt::Refused
            }
        }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl AsRawFd for Acceptor {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

/// Leads to a worker on another thread.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    pub(crate) accepted: mpsc::UnboundedSender<Accepted>,
    pub(crate) wake: Wake,
}

/// Accepts until `stop` changes; `mailboxes[n]` leads to worker n.
pub(crate) async fn accept_loop(
    acceptor: Acceptor,
    mailboxes: Vec<Mailbox>,
    mut stop: watch::Receiver<Stop>,
) -> io::Result<()> {
    let mut acceptor = watch_listener(acceptor)?;
    loop {
        let ready = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop != Stop::No) => return Ok(()),
            ready = acceptor.readable_mut() => ready,
        };
        let mut ready = ready?;
        // Cheaper than to find nobody by accept(2), which makes a socket first.
        if !is_readable(ready.get_inner()) {
            ready.clear_ready();
            continue;
        }
        match ready.get_inner_mut().accept() {
            Attempt::Accepted(accepted) => {
                let mailbox = &mailboxes[accepted.admission.worker];
                // A worker that is gone is one that was told to stop, as we soon are.
                if mailbox.accepted.send(accepted).is_ok() {
                    mailbox.wake.wake();
                }
            }
            Attempt::Refused => {}
            Attempt::Nobody => ready.clear_ready(),
            Attempt::Exhausted => tokio::time::sleep(REST).await,
        }
    }
}

/// Whether poll(2) reports the socket; true if it cannot be asked.
fn is_readable(listener: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(listener, PollFlags::IN)];
    !matches!(poll(&mut asked, Some(&Timespec::default())), Ok(0))
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; an OwnedFd keeps the one promise asked for"
)]
fn watch_listener(acceptor: Acceptor) -> io::Result<AsyncFd<Acceptor>> {
    AsyncFd::with_interest(acceptor, tokio::io::Interest::READABLE)
}

/// accept(2) also reports errors that were pending on the new connection; only those that say
/// that we or the machine have run out call for a rest.
fn must_rest(errno: Errno) -> bool {
    !matches!(
        errno,
        Errno::CONNABORTED
            | Errno::INTR
            | Errno::PROTO
            | Errno::NOPROTOOPT
            | Errno::NETDOWN
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::NONET
            | Errno::OPNOTSUPP
            | Errno::TIMEDOUT
            | Errno::PERM
    )
}

/// For whom there is not even the place to be refused in order.
fn refuse(fd: &OwnedFd, peer: Peer, trouble: &mut Trouble) {
    trouble.warn(|| format!("refused a connection from {peer}: all connections are in use"));
    let answer = "HTTP/1.1 503 Service Unavailable\r\nServer: zhaul\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    // A courtesy: one attempt, and the client sees the close in any case.
    let _ = rustix::net::send(fd.as_fd(), answer.as_bytes(), SendFlags::NOSIGNAL);
    let _ = rustix::net::shutdown(fd.as_fd(), rustix::net::Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(door.addresses().is_empty());
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
