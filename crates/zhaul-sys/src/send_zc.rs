//! IORING_OP_SEND_ZC (Linux 6.2) out of registered memory: many datagrams with one
//! `io_uring_enter(2)`, and who owns their bytes until the kernel is done with them.
//!
//! A [`Batch`] registers an [`Arena`] once (IORING_REGISTER_BUFFERS), so that no page is pinned for a
//! single send. Each send has up to two completions: the result, and, if that carries
//! IORING_CQE_F_MORE, a notification (IORING_CQE_F_NOTIF) when no packet refers to the bytes any more.
//! That is so for sends that failed, too, so F_MORE decides and not the result. The slot is held until
//! then. What the kernel has when a batch is dropped goes to a thread of this module, with the ring
//! that will tell. The ring cannot overflow: it has room for two completions of each send that is in
//! flight, and there are no more of these than were asked for.
//!
//! Sends carry MSG_DONTWAIT: each is made or refused while it is submitted, in order, and none waits
//! in the kernel for room. What is in flight counts for the limits of [`msg_zerocopy`], as well.
//! Error numbers come with each send and not from the error queue, so SO_ZEROCOPY is not needed.
//!
//! Not here: waiting for room in the socket, sending again, streams. After `fork(2)` the child must
//! not use it.
//!
//! [`msg_zerocopy`]: crate::msg_zerocopy

mod orphans;
mod refusals;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use ::io_uring::types::Fd;
use ::io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketType, getpeername, ipproto, sockopt};

use crate::arena::{Arena, SharedSlot};
use crate::msg_zerocopy::pinned;
pub(crate) use orphans::orphans;
pub use refusals::{NotQueued, Unavailable};

/// Sends datagrams of one arena on one connected UDP socket, and owns what is sent until the kernel is
/// done with it.
pub struct Batch {
    /// Taken out when the batch is dropped.
    state: Option<State>,
}

struct State {
    /// Declared before the arena, so that the registration ends before the mapping.
    ring: IoUring,
    /// Ours, so that its number means this socket as long as something may be submitted.
    socket: OwnedFd,
    arena: Arena,
    slots_of_piece: u32,
    /// By the number that the kernel gives back (`user_data`).
    sends: Vec<Option<InFlight>>,
    free: Vec<u32>,
    /// Those that the kernel has not taken, oldest first.
    queued: VecDeque<u32>,
    bytes: usize,
}

/// A send whose slot the kernel may read, or will.
struct InFlight {
    slot: SharedSlot,
    range: Range<u32>,
    /// The result, and whether a notification belongs to it.
    result: Option<(i32, bool)>,
    /// The notification, and whether it said that bytes were copied.
    notified: Option<bool>,
}

/// A send that is over: nobody but the caller refers to its slot.
#[derive(Debug)]
pub struct Released {
    /// The slot.
    pub slot: SharedSlot,
    /// What was sent of it.
    pub range: Range<u32>,
    /// Whether the datagram was sent. EAGAIN or ENOBUFS: there was no room, and it was not; else as
    /// `send(2)`.
    pub sent: io::Result<()>,
    /// The kernel copied the bytes after all (IORING_NOTIF_USAGE_ZC_COPIED), as it does on loopback.
    /// A device that cannot gather copies without saying so.
    pub copied: bool,
}

impl Batch {
    /// Makes a ring for at most so many sends in flight, and registers all memory of the arena, which
    /// stays pinned as long as the batch lives, or something of it is in flight. The socket is
    /// duplicated.
    ///
    /// # Errors
    /// The step that was refused.
    pub fn new(
        socket: BorrowedFd<'_>,
        arena: &Arena,
        most_in_flight: u32,
    ) -> Result<Self, Unavailable> {
        let socket = datagram_socket(socket).map_err(Unavailable::Socket)?;
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let entries = most_in_flight
            .checked_next_power_of_two()
            .filter(|_| most_in_flight > 0)
            .ok_or_else(|| Unavailable::Ring(invalid()))?;
        // A send that is refused does not keep those behind it from being submitted.
        let ring = IoUring::builder().setup_submit_all().build(entries);
        // The flag is as old as Linux 5.18, and where it is not known, SEND_ZC is not either.
        let mut ring = ring.map_err(Unavailable::Ring)?;
        if !knows_send_zc(&mut ring, arena).map_err(Unavailable::Ring)? {
            return Err(Unavailable::Operation);
        }
        let pieces = arena.pieces(PIECE_BYTES);
        let (pieces, slots_of_piece) = pieces.ok_or_else(|| Unavailable::Register(invalid()))?;
        // SAFETY: the pieces are the arena's mapping, which the clone in State keeps until the ring,
        // which is dropped before it, is gone. The kernel writes into them by no operation of ours.
        unsafe { ring.submitter().register_buffers(&pieces) }.map_err(Unavailable::Register)?;
        let state = State {
            ring,
            socket,
            arena: arena.clone(),
            slots_of_piece,
            sends: (0..most_in_flight).map(|_| None).collect(),
            free: (0..most_in_flight).collect(),
            queued: VecDeque::new(),
            bytes: 0,
        };
        Ok(Self { state: Some(state) })
    }

    /// Queues a datagram: these bytes of the slot. Nothing is sent before [`submit`](Self::submit).
    ///
    /// # Errors
    /// Why not, and the slot.
    pub fn push(
        &mut self,
        slot: SharedSlot,
        range: Range<u32>,
    ) -> Result<(), (NotQueued, SharedSlot)> {
        self.state_mut().push(slot, range)
    }

    /// Sends what is queued, in order, with one call. Returns how many the kernel took; what became of
    /// each comes from [`reap`](Self::reap).
    ///
    /// # Errors
    /// As `io_uring_enter(2)`. What was not taken stays queued.
    pub fn submit(&mut self) -> io::Result<usize> {
        let state = self.state_mut();
        let before = state.queued.len();
        let entered = state.ring.submit();
        // The head of the queue, which the kernel moves, tells it also after an error.
        let left = state.ring.submission().len();
        let taken = before.saturating_sub(left);
        state.queued.drain(..taken);
        entered.map(|_| taken)
    }

    /// Shows what the kernel is done with, and returns how many. Makes no system call.
    pub fn reap(&mut self, each: impl FnMut(Released)) -> usize {
        self.state_mut().reap(each)
    }

    /// Waits until there may be something to reap; false if not within this time.
    ///
    /// # Errors
    /// As `poll(2)`, but EINTR, which ends waiting with false.
    pub fn wait(&self, at_most: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(at_most).ok();
        let mut ring = [PollFd::new(self, PollFlags::IN)];
        match poll(&mut ring, timeout.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends that are queued or in flight.
    pub fn in_flight(&self) -> usize {
        self.state().in_flight()
    }

    /// Bytes of these.
    pub fn pending(&self) -> usize {
        self.state().bytes
    }

    fn state(&self) -> &State {
        self.state.as_ref().expect("taken by drop only")
    }

    fn state_mut(&mut self) -> &mut State {
        self.state.as_mut().expect("taken by drop only")
    }
}

/// The ring: readable when there is something to reap.
impl AsFd for Batch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let ring = self.state().ring.as_raw_fd();
        // SAFETY: the ring has the descriptor open as long as the batch is borrowed.
        unsafe { BorrowedFd::borrow_raw(ring) }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} in flight)", self.in_flight())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let Some(mut state) = self.state.take() else {
            return;
        };
        // A slot that goes back wakes who waits for one, whose waker may panic: not before the rest is
        // in safe hands.
        let mut released = Vec::new();
        state.reap(|send| released.push(send));
        let queued = state.take_queued();
        if state.in_flight() > 0 {
            orphans::leave(state);
        }
        drop((released, queued));
    }
}

impl State {
    fn push(&mut self, slot: SharedSlot, range: Range<u32>) -> Result<(), (NotQueued, SharedSlot)> {
        if !slot.is_of(&self.arena) {
            return Err((NotQueued::Foreign, slot));
        }
        let bytes = slot.get(range.start as usize..range.end as usize);
        let bytes = bytes.filter(|bytes| (1..=DATAGRAM_BYTES).contains(&bytes.len()));
        let Some(bytes) = bytes else {
            return Err((NotQueued::Size, slot));
        };
        let Some(&id) = self.free.last() else {
            return Err((NotQueued::Full, slot));
        };
        if !pinned::take(bytes.len(), self.in_flight() == 0) {
            return Err((NotQueued::Limit, slot));
        }
        let len = range.end - range.start;
        let piece = u16::try_from(slot.index() / self.slots_of_piece);
        let operation = opcode::SendZc::new(Fd(self.socket.as_raw_fd()), bytes.as_ptr(), len)
            .buf_index(Some(piece.expect("2^14 pieces are registered at most")))
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            .zc_flags(REPORT_USAGE)
            .build()
            .user_data(id.into());
        self.free.pop();
        self.bytes += bytes.len();
        self.queued.push_back(id);
        self.sends[id as usize] = Some(InFlight {
            slot,
            range,
            result: None,
            notified: None,
        });
        // SAFETY: the bytes are of the slot, which `sends` holds and nobody writes to until complete()
        // saw the last completion, also when the batch is dropped. The socket is this State's own.
        let pushed = unsafe { self.ring.submission().push(&operation) };
        pushed.expect("the ring has room for all that may be in flight");
        Ok(())
    }

    fn reap(&mut self, mut each: impl FnMut(Released)) -> usize {
        let mut released = 0;
        loop {
            let Some(entry) = self.ring.completion().next() else {
                return released;
            };
            if let Some(over) = self.complete(&entry) {
                released += 1;
                each(over);
            }
        }
    }

    /// The send that is over with this completion.
    fn complete(&mut self, entry: &cqueue::Entry) -> Option<Released> {
        let id = u32::try_from(entry.user_data()).ok()?;
        let place = self.sends.get_mut(id as usize)?;
        let send = place.as_mut()?;
        if cqueue::notif(entry.flags()) {
            send.notified = Some(entry.result().cast_unsigned() & ZC_COPIED != 0);
        } else {
            send.result = Some((entry.result(), cqueue::more(entry.flags())));
        }
        let (result, is_notified) = send.result?;
        if is_notified && send.notified.is_none() {
            return None;
        }
        let InFlight {
            slot,
            range,
            notified,
            ..
        } = place.take()?;
        self.settle(id, &range);
        Some(Released {
            slot,
            range,
            sent: match result {
                0.. => Ok(()),
                errno => Err(io::Error::from_raw_os_error(-errno)),
            },
            // Nothing was by reference in what was not sent.
            copied: result >= 0 && notified == Some(true),
        })
    }

    /// What the kernel was never shown. The ring must not be entered afterwards.
    fn take_queued(&mut self) -> Vec<InFlight> {
        let mut sends = Vec::with_capacity(self.queued.len());
        while let Some(id) = self.queued.pop_front() {
            if let Some(send) = self.sends[id as usize].take() {
                self.settle(id, &send.range);
                sends.push(send);
            }
        }
        sends
    }

    fn settle(&mut self, id: u32, range: &Range<u32>) {
        self.free.push(id);
        let bytes = (range.end - range.start) as usize;
        self.bytes -= bytes;
        pinned::give_back(bytes, self.in_flight() == 0);
    }

    fn in_flight(&self) -> usize {
        self.sends.len() - self.free.len()
    }
}

/// The socket, duplicated, if it is UDP and connected.
fn datagram_socket(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let family = sockopt::socket_domain(socket)?;
    let is_internet = [AddressFamily::INET, AddressFamily::INET6].contains(&family);
    let is_datagram = sockopt::socket_type(socket)? == SocketType::DGRAM;
    let is_udp = sockopt::socket_protocol(socket)? == Some(ipproto::UDP);
    if !is_internet || !is_datagram || !is_udp {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    getpeername(socket)?;
    Ok(rustix::io::fcntl_dupfd_cloexec(socket, 0)?)
}

/// Sends nothing, on what is no socket: EINVAL says that the operation or its flag is not known.
fn knows_send_zc(ring: &mut IoUring, arena: &Arena) -> io::Result<bool> {
    let file = Fd(arena.memfd().as_raw_fd());
    let probe: squeue::Entry = opcode::SendZc::new(file, std::ptr::null(), 0)
        .zc_flags(REPORT_USAGE)
        .build()
        .user_data(PROBE);
    // SAFETY: it has no bytes, and the descriptor is borrowed until the completion came.
    unsafe { ring.submission().push(&probe) }.map_err(io::Error::other)?;
    let mut known = None;
    loop {
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        // The notification is waited for, too: it has no place in a ring full of those of sends.
        for entry in ring.completion() {
            let is_over = !cqueue::more(entry.flags());
            let known = *known.get_or_insert(entry.result() != -libc::EINVAL);
            if is_over {
                return Ok(known);
            }
        }
    }
}

/// What one registered buffer can be long.
const PIECE_BYTES: usize = 1 << 30;
/// What no datagram exceeds: the length in its header is 16 bits, of which 8 bytes are the header.
const DATAGRAM_BYTES: usize = 65_527;
/// The number of no send.
const PROBE: u64 = u64::MAX;
// linux/io_uring.h; the crate does not export them.
const REPORT_USAGE: u16 = 8;
const ZC_COPIED: u32 = 1 << 31;
