//! `sendmsg(2)` with MSG_ZEROCOPY, its completions from the socket's error queue, and who owns the
//! bytes between the two.
//!
//! The kernel sends from the caller's pages, so they must not change until it says that it is done
//! with them, which may be long after the call and after the connection. A [`Sender`] therefore
//! takes bytes as [`Bytes`], whose owner keeps them alive and unchanged, and holds a clone of each
//! piece until the completion of its call. That holds for a sender that is dropped, too: what is
//! pending then goes to a thread of this module, the reaper, with a descriptor of the socket.
//! Nothing is ever let go before its completion; what is pending is bounded by [`Limits`], and
//! [`pinned()`] tells how much it is. Memory from a pool is a `Bytes` by `Bytes::from_owner`.
//!
//! A completion is about calls, not bytes: successful calls with the flag are numbered by the
//! kernel, modulo 2^32, and it reports ranges, on a reset in any order. For the numbers to say
//! anything, nobody else may send with the flag on the same socket. So a socket has one sender at a
//! time, a sender that follows another goes on with its numbers, and a socket where somebody else
//! enabled SO_ZEROCOPY is refused. Nobody else may read the error queue, either; messages of other
//! kinds in it are taken out, dropped and counted.
//!
//! Not here: when the flag pays (`zhaul_core`), waiting, and sending without it. Unconnected
//! datagram sockets have no sender, nor has AF_VSOCK, where one call can use several numbers.

mod account;
mod calls;
mod error_queue;
pub(crate) mod pinned;
mod reaper;

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use bytes::Bytes;
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};

use crate::{check, check_len};
use account::{Account, Freed};
use calls::Calls;
pub use error_queue::Completion;
pub use pinned::{Limits, Pinned, pinned, set_limits};
use reaper::Past;

/// Sends from the caller's memory on one socket, and owns what is sent until the kernel is done
/// with it. Linux 4.14 for TCP, 5.0 for UDP.
///
/// It has a descriptor of the socket: a connection is closed when the sender, and what is pending
/// of it, is gone as well. `shutdown(2)` does not wait for that.
#[derive(Debug)]
pub struct Sender {
    /// Taken out when the sender is dropped.
    account: Option<Account>,
    kind: Kind,
    patience: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Stream,
    Datagram,
}

/// What a call took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Bytes, from the first piece on; all of them for a datagram.
    pub bytes: usize,
    /// The kernel's number of the call.
    pub call: u32,
}

/// What the kernel is done with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Calls whose bytes were released.
    pub calls: u32,
    /// Bytes of these calls.
    pub bytes: usize,
    /// Of these calls, those of which the kernel said that it copied their bytes after all
    /// (`SO_EE_CODE_ZEROCOPY_COPIED`). Where a device cannot gather it copies without saying so.
    pub copied_calls: u32,
    /// Bytes of the calls that were copied.
    pub copied_bytes: usize,
    /// Messages of other kinds that were taken out of the error queue and dropped.
    pub other_messages: u32,
}

impl Sender {
    /// Makes SO_ZEROCOPY the sender's own on this socket, which is duplicated. It stays enabled,
    /// which changes nothing for calls without the flag.
    ///
    /// # Errors
    /// EOPNOTSUPP for what is neither TCP nor UDP; EBUSY if the socket has another sender, or if
    /// SO_ZEROCOPY was enabled by somebody else, since call numbers would mix; as `dup(2)`.
    pub fn new(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let kind = Kind::of(socket)?;
        let cookie = sockopt::socket_cookie(socket)?;
        let socket = rustix::io::fcntl_dupfd_cloexec(socket, 0)?;
        let past = reaper::claim(cookie, |is_known| enable(socket.as_fd(), is_known))?;
        let account = match past {
            Past::Pending(account) => account,
            Past::None => Account::new(socket, cookie, 0),
            Past::Next(number) => Account::new(socket, cookie, number),
        };
        Ok(Self {
            account: Some(account),
            kind,
            patience: None,
        })
    }

    /// Whether it sends on this socket.
    pub fn is_of(&self, socket: BorrowedFd<'_>) -> bool {
        let own = self.account.as_ref().map(|account| account.cookie);
        own.is_some() && own == sockopt::socket_cookie(socket).ok()
    }

    /// Sends from the memory of the pieces themselves, without SIGPIPE and without blocking. A
    /// stream takes at most [`CALL_BYTES`] in one call; a datagram is sent as a whole or not at all.
    ///
    /// `more` is MSG_MORE: something follows soon. It is of no effect for datagrams.
    ///
    /// # Errors
    /// ENOBUFS when `net.core.optmem_max`, RLIMIT_MEMLOCK or a limit of [`Limits`] is used up: reap,
    /// and send without the flag if that released nothing. EOPNOTSUPP when the flag is of no use on
    /// this socket any more (with TLS by the kernel, or when a failed call left numbers in doubt).
    /// EINVAL without any bytes, EMSGSIZE for too long a datagram, EAGAIN, else as `sendmsg(2)`.
    pub fn send(&mut self, pieces: &[Bytes], more: bool) -> io::Result<Sent> {
        let kind = self.kind;
        let (vectors, asked) = kind.vectors(pieces)?;
        let account = self.account();
        if account.is_number_in_doubt || !account.calls.has_room() {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let is_first = account.calls.is_empty();
        if !pinned::take(asked, is_first) {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        let flags = match more && kind == Kind::Stream {
            true => libc::MSG_MORE,
            false => 0,
        };
        match send_in_place(account.socket.as_fd(), &vectors, flags) {
            Ok(bytes) => {
                pinned::give_back(asked - bytes, false);
                let call = account.calls.push(first(pieces, bytes), bytes);
                Ok(Sent { bytes, call })
            }
            Err(error) => {
                pinned::give_back(asked, is_first);
                if kind == Kind::Datagram && may_have_used_a_number(&error) {
                    account.is_number_in_doubt = true;
                    // If it did, the completion is there: the packet is gone.
                    self.reap()?;
                }
                Err(error)
            }
        }
    }

    /// Empties the error queue and releases what the kernel is done with. Without blocking: POLLERR
    /// tells when there is something.
    ///
    /// # Errors
    /// As `recvmsg(2)`.
    pub fn reap(&mut self) -> io::Result<Reaped> {
        self.reap_each(|_| {})
    }

    /// The same; shows each completion as the kernel reported it, in any order, and those of an
    /// earlier sender's calls too.
    ///
    /// # Errors
    /// As `recvmsg(2)`.
    pub fn reap_each(&mut self, each: impl FnMut(Completion)) -> io::Result<Reaped> {
        let mut freed = Freed::default();
        self.account().reap(&mut freed, each)
    }

    /// Bytes that the kernel may still read.
    pub fn pending(&self) -> usize {
        self.account
            .as_ref()
            .map_or(0, |account| account.calls.pending())
    }

    /// Drops the sender. If nothing of what is pending is completed for so long, the connection is
    /// reset, by `connect(2)` to AF_UNSPEC, whoever else may still use it: a peer that does not read
    /// could else hold memory for ever, as it cannot with a socket that everybody has closed.
    pub fn abandon(mut self, patience: Duration) {
        self.set_patience(Some(patience));
    }

    /// Whether dropping it is [abandoning](Self::abandon) it; `None`, as without this, waits for ever.
    pub const fn set_patience(&mut self, patience: Option<Duration>) {
        self.patience = patience;
    }

    fn account(&mut self) -> &mut Account {
        self.account.as_mut().expect("taken by drop only")
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let account = self.account.as_ref().expect("taken by drop only");
        account.socket.as_fd()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let Some(mut account) = self.account.take() else {
            return;
        };
        // What is completed already need not wait for the reaper. Its owners are dropped after what
        // is pending is in safety: they run code of their own, which may panic.
        let mut freed = Freed::default();
        let _ = account.reap(&mut freed, |_| {});
        reaper::leave(account, self.patience);
        drop(freed);
    }
}

impl Kind {
    /// Sockets of which each call uses one number.
    fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let family = sockopt::socket_domain(socket)?;
        let is_internet = [AddressFamily::INET, AddressFamily::INET6].contains(&family);
        let kind = sockopt::socket_type(socket)?;
        match sockopt::socket_protocol(socket)? {
            Some(ipproto::TCP) if is_internet && kind == SocketType::STREAM => Ok(Self::Stream),
            Some(ipproto::UDP) if is_internet && kind == SocketType::DGRAM => Ok(Self::Datagram),
            _ => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        }
    }

    /// What one call is given of the pieces, and its bytes.
    fn vectors(self, pieces: &[Bytes]) -> io::Result<(Vec<IoSlice<'_>>, usize)> {
        let mut vectors = Vec::with_capacity(pieces.len().min(VECTORS));
        let mut asked = 0;
        let most = match self {
            Self::Stream => CALL_BYTES,
            Self::Datagram => DATAGRAM_BYTES,
        };
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            let taken = piece.len().min(most - asked);
            let is_full = taken == 0 || vectors.len() == VECTORS;
            if self == Self::Datagram && (is_full || taken < piece.len()) {
                return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
            }
            if is_full {
                break;
            }
            vectors.push(IoSlice::new(&piece[..taken]));
            asked += taken;
        }
        if asked == 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok((vectors, asked))
    }
}

/// `setsockopt(2)` SO_ZEROCOPY, unless it is there and not ours.
fn enable(socket: BorrowedFd<'_>, is_ours: bool) -> io::Result<()> {
    let mut on: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let fd = socket.as_raw_fd();
    // SAFETY: the descriptor is borrowed for the call; the kernel stores at most `len` bytes in
    // `on` and their number in `len`, which both live on this stack.
    check(unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            SO_ZEROCOPY,
            (&raw mut on).cast(),
            &raw mut len,
        )
    })?;
    if on != 0 && !is_ours {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    on = 1;
    // SAFETY: the descriptor is borrowed for the call; the option reads one int, which lives on
    // this stack.
    check(unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            SO_ZEROCOPY,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// The caller holds the owner of each vector until the call's completion.
fn send_in_place(
    socket: BorrowedFd<'_>,
    vectors: &[IoSlice<'_>],
    flags: libc::c_int,
) -> io::Result<usize> {
    // SAFETY: all zeros is a valid msghdr: no name, no vectors, no control buffer.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // The kernel does not write to it. IoSlice has the layout of iovec.
    message.msg_iov = vectors.as_ptr().cast_mut().cast();
    message.msg_iovlen = vectors.len() as _;
    let flags = flags | libc::MSG_ZEROCOPY | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the vectors live until the call returns. After it the kernel reads from the pages,
    // to which it holds references of its own, not through the addresses; that they do not change
    // until the completion is seen to by the `Bytes` that the caller keeps in `Account::calls`.
    check_len(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) })
}

/// Clones of the pieces that so many bytes are of.
fn first(pieces: &[Bytes], bytes: usize) -> Vec<Bytes> {
    let mut left = bytes;
    let mut taken = Vec::new();
    for piece in pieces {
        if left == 0 {
            break;
        }
        let bytes = piece.len().min(left);
        left -= bytes;
        if bytes > 0 {
            taken.push(piece.slice(..bytes));
        }
    }
    taken
}

/// A datagram that was numbered can still fail behind that, as when a packet filter drops it
/// (EPERM) or a full queue does (ENOBUFS, with IP_RECVERR). These come before.
fn may_have_used_a_number(error: &io::Error) -> bool {
    let before = [libc::EAGAIN, libc::EFAULT, libc::ECONNREFUSED];
    !error
        .raw_os_error()
        .is_some_and(|errno| before.contains(&errno))
}

impl Account {
    const fn new(socket: OwnedFd, cookie: u64, next: u32) -> Self {
        Self {
            socket,
            cookie,
            calls: Calls::numbered_from(next),
            is_number_in_doubt: false,
        }
    }
}

/// The most that one call on a stream is given.
pub const CALL_BYTES: usize = 4 << 20;
/// What no datagram exceeds: the length in its header is 16 bits, of which 8 bytes are the header.
const DATAGRAM_BYTES: usize = 65_527;
/// UIO_MAXIOV.
const VECTORS: usize = 1024;
// asm-generic/socket.h; libc lacks it on glibc.
const SO_ZEROCOPY: libc::c_int = 60;
