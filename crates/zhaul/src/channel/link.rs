//! What both ends of a channel have: a socket, the ring that they write, the ring that the other writes;
//! and how one sleeps until the other has done something.
//!
//! # Sleeping and waking
//! Who is about to sleep says so in its own ring (`sleep`), then looks at the other's counter once more;
//! who publishes raises its own counter, then looks at the other's `sleep`. With a full fence between
//! the two steps on both sides, at least one of them sees what the other did, so no wake-up is lost, and
//! none costs a system call while the other is awake.
//!
//! A thread sleeps by `futex(2)` on the other's counter for the first [`FUTEX_TIME`], which wakes as fast
//! as an eventfd, and then by `poll(2)` on the socket, which also sees the other die. A task sleeps on
//! the socket. An eventfd is shared with the peer, who could fill its counter and take O_NONBLOCK away
//! (both belong to the description), so that *our* write would wait for ever; a pipe's mutex is held while
//! its reader's memory is faulted in. `send(2)` with MSG_DONTWAIT on a UNIX socket and FUTEX_WAKE wait for
//! nobody.
//!
//! A `sleep` word is `episode * 4 + mode`; each time of sleep is woken once.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType,
};
use rustix::time::Timespec;
use zhaul_sys::memfd_seals::SealedMemfd;
use zhaul_sys::shared_ring::{OwnRing, PeerRing};

use super::closing::Foreign;
use super::error::ChannelError;
use super::wire::{CONTROL_BYTES, Control, MAX_LEASES, Violation};

/// How long a thread sleeps by futex before it sleeps on the socket. Longer than a tick, so that on a busy
/// CPU the timer is never the next to fire and is not programmed each time; a peer that died is noticed
/// that much later.
const FUTEX_TIME: Duration = Duration::from_millis(20);

/// How many messages are read in one go: a peer that sends more than it needs to does not keep us. Two
/// for each pool and some wake-ups are the most that may be there at one time.
pub(super) const MESSAGES: usize = 256;

/// How many descriptors a message can have (`net/scm.h`).
const SCM_MAX_FD: usize = 253;

const AWAKE: u32 = 0;
const ON_FUTEX: u32 = 1;
const ON_SOCKET: u32 = 2;
const MODES: u32 = 3;
const EPISODE: u32 = 4;

/// A connected socket of the right kind.
#[derive(Clone, Debug)]
pub(super) struct Socket(Arc<Foreign>);

/// What a look at the socket brought.
#[derive(Debug)]
pub(super) enum Incoming {
    Message(Control, Vec<Foreign>),
    Empty,
    End,
}

/// How far a reading of messages got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// There are no more now.
    All,
    /// There may be more.
    Part,
    /// There will be no more.
    End,
}

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// The other's counter changed, or may have.
    Published,
    /// There is something on the socket.
    Socket,
    TimedOut,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Result<Self, ChannelError> {
        let kind = rustix::net::sockopt::socket_type(&fd);
        if kind != Ok(SocketType::SEQPACKET) || !is_unix_socket(fd.as_fd()) {
            return Err(ChannelError::NotSeqpacket);
        }
        Ok(Self(Arc::new(Foreign::new(fd))))
    }

    /// Sends a message, or says that there is no room.
    pub(super) fn send(
        &self,
        message: Control,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), Errno> {
        let bytes = message.encode();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if descriptors.is_empty() {
            return retry_on_intr(|| rustix::net::send(self, &bytes, flags)).map(drop);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_LEASES + 1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        assert!(fits, "at most a memfd and MAX_LEASES");
        let iov = [IoSlice::new(&bytes)];
        retry_on_intr(|| rustix::net::sendmsg(self, &iov, &mut ancillary, flags)).map(drop)
    }

    /// Takes the next message, if there is one.
    pub(super) fn receive(&self) -> Result<Incoming, ChannelError> {
        // One byte more than a message has, so that a longer one is seen to be longer. Descriptors that
        // had no room here would be closed by the kernel before it returns, which may wait for others.
        let mut bytes = [0; CONTROL_BYTES + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SCM_MAX_FD))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let message = loop {
            let mut iov = [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(self, &mut iov, &mut ancillary, flags) {
                // A reset is told once, before the messages that came earlier.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(Errno::AGAIN) => return Ok(Incoming::Empty),
                result => break result.map_err(ChannelError::errno("recvmsg"))?,
            }
        };
        let descriptors: Vec<_> = ancillary
            .drain()
            .filter_map(|part| match part {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .map(Foreign::new)
            .collect();
        if message.bytes == 0 && descriptors.is_empty() {
            return Ok(Incoming::End);
        }
        let came = descriptors.len();
        if message.flags.contains(ReturnFlags::CTRUNC) {
            // There was room for all that a message can have, so it was this process that could not take
            // them in: nothing that the peer did.
            return Err(ChannelError::errno("recvmsg")(Errno::MFILE));
        }
        let control = Control::decode(&bytes[..message.bytes])?;
        if !control.descriptors().contains(&came) {
            return Err(Violation::Descriptors { came }.into());
        }
        Ok(Incoming::Message(control, descriptors))
    }

    /// Waits for something to read or, with `to_send`, for room to write. False when the deadline
    /// passed.
    pub(super) fn wait(
        &self,
        to_send: bool,
        deadline: Option<Instant>,
    ) -> Result<bool, ChannelError> {
        let events = if to_send {
            PollFlags::OUT
        } else {
            PollFlags::IN
        };
        loop {
            let timeout = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Ok(false),
                left => left.and_then(|left| Timespec::try_from(left).ok()),
            };
            let mut fds = [PollFd::new(self, events)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(ChannelError::errno("poll")(errno)),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A socket with rings on both sides, once the other's came.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) socket: Socket,
    pub(super) own: OwnRing,
    peer: OnceLock<PeerRing>,
    /// The other's `sleep` that was answered last.
    woken: AtomicU32,
    /// How this side sleeps while its owner does something else.
    between: AtomicU32,
}

impl Link {
    pub(super) fn new(socket: Socket, own: OwnRing) -> Self {
        Self {
            socket,
            own,
            peer: OnceLock::new(),
            woken: AtomicU32::new(AWAKE),
            between: AtomicU32::new(AWAKE),
        }
    }

    pub(super) fn peer(&self) -> Option<&PeerRing> {
        self.peer.get()
    }

    /// Takes the other's ring, which comes once.
    pub(super) fn set_peer(&self, ring: PeerRing) -> Result<(), PeerRing> {
        self.peer.set(ring)
    }

    /// What the other published so far.
    pub(super) fn published(&self) -> u32 {
        self.peer().map_or(0, PeerRing::published)
    }

    /// Shows the other that there are so many entries, and wakes it if it sleeps.
    pub(super) fn publish(&self, entries: u32) {
        self.own.published().store(entries, Ordering::Release);
        self.wake();
    }

    /// Wakes the other if it sleeps. Before its ring came it looks at ours once it has sent that.
    pub(super) fn wake(&self) {
        fence(Ordering::SeqCst);
        let Some(sleep) = self.peer().map(PeerRing::sleep) else {
            return;
        };
        if sleep & MODES == AWAKE || self.woken.swap(sleep, Ordering::Relaxed) == sleep {
            return;
        }
        if sleep & MODES == ON_FUTEX {
            self.own.wake();
        } else {
            // Without room there are messages that will wake it; a peer that is gone is noticed by who
            // reads next. Without memory for the message nothing else would wake it.
            while let Err(Errno::NOBUFS | Errno::NOMEM) = self.socket.send(Control::Wake, &[]) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Says that this side sleeps on the socket from now on. True if it need not: the other published
    /// something else than `seen`.
    #[cfg(feature = "tokio")]
    pub(super) fn sleep_on_socket(&self, seen: u32) -> bool {
        self.set_sleep(ON_SOCKET);
        let came = self.published() != seen;
        if came {
            self.awake();
        }
        came
    }

    /// Says that this side is awake, or that another thread is to be woken on the socket.
    pub(super) fn awake(&self) {
        self.set_sleep(self.between.load(Ordering::Relaxed));
    }

    /// Has the other send a wake-up whatever this side does.
    pub(super) fn sleep_between(&self) {
        self.between.store(ON_SOCKET, Ordering::Relaxed);
        self.awake();
    }

    /// Sleeps until the other published something else than `seen`, or something is on the socket.
    pub(super) fn wait(&self, seen: u32, deadline: Option<Instant>) -> Result<Woken, ChannelError> {
        if let Some(peer) = self.peer() {
            self.set_sleep(ON_FUTEX);
            if peer.published() == seen {
                let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
                peer.wait(seen, left.map_or(FUTEX_TIME, |left| left.min(FUTEX_TIME)));
            }
            if peer.published() != seen {
                self.awake();
                return Ok(Woken::Published);
            }
            // It is time, or the other woke us for a message.
        }
        self.set_sleep(ON_SOCKET);
        if self.published() != seen {
            self.awake();
            return Ok(Woken::Published);
        }
        let readable = self.socket.wait(false, deadline);
        self.awake();
        Ok(if readable? {
            Woken::Socket
        } else {
            Woken::TimedOut
        })
    }

    fn set_sleep(&self, mode: u32) {
        let sleep = self.own.sleep();
        let before = sleep.load(Ordering::Relaxed);
        let episode = (before & !MODES).wrapping_add(EPISODE);
        sleep.store(episode | mode, Ordering::Release);
        fence(Ordering::SeqCst);
    }
}

/// The ring in a `Hello`.
pub(super) fn ring_of(descriptors: Vec<Foreign>, cells: usize) -> Result<PeerRing, ChannelError> {
    let memfd = descriptors.into_iter().next().expect("one, as decoded");
    let memfd = verify(memfd)?;
    PeerRing::map(&memfd, cells)
        .map_err(ChannelError::io("mmap"))?
        .ok_or(ChannelError::Violation(Violation::RingTooShort))
}

pub(super) fn verify(memfd: Foreign) -> Result<SealedMemfd, Violation> {
    SealedMemfd::verify(memfd.into_owned()).map_err(|(other, refusal)| {
        drop(Foreign::new(other));
        Violation::Memory(refusal)
    })
}

/// SO_DOMAIN, which no file system is asked for.
pub(super) fn is_unix_socket(fd: BorrowedFd<'_>) -> bool {
    rustix::net::sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
}
