//! Sends aggregates: headers and bodies, parts of files between pieces of memory, cached blocks.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use zhaul::{Aggregate, FileRange, Stability};
//!
//! let socket = std::net::TcpStream::connect("203.0.113.7:80")?;
//! let video = FileRange::whole(std::fs::File::open("video.mp4")?)?;
//! let mut answer = Aggregate::from(video.stability(Stability::Immutable));
//! answer.prepend(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len()));
//! let summary = zhaul::send(answer, &socket).run()?; // or .await on tokio
//! println!("{} bytes by {} calls", summary.moved, summary.calls);
//! # Ok(())
//! # }
//! ```
//!
//! A run of memory goes out by one gathering call, and a range of a file as a
//! [`transfer`](crate::transfer()) of it would, with the same promises. What is known to follow at once
//! is announced to the kernel (`MSG_MORE`), so a header and the file behind it share segments. After
//! an error, [`SendError::moved`](zhaul_core::outbound::SendError::moved) bytes of the aggregate are
//! sent, and what was sent with more announced goes out when the kernel has waited for it in vain (200
//! ms) or the socket is closed.
//!
//! [`send()`] makes a builder for blocking code and for tokio; an event loop of one's own turns an
//! [`SendState`]. `docs/send.md` tells limits and costs.
//!
//! What this does not do: it does not wait until the peer has received what is sent, and it does not
//! end the stream.

mod blocking;
mod builder;
mod gather;
mod state;
#[cfg(feature = "tokio")]
mod task;
mod turn;
mod zero_copy;

pub use builder::{SendBuilder, send};
pub use state::SendState;
#[cfg(feature = "tokio")]
pub use task::Sending;
pub use turn::{Advance, TurnTerms};
pub use zero_copy::ZeroCopySender;
