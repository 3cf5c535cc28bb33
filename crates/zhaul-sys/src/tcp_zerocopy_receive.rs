//! `getsockopt(2)` TCP_ZEROCOPY_RECEIVE: received pages mapped instead of copied. Linux 4.18.
//!
//! Only payload that lies in whole, aligned pages of their own can be mapped; what cannot has to be
//! read in the ordinary way before more is mapped. [`set_max_segment`] makes segments of one page
//! each, which helps.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags};

use crate::check;

/// An address range into which received pages of one socket are mapped.
#[derive(Debug)]
pub struct ReceiveWindow {
    start: NonNull<libc::c_void>,
    len: usize,
    /// Bytes from the start behind which there are pages.
    mapped: usize,
}

// SAFETY: a window owns its address range, which belongs to the process and not to a thread.
unsafe impl Send for ReceiveWindow {}

/// What one call did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Bytes that are in the window now; a multiple of the page size.
    pub mapped: usize,
    /// Bytes that come next in the stream and have to be read.
    pub to_read: usize,
}

impl ReceiveWindow {
    /// Reserves `len` bytes, a multiple of the page size, for what `socket` receives.
    ///
    /// # Errors
    /// ENODEV before Linux 4.18 and for what is no TCP socket, ENOTSOCK, EINVAL for no length,
    /// ENOMEM.
    pub fn of(socket: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        // Other descriptors can be mapped, too, to other effects.
        if rustix::net::sockopt::socket_protocol(socket)? != Some(rustix::net::ipproto::TCP) {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        // SAFETY: a fresh range chosen by the kernel aliases nothing. It is empty until receive()
        // fills it, and read only through copy_out().
        let start = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::SHARED,
                socket,
                0,
            )
        }?;
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            start,
            len,
            mapped: 0,
        })
    }

    /// Replaces what is in the window by what `socket`, for which it was made, has received next.
    ///
    /// # Errors
    /// ENOPROTOOPT before Linux 4.18, ENOTCONN, EIO at the end of the stream.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<Received> {
        self.mapped = 0;
        let mut call = ZerocopyReceive {
            address: self.start.as_ptr() as u64,
            length: u32::try_from(self.len).unwrap_or(u32::MAX),
            recv_skip_hint: NOT_ANSWERED,
        };
        let mut len = size_of::<ZerocopyReceive>() as libc::socklen_t;
        // SAFETY: the kernel stores a struct tcp_zerocopy_receive, which lives on this stack, and
        // maps pages within the window, which is alive and was made for that; before, it unmaps
        // what is there, of which nobody holds a reference.
        check(unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_TCP,
                libc::TCP_ZEROCOPY_RECEIVE,
                (&raw mut call).cast(),
                &raw mut len,
            )
        })?;
        if call.recv_skip_hint == NOT_ANSWERED {
            // A seccomp filter can let a call seem to succeed that was never made.
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.mapped = (call.length as usize).min(self.len);
        Ok(Received {
            mapped: self.mapped,
            to_read: call.recv_skip_hint as usize,
        })
    }

    /// Copies what is in the window.
    pub fn copy_out(&self) -> Vec<u8> {
        let start = self.start.as_ptr().cast::<u8>().cast_const();
        let byte_at = |at: usize| {
            // SAFETY: the kernel said that it mapped so many bytes from the start of the window.
            let address = unsafe { start.add(at) };
            // SAFETY: the pages stay until the next receive() or drop. Whoever sent them may still
            // write to them, so the load is volatile.
            unsafe { address.read_volatile() }
        };
        (0..self.mapped).map(byte_at).collect()
    }
}

impl Drop for ReceiveWindow {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by of(), is unmapped once, and nobody else knows it.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr(), self.len) };
        debug_assert!(result.is_ok(), "munmap of an own range succeeds");
    }
}

/// `setsockopt(2)` TCP_MAXSEG: no segment is longer than `bytes`, TCP options included. Before the
/// connection is made.
///
/// # Errors
/// EINVAL out of 88 to 32767.
pub fn set_max_segment(socket: BorrowedFd<'_>, bytes: u16) -> io::Result<()> {
    let value = libc::c_int::from(bytes);
    // SAFETY: the descriptor is borrowed for the call; the option reads one int, which lives on
    // this stack.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_TCP,
            libc::TCP_MAXSEG,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// More than a receive queue ever holds, so the kernel always replaces it.
const NOT_ANSWERED: u32 = u32::MAX;

/// The first three fields of `struct tcp_zerocopy_receive`, which every kernel since 4.18 takes.
#[repr(C)]
struct ZerocopyReceive {
    address: u64,
    length: u32,
    recv_skip_hint: u32,
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_is_not_mapped_can_be_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(&[3; 10_000]).unwrap();
        far.peek(&mut [0; 1]).unwrap();
        let mut window = match ReceiveWindow::of(far.as_fd(), 16 << 10) {
            Ok(window) => window,
            Err(error) => {
                zhaul_untested::skip("what_is_not_mapped_can_be_read", error);
                return;
            }
        };
        let received = window.receive(far.as_fd()).unwrap();
        let mut bytes = window.copy_out();
        assert_eq!(bytes.len(), received.mapped);
        let mut rest = vec![0; 10_000 - bytes.len()];
        far.read_exact(&mut rest).unwrap();
        bytes.extend(rest);
        assert!(bytes.iter().all(|&byte| byte == 3));
    }

    #[test]
    fn a_window_serves_its_own_kind_only() {
        let (pipe, _writer) = rustix::pipe::pipe().unwrap();
        assert!(ReceiveWindow::of(pipe.as_fd(), 4096).is_err());
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert!(ReceiveWindow::of(file.as_fd(), 4096).is_err());
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(ReceiveWindow::of(udp.as_fd(), 4096).is_err());
    }
}
