//! [`BatchSender`]: datagrams out of one pool, many with one system call.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use zhaul_sys::send_zc::Batch;
pub use zhaul_sys::send_zc::{NotQueued as NotQueuedReason, Unavailable};

use crate::memory::{FBuf, Pool};

/// Sends datagrams out of one [`Pool`] on one connected UDP socket by io_uring's SEND_ZC, Linux 6.2:
/// the pool is registered once, and any number of datagrams goes with one `io_uring_enter(2)`.
///
/// A buffer that is pushed belongs to the kernel until it comes back from [`reap`](Self::reap), sent or
/// not. When the sender is dropped, a thread of the process keeps what is in flight until then;
/// [`pinned`](super::pinned) tells how much that is. What was pushed and not submitted is not sent.
///
/// ```
/// use std::net::UdpSocket;
/// use std::os::fd::AsFd;
/// use std::time::Duration;
///
/// use zhaul::zero_copy::{BatchSender, Unavailable};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let far = UdpSocket::bind("127.0.0.1:0")?;
/// let near = UdpSocket::bind("127.0.0.1:0")?;
/// near.connect(far.local_addr()?)?;
/// let pool = zhaul::Pool::new(16 << 10, 64)?;
/// let mut sender = match BatchSender::new(near.as_fd(), &pool, 16) {
///     Ok(sender) => sender,
///     // Refused to this process, or too old a kernel: `Sender` and `send(2)` do.
///     Err(error @ (Unavailable::Ring(_) | Unavailable::Operation | Unavailable::Register(_))) => {
///         println!("{error}");
///         return Ok(());
///     }
///     Err(error) => return Err(error.into()),
/// };
/// for number in 0..4 {
///     let mut buffer = pool.allocate().expect("64 are free");
///     buffer[..9000].fill(number);
///     sender.push(buffer.freeze(9000))?;
/// }
/// sender.submit()?;
/// while sender.in_flight() > 0 {
///     sender.wait(Duration::from_secs(1))?;
///     sender.reap(|released| println!("{:?}: {:?}", released.buffer, released.sent));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BatchSender {
    batch: Batch,
}

/// A datagram that the kernel is done with.
#[derive(Debug)]
#[non_exhaustive]
pub struct Released {
    /// As it was pushed.
    pub buffer: FBuf,
    /// Whether it was sent. EAGAIN and ENOBUFS: there was no room (SO_SNDBUF, a queue), push it again
    /// when the socket is writable; else as `send(2)`.
    pub sent: io::Result<()>,
    /// The kernel copied it after all. Where it always does (loopback, veth), `send(2)` is cheaper.
    pub copied: bool,
}

/// A buffer that was not queued.
#[derive(Debug)]
#[non_exhaustive]
pub struct NotQueued {
    /// Why.
    pub reason: NotQueuedReason,
    /// As it was pushed.
    pub buffer: FBuf,
}

impl fmt::Display for NotQueued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl std::error::Error for NotQueued {}

impl BatchSender {
    /// A sender with at most so many datagrams queued or in flight. The socket is duplicated; the pool's
    /// memory counts for RLIMIT_MEMLOCK, unless the process has CAP_IPC_LOCK.
    ///
    /// # Errors
    /// The step that was refused. But for `Socket`, [`Sender`](super::Sender) may do.
    pub fn new(
        socket: BorrowedFd<'_>,
        pool: &Pool,
        most_in_flight: u32,
    ) -> Result<Self, Unavailable> {
        let batch = Batch::new(socket, &pool.arena, most_in_flight)?;
        Ok(Self { batch })
    }

    /// Queues a datagram of 1 to 65,527 bytes; [`submit`](Self::submit) sends it.
    ///
    /// # Errors
    /// Why not, and the buffer.
    pub fn push(&mut self, buffer: FBuf) -> Result<(), NotQueued> {
        let (slot, range) = buffer.into_parts();
        let pushed = self.batch.push(slot, range.clone());
        pushed.map_err(|(reason, slot)| NotQueued {
            reason,
            buffer: FBuf::from_parts(slot, range),
        })
    }

    /// Sends what is queued, in order, without blocking. Returns how many the kernel took.
    ///
    /// # Errors
    /// As `io_uring_enter(2)`. What was not taken stays queued.
    pub fn submit(&mut self) -> io::Result<usize> {
        self.batch.submit()
    }

    /// Gives back what the kernel is done with, in any order, and returns how many. Makes no system call.
    pub fn reap(&mut self, mut each: impl FnMut(Released)) -> usize {
        self.batch.reap(|send| {
            each(Released {
                buffer: FBuf::from_parts(send.slot, send.range),
                sent: send.sent,
                copied: send.copied,
            });
        })
    }

    /// Waits until there may be something to reap; false if there is nothing within this time, and after
    /// a signal.
    ///
    /// # Errors
    /// As `poll(2)`.
    pub fn wait(&self, at_most: Duration) -> io::Result<bool> {
        self.batch.wait(at_most)
    }

    /// Datagrams that are queued or in flight.
    pub fn in_flight(&self) -> usize {
        self.batch.in_flight()
    }

    /// Bytes of these.
    pub fn pending(&self) -> usize {
        self.batch.pending()
    }
}

/// The ring: readable when there is something to reap.
impl AsFd for BatchSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.batch.as_fd()
    }
}
