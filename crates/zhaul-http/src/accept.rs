//! Accepting connections, and the rules for whom a server lets in.
//!
//! With one worker, accepting is one more event of its reactor. With several, a thread of its own
//! accepts and hands each connection to the worker that has least to do, counted in open
//! connections and, heavier, in large answers under way: listening sockets with `SO_REUSEPORT`
//! would spread connections by a hash, and a few long downloads could then share one core while
//! others idle.
//!
//! Failures to accept never end the loop and never spin: out of descriptors or memory, it rests
//! and the backlog holds the clients.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
    by_address: Mutex<HashMap<IpAddr, usize>>,
    loads: Vec<AtomicUsize>,
}

/// A place among the open connections; given back on drop.
#[derive(Debug)]
pub(crate) struct Admission {
    door: Arc<Door>,
    address: Option<IpAddr>,
    worker: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Full,
    AddressFull,
}

impl Door {
    pub(crate) fn new(limits: &Limits, max_open: usize, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            max_open,
            max_per_address: limits.connections_per_address,
            open: AtomicUsize::new(0),
            by_address: Mutex::default(),
            loads: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
        })
    }

    #[cfg(test)]
    fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn admit(self: &Arc<Self>, peer: Peer) -> Result<Admission, Refused> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.max_open {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Full);
        }
        let address = match peer {
            Peer::Ip(addr) if self.max_per_address > 0 => Some(counted_address(addr.ip())),
            _ => None,
        };
        if let Some(address) = address {
            let mut by_address = self
                .by_address
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let count = by_address.entry(address).or_insert(0);
            if *count >= self.max_per_address {
                self.open.fetch_sub(1, Ordering::Relaxed);
                return Err(Refused::AddressFull);
            }
            *count += 1;
        }
        let worker = self.least_loaded();
        self.loads[worker].fetch_add(1, Ordering::Relaxed);
        Ok(Admission {
            door: Arc::clone(self),
            address,
            worker,
        })
    }

    fn least_loaded(&self) -> usize {
        let loads = self.loads.iter().map(|load| load.load(Ordering::Relaxed));
        loads
            .enumerate()
            .min_by_key(|&(_, load)| load)
            .map_or(0, |(worker, _)| worker)
    }
}

impl Admission {
    /// Says that a large answer is under way on this connection, until the result is dropped.
    pub(crate) fn carry_large_answer(&self) -> LargeAnswer<'_> {
        let load = &self.door.loads[self.worker];
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
        self.door.loads[self.worker].fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut by_address = self
            .door
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
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
            Err(refused) => {
                refuse(&fd, &refused, peer, &mut self.trouble);
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

fn refuse(fd: &OwnedFd, refused: &Refused, peer: Peer, trouble: &mut Trouble) {
    let (status, why) = match refused {
        Refused::Full => ("503 Service Unavailable", "all connections are in use"),
        Refused::AddressFull => (
            "429 Too Many Requests",
            "its address has too many connections",
        ),
    };
    trouble.warn(|| format!("refused a connection from {peer}: {why}"));
    let answer = format!(
        "HTTP/1.1 {status}\r\nServer: zhaul\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
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
        Door::new(&limits, max_open, workers)
    }

    fn from(ip: &str) -> Peer {
        Peer::Ip(SocketAddr::new(ip.parse().unwrap(), 1))
    }

    #[test]
    fn a_full_door_refuses_until_somebody_leaves() {
        let door = door(1, 0, 1);
        let first = door.admit(from("192.0.2.1")).unwrap();
        assert_eq!(door.admit(from("192.0.2.2")).unwrap_err(), Refused::Full);
        drop(first);
        assert!(door.admit(from("192.0.2.2")).is_ok());
    }

    #[test]
    fn an_ipv6_64_counts_as_one_address() {
        let door = door(10, 1, 1);
        let _held = door.admit(from("2001:db8::1")).unwrap();
        assert_eq!(
            door.admit(from("2001:db8::2")).unwrap_err(),
            Refused::AddressFull
        );
        assert!(door.admit(from("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn nothing_is_counted_for_those_who_left() {
        let door = door(10, 5, 2);
        let held: Vec<_> = (0..4)
            .map(|_| door.admit(from("192.0.2.1")).unwrap())
            .collect();
        drop(held);
        assert_eq!(door.open(), 0);
        assert!(door.by_address.lock().unwrap().is_empty());
        assert!(
            door.loads
                .iter()
                .all(|load| load.load(Ordering::Relaxed) == 0)
        );
    }

    #[test]
    fn long_answers_do_not_pile_up_on_one_worker() {
        let door = door(10, 0, 2);
        let first = door.admit(from("192.0.2.1")).unwrap();
        let _download = first.carry_large_answer();
        let next: Vec<_> = (0..3)
            .map(|_| door.admit(from("192.0.2.1")).unwrap())
            .collect();
        assert!(
            next.iter()
                .all(|admission| admission.worker != first.worker)
        );
    }
}
