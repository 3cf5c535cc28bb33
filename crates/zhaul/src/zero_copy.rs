//! Memory that the kernel reads by reference (MSG_ZEROCOPY): how much there is in the process, how
//! much there may be, and the sender for datagrams. Streams have [`send`](crate::send()).
//!
//! ```
//! use std::net::UdpSocket;
//! use std::os::fd::AsFd;
//!
//! use zhaul::zero_copy::{Sender, pinned};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let far = UdpSocket::bind("127.0.0.1:0")?;
//! let near = UdpSocket::bind("127.0.0.1:0")?;
//! near.connect(far.local_addr()?)?;
//! let mut sender = Sender::new(near.as_fd())?;
//!
//! let mut buffer = zhaul::Pool::new(64 << 10, 4)?.allocate().expect("4 are free");
//! buffer[..20_000].fill(7);
//! sender.send(&[buffer.freeze(20_000).into()], false)?;
//! assert_eq!(far.recv(&mut [0; 20_000])?, 20_000);
//!
//! // The slot is in use until the kernel says that it has done with it.
//! println!("{} bytes are pending in all", pinned().bytes);
//! sender.reap()?;
//! # Ok(())
//! # }
//! ```
//!
//! `docs/send-zero-copy.md` tells who owns what until when, limits and costs.

#[cfg(feature = "io-uring")]
mod batch;

#[cfg(feature = "io-uring")]
pub use batch::{BatchSender, NotQueued, NotQueuedReason, Released, Unavailable};
pub use zhaul_sys::msg_zerocopy::{
    Completion, Limits, Pinned, Reaped, Sender, Sent, pinned, set_limits,
};
