//! `send(2)` with MSG_ZEROCOPY, and its completions from the socket's error queue.
//!
//! The kernel sends from the caller's pages, so they must not change until it says that it is done
//! with them. [`send_static`] takes bytes that never change at all; buffers that are used again need
//! an owner that waits for their completion, which is not here.
//!
//! Without [`enable`] the flag is ignored and no completion ever comes. A completion is about calls,
//! not bytes: the first successful call with the flag has number 0, the next 1, and so on, modulo
//! 2^32; the kernel reports ranges, on a reset in any order.

use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{check, check_len};

/// Calls whose pages the kernel is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Number of the first call.
    pub first: u32,
    /// Number of the last call; not before `first`, modulo 2^32.
    pub last: u32,
    /// SO_EE_CODE_ZEROCOPY_COPIED: the kernel copied the bytes after all.
    pub copied: bool,
}

/// `setsockopt(2)` SO_ZEROCOPY.
///
/// # Errors
/// EOPNOTSUPP for a socket that cannot (UNIX), ENOPROTOOPT before Linux 4.14.
pub fn enable(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for the call; the option reads one int, which lives on
    // this stack.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_ZEROCOPY,
            (&raw const on).cast(),
            len,
        )
    })
    .map(drop)
}

/// Sends from the pages of `bytes` themselves; without SIGPIPE and without blocking.
///
/// # Errors
/// ENOBUFS when `net.core.optmem_max` or RLIMIT_MEMLOCK is used up, EAGAIN, else as `send(2)`.
pub fn send_static(socket: BorrowedFd<'_>, bytes: &'static [u8]) -> io::Result<usize> {
    let flags = libc::MSG_ZEROCOPY | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the bytes live for ever and are never written, so the kernel may read them until it
    // has completed the call, whenever that is.
    check_len(unsafe {
        libc::send(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            flags,
        )
    })
}

/// The next completion in the error queue, if there is one. Other messages in the queue are
/// dropped.
///
/// # Errors
/// As `recvmsg(2)`, but EAGAIN is `None`.
pub fn completion(socket: BorrowedFd<'_>) -> io::Result<Option<Completion>> {
    loop {
        let mut control = MaybeUninit::<Control>::zeroed();
        // SAFETY: all zeros is a valid msghdr: no name, no vectors, no control buffer.
        let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<Control>() as _;
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: the kernel stores at most msg_controllen bytes in `control`, which outlives the
        // call, and takes no payload, since there are no vectors.
        let received =
            check_len(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) });
        match received {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        // SAFETY: the kernel laid out `control`, which was zeroed before, as control messages.
        let control = unsafe { control.assume_init() };
        let filled = message.msg_controllen.min(control.0.len());
        if let Some(completion) = decode(&control.0[..filled]) {
            return Ok(Some(completion));
        }
    }
}

/// Room for one control message with a `sock_extended_err` and an IPv6 address, and to spare.
#[repr(C, align(8))]
struct Control([u8; 256]);

/// Finds a completion among control messages. Bytes that make no sense are no completion.
fn decode(mut control: &[u8]) -> Option<Completion> {
    loop {
        let (header, _) = control.split_at_checked(HEADER_BYTES)?;
        let len = word(header, offset_of!(libc::cmsghdr, cmsg_len))? as usize;
        let level = word(header, offset_of!(libc::cmsghdr, cmsg_level))? as libc::c_int;
        let kind = word(header, offset_of!(libc::cmsghdr, cmsg_type))? as libc::c_int;
        let data = control.get(HEADER_BYTES..len)?;
        let about_errors = [
            (libc::SOL_IP, libc::IP_RECVERR),
            (libc::SOL_IPV6, libc::IPV6_RECVERR),
        ];
        if about_errors.contains(&(level, kind)) {
            return extended_error(data);
        }
        control = control.get(len.next_multiple_of(align_of::<libc::cmsghdr>())..)?;
    }
}

fn extended_error(data: &[u8]) -> Option<Completion> {
    type Error = libc::sock_extended_err;
    let errno = word(data, offset_of!(Error, ee_errno))?;
    let origin = *data.get(offset_of!(Error, ee_origin))?;
    let code = *data.get(offset_of!(Error, ee_code))?;
    (errno == 0 && origin == SO_EE_ORIGIN_ZEROCOPY).then_some(Completion {
        first: word(data, offset_of!(Error, ee_info))?,
        last: word(data, offset_of!(Error, ee_data))?,
        copied: code & SO_EE_CODE_ZEROCOPY_COPIED != 0,
    })
}

/// Four bytes in the machine's order. `cmsg_len` has eight, of which only the low ones matter; both
/// machines that zhaul runs on put them first.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

const _: () = assert!(cfg!(target_endian = "little"));
/// CMSG_LEN(0).
const HEADER_BYTES: usize = size_of::<libc::cmsghdr>().next_multiple_of(align_of::<libc::size_t>());
// asm-generic/socket.h and linux/errqueue.h; libc lacks them on glibc.
const SO_ZEROCOPY: libc::c_int = 60;
const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
const SO_EE_CODE_ZEROCOPY_COPIED: u8 = 1;

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use super::*;

    static BYTES: [u8; 20_000] = [7; 20_000];

    #[test]
    fn two_sends_are_completed_and_copied_on_loopback() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        if let Err(error) = enable(near.as_fd()) {
            zhaul_untested::skip("two_sends_are_completed_and_copied_on_loopback", error);
            return;
        }
        assert_eq!(completion(near.as_fd()).unwrap(), None);
        let sent = send_static(near.as_fd(), &BYTES[..10_000]).unwrap()
            + send_static(near.as_fd(), &BYTES[..10_000]).unwrap();
        let mut received = vec![0; sent];
        far.read_exact(&mut received).unwrap();
        assert!(received == BYTES[..sent]);
        let began = Instant::now();
        let mut seen = Vec::new();
        while seen.last().is_none_or(|last: &Completion| last.last != 1) {
            seen.extend(completion(near.as_fd()).unwrap());
            assert!(began.elapsed() < Duration::from_secs(10), "{seen:?}");
        }
        assert_eq!(seen[0].first, 0);
        assert!(seen.iter().all(|completion| completion.copied), "{seen:?}");
    }

    #[test]
    fn a_unix_socket_refuses() {
        let (near, _far) = UnixStream::pair().unwrap();
        let error = enable(near.as_fd()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
    }

    #[test]
    fn nonsense_in_the_control_buffer_is_no_completion() {
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0xff; 256]), None);
        assert_eq!(decode(&[0; 256]), None, "a length of zero must not loop");
        for len in 0..64 {
            let _ = decode(&[1; 64][..len]);
        }
    }

    #[test]
    fn a_completion_is_found_behind_another_message() {
        let mut control = message(libc::SOL_SOCKET, 99, &[1, 2, 3]);
        let error = [0, 0, 0, 0, 5, 0, 1, 0, 3, 0, 0, 0, 9, 0, 0, 0];
        control.extend(message(libc::SOL_IPV6, libc::IPV6_RECVERR, &error));
        let found = decode(&control).unwrap();
        assert_eq!((found.first, found.last, found.copied), (3, 9, true));
    }

    #[test]
    fn an_icmp_error_is_no_completion() {
        let error = [111, 0, 0, 0, 2, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            decode(&message(libc::SOL_IP, libc::IP_RECVERR, &error)),
            None
        );
    }

    fn message(level: libc::c_int, kind: libc::c_int, data: &[u8]) -> Vec<u8> {
        let mut bytes = (HEADER_BYTES + data.len()).to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }
}
