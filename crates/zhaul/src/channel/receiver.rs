//! [`Receiver`]: gets buffers.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::buffer::{Buffer, Returns};
use super::closing::Foreign;
use super::error::ChannelError;
use super::link::{Incoming, Link, MESSAGES, Read, Socket, Woken, ring_of};
use super::pools::{Imported, Limits};
use super::wire::{Control, DESCRIPTOR_WORDS, Descriptor, Violation, new_entries};
use zhaul_sys::shared_ring::OwnRing;

/// The end of a channel that gets buffers. Nothing that the sender says or does makes it read outside
/// of the memory that was announced, end the process, or wait where it was not asked to wait.
///
/// What was got and not yet dropped outlives the receiver.
#[derive(Debug)]
pub struct Receiver {
    state: State,
    limits: Limits,
    imported: Imported,
    finished: bool,
}

#[derive(Debug)]
enum State {
    /// Until the sender said `Hello`.
    Greeting(Socket),
    Open(Open),
    Ended(ChannelError),
}

#[derive(Debug)]
struct Open {
    link: Arc<Link>,
    returns: Arc<Returns>,
    window: u32,
    /// Entries of the sender's ring that were read.
    taken: u32,
}

/// What there is to receive.
#[derive(Debug)]
pub enum Received {
    /// A buffer.
    Buffer(Buffer),
    /// Nothing now.
    Empty,
    /// Nothing any more: the sender finished.
    End,
}

impl Receiver {
    /// Begins a channel on a connected UNIX socket of the type SOCK_SEQPACKET. Does not wait.
    ///
    /// # Errors
    /// [`NotSeqpacket`](ChannelError::NotSeqpacket).
    pub fn new(socket: impl Into<OwnedFd>, limits: Limits) -> Result<Self, ChannelError> {
        Ok(Self {
            state: State::Greeting(Socket::new(socket.into())?),
            limits,
            imported: Imported::default(),
            finished: false,
        })
    }

    /// Waits for a buffer; `None` when the sender finished.
    ///
    /// # Errors
    /// [`PeerGone`](ChannelError::PeerGone) if the sender ended without finishing, after everything
    /// that it had handed over was received; any other of [`ChannelError`] but a time-out.
    pub fn receive(&mut self) -> Result<Option<Buffer>, ChannelError> {
        self.receive_until(None)
    }

    /// The same, but not beyond a moment.
    ///
    /// # Errors
    /// [`TimedOut`](ChannelError::TimedOut), or as [`receive`](Self::receive).
    pub fn receive_by(&mut self, deadline: Instant) -> Result<Option<Buffer>, ChannelError> {
        self.receive_until(Some(deadline))
    }

    /// Waits for a buffer, then takes all that are there, at most `most`. None come when the sender
    /// finished.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_batch(&mut self, most: usize) -> Result<Vec<Buffer>, ChannelError> {
        let mut batch = Vec::new();
        if most > 0 {
            batch.extend(self.receive()?);
        }
        while !batch.is_empty() && batch.len() < most {
            match self.run(Self::take) {
                Ok(Some(buffer)) => batch.push(buffer),
                // An error is told by the next call.
                Ok(None) | Err(_) => break,
            }
        }
        Ok(batch)
    }

    /// What there is, without waiting.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn try_receive(&mut self) -> Result<Received, ChannelError> {
        self.run(|receiver| {
            if let Some(buffer) = receiver.take()? {
                return Ok(Received::Buffer(buffer));
            }
            let read = receiver.read_messages()?;
            // What was published before the last message is there now.
            if read != Read::End {
                return Ok(receiver.take()?.map_or(Received::Empty, Received::Buffer));
            }
            Ok(receiver.last()?.map_or(Received::End, Received::Buffer))
        })
    }

    fn receive_until(&mut self, deadline: Option<Instant>) -> Result<Option<Buffer>, ChannelError> {
        self.run(|receiver| {
            loop {
                if let Some(buffer) = receiver.take()? {
                    return Ok(Some(buffer));
                }
                if receiver.finished {
                    return receiver.last();
                }
                let woken = match &receiver.state {
                    State::Open(open) => open.link.wait(open.taken, deadline)?,
                    State::Greeting(socket) if socket.wait(false, deadline)? => Woken::Socket,
                    State::Greeting(_) => Woken::TimedOut,
                    State::Ended(error) => return Err(error.again()),
                };
                match woken {
                    Woken::Published => {}
                    Woken::TimedOut => return Err(ChannelError::TimedOut),
                    Woken::Socket => {
                        if receiver.read_messages()? == Read::End {
                            return receiver.last();
                        }
                    }
                }
            }
        })
    }

    /// The next buffer in the ring.
    pub(super) fn take(&mut self) -> Result<Option<Buffer>, ChannelError> {
        let State::Open(open) = &mut self.state else {
            return Ok(None);
        };
        let Some(descriptor) = open.next_descriptor()? else {
            return Ok(None);
        };
        let resolved = match self.imported.resolve(&descriptor) {
            // It was announced before it was published, so the announcement is there.
            Err(Violation::UnknownPool { .. }) => {
                let _ = self.read_messages()?;
                self.imported.resolve(&descriptor)
            }
            resolved => resolved,
        };
        let (memory, range) = resolved?;
        let len = usize::try_from(descriptor.len).map_err(|_| Violation::Malformed)?;
        let State::Open(open) = &self.state else {
            return Ok(None);
        };
        let ticket = (Arc::clone(&open.returns), descriptor.ticket);
        Ok(Some(Buffer::new(memory, Some(ticket), range, len)))
    }

    /// Reads what is on the socket, at most [`MESSAGES`].
    pub(super) fn read_messages(&mut self) -> Result<Read, ChannelError> {
        for _ in 0..MESSAGES {
            let incoming = match &self.state {
                State::Greeting(socket) => socket.receive()?,
                State::Open(open) => open.link.socket.receive()?,
                State::Ended(error) => return Err(error.again()),
            };
            match incoming {
                Incoming::Empty if self.finished => return Ok(Read::End),
                Incoming::Empty => return Ok(Read::All),
                Incoming::End => return Ok(Read::End),
                Incoming::Message(message, descriptors) => self.act_on(message, descriptors)?,
            }
        }
        Ok(Read::Part)
    }

    fn act_on(&mut self, message: Control, descriptors: Vec<Foreign>) -> Result<(), ChannelError> {
        match (message, &self.state) {
            (Control::Wake, _) => {}
            (Control::Hello { window }, State::Greeting(_)) => self.greet(window, descriptors)?,
            (Control::Pool { serial }, State::Open(_)) => {
                self.imported.import(serial, descriptors, &self.limits)?;
            }
            (Control::Retire { serial }, State::Open(_)) => self.imported.retire(serial)?,
            (Control::Finish, State::Open(_)) => self.finished = true,
            _ => return Err(Violation::Unexpected(message).into()),
        }
        Ok(())
    }

    #[cfg(feature = "tokio")]
    pub(super) fn socket(&self) -> Result<&Socket, ChannelError> {
        match &self.state {
            State::Greeting(socket) => Ok(socket),
            State::Open(open) => Ok(&open.link.socket),
            State::Ended(error) => Err(error.again()),
        }
    }

    /// True if nothing will come but what is in the ring.
    #[cfg(feature = "tokio")]
    pub(super) const fn is_finished(&self) -> bool {
        self.finished
    }

    /// See [`Link::sleep_on_socket`].
    #[cfg(feature = "tokio")]
    pub(super) fn sleep_on_socket(&self) -> bool {
        match &self.state {
            State::Open(open) => open.link.sleep_on_socket(open.taken),
            State::Greeting(_) | State::Ended(_) => false,
        }
    }

    #[cfg(feature = "tokio")]
    pub(super) fn awake(&self) {
        if let State::Open(open) = &self.state {
            open.link.awake();
        }
    }

    /// Answers the sender's `Hello`.
    fn greet(&mut self, window: u32, descriptors: Vec<Foreign>) -> Result<(), ChannelError> {
        if window > self.limits.window {
            return Err(Violation::Window { window }.into());
        }
        let peer = ring_of(descriptors, window as usize * DESCRIPTOR_WORDS)?;
        let (own, memfd) =
            OwnRing::new(window as usize).map_err(ChannelError::io("memfd_create"))?;
        let ended = State::Ended(ChannelError::PeerGone);
        let State::Greeting(socket) = std::mem::replace(&mut self.state, ended) else {
            return Ok(());
        };
        // If the sender is gone, what it left is still to be had.
        match socket.send(Control::Hello { window }, &[memfd.as_fd()]) {
            Ok(()) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {}
            Err(errno) => return Err(ChannelError::errno("sendmsg")(errno)),
        }
        let link = Arc::new(Link::new(socket, own));
        link.set_peer(peer).expect("it has none");
        self.state = State::Open(Open {
            returns: Arc::new(Returns::new(Arc::clone(&link), window)),
            link,
            window,
            taken: 0,
        });
        Ok(())
    }

    /// What the ring has when nothing can come any more.
    pub(super) fn last(&mut self) -> Result<Option<Buffer>, ChannelError> {
        match self.take()? {
            None if !self.finished => Err(ChannelError::PeerGone),
            last => Ok(last),
        }
    }

    pub(super) fn run<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, ChannelError>,
    ) -> Result<T, ChannelError> {
        let result = work(self);
        if let Err(error) = &result
            && !matches!(error, ChannelError::TimedOut)
        {
            self.state = State::Ended(error.again());
        }
        result
    }
}

impl Open {
    fn next_descriptor(&mut self) -> Result<Option<Descriptor>, Violation> {
        let peer = self.link.peer().expect("set when it was made");
        // In this order: what is given back after the first load makes the second smaller, never the
        // sender look as if it had gone too far.
        let published = peer.published();
        let given_back = self.link.own.published().load(Ordering::Relaxed);
        let out = self.taken.wrapping_sub(given_back);
        if new_entries(published, self.taken, self.window - out)? == 0 {
            return Ok(None);
        }
        let first = (self.taken & (self.window - 1)) as usize * DESCRIPTOR_WORDS;
        let words = std::array::from_fn(|at| peer.cell(first + at));
        self.taken = self.taken.wrapping_add(1);
        Descriptor::decode(words).map(Some)
    }
}

/// What was handed over and not received is given back.
impl Drop for Receiver {
    fn drop(&mut self) {
        let window = match &self.state {
            State::Open(open) => open.window,
            _ => return,
        };
        // A sender that goes on meanwhile is not waited for.
        for _ in 0..window {
            if !matches!(self.run(Self::take), Ok(Some(_))) {
                break;
            }
        }
        if let State::Open(open) = &self.state {
            // The socket stays open as long as buffers are out.
            let _ = open.link.socket.send(Control::Finish, &[]);
            open.link.wake();
        }
    }
}
