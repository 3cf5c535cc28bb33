//! `send(2)` from memory, with MSG_ZEROCOPY and without. The memory is never written, so nobody has
//! to wait for completions; they are taken out of the error queue, where they use up memory.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendFlags, recvmsg, send};
use zhaul_sys::msg_zerocopy::Sender;

use super::chunk;
use crate::bench::datagrams::{DATAGRAM_BYTES, Window};
use crate::bench::mover::Job;
use crate::bench::way::Way;

/// What is kept from sample to sample.
#[derive(Debug)]
pub(in crate::bench) struct Sending {
    by_reference: bool,
    /// Enables SO_ZEROCOPY, and sends nothing.
    enabled: Option<Sender>,
}

impl Sending {
    pub(in crate::bench) fn new(way: Way) -> Self {
        Self {
            by_reference: way == Way::SendZeroCopy,
            enabled: None,
        }
    }

    pub(in crate::bench) fn send_all(&mut self, job: &Job<'_>, repeats: u64) -> io::Result<()> {
        if self.by_reference && self.enabled.is_none() {
            self.enabled = Some(Sender::new(job.sink)?);
        }
        let memory = job.memory()?;
        let mut window = Window::of(job.sink)?;
        for _ in 0..repeats {
            let mut sent = 0;
            while sent < memory.len() {
                let most = window.as_ref().map_or_else(
                    || chunk((memory.len() - sent) as u64),
                    |_| DATAGRAM_BYTES.min(memory.len() - sent),
                );
                if let Some(window) = &mut window {
                    window.wait_for_room()?;
                }
                sent += self.call(job.sink, &memory[sent..sent + most])?;
            }
        }
        window.map_or(Ok(()), Window::close)
    }

    fn call(&self, sink: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
        if !self.by_reference {
            return Ok(send(sink, bytes, SendFlags::NOSIGNAL)?);
        }
        loop {
            let sent = send(sink, bytes, SendFlags::NOSIGNAL | MSG_ZEROCOPY);
            drain(sink);
            match sent {
                Err(Errno::NOBUFS) => {
                    poll(
                        &mut [PollFd::from_borrowed_fd(sink, PollFlags::empty())],
                        None,
                    )?;
                }
                sent => return Ok(sent?),
            }
        }
    }
}

/// Empties the error queue.
fn drain(sink: BorrowedFd<'_>) {
    let flags = RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT;
    while recvmsg(sink, &mut [], &mut RecvAncillaryBuffer::default(), flags).is_ok() {}
}

/// linux/socket.h; rustix has no name for it.
const MSG_ZEROCOPY: SendFlags = SendFlags::from_bits_retain(0x0400_0000);
