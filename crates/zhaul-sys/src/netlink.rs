//! netlink(7): one question at a time, of the network namespace of this thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// Routes and links.
pub(crate) const ROUTE: Option<Protocol> = None;
/// Families that are known by name.
pub(crate) const GENERIC: Option<Protocol> = Some(rustix::net::netlink::GENERIC);

/// Who answers.
pub(crate) struct Netlink {
    socket: OwnedFd,
    /// Large enough for any message but those of links with hundreds of virtual functions, which
    /// are not asked for.
    buffer: Vec<u8>,
}

impl Netlink {
    pub(crate) fn open(protocol: Option<Protocol>) -> Option<Self> {
        // Without an address, messages go to the kernel.
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, protocol).ok()?;
        Some(Self {
            socket,
            buffer: vec![0; 32 << 10],
        })
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends a request and hands on every message of the answer; `None` if there was an error.
    pub(crate) fn ask(&mut self, request: Request, mut take: impl FnMut(u16, &[u8])) -> Option<()> {
        let is_dump = request.is_dump;
        let message = request.finish();
        let sent = send(&self.socket, &message, SendFlags::empty()).ok()?;
        if sent != message.len() {
            return None;
        }
        loop {
            let (received, full) =
                recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC).ok()?;
            let mut rest = self.buffer.get(..received.min(full))?;
            if full > received || rest.is_empty() {
                return None;
            }
            while let Some((kind, body, next)) = message_of(rest) {
                match kind {
                    NLMSG_ERROR => return None,
                    NLMSG_DONE => return Some(()),
                    kind => take(kind, body),
                }
                rest = next;
            }
            if !is_dump {
                return Some(());
            }
        }
    }
}

/// A message to the kernel.
pub(crate) struct Request {
    message: Vec<u8>,
    is_dump: bool,
}

impl Request {
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        // The length comes last; sequence and port are the only ones of this socket.
        let mut message = vec![0; HEADER_BYTES];
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self {
            message,
            is_dump: flags & NLM_F_DUMP != 0,
        }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.message.extend_from_slice(bytes);
    }

    /// An attribute whose value is a multiple of 4 bytes long.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(4 + value.len()).unwrap_or(4);
        self.bytes(&len.to_ne_bytes());
        self.bytes(&kind.to_ne_bytes());
        self.bytes(value);
    }

    fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.message.len()).unwrap_or(0);
        self.message[..4].copy_from_slice(&len.to_ne_bytes());
        self.message
    }
}

/// The first message: its kind, its body, and what follows it.
fn message_of(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = word(bytes, 0)? as usize;
    let kind = half_word(bytes, 4)?;
    let body = bytes.get(HEADER_BYTES..len)?;
    let next = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    Some((kind, body, next))
}

pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(half_word(bytes, 0)?);
        let kind = half_word(bytes, 2)? & NLA_TYPE_MASK;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

pub(crate) fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0);
    let text = bytes.get(..end.unwrap_or(bytes.len()))?;
    std::str::from_utf8(text).ok().map(str::to_owned)
}

pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

pub(crate) fn half_word(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    bytes.try_into().ok().map(u16::from_ne_bytes)
}

const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
pub(crate) const NLM_F_REQUEST: u16 = 1;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
const NLA_TYPE_MASK: u16 = 0x3fff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_no_answer() {
        assert_eq!(message_of(&[1, 2, 3]), None);
        assert_eq!(message_of(&[0xff; 64]), None);
        assert_eq!(attributes(&[3, 0, 1, 0, 9, 9]).count(), 0);
        assert_eq!(attributes(&[0; 16]).count(), 0);
    }
}
