//! [`AsyncSender`] and [`AsyncReceiver`]: the same ends in tasks of tokio.
//!
//! A task sleeps on the socket, on which the peer wakes it (see `link.rs`); while both sides are busy
//! there is no system call. The runtime needs I/O enabled. A time limit is `tokio::time::timeout`.

use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::buffer::Buffer;
use super::closing::Foreign;
use super::error::ChannelError;
use super::lent::Offered;
use super::link::Read;
use super::pools::Outgoing;
use super::receiver::Receiver;
use super::sender::Sender;
use crate::memory::{FBufMut, Pool};

/// A [`Sender`] in a task.
#[derive(Debug)]
pub struct AsyncSender {
    sender: Sender,
    socket: AsyncFd<Foreign>,
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
        loop {
            let seen = self.returned()?;
            match self.sender.offer_now(buffer)? {
                Offered::Taken => return Ok(()),
                Offered::Full(refused) => buffer = refused,
                Offered::SocketFull(refused) => {
                    match self.announced(refused).await? {
                        None => return Ok(()),
                        Some(refused) => buffer = refused,
                    }
                    continue;
                }
            }
            self.something_came(seen).await?;
        }
    }

    /// Waits until the socket has room for a new pool. What is then refused waits for something else.
    async fn announced(&mut self, mut buffer: Outgoing) -> Result<Option<Outgoing>, ChannelError> {
        loop {
            let mut ready = self
                .socket
                .writable()
                .await
                .map_err(ChannelError::io("epoll"))?;
            // Only what is tried after this may say that there is none.
            match self.sender.offer_now(buffer)? {
                Offered::Taken => return Ok(None),
                Offered::Full(refused) => return Ok(Some(refused)),
                Offered::SocketFull(refused) => buffer = refused,
            }
            ready.clear_ready();
        }
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
            let (seen, out) = self.sender.run(|lent| {
                lent.reclaim()?;
                Ok((lent.returned(), lent.len()))
            })?;
            let buffer = pool.allocate();
            if buffer.is_some() || out == 0 {
                return Ok(buffer);
            }
            self.something_came(seen).await?;
        }
    }

    /// As [`Sender::finish`]. When the future is dropped before it is done, what is out is waited for
    /// in the background.
    ///
    /// # Errors
    /// As [`Sender::finish`], but a time-out.
    pub async fn finish(mut self) -> Result<(), ChannelError> {
        loop {
            let mut ready = self
                .socket
                .writable()
                .await
                .map_err(ChannelError::io("epoll"))?;
            if self.sender.run(|lent| lent.say_finished())? {
                break;
            }
            ready.clear_ready();
        }
        loop {
            let (seen, out) = self.sender.run(|lent| {
                lent.reclaim()?;
                Ok((lent.returned(), lent.len()))
            })?;
            if out == 0 {
                return Ok(());
            }
            self.something_came(seen).await?;
        }
    }

    /// Out of the task.
    pub fn into_blocking(self) -> Sender {
        self.sender
    }

    /// Waits until more came back than `seen`, or may have.
    async fn something_came(&mut self, seen: u32) -> Result<(), ChannelError> {
        let shared = Arc::clone(self.sender.shared()?);
        let mut notified = pin!(shared.notify.notified());
        notified.as_mut().enable();
        let (attended, came) = self.sender.run(|lent| {
            let came = lent.attended && lent.returned() != seen
                || !lent.attended && lent.link().sleep_on_socket(seen);
            Ok((lent.attended, came))
        })?;
        if came {
            return Ok(());
        }
        if attended {
            notified.await;
            return self.sender.run(|_| Ok(()));
        }
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
        Ok(())
    }

    fn returned(&mut self) -> Result<u32, ChannelError> {
        self.sender.run(|lent| Ok(lent.returned()))
    }
}

/// A [`Receiver`] in a task.
#[derive(Debug)]
pub struct AsyncReceiver {
    receiver: Receiver,
    socket: AsyncFd<Foreign>,
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
            if self.receiver.is_finished() {
                return self.receiver.run(Receiver::last);
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

fn watch(socket: std::io::Result<OwnedFd>) -> Result<AsyncFd<Foreign>, ChannelError> {
    // Deprecated because an arbitrary AsRawFd may lie about its descriptor; Foreign does not, and the
    // replacement is an unsafe function.
    #[expect(deprecated)]
    socket
        .map(Foreign::new)
        .and_then(|socket| AsyncFd::with_interest(socket, Interest::READABLE | Interest::WRITABLE))
        .map_err(ChannelError::io("epoll"))
}
