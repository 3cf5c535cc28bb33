//! The tokio driver: transfers that share a thread with everything else.
//!
//! System calls are made on the caller's own thread inside `try_io`; resident data never changes
//! threads. Before a call that would touch pages of a file, the driver asks whether they are in
//! memory ([`crate::residency`]) and has cold ones read by the pool ([`crate::cold`]), the next
//! chunk while the current one is sent. After its fairness budget a transfer lets others run.
//!
//! Nothing here depends on the flavour of the runtime. Futures are `Send` where the ends are
//! `Sync`; dropping one at any point leaves nothing behind except, for a stream source, the bytes
//! that were in the pipe between, and from file to file one call that a thread of the pool is
//! making at that moment.
//!
//! A file on a disk as a *sink* is written by threads of a pool, call by call: the kernel makes a
//! writer wait for the journal, for blocks, and when too many pages are dirty. What comes from a
//! stream is taken on the task. Files in memory (tmpfs, memfd) are written on the task; a transfer
//! from file to file runs in the pool altogether.
//!
//! The runtime needs I/O enabled, except for copies from file to file. Timers
//! ([`enable_time`](::tokio::runtime::Builder::enable_time)) are needed for a deadline, a throttle and
//! the time limits of relays only; with one of these, a runtime without timers is a panic, as it is
//! with `tokio::time::sleep`, when the transfer begins.
//!
//! A [`File`](std::fs::File) counts as always ready. One that is a FIFO, a socket or a terminal is
//! not, and is refused: make an [`Attached`] of it.

mod acknowledged;
mod alarm;
mod drive;
mod end;
mod files;
mod pause;
mod read_ahead;
mod shared_file;
mod unregistered;
mod watch;

pub use crate::haul::Running;
pub use crate::residency::is_resident;
pub use acknowledged::acknowledged;
pub(crate) use drive::{AtDrop, Control, Drive, DriveState, Goal, unless_stopped};
pub use end::{AsyncEnd, Attached, SharedFd};
pub use read_ahead::warm;
pub use shared_file::SharedFile;

pub(crate) use files::{CopyState, drive_files};
pub(crate) use pause::{FAR, pause};
pub(crate) use read_ahead::{Kept, MAX_READ_BYTES, ReadAhead};
pub(crate) use unregistered::Registered;
pub(crate) use watch::Watch;
