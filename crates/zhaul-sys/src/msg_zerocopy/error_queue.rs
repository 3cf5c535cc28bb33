//! `recvmsg(2)` with MSG_ERRQUEUE: completions, told from the other messages of the queue.

use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check_len;

/// Calls whose pages the kernel is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Number of the first call.
    pub first: u32,
    /// Number of the last call; not before `first`, modulo 2^32.
    pub last: u32,
    /// `SO_EE_CODE_ZEROCOPY_COPIED`: the kernel copied the bytes after all.
    pub copied: bool,
}

/// What lay in the error queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Completion(Completion),
    /// A timestamp, an ICMP error.
    Other,
}

/// Takes the next message from the queue, if there is one.
///
/// # Errors
/// As `recvmsg(2)`, but EAGAIN is `None`.
pub(super) fn take(socket: BorrowedFd<'_>) -> io::Result<Option<Message>> {
    let mut control = MaybeUninit::<Control>::zeroed();
    // SAFETY: all zeros is a valid msghdr: no name, no vectors, no control buffer.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<Control>() as _;
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the kernel stores at most msg_controllen bytes in `control`, which outlives the
    // call, and takes no payload, since there are no vectors.
    let received = check_len(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) });
    match received {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(error),
    }
    // SAFETY: the kernel laid out `control`, which was zeroed before, as control messages.
    let control = unsafe { control.assume_init() };
    let filled = message.msg_controllen.min(control.0.len());
    Ok(Some(decode(&control.0[..filled]).unwrap_or(Message::Other)))
}

/// Room for what any options of the socket add before the `sock_extended_err`: timestamps, packet
/// information, IP options, a security context. A completion that is cut off is lost.
#[repr(C, align(8))]
struct Control([u8; 1024]);

/// Finds a completion among control messages. Bytes that make no sense are no completion.
fn decode(mut control: &[u8]) -> Option<Message> {
    loop {
        let (header, _) = control.split_at_checked(HEADER_BYTES)?;
        let len = word(header, offset_of!(libc::cmsghdr, cmsg_len))? as usize;
        let level = word(header, offset_of!(libc::cmsghdr, cmsg_level))?.cast_signed();
        let kind = word(header, offset_of!(libc::cmsghdr, cmsg_type))?.cast_signed();
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

fn extended_error(data: &[u8]) -> Option<Message> {
    type Error = libc::sock_extended_err;
    let errno = word(data, offset_of!(Error, ee_errno))?;
    let origin = *data.get(offset_of!(Error, ee_origin))?;
    let code = *data.get(offset_of!(Error, ee_code))?;
    (errno == 0 && origin == SO_EE_ORIGIN_ZEROCOPY).then_some(Message::Completion(Completion {
        first: word(data, offset_of!(Error, ee_info))?,
        last: word(data, offset_of!(Error, ee_data))?,
        copied: code & SO_EE_CODE_ZEROCOPY_COPIED != 0,
    }))
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
// linux/errqueue.h; libc lacks them on glibc.
const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
const SO_EE_CODE_ZEROCOPY_COPIED: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

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
        let found = Completion {
            first: 3,
            last: 9,
            copied: true,
        };
        assert_eq!(decode(&control), Some(Message::Completion(found)));
    }

    #[test]
    fn an_icmp_error_is_no_completion() {
        let error = [111, 0, 0, 0, 2, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let message = message(libc::SOL_IP, libc::IP_RECVERR, &error);
        assert_eq!(decode(&message), None);
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
