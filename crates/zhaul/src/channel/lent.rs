//! What a sender handed over: the state of its end.
//!
//! A buffer that is out is not used again before it came back, or before the processes that could read
//! it are gone. That the socket of the receiver is closed does not say so of processes that the receiver
//! passed the buffer on to. All of them keep a *lease* open, one end of a socket pair whose other end is
//! watched, as long as they have the memory.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::io::Errno;

use super::closing::Foreign;
use super::error::ChannelError;
use super::in_flight::InFlight;
use super::link::{Incoming, Link, MESSAGES, Read, Socket, Woken, ring_of};
use super::pools::{Announced, Announcement, Outgoing};
use super::wire::{Control, DESCRIPTOR_WORDS, Descriptor, Ticket, Violation, new_entries};
use zhaul_sys::shared_ring::OwnRing;

/// The sender's end of a channel.
#[derive(Debug)]
pub(super) struct Lent {
    link: Link,
    window: u32,
    /// Entries written to the ring, and those of them that the receiver was shown.
    written: u32,
    published: u32,
    /// Entries of the receiver's ring that were read.
    returned: u32,
    in_flight: InFlight<Held>,
    announced: Announced,
    /// Passed on with every pool; closed here to see whether others have it.
    lease: Option<OwnedFd>,
    leases: Foreign,
    peer_finished: bool,
    /// The receiver was told that nothing follows.
    finished: bool,
    /// By the thread of `attendant.rs`.
    pub(super) attended: bool,
    /// Nobody but that thread has it.
    pub(super) abandoned: bool,
    /// What ended the channel while its owner did not look.
    failed: Option<ChannelError>,
}

/// What became of a buffer that was to be handed over.
#[derive(Debug)]
pub(super) enum Offered {
    Taken,
    /// The window or the numbers of pools are used up, until something comes back.
    Full(Outgoing),
    /// The socket has no room to announce its pool.
    SocketFull(Outgoing),
}

/// What is to be done after a look at a sender's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More may come.
    Wait,
    /// The receiver is gone, what it passed on may be read.
    WatchLeases,
    /// Nothing is out, and nothing will be.
    Done,
}

#[derive(Debug)]
struct Held {
    /// Kept, so that the memory is not used again.
    _buffer: Outgoing,
    serial: u32,
}

impl Lent {
    pub(super) fn new(socket: OwnedFd, window: u32) -> Result<Self, ChannelError> {
        let socket = Socket::new(socket)?;
        let (ring, memfd) = OwnRing::new(window as usize * DESCRIPTOR_WORDS)
            .map_err(ChannelError::io("memfd_create"))?;
        let (leases, lease) = UnixStream::pair().map_err(ChannelError::io("socketpair"))?;
        socket
            .send(Control::Hello { window }, &[memfd.as_fd()])
            .map_err(gone_or("sendmsg"))?;
        Ok(Self {
            link: Link::new(socket, ring),
            window,
            written: 0,
            published: 0,
            returned: 0,
            in_flight: InFlight::new(window),
            announced: Announced::default(),
            lease: Some(lease.into()),
            leases: Foreign::new(leases.into()),
            peer_finished: false,
            finished: false,
            attended: false,
            abandoned: false,
            failed: None,
        })
    }

    #[cfg(feature = "tokio")]
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// How many buffers are out.
    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// What of the receiver's ring was read.
    #[cfg(feature = "tokio")]
    pub(super) fn returned(&self) -> u32 {
        self.returned
    }

    /// Writes a buffer to the ring; the receiver sees it after [`flush`](Self::flush).
    pub(super) fn offer(&mut self, outgoing: Outgoing) -> Result<Offered, ChannelError> {
        if self.peer_finished {
            return Err(ChannelError::PeerGone);
        }
        self.reclaim()?;
        if self.in_flight.room() == 0 {
            return Ok(Offered::Full(outgoing));
        }
        let socket = &self.link.socket;
        let lease = self.lease.as_ref().ok_or(ChannelError::PeerGone)?.as_fd();
        let serial = match self.announced.announce(&outgoing, socket, lease)? {
            Announcement::Known(serial) => serial,
            Announcement::NoNumber => return Ok(Offered::Full(outgoing)),
            Announcement::SocketFull => return Ok(Offered::SocketFull(outgoing)),
        };
        let (offset, len) = outgoing.place();
        let ticket = self.in_flight.insert(Held {
            _buffer: outgoing,
            serial,
        });
        self.announced.sent(serial);
        let descriptor = Descriptor {
            pool: serial,
            ticket,
            offset,
            len,
        };
        let first = (self.written & (self.window - 1)) as usize * DESCRIPTOR_WORDS;
        for (at, word) in descriptor.encode().into_iter().enumerate() {
            self.link
                .own
                .cell(first + at)
                .store(word, Ordering::Relaxed);
        }
        self.written = self.written.wrapping_add(1);
        Ok(Offered::Taken)
    }

    /// Shows the receiver what was written.
    pub(super) fn flush(&mut self) -> Result<(), ChannelError> {
        if self.published != self.written {
            self.published = self.written;
            self.link.publish(self.written);
            if self.link.peer().is_none() {
                self.read_messages()?;
                self.link.wake();
            }
        }
        Ok(())
    }

    /// Takes back what the receiver gave back.
    pub(super) fn reclaim(&mut self) -> Result<(), Violation> {
        let Some(peer) = self.link.peer() else {
            return Ok(());
        };
        let out = u32::try_from(self.in_flight.len()).expect("at most a window");
        for _ in 0..new_entries(peer.published(), self.returned, out)? {
            let cell = (self.returned & (self.window - 1)) as usize;
            let held = self.in_flight.remove(Ticket::decode(peer.cell(cell)))?;
            self.announced.came_back(held.serial, &self.link.socket);
            self.returned = self.returned.wrapping_add(1);
        }
        Ok(())
    }

    /// Reads what is on the socket, at most [`MESSAGES`].
    pub(super) fn read_messages(&mut self) -> Result<Read, ChannelError> {
        let mut woken = false;
        let read = self.read_until_empty(&mut woken)?;
        if woken {
            // This time of sleep is answered, whoever slept; what came is taken here, and what comes later
            // wakes again.
            self.link.awake();
            self.reclaim()?;
        }
        Ok(read)
    }

    fn read_until_empty(&mut self, woken: &mut bool) -> Result<Read, ChannelError> {
        for _ in 0..MESSAGES {
            match self.link.socket.receive()? {
                Incoming::Empty => return Ok(Read::All),
                Incoming::End => {
                    self.reclaim()?;
                    // A receiver that gave everything back after the last word may leave.
                    if self.finished && self.in_flight.len() == 0 {
                        return Ok(Read::End);
                    }
                    return Err(ChannelError::PeerGone);
                }
                Incoming::Message(Control::Wake, _) => *woken = true,
                Incoming::Message(Control::Finish, _) => self.peer_finished = true,
                Incoming::Message(hello @ Control::Hello { window }, descriptors) => {
                    if window != self.window {
                        return Err(Violation::Window { window }.into());
                    }
                    let ring = ring_of(descriptors, window as usize)?;
                    let again = self.link.set_peer(ring).is_err();
                    if again {
                        return Err(Violation::Unexpected(hello).into());
                    }
                }
                Incoming::Message(message, _) => {
                    return Err(Violation::Unexpected(message).into());
                }
            }
        }
        Ok(Read::Part)
    }

    /// Sleeps until something came back, or may have. False when the deadline passed.
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Result<bool, ChannelError> {
        self.flush()?;
        match self.link.wait(self.returned, deadline)? {
            Woken::Published => {}
            Woken::Socket => {
                self.read_messages()?;
            }
            Woken::TimedOut => return Ok(false),
        }
        self.reclaim()?;
        Ok(true)
    }

    /// Tells the receiver that nothing follows; false if the socket has no room for that now.
    pub(super) fn say_finished(&mut self) -> Result<bool, ChannelError> {
        self.flush()?;
        match self.link.socket.send(Control::Finish, &[]) {
            Ok(()) => {
                self.finished = true;
                self.link.wake();
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(gone_or("send")(errno)),
        }
    }

    /// Tells the receiver that nothing follows what it was shown, nor a `Finish` that was not sent, though
    /// the socket stays open for what comes back.
    pub(super) fn say_gone(&mut self) {
        if self.published != self.written {
            self.published = self.written;
            self.link.publish(self.written);
        }
        // A receiver that is gone need not be told.
        let _ = rustix::net::shutdown(&self.link.socket, rustix::net::Shutdown::Write);
    }

    /// What ended the channel, if that was noticed by the thread.
    pub(super) fn check(&self) -> Result<(), ChannelError> {
        self.failed
            .as_ref()
            .map_or(Ok(()), |error| Err(error.again()))
    }

    /// From now on the receiver wakes the thread.
    pub(super) fn begin_attendance(&mut self) {
        self.attended = true;
        self.link.sleep_between();
    }

    /// Looks at what came, for the thread.
    pub(super) fn look(&mut self) -> Next {
        if self.lease.is_none() {
            self.forget_all();
            return Next::Done;
        }
        let read = self.read_messages().and_then(|read| {
            self.reclaim()?;
            Ok(read)
        });
        match read {
            Ok(Read::End) => return Next::Done,
            Ok(Read::All | Read::Part) => {}
            Err(error) => {
                if error.ends_loans() {
                    self.forget_all();
                }
                self.failed.get_or_insert(error);
            }
        }
        match (self.in_flight.len(), &self.failed) {
            (0, None) if self.abandoned => Next::Done,
            (_, None) => Next::Wait,
            (0, Some(_)) => Next::Done,
            (_, Some(_)) => Next::WatchLeases,
        }
    }

    /// What is hung up when nobody can read any more what is out.
    pub(super) fn watch_leases(&mut self) -> &Foreign {
        self.lease = None;
        &self.leases
    }

    pub(super) fn leases(&self) -> &Foreign {
        &self.leases
    }

    /// Uses again what is out.
    pub(super) fn forget_all(&mut self) {
        self.in_flight = InFlight::new(self.window);
    }

    /// Never uses again what is out.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::replace(
            &mut self.in_flight,
            InFlight::new(self.window),
        ));
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.link.socket
    }
}

fn gone_or(operation: &'static str) -> impl FnOnce(Errno) -> ChannelError {
    move |errno| match errno {
        Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => ChannelError::PeerGone,
        errno => ChannelError::errno(operation)(errno),
    }
}
