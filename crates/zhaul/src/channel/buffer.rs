//! [`Buffer`]: bytes in memory of another process, and [`View`], the same where they can be read in place.

use std::fmt;
use std::io;
use std::ops::{Deref, Range, RangeBounds};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use rustix::io::{pread, retry_on_intr};
use zhaul_sys::memfd_map::{MemfdMap, TrustedPeer};
use zhaul_sys::memfd_seals::SealedMemfd;

use super::closing::Foreign;
use super::link::Link;
use super::wire::Ticket;
use crate::memory::{Memory, Segment, within};

/// Memory that another process made, or this one sealed.
#[derive(Debug)]
pub(super) struct SharedMemory {
    pub(super) memfd: SealedMemfd,
    /// Open as long as anything here may read the memory; who lent it sees them close.
    pub(super) leases: Vec<Foreign>,
    map: OnceLock<MemfdMap>,
    /// How many buffers of it were handed over and not given back yet.
    pub(super) out: AtomicUsize,
}

impl SharedMemory {
    pub(super) const fn new(memfd: SealedMemfd, leases: Vec<Foreign>) -> Self {
        Self {
            memfd,
            leases,
            map: OnceLock::new(),
            out: AtomicUsize::new(0),
        }
    }

    fn map_once(&self, map: impl FnOnce() -> io::Result<MemfdMap>) -> io::Result<()> {
        if self.map.get().is_none() {
            // Of two threads that come at once, one maps in vain.
            let _ = self.map.set(map()?);
        }
        Ok(())
    }
}

/// Where buffers are given back.
#[derive(Debug)]
pub(super) struct Returns {
    link: Arc<Link>,
    window: u32,
    /// How many were given back so far.
    published: Mutex<u32>,
}

impl Returns {
    pub(super) const fn new(link: Arc<Link>, window: u32) -> Self {
        Self {
            link,
            window,
            published: Mutex::new(0),
        }
    }

    fn give_back(&self, ticket: Ticket) {
        let mut published = self
            .published
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let cell = (*published & (self.window - 1)) as usize;
        self.link
            .own
            .cell(cell)
            .store(ticket.encode(), Ordering::Relaxed);
        *published = published.wrapping_add(1);
        self.link.publish(*published);
    }
}

/// A buffer that is out until the last reference to it is gone.
#[derive(Debug)]
struct Loan {
    memory: Arc<SharedMemory>,
    ticket: Option<(Arc<Returns>, Ticket)>,
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some((returns, ticket)) = self.ticket.take() {
            // First: the sender may name other memory as soon as it sees the ticket.
            self.memory.out.fetch_sub(1, Ordering::Release);
            returns.give_back(ticket);
        }
    }
}

/// Bytes that another process handed over, or that [`SealedWriter`](super::SealedWriter) made. Clones and
/// slices refer to the same memory; the last of them that is dropped gives it back to the sender.
///
/// Unless it is [immutable](Self::is_immutable), the sender can still write to it, so it is no slice of
/// bytes. It can be copied out, passed on without touching it, or, with a word for the sender, read in
/// place ([`trust`](Self::trust)).
#[derive(Clone)]
pub struct Buffer {
    loan: Arc<Loan>,
    start: u64,
    len: usize,
}

impl Buffer {
    pub(super) fn new(
        memory: Arc<SharedMemory>,
        ticket: Option<(Arc<Returns>, Ticket)>,
        range: Range<u64>,
        len: usize,
    ) -> Self {
        if ticket.is_some() {
            memory.out.fetch_add(1, Ordering::Relaxed);
        }
        Self {
            loan: Arc::new(Loan { memory, ticket }),
            start: range.start,
            len,
        }
    }

    /// How many bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True for none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True if nobody can change the bytes: F_SEAL_WRITE was verified.
    pub fn is_immutable(&self) -> bool {
        self.loan.memory.memfd.is_immutable()
    }

    /// A part of it, without copying.
    ///
    /// # Panics
    /// If the range is not inside.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let range = within(range, self.len);
        Self {
            loan: Arc::clone(&self.loan),
            start: self.start + range.start as u64,
            len: range.len(),
        }
    }

    /// Copies bytes out from `at` on, by `pread(2)`: as many as `out` holds and the buffer has. What a
    /// sender writes meanwhile is there in part.
    ///
    /// # Errors
    /// As `pread(2)`.
    pub fn read_at(&self, at: usize, out: &mut [u8]) -> io::Result<usize> {
        let wanted = out.len().min(self.len.saturating_sub(at));
        let mut done = 0;
        while done < wanted {
            let offset = self.start + (at + done) as u64;
            let memfd = &self.loan.memory.memfd;
            match retry_on_intr(|| pread(memfd, &mut out[done..wanted], offset))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(done)
    }

    /// The bytes as they are now and will be whatever the sender does (to *secure*, in the paper on
    /// fbufs): in place if they are immutable, else a copy, after which the buffer is given back. The
    /// flag says whether they were copied.
    ///
    /// # Errors
    /// As `pread(2)` or `mmap(2)`.
    pub fn secure(self) -> io::Result<(Bytes, bool)> {
        match self.view()? {
            Ok(view) => Ok((view.into(), false)),
            Err(buffer) => {
                let mut copy = vec![0; buffer.len];
                buffer.read_at(0, &mut copy)?;
                Ok((copy.into(), true))
            }
        }
    }

    /// The bytes in place, if they are immutable; else the buffer.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub fn view(self) -> io::Result<Result<View, Self>> {
        let memory = &self.loan.memory;
        if !memory.memfd.is_immutable() {
            return Ok(Err(self));
        }
        memory.map_once(|| {
            MemfdMap::of_immutable(&memory.memfd)
                .map(|map| map.expect("F_SEAL_WRITE stays where it is"))
        })?;
        Ok(Ok(View(self)))
    }

    /// The bytes in place, because somebody vouches for the process that can write to them and for each
    /// that they came through.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub fn trust(self, peer: TrustedPeer) -> io::Result<View> {
        match self.view()? {
            Ok(view) => Ok(view),
            Err(buffer) => {
                let memory = &buffer.loan.memory;
                memory.map_once(|| MemfdMap::of_trusted(&memory.memfd, peer))?;
                Ok(View(buffer))
            }
        }
    }

    /// Where the bytes are: a descriptor of the memory that cannot be written through, and their range.
    /// For the kernel to read from, such as `sendfile(2)`; they may change as soon as this is dropped.
    pub fn file_range(&self) -> (BorrowedFd<'_>, Range<u64>) {
        let end = self.start + self.len as u64;
        (self.loan.memory.memfd.as_fd(), self.start..end)
    }

    pub(super) fn is_borrowed(&self) -> bool {
        self.loan.ticket.is_some()
    }

    pub(super) fn memory(&self) -> &Arc<SharedMemory> {
        &self.loan.memory
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_immutable() {
            "sealed"
        } else {
            "volatile"
        };
        write!(f, "Buffer({kind}, {} bytes at {})", self.len, self.start)
    }
}

/// A [`Buffer`] that is read in place, since nobody changes it: by a seal, or by a word.
#[derive(Clone)]
pub struct View(Buffer);

impl View {
    /// A part of it, without copying.
    ///
    /// # Panics
    /// If the range is not inside.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        Self(self.0.slice(range))
    }
}

impl Deref for View {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let map = self
            .0
            .loan
            .memory
            .map
            .get()
            .expect("mapped when it was made");
        let start = usize::try_from(self.0.start).expect("it is mapped");
        map.bytes(start..start + self.0.len)
    }
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<View> for Buffer {
    fn from(view: View) -> Self {
        view.0
    }
}

/// Allocates a small header for the reference; the bytes stay where they are.
impl From<View> for Bytes {
    fn from(view: View) -> Self {
        Self::from_owner(view)
    }
}

impl From<View> for Memory {
    fn from(view: View) -> Self {
        Bytes::from(view).into()
    }
}

impl From<View> for Segment {
    fn from(view: View) -> Self {
        Bytes::from(view).into()
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({:?})", self.0)
    }
}
