//! The memories that descriptors of one channel name, on both sides.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::buffer::{Buffer, SharedMemory, View};
use super::closing::Foreign;
use super::error::ChannelError;
use super::link::{Socket, is_unix_socket, verify};
use super::wire::{Control, Descriptor, MAX_LEASES, MAX_POOLS, Violation};
use crate::memory::{FBuf, Pool};

/// Bytes to hand over: of a pool of this process, or received from another, or sealed.
#[derive(Clone, Debug)]
pub struct Outgoing(pub(super) Payload);

#[derive(Clone, Debug)]
pub(super) enum Payload {
    Pool(FBuf),
    Shared(Buffer),
}

impl From<FBuf> for Outgoing {
    fn from(buffer: FBuf) -> Self {
        Self(Payload::Pool(buffer))
    }
}

impl From<Buffer> for Outgoing {
    fn from(buffer: Buffer) -> Self {
        Self(Payload::Shared(buffer))
    }
}

impl From<View> for Outgoing {
    fn from(view: View) -> Self {
        Self(Payload::Shared(view.into()))
    }
}

impl Outgoing {
    /// True if it belongs to another process, which waits for it.
    pub(super) fn is_borrowed(&self) -> bool {
        matches!(&self.0, Payload::Shared(buffer) if buffer.is_borrowed())
    }

    /// Offset and length in its memory.
    pub(super) fn place(&self) -> (u64, u64) {
        match &self.0 {
            Payload::Pool(buffer) => (buffer.offset_in_pool(), buffer.len() as u64),
            Payload::Shared(buffer) => {
                let range = buffer.file_range().1;
                (range.start, range.end - range.start)
            }
        }
    }
}

/// What the sender announced.
#[derive(Debug, Default)]
pub(super) struct Announced {
    /// By number modulo [`MAX_POOLS`].
    pools: Vec<Option<Known>>,
    next: u32,
    last: usize,
}

/// What became of announcing a memory.
#[derive(Debug)]
pub(super) enum Announcement {
    /// The receiver knows it, by this number.
    Known(u32),
    /// Until a buffer comes back.
    NoNumber,
    /// Until the receiver reads.
    SocketFull,
}

#[derive(Debug)]
struct Known {
    serial: u32,
    source: Source,
    in_flight: usize,
}

#[derive(Debug)]
enum Source {
    Pool(Pool),
    Shared(Arc<SharedMemory>),
}

impl Source {
    fn of(payload: &Payload) -> Self {
        match payload {
            Payload::Pool(buffer) => Self::Pool(buffer.pool()),
            Payload::Shared(buffer) => Self::Shared(Arc::clone(buffer.memory())),
        }
    }

    fn has(&self, payload: &Payload) -> bool {
        match (self, payload) {
            (Self::Pool(pool), Payload::Pool(buffer)) => buffer.is_of(pool),
            (Self::Shared(memory), Payload::Shared(buffer)) => Arc::ptr_eq(memory, buffer.memory()),
            _ => false,
        }
    }

    fn descriptors<'a>(&'a self, lease: BorrowedFd<'a>) -> Vec<BorrowedFd<'a>> {
        match self {
            Self::Pool(pool) => vec![pool.memfd(), lease],
            Self::Shared(memory) => [memory.memfd.as_fd(), lease]
                .into_iter()
                .chain(memory.leases.iter().map(AsFd::as_fd))
                .collect(),
        }
    }

    /// True if no new bytes will ever be in it.
    fn is_immutable(&self) -> bool {
        matches!(self, Self::Shared(memory) if memory.memfd.is_immutable())
    }
}

impl Announced {
    /// The number of the memory that these bytes are in, after telling the receiver if it does not know
    /// it.
    pub(super) fn announce(
        &mut self,
        outgoing: &Outgoing,
        socket: &Socket,
        lease: BorrowedFd<'_>,
    ) -> Result<Announcement, ChannelError> {
        let known = |known: &Option<Known>| {
            known
                .as_ref()
                .is_some_and(|known| known.source.has(&outgoing.0))
        };
        let place = match self.pools.get(self.last) {
            Some(last) if known(last) => Some(self.last),
            _ => self.pools.iter().position(known),
        };
        if let Some(place) = place
            && let Some(known) = &self.pools[place]
        {
            self.last = place;
            return Ok(Announcement::Known(known.serial));
        }
        self.introduce(Source::of(&outgoing.0), socket, lease)
    }

    fn introduce(
        &mut self,
        source: Source,
        socket: &Socket,
        lease: BorrowedFd<'_>,
    ) -> Result<Announcement, ChannelError> {
        let descriptors = source.descriptors(lease);
        if descriptors.len() > MAX_LEASES + 1 {
            return Err(ChannelError::TooManyHops);
        }
        if self.pools.is_empty() {
            self.pools.resize_with(MAX_POOLS as usize, || None);
        }
        let unused = |serial: &u32| {
            let place = &self.pools[(serial % MAX_POOLS) as usize];
            place.as_ref().is_none_or(|known| known.in_flight == 0)
        };
        let Some(serial) = (0..MAX_POOLS)
            .map(|ahead| self.next.wrapping_add(ahead))
            .find(unused)
        else {
            return Ok(Announcement::NoNumber);
        };
        match socket.send(Control::Pool { serial }, &descriptors) {
            Ok(()) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(Announcement::SocketFull),
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {
                return Err(ChannelError::PeerGone);
            }
            Err(errno) => return Err(ChannelError::errno("sendmsg")(errno)),
        }
        self.next = serial.wrapping_add(1);
        self.last = (serial % MAX_POOLS) as usize;
        self.pools[self.last] = Some(Known {
            serial,
            source,
            in_flight: 0,
        });
        Ok(Announcement::Known(serial))
    }

    pub(super) fn sent(&mut self, serial: u32) {
        if let Some(known) = &mut self.pools[(serial % MAX_POOLS) as usize] {
            known.in_flight += 1;
        }
    }

    /// One of its buffers came back. Sealed memory of which none is out is forgotten on both sides.
    pub(super) fn came_back(&mut self, serial: u32, socket: &Socket) {
        let place = &mut self.pools[(serial % MAX_POOLS) as usize];
        let Some(known) = place else {
            return;
        };
        known.in_flight -= 1;
        if known.in_flight == 0
            && known.source.is_immutable()
            && socket.send(Control::Retire { serial }, &[]).is_ok()
        {
            *place = None;
        }
    }
}

/// What a receiver accepts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub(super) window: u32,
    pub(super) pool_bytes: u64,
    pub(super) immutable_only: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window: 4096,
            pool_bytes: 4 << 30,
            immutable_only: false,
        }
    }
}

impl Limits {
    /// The largest window, in buffers. Default: 4096.
    #[must_use]
    pub const fn window(mut self, buffers: u32) -> Self {
        self.window = buffers;
        self
    }

    /// The largest pool, in bytes. Default: 4 GiB.
    #[must_use]
    pub const fn pool_bytes(mut self, bytes: u64) -> Self {
        self.pool_bytes = bytes;
        self
    }

    /// Only memory that nobody can change: sealed with F_SEAL_WRITE. Default: false.
    #[must_use]
    pub const fn immutable_only(mut self, only: bool) -> Self {
        self.immutable_only = only;
        self
    }
}

/// What was announced to a receiver.
#[derive(Debug, Default)]
pub(super) struct Imported(Vec<Option<(u32, Arc<SharedMemory>)>>);

impl Imported {
    /// Takes in what came with a `Pool`.
    pub(super) fn import(
        &mut self,
        serial: u32,
        mut descriptors: Vec<Foreign>,
        limits: &Limits,
    ) -> Result<(), Violation> {
        self.unused(serial)?;
        let leases = descriptors.split_off(1);
        if !leases.iter().all(|lease| is_unix_socket(lease.as_fd())) {
            return Err(Violation::Lease);
        }
        let memfd = verify(descriptors.remove(0))?;
        if memfd.bytes() > limits.pool_bytes {
            return Err(Violation::PoolTooLarge {
                bytes: memfd.bytes(),
            });
        }
        if limits.immutable_only && !memfd.is_immutable() {
            return Err(Violation::NotImmutable);
        }
        if self.0.is_empty() {
            self.0.resize(MAX_POOLS as usize, None);
        }
        let memory = Arc::new(SharedMemory::new(memfd, leases));
        self.0[(serial % MAX_POOLS) as usize] = Some((serial, memory));
        Ok(())
    }

    pub(super) fn retire(&mut self, serial: u32) -> Result<(), Violation> {
        self.find(serial)?;
        self.unused(serial)?;
        self.0[(serial % MAX_POOLS) as usize] = None;
        Ok(())
    }

    /// A sender names other memory in the place of one of which all buffers came back, so that this
    /// process never has more memories than places.
    fn unused(&self, serial: u32) -> Result<(), Violation> {
        match self.0.get((serial % MAX_POOLS) as usize) {
            Some(Some((_, memory))) if memory.out.load(Ordering::Acquire) > 0 => {
                Err(Violation::PoolInUse { serial })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn find(&self, serial: u32) -> Result<&Arc<SharedMemory>, Violation> {
        match self.0.get((serial % MAX_POOLS) as usize) {
            Some(Some((known, memory))) if *known == serial => Ok(memory),
            _ => Err(Violation::UnknownPool { serial }),
        }
    }

    /// The memory and the bytes that a descriptor means.
    pub(super) fn resolve(
        &self,
        descriptor: &Descriptor,
    ) -> Result<(Arc<SharedMemory>, std::ops::Range<u64>), Violation> {
        let memory = self.find(descriptor.pool)?;
        let range = descriptor.range(memory.memfd.bytes())?;
        Ok((Arc::clone(memory), range))
    }
}
