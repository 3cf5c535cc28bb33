//! Relays between two stream sockets: TCP, UNIX, or one of each.
//!
//! ```no_run
//! use std::time::Duration;
//! use tokio::net::{TcpListener, TcpStream};
//!
//! # async fn serve() -> std::io::Result<()> {
//! let listener = TcpListener::bind("0.0.0.0:5432").await?;
//! loop {
//!     let (client, _) = listener.accept().await?;
//!     tokio::spawn(async move {
//!         let server = TcpStream::connect("203.0.113.7:5432").await?;
//!         let relay = zhaul::relay(client, server).idle_timeout(Duration::from_secs(600));
//!         let ending = relay.run_async().await;
//!         println!("{} after {} bytes", ending.cause, ending.stats.delivered());
//!         std::io::Result::Ok(())
//!     });
//! }
//! # }
//! ```
//!
//! What happens is decided by [`zhaul_core::relay`]. Three things here perform it:
//! - [`relay`](crate::relay()) is a builder; [`RelayBuilder::run_async`] relays on a tokio task, [`RelayBuilder::run`] on
//!   the thread that calls it.
//! - [`Relay`] relays in turns, for programs with an event loop of their own: a connection is then
//!   one value without a task, and holds neither buffer nor pipe while nothing is under way.
//! - [`Resources`] are the buffers and pipes that relays borrow.
//!
//! Sockets have to be in non-blocking mode, and for small messages should have `TCP_NODELAY` set. The
//! kernel's urgent byte (`MSG_OOB`) is not passed on;
//! the stream around it is.

mod blocking;
mod buffers;
mod builder;
mod calls;
#[cfg(feature = "tokio")]
mod copying;
mod epoll;
mod limit;
mod progress;
#[cfg(feature = "tokio")]
mod task;
mod turns;

pub use buffers::{BufferPool, PooledBuffer};
pub use builder::{RelayBuilder, relay};
#[cfg(feature = "tokio")]
pub use copying::ByteStream;
pub use epoll::{WATCH, readiness};
pub use limit::{Limit, RateLimit, now};
pub use progress::RelayProgress;
pub use turns::{Relay, Resources, Turn};
pub use zhaul_core::relay::{
    Abort, FlowThresholds, Readiness, RelayCause, RelayEnding, RelayInterest, RelayOptions, Side,
    Stats, Trigger, Wants, Way, WayStats,
};
