//! Decides how bytes move: plans, routes and transfers, without any I/O.
//!
//! The caller describes the two ends as facts ([`SourceFacts`], [`SinkFacts`], [`HostFacts`]) and
//! its wishes as an [`Ask`]. [`Plan::select`] answers with the cheapest route that is safe for
//! them and with the reason why every other route was passed over. A [`Transfer`] then walks that
//! route: it names one system call at a time ([`Step::Submit`]), is told what the call returned
//! ([`Transfer::complete`]), and accounts for every byte.
//!
//! A [`relay::RelayMachine`] does the same for two streams between two sockets, in both directions,
//! and an [`outbound::Outbound`] for an aggregate of memory and files on its way into a socket.
//!
//! Nothing here opens a descriptor, reads a clock, allocates per chunk or blocks, so one state
//! machine serves blocking, tokio and completion-based drivers, and tests drive it with scripted
//! results.
//!
//! What it does not do: it does not retry `EINTR` (drivers do), it does not hold buffers or
//! pipes (drivers do, as the operations tell them), and it does not decide whether a page is in
//! memory (drivers ask the kernel).
#![forbid(unsafe_code)]

mod ask;
mod cost;
mod errno;
mod error;
mod facts;
mod limits;
mod op;
mod plan;
mod rate;
mod refusal;
mod route;
mod summary;
mod throttle;
mod transfer;
mod version;

pub mod outbound;
pub mod relay;

pub use ask::{Ask, DEFAULT_BUDGET_BYTES, DEFAULT_CHUNK_BYTES, Length, Stability};
pub use cost::Cost;
pub use errno::{Errno, ErrnoClass};
pub use error::{Cause, TransferError};
pub use facts::{
    HostFacts, InPlaceEnd, Seals, SinkFacts, SinkKind, SourceFacts, SourceKind, Thresholds,
};
pub use op::{End, Interest, Op, Operation, Step};
pub use plan::{Plan, Reason, Rejection};
pub use rate::Rate;
pub use refusal::Refusal;
pub use route::Route;
pub use summary::{Ending, RouteChange, Summary, Why};
pub use transfer::{Stop, Transfer};
pub use version::{Drift, Timestamp, Version};
