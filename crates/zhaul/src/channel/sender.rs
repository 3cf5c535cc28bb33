//! [`Sender`]: hands buffers over.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::attendant::{Access, Shared};
use super::error::ChannelError;
use super::lent::{Lent, Offered};
use super::pools::Outgoing;
use super::wire::MAX_WINDOW;
use crate::memory::{FBufMut, Pool};

/// The end of a channel that hands buffers over.
///
/// At most a window of them is out at one time. What is out belongs to the receiver: it is not used again
/// before it was given back, or before everybody who could read it is gone, whatever becomes of the
/// sender; only a receiver that gives back what is not out, or whose counter runs ahead, loses at once what
/// it has. Dropping a sender that did not [`finish`](Self::finish) tells the receiver that the data ended
/// early.
///
/// The death of the receiver is noticed at the latest when the window is used up, and by `finish`.
#[derive(Debug)]
pub struct Sender {
    state: State,
}

#[derive(Debug)]
enum State {
    Open(Arc<Shared>),
    Ended(ChannelError),
}

impl Sender {
    /// Begins a channel on a connected UNIX socket of the type SOCK_SEQPACKET on which nothing was said
    /// yet. `window` is how many buffers may be out, rounded up to a power of two. Does not wait.
    ///
    /// # Errors
    /// [`NotSeqpacket`](ChannelError::NotSeqpacket), [`PeerGone`](ChannelError::PeerGone),
    /// [`Io`](ChannelError::Io).
    pub fn new(socket: impl Into<OwnedFd>, window: u32) -> Result<Self, ChannelError> {
        let window = window.clamp(1, MAX_WINDOW).next_power_of_two();
        let lent = Lent::new(socket.into(), window)?;
        Ok(Self {
            state: State::Open(Shared::new(lent)),
        })
    }

    /// Hands a buffer over. Waits while a window of them is out, for ever if the receiver lives and gives
    /// nothing back.
    ///
    /// # Errors
    /// Any of [`ChannelError`] but a time-out. The buffer is dropped; a clone of it costs nothing.
    pub fn send(&mut self, buffer: impl Into<Outgoing>) -> Result<(), ChannelError> {
        self.send_until(buffer.into(), None)
    }

    /// The same, but not beyond a moment.
    ///
    /// # Errors
    /// [`TimedOut`](ChannelError::TimedOut), or as [`send`](Self::send).
    pub fn send_by(
        &mut self,
        buffer: impl Into<Outgoing>,
        deadline: Instant,
    ) -> Result<(), ChannelError> {
        self.send_until(buffer.into(), Some(deadline))
    }

    /// Hands a buffer over, or gives it back if a window of them is out, or the receiver has yet to read
    /// of earlier pools before it can be told of this one.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn try_send(
        &mut self,
        buffer: impl Into<Outgoing>,
    ) -> Result<Option<Outgoing>, ChannelError> {
        Ok(match self.offer_now(buffer.into())? {
            Offered::Taken => None,
            Offered::Full(refused) | Offered::SocketFull(refused) => Some(refused),
        })
    }

    pub(super) fn offer_now(&mut self, buffer: Outgoing) -> Result<Offered, ChannelError> {
        self.run(|lent| {
            let offered = offer_once(lent, buffer)?;
            if !matches!(offered, Offered::Taken) {
                lent.read_messages()?;
            }
            lent.flush()?;
            Ok(offered)
        })
    }

    /// Hands many buffers over and wakes the receiver once, or once a window. Waits as
    /// [`send`](Self::send) does.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_all<B: Into<Outgoing>>(
        &mut self,
        buffers: impl IntoIterator<Item = B>,
    ) -> Result<(), ChannelError> {
        self.run(|lent| {
            for buffer in buffers {
                offer(lent, buffer.into(), None)?;
            }
            lent.flush()
        })
    }

    /// A buffer of a pool. While all are in use, waits for one of those that are out on this channel;
    /// `None` if none is.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn allocate(&mut self, pool: &Pool) -> Result<Option<FBufMut>, ChannelError> {
        self.run(|lent| {
            loop {
                lent.reclaim()?;
                let buffer = pool.allocate();
                if buffer.is_some() || lent.len() == 0 {
                    return Ok(buffer);
                }
                lent.wait(None)?;
            }
        })
    }

    /// Takes back what was given back, without waiting, and says how many buffers are still out.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn reclaim(&mut self) -> Result<usize, ChannelError> {
        self.run(|lent| {
            lent.read_messages()?;
            lent.reclaim()?;
            Ok(lent.len())
        })
    }

    /// Says that nothing follows, and waits until all buffers came back.
    ///
    /// # Errors
    /// [`TimedOut`](ChannelError::TimedOut): what is out stays out, and is waited for in the background.
    /// [`PeerGone`](ChannelError::PeerGone) if the receiver ended before it gave everything back.
    pub fn finish(mut self, deadline: Option<Instant>) -> Result<(), ChannelError> {
        self.run(|lent| {
            while !lent.say_finished()? {
                if !lent.wait_for_room(deadline)? {
                    return Err(ChannelError::TimedOut);
                }
            }
            lent.reclaim()?;
            while lent.len() > 0 {
                if !lent.wait(deadline)? {
                    return Err(ChannelError::TimedOut);
                }
            }
            Ok(())
        })
    }

    /// Ends the channel and uses at once again what is out, though the receiver may be reading it. For a
    /// receiver that does not give back what it got; one that
    /// [trusted](super::TrustedPeer) this process must not have to do with this.
    pub fn revoke(mut self) {
        let ended = State::Ended(ChannelError::PeerGone);
        if let State::Open(shared) = std::mem::replace(&mut self.state, ended) {
            shared.revoke();
        }
    }

    fn send_until(
        &mut self,
        buffer: Outgoing,
        deadline: Option<Instant>,
    ) -> Result<(), ChannelError> {
        self.run(|lent| {
            offer(lent, buffer, deadline)?;
            lent.flush()
        })
    }

    #[cfg(feature = "tokio")]
    pub(super) fn shared(&self) -> Result<&Arc<Shared>, ChannelError> {
        match &self.state {
            State::Open(shared) => Ok(shared),
            State::Ended(error) => Err(error.again()),
        }
    }

    pub(super) fn run<T>(
        &mut self,
        work: impl FnOnce(&mut Access<'_>) -> Result<T, ChannelError>,
    ) -> Result<T, ChannelError> {
        let shared = match &self.state {
            State::Open(shared) => shared,
            State::Ended(error) => return Err(error.again()),
        };
        let mut access = shared.access();
        let result = access.check().and_then(|()| work(&mut access));
        drop(access);
        if let Err(error) = &result
            && !matches!(error, ChannelError::TimedOut | ChannelError::TooManyHops)
        {
            let ended = State::Ended(error.again());
            if let State::Open(shared) = std::mem::replace(&mut self.state, ended) {
                match error {
                    error if error.ends_loans() => shared.revoke(),
                    _ => shared.abandon(),
                }
            }
        }
        result
    }
}

/// Writes a buffer to the ring, after waiting for room.
fn offer(
    lent: &mut Access<'_>,
    mut buffer: Outgoing,
    deadline: Option<Instant>,
) -> Result<(), ChannelError> {
    loop {
        let in_time;
        (buffer, in_time) = match offer_once(lent, buffer)? {
            Offered::Taken => return Ok(()),
            Offered::Full(refused) => (refused, lent.wait(deadline)?),
            Offered::SocketFull(refused) => {
                lent.flush()?;
                (refused, lent.wait_for_room(deadline)?)
            }
        };
        if !in_time {
            return Err(ChannelError::TimedOut);
        }
    }
}

fn offer_once(lent: &mut Access<'_>, buffer: Outgoing) -> Result<Offered, ChannelError> {
    if buffer.is_borrowed() {
        lent.attend()?;
    }
    lent.offer(buffer)
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let State::Open(shared) = &self.state {
            shared.abandon();
        }
    }
}
