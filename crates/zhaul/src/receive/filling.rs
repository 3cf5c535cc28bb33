//! Receiving into a buffer of a pool.

use std::os::fd::AsFd;

use rustix::net::RecvFlags;

use zhaul_core::{Errno, Operation};

use super::{ReceiveError, patience_of, wait_for_bytes};
use crate::errno::of_rustix;
use crate::memory::{FBuf, FBufMut};

/// A buffer that is received into, one copy from the kernel's, until it is full or the stream ends;
/// then it is immutable, shared, and sent on or handed to another process without a second one.
///
/// ```no_run
/// # fn example(socket: std::net::TcpStream, pool: zhaul::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use zhaul::receive::Filling;
///
/// let mut filling = Filling::new(pool.allocate().ok_or("all buffers are in use")?);
/// filling.receive(&socket)?;
/// let block: zhaul::FBuf = filling.freeze();
/// # Ok(())
/// # }
/// ```
///
/// What was received stays here after an error, and when a future is dropped.
#[derive(Debug)]
pub struct Filling {
    buffer: FBufMut,
    filled: usize,
    limit: usize,
}

impl Filling {
    /// Fills all of a buffer.
    pub fn new(buffer: FBufMut) -> Self {
        let limit = buffer.len();
        Self {
            buffer,
            filled: 0,
            limit,
        }
    }

    /// Takes so many bytes at most, with those that are here already, and leaves what follows in the
    /// socket.
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes.min(self.buffer.len());
        self
    }

    /// Bytes received.
    pub const fn len(&self) -> usize {
        self.filled
    }

    /// True before the first byte.
    pub const fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// True if there is no room left.
    pub const fn is_full(&self) -> bool {
        self.filled >= self.limit
    }

    /// Receives until the buffer is full (true) or the stream ends (false). It waits whatever the mode
    /// of the socket, as long as `SO_RCVTIMEO` says.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn receive(&mut self, socket: impl AsFd) -> Result<bool, ReceiveError> {
        let socket = socket.as_fd();
        loop {
            // In blocking mode the call itself waits, as long.
            let until = patience_of(socket);
            match self.attempt(socket, RecvFlags::WAITALL) {
                Err(Errno::EAGAIN) => wait_for_bytes(socket, until)
                    .map_err(|errno| self.failed(Operation::Wait, errno))?,
                Err(errno) => return Err(self.failed(Operation::Read, errno)),
                Ok(0) => return Ok(self.is_full()),
                Ok(_) => {}
            }
        }
    }

    /// The same on a tokio task.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    #[cfg(feature = "tokio")]
    pub async fn receive_async(
        &mut self,
        socket: &impl crate::async_io::AsyncEnd,
    ) -> Result<bool, ReceiveError> {
        use tokio::io::Interest;

        let mut watch = crate::async_io::Watch::source();
        loop {
            let attempt = || {
                let received = self.attempt(socket.fd(), RecvFlags::DONTWAIT);
                received.map_err(std::io::Error::from)
            };
            match watch.attempt(socket, Interest::READABLE, attempt) {
                Ok(0) => return Ok(self.is_full()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let ready = watch.ready(socket, crate::edges::READABLE).await;
                    ready.map_err(|errno| self.failed(Operation::Wait, errno))?;
                }
                Err(error) => {
                    return Err(self.failed(Operation::Read, crate::errno_of(&error)));
                }
            }
        }
    }

    /// What was received. It may be less than a buffer.
    pub fn freeze(self) -> FBuf {
        self.buffer.freeze(self.filled)
    }

    /// Receives once; 0 at the end and when full.
    fn attempt(&mut self, socket: impl AsFd, flags: RecvFlags) -> Result<usize, Errno> {
        let room = &mut self.buffer[self.filled..self.limit.max(self.filled)];
        if room.is_empty() {
            return Ok(0);
        }
        loop {
            match rustix::net::recv(&socket, &mut *room, flags) {
                Ok((received, _)) => {
                    self.filled += received;
                    return Ok(received);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(of_rustix(errno)),
            }
        }
    }

    const fn failed(&self, operation: Operation, errno: Errno) -> ReceiveError {
        ReceiveError {
            operation,
            errno,
            received: self.filled as u64,
        }
    }
}
