//! Accepting connections.
//!
//! With one worker, accepting is one more event of its reactor. With several, a thread of its own
//! accepts and hands each connection to the worker that has least to do, counted in open
//! connections and, heavier, in large answers under way: listening sockets with `SO_REUSEPORT`
//! would spread connections by a hash, and a few long downloads could then share one core while
//! others idle.
//!
//! Failures to accept never end the loop and never spin: out of descriptors or memory, it rests
//! and the backlog holds the clients.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SendFlags;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use zhaul_service::{AcceptBatch, AcceptError, Peer, Stop, Trouble, Wake};

use crate::run::door::{Admission, Door, Refused};

/// How long accepting rests when the machine has no descriptor or memory left.
const REST: Duration = Duration::from_millis(100);

/// A connection that was let in, on its way to a worker.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) fd: OwnedFd,
    pub(crate) peer: Peer,
    pub(crate) admission: Admission,
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
        match zhaul_service::accept(&self.listener) {
            Ok((fd, peer)) => self.admit(fd, peer),
            Err(AcceptError::Nobody) => {
                self.batch.found_nobody();
                Attempt::Nobody
            }
            // Whoever it was has left.
            Err(AcceptError::Connection(_)) => Attempt::Refused,
            Err(error @ (AcceptError::Exhausted(_) | AcceptError::Listener(_))) => {
                self.door.note_shortage();
                self.trouble.warn(|| error.to_string());
                Attempt::Exhausted
            }
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
                let mailbox = &mailboxes[accepted.admission.worker()];
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

/// For whom there is not even the place to be refused in order.
fn refuse(fd: &OwnedFd, peer: Peer, trouble: &mut Trouble) {
    trouble.warn(|| format!("refused a connection from {peer}: all connections are in use"));
    let answer = "HTTP/1.1 503 Service Unavailable\r\nServer: zhaul\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    // A courtesy: one attempt, and the client sees the close in any case.
    let _ = rustix::net::send(fd.as_fd(), answer.as_bytes(), SendFlags::NOSIGNAL);
    let _ = rustix::net::shutdown(fd.as_fd(), rustix::net::Shutdown::Write);
}
