//! The same on a tokio task.

use std::io;
use std::os::fd::AsFd;

use tokio::io::Interest;

use zhaul_core::{Errno, Operation};

use super::state::Attempt;
use super::view::ReceivedBytes;
use super::{ReceiveError, ZeroCopyReceiver};
use crate::async_io::AsyncEnd;
use crate::edges::READABLE;

impl<S: AsFd + AsyncEnd> ZeroCopyReceiver<S> {
    /// Waits on the task until the socket has something; else as [`receive`](Self::receive).
    /// Dropping the future loses nothing. A socket that tokio does not know (of `std`) is asked every
    /// millisecond.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub async fn receive_async(&mut self) -> Result<Option<ReceivedBytes<'_>>, ReceiveError> {
        self.receive_at_most_async(usize::MAX).await
    }

    /// The same, and leaves what is beyond `bytes` in the socket.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub async fn receive_at_most_async(
        &mut self,
        bytes: usize,
    ) -> Result<Option<ReceivedBytes<'_>>, ReceiveError> {
        loop {
            let (socket, state) = (&self.socket, &mut self.state);
            let mut failed = None;
            let attempt = self.watch.attempt(socket, Interest::READABLE, || {
                match state.attempt(socket.as_fd(), bytes) {
                    Ok(Attempt::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
                    Ok(attempt) => Ok(Some(attempt)),
                    Err(error) => {
                        failed = Some(error);
                        Ok(None)
                    }
                }
            });
            if let Some(error) = failed {
                return Err(error);
            }
            match attempt {
                Ok(Some(Attempt::Came(piece))) => return Ok(Some(self.state.view(piece))),
                Ok(Some(Attempt::Ended)) => return Ok(None),
                // Not ready, as the call or the reactor says.
                Ok(_) | Err(_) => {
                    self.state.release();
                    let ready = self.watch.ready(&self.socket, READABLE).await;
                    ready.map_err(|errno: Errno| self.state.failed(Operation::Wait, errno))?;
                }
            }
        }
    }
}
