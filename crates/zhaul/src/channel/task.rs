//! [`AsyncSender`] and [`AsyncReceiver`]: the same ends in tasks of tokio.
//!
//! A task sleeps on the socket, on which the peer wakes it (see `link.rs`); while both sides are busy
//! there is no system call. The runtime needs I/O enabled. A time limit is `tokio::time::timeout`.

use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::buffer::Buffer;
use super::error::ChannelError;
use super::link::Read;
use super::pools::Outgoing;
use super::receiver::Receiver;
use super::sender::Sender;
use crate::memory::{FBufMut, Pool};

/// A [`Sender`] in a task.
#[derive(Debug)]
pub struct AsyncSender {
    sender: Sender,
    socket: AsyncFd<OwnedFd>,
}

impl AsyncSender {
    /// In the runtime that is entered.
    ///
    /// # Errors
    /// [`Io`](ChannelError::Io), or what ended the channel.
    ///
    /// # Panics
    /// Outside of a runtime, or in one without I/O.
    pub fn new(mut sender: Sender) -> Result<Self, ChannelError> {
        let socket =
            watch(sender.run(|lent| Ok(lent.link().socket.as_fd().try_clone_to_owned()))?)?;
        Ok(Self { sender, socket })
    }

    /// As [`Sender::send`]. When the future is dropped before it is done, so is the buffer.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send(&mut self, buffer: impl Into<Outgoing>) -> Result<(), ChannelError> {
        let mut buffer = buffer.into();
        while let Some(refused) = self.sender.try_send(buffer)? {
            buffer = refused;
            self.something_came().await?;
        }
        Ok(())
    }

    /// As [`Sender::try_send`].
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub fn try_send(
        &mut self,
        buffer: impl Into<Outgoing>,
    ) -> Result<Option<Outgoing>, ChannelError> {
        self.sender.try_send(buffer)
    }

    /// As [`Sender::allocate`].
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn allocate(&mut self, pool: &Pool) -> Result<Option<FBufMut>, ChannelError> {
        loop {
            self.sender.run(|lent| Ok(lent.reclaim()?))?;
            let buffer = pool.allocate();
            if buffer.is_some() || self.sender.run(|lent| Ok(lent.len()))? == 0 {
                return Ok(buffer);
            }
            self.something_came().await?;
        }
    }

    /// As [`Sender::finish`]. When the future is dropped before it is done, what is out is waited for
    /// in the background.
    ///
    /// # Errors
    /// As [`Sender::finish`], but a time-out.
    pub async fn finish(mut self) -> Result<(), ChannelError> {
        // A receiver whose socket has no room for a message did not read what 256 others say.
        self.sender.run(|lent| lent.say_finished(None))?;
        loop {
            let out = self.sender.run(|lent| {
                lent.reclaim()?;
                Ok(lent.len())
            })?;
            if out == 0 {
                return Ok(());
            }
            self.something_came().await?;
        }
    }

    /// Out of the task.
    pub fn into_blocking(self) -> Sender {
        self.sender
    }

    async fn something_came(&mut self) -> Result<(), ChannelError> {
        let came = self
            .sender
            .run(|lent| Ok(lent.link().sleep_on_socket(lent.returned())))?;
        if !came {
            let mut ready = self
                .socket
                .readable()
                .await
                .map_err(ChannelError::io("epoll"))?;
            let read = self.sender.run(|lent| {
                lent.link().awake();
                lent.read_messages()
            })?;
            if read == Read::All {
                ready.clear_ready();
            }
        }
        self.sender.run(|lent| Ok(lent.reclaim()?))
    }
}

/// A [`Receiver`] in a task.
#[derive(Debug)]
pub struct AsyncReceiver {
    receiver: Receiver,
    socket: AsyncFd<OwnedFd>,
}

impl AsyncReceiver {
    /// In the runtime that is entered.
    ///
    /// # Errors
    /// [`Io`](ChannelError::Io), or what ended the channel.
    ///
    /// # Panics
    /// Outside of a runtime, or in one without I/O.
    pub fn new(receiver: Receiver) -> Result<Self, ChannelError> {
        let socket = watch(receiver.socket()?.as_fd().try_clone_to_owned())?;
        Ok(Self { receiver, socket })
    }

    /// As [`Receiver::receive`]. Dropping the future loses nothing.
    ///
    /// # Errors
    /// As [`Receiver::receive`].
    pub async fn receive(&mut self) -> Result<Option<Buffer>, ChannelError> {
        loop {
            if let Some(buffer) = self.receiver.run(Receiver::take)? {
                return Ok(Some(buffer));
            }
            if self.receiver.sleep_on_socket() {
                continue;
            }
            let mut ready = self
                .socket
                .readable()
                .await
                .map_err(ChannelError::io("epoll"))?;
            self.receiver.awake();
            match self.receiver.run(Receiver::read_messages)? {
                Read::All => ready.clear_ready(),
                Read::Part => {}
                Read::End => return self.receiver.run(Receiver::last),
            }
        }
    }

    /// Out of the task.
    pub fn into_blocking(self) -> Receiver {
        self.receiver
    }
}

fn watch(socket: std::io::Result<OwnedFd>) -> Result<AsyncFd<OwnedFd>, ChannelError> {
    // Deprecated because an arbitrary AsRawFd may lie about its descriptor; OwnedFd does not, and the
    // replacement is an unsafe function.
    #[expect(deprecated)]
    socket
        .and_then(|socket| AsyncFd::with_interest(socket, Interest::READABLE))
        .map_err(ChannelError::io("epoll"))
}
