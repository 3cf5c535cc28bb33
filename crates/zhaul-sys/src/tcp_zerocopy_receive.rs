//! `getsockopt(2)` TCP_ZEROCOPY_RECEIVE: received pages mapped instead of copied. Linux 4.18; that
//! one call maps pages and copies what comes next takes 5.11.
//!
//! Only payload that fills whole pages of their own can be mapped, and of those only pages that
//! belong to no file and no process: the kernel refuses page cache, anonymous and compound pages.
//!
//! # Whose pages they are
//! Behind a network device they are the driver's, and once they are mapped here nobody writes to
//! them. On loopback, veth pairs and bridges they are those that the sender gave to `splice(2)`, and
//! some that the kernel does not refuse can still be written to: measured on Linux 6.18, an ordinary
//! user's process passed on the page of its io_uring's submission entries, and a later store into
//! it changed the byte that the receiver had mapped. (Of MSG_ZEROCOPY the receiver on one machine
//! gets a copy, and a file's pages are refused until a truncation takes them out of the file.) So
//! [`ReceiveWindow::as_slice`] exists only for a [remote](crate::peer) peer; what a peer on this
//! machine sent is [copied out](ReceiveWindow::copy_to) by volatile loads or given to the kernel.
//!
//! Addresses can mislead: a local process to which a packet filter or a cgroup's program redirects a
//! connection looks like its original destination. So the bytes must also have come by a NAPI
//! instance, which loopback has not. That leaves redirection to a veth or tun interface with one
//! (veth: with GRO switched on or an XDP program), on which an administrator is not to receive slices.
//!
//! A window keeps a duplicate of its socket, so that what it knows of the peer is of that one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::{check, check_len, peer, tcp_ulp};

/// An address range into which received pages of one socket are mapped.
#[derive(Debug)]
pub struct ReceiveWindow {
    socket: OwnedFd,
    start: NonNull<libc::c_void>,
    len: usize,
    /// Bytes from the start behind which there are pages of the last receive.
    mapped: usize,
    /// The same of any receive since the last release.
    dirty: usize,
    /// Both addresses of the connection, if the peer is not on this machine.
    remote: Option<(SocketAddr, SocketAddr)>,
    /// What is mapped came from there.
    is_sole: bool,
}

// SAFETY: a window owns its address range, which belongs to the process and not to a thread.
unsafe impl Send for ReceiveWindow {}
// SAFETY: methods on a shared reference only read pages, which may be done by several threads.
unsafe impl Sync for ReceiveWindow {}

/// What one call did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Bytes that are in the window now; a multiple of the page size.
    pub mapped: usize,
    /// Bytes that follow them in the stream and were copied.
    pub copied: usize,
    /// Bytes that come next in the stream and cannot be mapped.
    pub to_read: usize,
    /// The error of the connection, which the kernel tells here and only once; what was received
    /// before it counts all the same.
    pub error: Option<i32>,
}

impl ReceiveWindow {
    /// Reserves `len` bytes, a multiple of the page size, for what `socket` receives.
    ///
    /// # Errors
    /// ENODEV before Linux 4.18 and for what is no TCP socket, EOPNOTSUPP under kTLS, whose
    /// ciphertext it would receive, ENOTSOCK, EINVAL for no length, ENOMEM, EMFILE.
    pub fn of(socket: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        // Other descriptors can be mapped, too, to other effects.
        if rustix::net::sockopt::socket_protocol(socket)? != Some(rustix::net::ipproto::TCP) {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        if tcp_ulp::has_layer(socket)? {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let socket = socket.try_clone_to_owned()?;
        // SAFETY: a fresh range chosen by the kernel aliases nothing. It is empty until receive()
        // fills it, and is read only through the methods below.
        let start = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::SHARED,
                &socket,
                0,
            )
        }?;
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        let remote = addresses(socket.as_fd()).filter(|_| peer::peer_is_remote(&socket));
        Ok(Self {
            socket,
            start,
            len,
            mapped: 0,
            dirty: 0,
            remote,
            is_sole: false,
        })
    }

    /// Bytes that can be mapped at a time.
    pub const fn capacity(&self) -> usize {
        self.len
    }

    /// True if the peer was found not to be on this machine when the window was made, and nothing
    /// that was mapped came otherwise.
    pub const fn is_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// Replaces what is in the window by at most `at_most` bytes that the socket has received next,
    /// and copies what follows and cannot be mapped into `rest`. When all there is fits into `rest`
    /// the kernel copies it and maps nothing. Does not wait.
    ///
    /// # Errors
    /// ENOPROTOOPT before Linux 4.18, ENOTCONN for a listening socket, EIO at the end of the stream
    /// and at an urgent mark (a `recv(2)` tells which), [`io::ErrorKind::Unsupported`] where a filter
    /// lets the call seem to succeed or the kernel copies nothing (before 5.11).
    pub fn receive(&mut self, at_most: usize, rest: &mut [u8]) -> io::Result<Received> {
        self.mapped = 0;
        self.is_sole = false;
        let mut call = ZerocopyReceive {
            address: self.start.as_ptr() as u64,
            length: u32::try_from(self.len.min(at_most)).unwrap_or(u32::MAX),
            recv_skip_hint: NOT_ANSWERED,
            copybuf_address: rest.as_mut_ptr() as u64,
            copybuf_len: i32::try_from(rest.len()).unwrap_or(i32::MAX),
            ..ZerocopyReceive::default()
        };
        let mut len = size_of::<ZerocopyReceive>() as libc::socklen_t;
        // SAFETY: the kernel stores a struct tcp_zerocopy_receive, which lives on this stack, fills
        // `rest`, which is borrowed for the call, and maps pages within the window, which was made
        // for that; before, it unmaps what is there, of which nobody holds a reference while self
        // is borrowed exclusively.
        let result = check(unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_TCP,
                libc::TCP_ZEROCOPY_RECEIVE,
                (&raw mut call).cast(),
                &raw mut len,
            )
        });
        result?;
        if call.recv_skip_hint == NOT_ANSWERED || (len as usize) < COPIES {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.mapped = (call.length as usize).min(self.len);
        self.dirty = self.dirty.max(self.mapped);
        // A socket may be disconnected and connected anew.
        let is_same = self.remote == addresses(self.socket.as_fd());
        if self.mapped > 0 && !came_by_napi(self.socket.as_fd()) {
            self.remote = None;
        }
        self.is_sole = self.mapped > 0 && self.remote.is_some() && is_same;
        Ok(Received {
            mapped: self.mapped,
            copied: usize::try_from(call.copybuf_len)
                .unwrap_or(0)
                .min(rest.len()),
            to_read: call.recv_skip_hint as usize,
            error: (call.err != 0).then_some(-call.err),
        })
    }

    /// Gives the pages back (`MADV_DONTNEED`), as the next receive does with those that it replaces.
    ///
    /// # Errors
    /// As `madvise(2)`.
    pub fn release(&mut self) -> io::Result<()> {
        self.mapped = 0;
        if self.dirty == 0 {
            return Ok(());
        }
        // SAFETY: the range lies in this window, which is alive until drop; nobody holds a reference
        // to its pages while self is borrowed exclusively, and a later load needs a later receive.
        unsafe { rustix::mm::madvise(self.start.as_ptr(), self.dirty, Advice::LinuxDontNeed) }?;
        self.dirty = 0;
        Ok(())
    }

    /// Bytes that are in the window.
    pub const fn mapped(&self) -> usize {
        self.mapped
    }

    /// What is in the window, unless its sender may still write to it.
    pub fn as_slice(&self) -> Option<&[u8]> {
        if !self.is_sole {
            return None;
        }
        let start = self.start.as_ptr().cast::<u8>().cast_const();
        // SAFETY: the kernel said that it mapped so many bytes from the start of the window; the
        // pages stay until the next receive(), release() or drop, all of which want self
        // exclusively. They came from a network device, whose driver writes to no page that others
        // hold, and the mapping cannot be made writable.
        Some(unsafe { std::slice::from_raw_parts(start, self.mapped) })
    }

    /// Copies the start of what is in the window, whoever may write to it meanwhile, and returns how
    /// much that was.
    pub fn copy_to(&self, target: &mut [u8]) -> usize {
        let len = target.len().min(self.mapped);
        let target = &mut target[..len];
        if let Some(bytes) = self.as_slice() {
            target.copy_from_slice(&bytes[..len]);
            return len;
        }
        // The last word of a page may be more than is wanted, and is there all the same.
        for (at, part) in target.chunks_mut(WORD).enumerate() {
            // SAFETY: the window has a page of memory behind every mapped byte and starts at a page's
            // border, so this word is inside of it.
            let word = unsafe { self.start.as_ptr().cast::<u64>().add(at) };
            // SAFETY: the word is aligned and readable until the next receive(), release() or drop,
            // all of which want self exclusively. Its sender may write to it, so the load is
            // volatile.
            let word = unsafe { word.read_volatile() };
            part.copy_from_slice(&word.to_ne_bytes()[..part.len()]);
        }
        len
    }

    /// `write(2)`s what is in the window from `start`, at the descriptor's own position.
    ///
    /// # Errors
    /// As `write(2)`.
    ///
    /// # Panics
    /// If `start` is behind what is mapped.
    pub fn write_to(&self, fd: BorrowedFd<'_>, start: usize) -> io::Result<usize> {
        assert!(start <= self.mapped, "inside of what is mapped");
        // SAFETY: start <= mapped <= len was checked, so the result is in or at the end of the
        // window.
        let from = unsafe { self.start.as_ptr().cast::<u8>().add(start) };
        let len = self.mapped - start;
        // SAFETY: these bytes are mapped until the next receive(), release() or drop, all of which
        // want self exclusively; the kernel copies them before it returns.
        check_len(unsafe { libc::write(fd.as_raw_fd(), from.cast_const().cast(), len) })
    }
}

impl Drop for ReceiveWindow {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by of(), is unmapped once, and nobody else knows it.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr(), self.len) };
        debug_assert!(result.is_ok(), "munmap of an own range succeeds");
    }
}

/// True if the newest packet came by a NAPI instance (`SO_INCOMING_NAPI_ID`, Linux 4.12), as from
/// every device that delivers by GRO, and not by loopback, whatever the addresses say.
fn came_by_napi(socket: BorrowedFd<'_>) -> bool {
    let mut id: libc::c_uint = 0;
    let mut len = size_of::<libc::c_uint>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for the call; the kernel stores at most `len` bytes in `id`
    // and their number in `len`, which both live on this stack.
    let result = check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_INCOMING_NAPI_ID,
            (&raw mut id).cast(),
            &raw mut len,
        )
    });
    result.is_ok() && id != 0
}

/// Both ends of a connection, as long as there is one.
fn addresses(socket: BorrowedFd<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let own = rustix::net::getsockname(socket).ok()?;
    let peer = rustix::net::getpeername(socket).ok()??;
    Some((own.try_into().ok()?, peer.try_into().ok()?))
}

/// More than a receive queue ever holds, so the kernel always replaces it.
const NOT_ANSWERED: u32 = u32::MAX;

const WORD: usize = size_of::<u64>();

/// A kernel that copies answers with at least so much of the structure.
const COPIES: usize = std::mem::offset_of!(ZerocopyReceive, flags);

/// The fields of `struct tcp_zerocopy_receive` that Linux 5.11 has.
#[repr(C)]
#[derive(Default)]
struct ZerocopyReceive {
    address: u64,
    length: u32,
    recv_skip_hint: u32,
    inq: u32,
    err: i32,
    copybuf_address: u64,
    copybuf_len: i32,
    flags: u32,
}

#[cfg(test)]
#[path = "tcp_zerocopy_receive_tests.rs"]
mod tests;
