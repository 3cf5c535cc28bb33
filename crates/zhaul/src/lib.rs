//! Moves bytes on Linux by the cheapest route that is safe.
//!
//! ```no_run
//! use std::fs::File;
//! use std::net::TcpStream;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let file = File::open("video.mp4")?;
//! let socket = TcpStream::connect("203.0.113.7:9000")?;
//! let haul = zhaul::transfer(&file, &socket).stability(zhaul::Stability::Immutable);
//! println!("{} because {}", haul.plan()?.route, haul.plan()?.because);
//! let summary = haul.run()?; // or .await on tokio
//! println!("{} bytes in {} calls", summary.moved, summary.calls);
//! # Ok(())
//! # }
//! ```
//!
//! Without a word about who else writes to it, a file is copied: [`Stability`] tells why, and
//! [`Haul::stability`] and [`Haul::lease`] change it.
//!
//! [`transfer`] accepts any source of a stream of bytes (file, pipe, stream socket, memfd, block
//! device, `/dev` and procfs files) and any sink (stream socket, pipe, file, `/dev/null`). What happens is
//! decided by
//! [`zhaul_core`], which this crate re-exports; the drivers here make the system calls.
//!
//! # What is promised about data
//! A transfer moves exactly the bytes asked for, or says how many it moved and why it stopped. No
//! byte reaches the sink that was not in the source at some moment during the transfer, except
//! from a source that the caller declared [`Stability::Immutable`] and that somebody changed all
//! the same; that is detected at chunk borders and reported, as far as the file's size and mtime
//! tell. A file that ends before the size that it had at the start is an error, whatever the
//! stability. What the kernel's own `read(2)` does under a truncation is told at
//! [`Stability::MayChange`].
//!
//! # Signals
//! The Rust runtime ignores SIGPIPE, and a vanished receiver is an error here. A program that
//! restored the default action of SIGPIPE dies of it, as it chose to.
//! Growing a file beyond RLIMIT_FSIZE is the error EFBIG and no SIGXFSZ, whatever that signal's action.
//!
//! # Features
//! `tokio` (on by default): transfers and relays on a tokio task. Without it
//! (`default-features = false`) nothing of tokio is built, and [`Haul::run`] and
//! [`RelayBuilder::run`](relay::RelayBuilder::run) work on the thread that calls them.
//!
//! `io-uring` (off by default): `zero_copy::BatchSender`, datagrams in batches with SEND_ZC.
#![forbid(unsafe_code)]

mod blocking;
mod buffer;
mod calls;
mod cancel;
mod edges;
mod errno;
mod handle;
mod haul;
mod in_flight;
mod nonblocking;
mod progress;
mod reserve;
mod sparse;
mod transfer_state;

#[cfg(feature = "tokio")]
pub mod async_io;
pub mod calibration;
pub mod channel;
#[cfg(feature = "tokio")]
pub mod cold;
pub mod cow;
pub mod endpoint;
pub mod lease;
pub mod memory;
pub mod peer;
pub mod pipe_pool;
pub mod receive;
pub mod relay;
pub mod residency;
pub mod send;
pub mod zero_copy;

pub use cancel::CancelToken;
#[cfg(feature = "tokio")]
pub use cold::ColdPool;
pub use cow::{CowRegion, Snapshot};
pub use errno::errno_of;
pub use handle::Handle;
pub use haul::{Haul, transfer};
pub use lease::{Lease, LeaseError};
pub use memory::{Aggregate, FBuf, FBufMut, FileRange, Memory, Pool, PoolError, Segment};
pub use pipe_pool::PipePool;
pub use progress::Progress;
pub use relay::relay;
pub use send::send;
pub use zhaul_core::outbound::{SendError, SendSummary, ZeroCopy, ZeroCopyChange};
pub use zhaul_core::{
    Ask, Cause, Cost, DEFAULT_BUDGET_BYTES, DEFAULT_CHUNK_BYTES, Drift, End, Ending, Errno,
    ErrnoClass, HostFacts, InPlaceEnd, Length, Operation, Plan, Rate, Reason, Refusal, Rejection,
    Route, RouteChange, Seals, SinkFacts, SinkKind, SourceFacts, SourceKind, Stability, Stop,
    Summary, Thresholds, Timestamp, TransferError, Version, Why,
};
