//! What the servers of zhaul share: addresses, listening sockets and accepting, how many connections
//! fit and how many each source has, threads and their messages, stopping, the way of log lines to the
//! disk, reporting trouble without flooding anybody.
#![forbid(unsafe_code)]

mod accept;
mod accept_batch;
mod addr;
mod clash;
mod limits;
mod listen;
mod log_writer;
mod mailbox;
mod peer;
mod sources;
mod stop;
mod threads;
mod trouble;
mod unix_addr;
mod wake;

pub use accept::{AcceptError, accept};
pub use accept_batch::AcceptBatch;
pub use addr::ListenAddr;
pub use clash::Clash;
pub use limits::{DescriptorBudget, raise_open_files};
pub use listen::{Bound, ListenError, Listener, Options, SocketPath, leaves_v4_alone, reason};
pub use log_writer::{FLUSH_BYTES, LogSender, LogWriter};
pub use mailbox::Mailbox;
pub use peer::{Peer, counted_address};
pub use sources::Sources;
pub use stop::{Stop, StopSwitch};
pub use threads::{ServerThread, join_all, spawn_essential, worker_threads};
pub use trouble::Trouble;
pub use unix_addr::{Access, UnixAddr};
pub use wake::Wake;
