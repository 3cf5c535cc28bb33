//! Receiving without copying: the pages of a TCP socket mapped into a window.
//!
//! ```no_run
//! use std::net::TcpStream;
//! use zhaul::receive::ZeroCopyReceiver;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut receiver = ZeroCopyReceiver::new(TcpStream::connect("203.0.113.7:9000")?);
//! while let Some(view) = receiver.receive()? {
//!     let bytes = view.bytes(); // borrowed if all of them are in one piece
//!     println!("{} bytes, {} of them mapped", bytes.len(), view.mapped_len());
//! }
//! println!("{}", receiver.figures());
//! # Ok(())
//! # }
//! ```
//!
//! A [`ZeroCopyReceiver`] gives one [`ReceivedBytes`] after the other: the pages that the kernel could map
//! (`TCP_ZEROCOPY_RECEIVE`), then what it could not and copied, in the order of the stream. A view
//! borrows its receiver, so none outlives the next receive, which takes the pages back.
//!
//! # When pages are mapped
//! If the payload lies in whole pages of its own: a device with header split (and an MTU above 4096),
//! or GRO that keeps such fragments. Everything else is copied, and [`ReceivedBytes::copying`] says why.
//! Where asking was in vain a few times the receiver copies for a while before it asks again.
//!
//! # Whose bytes they are
//! Pages from a network device are nobody else's: [`ReceivedBytes::bytes`] borrows them. Those of a peer on
//! this machine (loopback, veth, a bridge) may still be written to by the process that sent them,
//! and are not mapped unless [`ZeroCopyReceiver::map_local_peer`] asks for it; they are then to be copied out
//! or written on ([`ReceivedBytes::write_to`]), and never a slice. Whether a peer is on this machine is found
//! out when the receiver is made ([`crate::peer`]).
//!
//! # Into a pool
//! A [`Filling`] receives into a buffer of a [`Pool`](crate::Pool): one copy, after which the bytes are
//! immutable and sent on, sliced or handed to another process without another.
//!
//! # Whether it pays
//! Mapping a page is work for the page tables and the TLB. Where the copy stays in the core's cache it
//! costs less CPU time than that: 2.6 times less over loopback on a virtual machine
//! (docs/receive.md). `zhaul-bench receive` measures it.
//!
//! # What it does not do
//! It does not frame messages, and it does not decrypt: a socket with kTLS is copied. A view holds
//! memory that the kernel counts for nobody; before a receive waits, and when the receiver is
//! dropped, its pages are given back.
//!
//! Linux 5.11 and newer map; what is older copies.
//! [tcp_mmap.c](https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/tools/testing/selftests/net/tcp_mmap.c)
//! is the kernel's own user of it.

mod figures;
mod filling;
mod state;
#[cfg(feature = "tokio")]
mod task;
mod view;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, socket_timeout};

use zhaul_core::{Errno, Operation};

use crate::edges::{Ends, READABLE};

pub use figures::{Copying, Figures};
pub use filling::Filling;
use state::{Attempt, State};
pub use view::ReceivedBytes;

/// Receives from one socket.
#[derive(Debug)]
pub struct ZeroCopyReceiver<S> {
    socket: S,
    state: State,
    #[cfg(feature = "tokio")]
    watch: crate::async_io::Watch,
}

/// A receive that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiveError {
    /// The call.
    pub operation: Operation,
    /// What it said. EAGAIN: the socket's `SO_RCVTIMEO` passed.
    pub errno: Errno,
    /// Bytes that this receiver gave before.
    pub received: u64,
}

impl<S: AsFd> ZeroCopyReceiver<S> {
    /// A receiver for a connected stream socket. It takes about fifteen system calls: make one for a
    /// connection that brings much. Where nothing can be mapped it copies, whatever the reason, and
    /// a failing socket fails when it is received from.
    pub fn new(socket: S) -> Self {
        let state = State::new(socket.as_fd());
        Self {
            socket,
            state,
            #[cfg(feature = "tokio")]
            watch: crate::async_io::Watch::source(),
        }
    }

    /// Waits until the socket has something and gives a view of it; `None` at the end of the stream.
    ///
    /// It waits whatever the mode of the descriptor, as long as `SO_RCVTIMEO` says.
    ///
    /// # Errors
    /// Those of the connection: what came before them is given first.
    pub fn receive(&mut self) -> Result<Option<ReceivedBytes<'_>>, ReceiveError> {
        self.receive_at_most(usize::MAX)
    }

    /// The same, and leaves what is beyond `bytes` in the socket. Pages are mapped as wholes: asked
    /// for fewer bytes than a page has, it copies.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_at_most(
        &mut self,
        bytes: usize,
    ) -> Result<Option<ReceivedBytes<'_>>, ReceiveError> {
        let mut until = None;
        loop {
            match self.state.attempt(self.socket.as_fd(), bytes)? {
                Attempt::Came(piece) => return Ok(Some(self.state.view(piece))),
                Attempt::Ended => return Ok(None),
                Attempt::WouldBlock => self.wait(&mut until)?,
            }
        }
    }

    fn wait(&mut self, until: &mut Option<Option<Instant>>) -> Result<(), ReceiveError> {
        self.state.release();
        let socket = self.socket.as_fd();
        let until = *until.get_or_insert_with(|| patience_of(socket));
        wait_for_bytes(socket, until).map_err(|errno| self.state.failed(Operation::Wait, errno))
    }
}

impl<S> ZeroCopyReceiver<S> {
    /// Whether pages of a peer on this machine are mapped, too; false without this. Such a view has
    /// bytes that the peer may still change, and no slice of them.
    pub fn map_local_peer(mut self, wanted: bool) -> Self {
        self.state.map_local_peer(wanted);
        self
    }

    /// Up to so many bytes are copied even where pages could be mapped, which costs more than it
    /// saves for few; [`DEFAULT_COPY_BYTES`] without this. At most 256 KiB.
    pub fn copy_up_to(mut self, bytes: usize) -> Self {
        self.state.copy_up_to(bytes);
        self
    }

    /// What was mapped and what was copied so far, and why.
    pub const fn figures(&self) -> &Figures {
        self.state.figures()
    }

    /// Gives the pages of the last view back now instead of at the next receive.
    pub fn release(&mut self) {
        self.state.release();
    }

    /// The socket.
    pub const fn socket(&self) -> &S {
        &self.socket
    }

    /// The socket, with all that was not received in it.
    pub fn into_socket(self) -> S {
        self.socket
    }
}

/// Until when `SO_RCVTIMEO` lets a receive wait that begins now.
fn patience_of(socket: BorrowedFd<'_>) -> Option<Instant> {
    let patience = socket_timeout(socket, Timeout::Recv).ok().flatten()?;
    Instant::now().checked_add(patience)
}

/// Waits until there is something to receive, or its end.
fn wait_for_bytes(socket: BorrowedFd<'_>, until: Option<Instant>) -> Result<(), Errno> {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    if left == Some(Duration::ZERO) {
        return Err(Errno::EAGAIN);
    }
    let mut ends = Ends::new([(socket, READABLE)]);
    ends.wait([Some(READABLE)], &[], left).map(drop)
}

/// Below this a copy costs less than page tables wherever it was measured; above it that depends on the
/// machine (docs/receive.md).
pub const DEFAULT_COPY_BYTES: usize = 32 << 10;

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            operation,
            errno,
            received,
        } = self;
        write!(f, "{operation}: {errno} (after {received} bytes)")
    }
}

impl std::error::Error for ReceiveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.errno)
    }
}

impl From<ReceiveError> for std::io::Error {
    fn from(error: ReceiveError) -> Self {
        error.errno.into()
    }
}
