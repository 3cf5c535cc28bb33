//! [`Sender`]: hands buffers over.

use std::os::fd::OwnedFd;
use std::time::Instant;

use super::error::ChannelError;
use super::lent::Lent;
use super::pools::Outgoing;
use super::wire::MAX_WINDOW;
use crate::memory::{FBufMut, Pool};

/// The end of a channel that hands buffers over.
///
/// At most a window of them is out at one time. What is out belongs to the receiver: it is not used again
/// before it was given back, or before everybody who could read it is gone, whatever becomes of the
/// sender. Dropping a sender that did not [`finish`](Self::finish) tells the receiver that the data ended
/// early.
///
/// The death of the receiver is noticed at the latest when the window is used up, and by `finish`.
#[derive(Debug)]
pub struct Sender {
    state: State,
}

#[derive(Debug)]
enum State {
    Open(Box<Lent>),
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
            state: State::Open(Box::new(lent)),
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

    /// Hands a buffer over, or gives it back if a window of them is out.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn try_send(
        &mut self,
        buffer: impl Into<Outgoing>,
    ) -> Result<Option<Outgoing>, ChannelError> {
        let buffer = buffer.into();
        self.run(|lent| {
            let refused = lent.offer(buffer)?;
            if refused.is_some() {
                lent.read_messages()?;
            }
            lent.flush()?;
            Ok(refused)
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
            lent.say_finished(deadline)?;
            lent.reclaim()?;
            while lent.len() > 0 {
                match lent.wait(deadline) {
                    Ok(true) => {}
                    Ok(false) => return Err(ChannelError::TimedOut),
                    Err(ChannelError::PeerGone) if lent.len() == 0 => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    }

    /// Ends the channel and uses at once again what is out, though the receiver may be reading it. For a
    /// receiver that does not give back what it got; one that
    /// [trusted](super::TrustedPeer) this process must not have to do with this.
    pub fn revoke(mut self) {
        self.state = State::Ended(ChannelError::PeerGone);
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

    pub(super) fn run<T>(
        &mut self,
        work: impl FnOnce(&mut Lent) -> Result<T, ChannelError>,
    ) -> Result<T, ChannelError> {
        let lent = match &mut self.state {
            State::Open(lent) => lent,
            State::Ended(error) => return Err(error.again()),
        };
        let result = work(lent);
        if let Err(error) = &result
            && !matches!(error, ChannelError::TimedOut | ChannelError::TooManyHops)
        {
            let ended = std::mem::replace(&mut self.state, State::Ended(error.again()));
            // Whoever breaks the protocol does not keep buffers by it.
            if let (State::Open(lent), ChannelError::PeerGone | ChannelError::Io { .. }) =
                (ended, error)
            {
                lent.linger();
            }
        }
        result
    }
}

/// Writes a buffer to the ring, after waiting for room.
fn offer(
    lent: &mut Lent,
    mut buffer: Outgoing,
    deadline: Option<Instant>,
) -> Result<(), ChannelError> {
    while let Some(refused) = lent.offer(buffer)? {
        buffer = refused;
        if !lent.wait(deadline)? {
            return Err(ChannelError::TimedOut);
        }
    }
    Ok(())
}

impl Drop for Sender {
    fn drop(&mut self) {
        let ended = State::Ended(ChannelError::PeerGone);
        if let State::Open(lent) = std::mem::replace(&mut self.state, ended) {
            lent.linger();
        }
    }
}
