//! What the servers of zhaul share: addresses, listening sockets and accepting, the way of log
//! lines to the disk, waking a worker, reporting trouble without flooding anybody.
#![forbid(unsafe_code)]

mod accept_batch;
mod addr;
mod clash;
mod limits;
mod listen;
mod log_writer;
mod peer;
mod trouble;
mod unix_addr;
mod wake;

pub use accept_batch::AcceptBatch;
pub use addr::ListenAddr;
pub use clash::Clash;
pub use limits::raise_open_files;
pub use listen::{Bound, ListenError, Listener, Options, SocketPath, leaves_v4_alone};
pub use log_writer::{FLUSH_BYTES, LogSender, LogWriter};
pub use peer::{Peer, counted_address};
pub use trouble::Trouble;
pub use unix_addr::{Access, UnixAddr};
pub use wake::Wake;
