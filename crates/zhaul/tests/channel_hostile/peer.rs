//! One end of a channel by hand, which says what it likes.
#![allow(dead_code, unreachable_pub)]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use zhaul::channel::wire::{Control, Descriptor, Ticket};
use zhaul_sys::shared_ring::OwnRing;

pub struct Peer {
    socket: OwnedFd,
    ring: OwnRing,
    memfd: OwnedFd,
}

impl Peer {
    pub fn new(socket: OwnedFd) -> Self {
        let (ring, memfd) = OwnRing::new(256).expect("memory");
        Self {
            socket,
            ring,
            memfd,
        }
    }

    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        self.send_with(bytes, fds, SendFlags::NOSIGNAL)
            .expect("the other end is open");
    }

    /// Without waiting, and whether or not it arrives.
    pub fn try_send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let _ = self.send_with(bytes, fds, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }

    fn send_with(
        &self,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let iov = [IoSlice::new(bytes)];
        rustix::net::sendmsg(&self.socket, &iov, &mut ancillary, flags)
    }

    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    pub fn set_cell(&self, cell: usize, word: u64) {
        self.ring.cell(cell).store(word, Ordering::Relaxed);
    }

    pub fn set_published(&self, published: u32) {
        self.ring.published().store(published, Ordering::Release);
    }

    pub fn set_sleep(&self, sleep: u32) {
        self.ring.sleep().store(sleep, Ordering::Release);
    }

    pub fn say(&self, message: Control, fds: &[BorrowedFd<'_>]) {
        self.send(&message.encode(), fds);
    }

    /// Says `Hello` with its ring of 256 cells.
    pub fn hello(&self, window: u32) {
        self.say(Control::Hello { window }, &[self.memfd.as_fd()]);
    }

    /// Says `Hello` with memory for so many cells.
    pub fn hello_with(&self, window: u32, cells: u64) {
        let ring = memfd(128 + 8 * cells, SealFlags::SHRINK | SealFlags::FUTURE_WRITE);
        self.say(Control::Hello { window }, &[ring.as_fd()]);
    }

    /// Writes these to the ring from its beginning and shows that there are `published`.
    pub fn publish(&self, descriptors: &[Descriptor], published: u32) {
        let words = descriptors.iter().flat_map(|one| one.encode());
        for (at, word) in words.enumerate() {
            self.set_cell(at, word);
        }
        self.set_published(published);
    }

    /// The same as a receiver.
    pub fn give_back(&self, tickets: &[Ticket], published: u32) {
        for (at, ticket) in tickets.iter().enumerate() {
            self.set_cell(at, ticket.encode());
        }
        self.set_published(published);
    }

    /// Sends wake-ups as fast as it can until the other end is gone.
    pub fn flood(self) -> JoinHandle<()> {
        std::thread::spawn(move || {
            let wake = Control::Wake.encode();
            let sent = |result| !matches!(result, Err(Errno::PIPE | Errno::CONNRESET));
            while sent(rustix::net::send(&self.socket, &wake, SendFlags::NOSIGNAL)) {}
        })
    }
}

/// Memory that can be passed as a pool.
pub fn sealed_memfd(bytes: u64) -> OwnedFd {
    memfd(bytes, SealFlags::SHRINK | SealFlags::WRITE)
}

pub fn memfd(bytes: u64, seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = rustix::fs::memfd_create("test", flags).expect("memory");
    let content: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
    let written = rustix::io::pwrite(&memfd, &content, 0).expect("memory");
    assert_eq!(written as u64, bytes);
    rustix::fs::fcntl_add_seals(&memfd, seals).expect("a memfd");
    memfd
}

/// A descriptor as it comes with every pool.
pub fn lease() -> OwnedFd {
    UnixStream::pair().expect("sockets").0.into()
}
