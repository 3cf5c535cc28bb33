//! Channels of shared buffers between processes: bytes change hands by reference, at a cost that does not
//! depend on how many they are.
//!
//! A [`Sender`] hands buffers of its [`Pool`](crate::Pool)s to the [`Receiver`] at the other end of a UNIX
//! socket. The first buffer of a pool passes the pool's memfd (SCM_RIGHTS); every buffer is a descriptor
//! of four words in a ring in shared memory. Dropping the last reference gives it back, and the sender's
//! pool uses it again, neither cleared nor unmapped. A receiver passes a buffer on to a third process
//! like one of its own, without touching it.
//!
//! ```
//! use zhaul::{Pool, channel};
//!
//! let (mut sender, mut receiver) = channel::pair(16)?; // or Sender::new, Receiver::new on a socket
//! let pool = Pool::new(64 << 10, 32)?;
//! let mut buffer = pool.allocate().expect("32 are free");
//! buffer[..5].copy_from_slice(b"hello");
//! sender.send(buffer.freeze(5))?;
//! let (bytes, _was_copied) = receiver.receive()?.expect("one").secure()?;
//! assert_eq!(&bytes[..], b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Volatile and sealed
//! A buffer of a pool is *volatile*, in the words of Druschel and Peterson (1993): the sender can still
//! write to it, so it is no `&[u8]` in another process. The receiver copies it out
//! ([`Buffer::secure`], [`Buffer::read_at`]), passes it on, or reads it in place where the program
//! vouches for the sender ([`Buffer::trust`]), which takes one `unsafe` line for a [`TrustedPeer`]. A
//! *sealed* buffer ([`SealedWriter`]) cannot be changed by anybody: [`Buffer::view`].
//!
//! # Whom what is hidden from
//! Whoever gets one buffer of a pool can read the whole pool, as long as it likes. Use a pool for each
//! group of processes that may see the same.
//!
//! # Flow control
//! At most a window of buffers is out at one time; the sender then waits. Nothing is queued elsewhere.
//!
//! # A peer that means harm
//! gets an error and nothing else: every message, counter, offset and descriptor is judged before it is
//! used, and what is mapped cannot lose pages. `docs/channel.md` lists what it can do. It can keep what it
//! was given ([`Sender::revoke`]), read what the pool holds, and keep us busy with wake-ups.
//!
//! Linux 5.14; 6.18 measured. A process that forks must not use a channel on both sides of the fork.

mod attendant;
mod buffer;
mod closing;
mod error;
mod in_flight;
mod lent;
mod link;
mod pools;
mod receiver;
mod sealed;
mod sender;
mod socket;
#[cfg(feature = "tokio")]
mod task;
pub mod wire;

pub use buffer::{Buffer, View};
pub use error::ChannelError;
pub use pools::{Limits, Outgoing};
pub use receiver::{Received, Receiver};
pub use sealed::SealedWriter;
pub use sender::Sender;
pub use socket::{Listener, connect, socket_pair};
#[cfg(feature = "tokio")]
pub use task::{AsyncReceiver, AsyncSender};
pub use wire::Violation;
pub use zhaul_sys::memfd_map::TrustedPeer;

/// Both ends of a channel, of which one is mostly given to another process or thread.
///
/// # Errors
/// [`ChannelError::Io`].
pub fn pair(window: u32) -> Result<(Sender, Receiver), ChannelError> {
    let (near, far) = socket_pair().map_err(ChannelError::io("socketpair"))?;
    let sender = Sender::new(near, window)?;
    Ok((
        sender,
        Receiver::new(far, Limits::default().window(wire::MAX_WINDOW))?,
    ))
}
