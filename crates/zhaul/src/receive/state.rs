//! One attempt to receive: mapped if that pays, else copied.

use std::os::fd::BorrowedFd;

use rustix::net::RecvFlags;

use zhaul_core::{Errno, Operation};
use zhaul_sys::tcp_zerocopy_receive::ReceiveWindow;

use super::figures::{Copying, Figures};
use super::view::ReceivedBytes;
use super::{DEFAULT_COPY_BYTES, ReceiveError};
use crate::errno::{errno_of, of_rustix};

/// What a receiver knows of its socket, and where it receives to.
#[derive(Debug)]
pub(super) struct State {
    window: Result<ReceiveWindow, Copying>,
    maps_local_peer: bool,
    /// So much is copied rather than mapped.
    copy_up_to: usize,
    /// What is copied.
    buffer: Vec<u8>,
    /// Receives in a row that could have mapped something and did not.
    in_vain: u32,
    /// Receives before the kernel is asked again.
    rest: u32,
    /// The kernel told it, and only once, together with bytes that come before it.
    error: Option<Errno>,
    figures: Figures,
}

/// What came of one.
#[derive(Clone, Copy)]
pub(super) enum Attempt {
    Came(Piece),
    Ended,
    WouldBlock,
}

/// How much lies in the window and in the buffer.
#[derive(Clone, Copy, Default)]
pub(super) struct Piece {
    mapped: usize,
    copied: usize,
    why: Option<Copying>,
}

impl State {
    pub(super) fn new(socket: BorrowedFd<'_>) -> Self {
        let window = ReceiveWindow::of(socket, WINDOW_BYTES);
        Self {
            window: window.map_err(|error| Copying::Unsupported(errno_of(&error))),
            maps_local_peer: false,
            copy_up_to: DEFAULT_COPY_BYTES,
            buffer: Vec::new(),
            in_vain: 0,
            rest: 0,
            error: None,
            figures: Figures::default(),
        }
    }

    pub(super) const fn map_local_peer(&mut self, wanted: bool) {
        self.maps_local_peer = wanted;
    }

    pub(super) fn copy_up_to(&mut self, bytes: usize) {
        self.copy_up_to = bytes.min(BUFFER_BYTES);
    }

    pub(super) const fn figures(&self) -> &Figures {
        &self.figures
    }

    pub(super) fn release(&mut self) {
        if let Ok(window) = &mut self.window {
            // Pages that could not be given back are replaced by the next ones.
            let _ = window.release();
        }
    }

    pub(super) fn failed(&self, operation: Operation, errno: Errno) -> ReceiveError {
        ReceiveError {
            operation,
            errno,
            received: self.figures.received(),
        }
    }

    pub(super) fn view(&self, piece: Piece) -> ReceivedBytes<'_> {
        ReceivedBytes {
            window: self.window.as_ref().ok().filter(|_| piece.mapped > 0),
            copied: &self.buffer[..piece.copied],
            why: piece.why,
        }
    }

    /// Receives at most so many bytes without waiting.
    pub(super) fn attempt(
        &mut self,
        socket: BorrowedFd<'_>,
        at_most: usize,
    ) -> Result<Attempt, ReceiveError> {
        if let Some(errno) = self.error.take() {
            return Err(self.failed(Operation::Read, errno));
        }
        if at_most == 0 {
            return Ok(Attempt::Came(Piece::default()));
        }
        if self.buffer.is_empty() {
            self.buffer = vec![0; BUFFER_BYTES];
        }
        let (why, copied, room) = match self.ask(at_most) {
            Asked::Came(piece) => return Ok(self.came(piece)),
            Asked::Copy { why, copied, room } => (why, copied, room),
        };
        let until = self.buffer.len().min(copied.saturating_add(room));
        match receive(socket, &mut self.buffer[copied..until]) {
            // What came before is given first: the end and an error are told again.
            Ok(0) | Err(Errno::EAGAIN) if copied > 0 => Ok(self.came(Piece::copied(copied, why))),
            Err(errno) if copied > 0 => {
                self.error = Some(errno);
                Ok(self.came(Piece::copied(copied, why)))
            }
            Ok(0) => match self.error.take() {
                Some(errno) => Err(self.failed(Operation::Read, errno)),
                None => Ok(Attempt::Ended),
            },
            Ok(more) => Ok(self.came(Piece::copied(copied + more, why))),
            Err(Errno::EAGAIN) => match self.error.take() {
                Some(errno) => Err(self.failed(Operation::Read, errno)),
                None => Ok(Attempt::WouldBlock),
            },
            Err(errno) => Err(self.failed(Operation::Read, errno)),
        }
    }

    fn came(&mut self, piece: Piece) -> Attempt {
        let copied = piece.why.map(|why| (why, piece.copied));
        self.figures.count(piece.mapped, copied);
        Attempt::Came(piece)
    }

    /// Has pages mapped, if that may pay.
    fn ask(&mut self, at_most: usize) -> Asked {
        let local = |window: &ReceiveWindow| !window.is_remote() && !self.maps_local_peer;
        if self.window.as_ref().is_ok_and(local) {
            self.window = Err(Copying::LocalPeer);
        }
        let window = match &mut self.window {
            Ok(window) => window,
            Err(why) => return Asked::copy(*why, at_most),
        };
        let page = rustix::param::page_size();
        let mappable = at_most.min(window.capacity()) / page * page;
        if mappable == 0 || at_most <= self.copy_up_to {
            return Asked::copy(Copying::SmallRead, at_most);
        }
        if self.rest > 0 {
            self.rest -= 1;
            return Asked::copy(Copying::AskedInVain, at_most);
        }
        let rest = (at_most - mappable).min(self.copy_up_to);
        let received = match window.receive(mappable, &mut self.buffer[..rest]) {
            Ok(received) => received,
            // The end, an error or an urgent mark: recv(2) knows.
            Err(error) if errno_of(&error) == Errno::EIO => {
                return Asked::copy(Copying::SmallRead, at_most);
            }
            Err(error) => {
                let errno = match error.kind() {
                    std::io::ErrorKind::Unsupported => Errno::ENOSYS,
                    _ => errno_of(&error),
                };
                let why = Copying::Unsupported(errno);
                self.window = Err(why);
                return Asked::copy(why, at_most);
            }
        };
        self.error = received.error.map(Errno::from_raw);
        self.learn(received.mapped, received.to_read);
        let why = if received.to_read == 0 && received.mapped == 0 {
            Copying::SmallRead
        } else {
            Copying::NotPages
        };
        let copied = received.copied;
        if received.mapped > 0 || copied > 0 && received.to_read == 0 {
            return Asked::Came(Piece {
                mapped: received.mapped,
                copied,
                why: (copied > 0).then_some(why),
            });
        }
        // What cannot be mapped, and no more.
        let room = match received.to_read {
            0 => at_most,
            hint => hint.min(at_most - copied),
        };
        Asked::Copy { why, copied, room }
    }

    fn learn(&mut self, mapped: usize, to_read: usize) {
        if mapped > 0 {
            self.in_vain = 0;
        } else if to_read > 0 {
            self.in_vain += 1;
        }
        if self.in_vain == IN_VAIN {
            self.in_vain = 0;
            self.rest = REST;
        }
    }
}

enum Asked {
    Came(Piece),
    /// To be received into the buffer, behind what was copied, at most so much.
    Copy {
        why: Copying,
        copied: usize,
        room: usize,
    },
}

impl Asked {
    const fn copy(why: Copying, room: usize) -> Self {
        Self::Copy {
            why,
            copied: 0,
            room,
        }
    }
}

impl Piece {
    const fn copied(copied: usize, why: Copying) -> Self {
        Self {
            mapped: 0,
            copied,
            why: Some(why),
        }
    }
}

fn receive(socket: BorrowedFd<'_>, room: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match rustix::net::recv(socket, &mut *room, RecvFlags::DONTWAIT) {
            Ok((received, _)) => return Ok(received),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(of_rustix(errno)),
        }
    }
}

/// Address space for pages. A receive queue rarely has more at a time.
const WINDOW_BYTES: usize = 2 << 20;

/// What is copied at a time; it fits into a core's cache.
const BUFFER_BYTES: usize = 256 << 10;

/// A connection may begin with headers and small messages.
const IN_VAIN: u32 = 4;

/// What an attempt in vain costs (a system call of some 0.5 µs) vanishes in so many receives.
const REST: u32 = 256;
