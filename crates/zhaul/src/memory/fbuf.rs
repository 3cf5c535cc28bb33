//! [`FBufMut`] and [`FBuf`]: a slot of a pool while it is written, and afterwards.

use std::fmt;
use std::io;
use std::ops::{Bound, Deref, DerefMut, Range, RangeBounds};
use std::os::fd::AsFd;

use bytes::Bytes;
use rustix::io::{pread, read, retry_on_intr};
use zhaul_sys::arena::{SharedSlot, UniqueSlot};

use super::pool::Pool;

/// A buffer that only its owner can see, and write: the whole slot, with what the last owner left in it.
pub struct FBufMut {
    slot: UniqueSlot,
}

impl FBufMut {
    pub(super) const fn new(slot: UniqueSlot) -> Self {
        Self { slot }
    }

    /// Ends writing: the first `len` bytes can be shared from now on, and changed no more.
    ///
    /// # Panics
    /// If the buffer has fewer.
    pub fn freeze(self, len: usize) -> FBuf {
        assert!(len <= self.slot.len(), "at most the buffer is frozen");
        FBuf {
            slot: self.slot.share(),
            start: 0,
            len: u32_of(len),
        }
    }

    /// One `read(2)` from a descriptor into the buffer from `at` on. Returns how many bytes came; 0 at the
    /// end of the source, and if there is no room.
    ///
    /// # Errors
    /// As `read(2)`, but EINTR, which is tried again. EAGAIN from a descriptor in non-blocking mode.
    ///
    /// # Panics
    /// If `at` is beyond the buffer.
    pub fn read_from(&mut self, at: usize, source: impl AsFd) -> io::Result<usize> {
        let room = &mut self.slot[at..];
        Ok(retry_on_intr(|| read(&source, &mut *room))?)
    }

    /// Reads a file from `offset` on until the buffer is full or the file ends; the descriptor's own
    /// position is neither used nor moved. Returns how many bytes came.
    ///
    /// # Errors
    /// As `pread(2)`: ESPIPE for what has no offsets.
    pub fn read_file(&mut self, file: impl AsFd, offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < self.slot.len() {
            let room = &mut self.slot[filled..];
            match retry_on_intr(|| pread(&file, &mut *room, offset + filled as u64))? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }
}

impl Deref for FBufMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.slot
    }
}

impl DerefMut for FBufMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.slot
    }
}

impl AsRef<[u8]> for FBufMut {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for FBufMut {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for FBufMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FBufMut({} bytes)", self.len())
    }
}

/// Bytes of a pool that nobody can change: a whole buffer, or a slice of it. Clones and slices refer to the
/// same memory; the last of them that is dropped gives the slot back.
#[derive(Clone)]
pub struct FBuf {
    slot: SharedSlot,
    start: u32,
    len: u32,
}

impl FBuf {
    /// A part of it, without copying.
    ///
    /// # Panics
    /// If the range is not inside.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let range = within(range, self.len());
        Self {
            slot: self.slot.clone(),
            start: self.start + u32_of(range.start),
            len: u32_of(range.end - range.start),
        }
    }

    /// Begins writing again, to the whole slot, if this is the only reference to it.
    ///
    /// # Errors
    /// The buffer itself, if there are other references to it or to slices of it.
    pub fn try_mut(self) -> Result<FBufMut, Self> {
        let Self { slot, start, len } = self;
        match slot.unique() {
            Ok(slot) => Ok(FBufMut::new(slot)),
            Err(slot) => Err(Self { slot, start, len }),
        }
    }

    /// Where the bytes are in the pool.
    pub fn position(&self) -> Position {
        Position {
            slot: self.slot.index(),
            generation: self.slot.generation(),
            offset: self.start,
            len: self.len,
        }
    }

    /// The offset of the first byte in [`Pool::memfd`].
    pub(crate) fn offset_in_pool(&self) -> u64 {
        self.slot.len() as u64 * u64::from(self.slot.index()) + u64::from(self.start)
    }

    #[cfg(feature = "io-uring")]
    pub(crate) fn into_parts(self) -> (SharedSlot, Range<u32>) {
        (self.slot, self.start..self.start + self.len)
    }

    /// The bytes of a slot of which these are parts.
    #[cfg(feature = "io-uring")]
    pub(crate) fn from_parts(slot: SharedSlot, range: Range<u32>) -> Self {
        Self {
            slot,
            start: range.start,
            len: range.end - range.start,
        }
    }

    /// True if they are of this pool.
    pub fn is_of(&self, pool: &Pool) -> bool {
        self.slot.is_of(&pool.arena)
    }

    /// The pool that they are of.
    pub fn pool(&self) -> Pool {
        Pool {
            arena: self.slot.arena(),
        }
    }

    pub(super) fn narrow(&mut self, range: Range<usize>) {
        let range = within(range, self.len());
        self.start += u32_of(range.start);
        self.len = u32_of(range.end - range.start);
    }
}

impl Deref for FBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.slot[self.start as usize..][..self.len as usize]
    }
}

impl AsRef<[u8]> for FBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Allocates a small header for the reference; the bytes stay where they are.
impl From<FBuf> for Bytes {
    fn from(buffer: FBuf) -> Self {
        Self::from_owner(buffer)
    }
}

impl fmt::Debug for FBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FBuf({:?})", self.position())
    }
}

/// Where the bytes of an [`FBuf`] are in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which slot; it begins at `slot * slot_bytes` of [`Pool::memfd`].
    pub slot: u32,
    /// How often the slot was used before: of two owners of a slot, the later has the greater.
    pub generation: u64,
    /// The first byte inside the slot.
    pub offset: u32,
    /// How many bytes.
    pub len: u32,
}

/// The range inside `0..len` that is meant.
pub(crate) fn within(range: impl RangeBounds<usize>, len: usize) -> Range<usize> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => len,
    };
    assert!(start <= end && end <= len, "inside the buffer");
    start..end
}

fn u32_of(len: usize) -> u32 {
    u32::try_from(len).expect("a slot has less than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        Pool::new(1, 1).unwrap()
    }

    #[test]
    fn clones_and_slices_are_the_same_memory() {
        let pool = pool();
        let mut buffer = pool.allocate().unwrap();
        buffer[..10].copy_from_slice(b"0123456789");
        let address = buffer.as_ptr();
        let buffer = buffer.freeze(10);
        let slice = buffer.slice(2..8).slice(1..=2);
        assert_eq!(&*slice, b"34");
        assert_eq!(slice.as_ptr(), address.wrapping_add(3));
        assert_eq!((slice.position().offset, slice.position().len), (3, 2));
        let bytes = Bytes::from(buffer.clone());
        assert_eq!(bytes.as_ptr(), address);
        drop((buffer, slice));
        assert!(pool.allocate().is_none(), "the Bytes still reads");
        drop(bytes);
        assert_eq!(&pool.allocate().unwrap()[..10], b"0123456789");
    }

    #[test]
    fn only_the_only_reference_may_write_again() {
        let pool = pool();
        let buffer = pool.allocate().unwrap().freeze(10);
        let slice = buffer.slice(5..);
        let buffer = buffer.try_mut().unwrap_err();
        assert_eq!(buffer.len(), 10);
        drop(buffer);
        assert_eq!(slice.try_mut().unwrap().len(), pool.slot_bytes());
    }

    #[test]
    #[should_panic(expected = "inside the buffer")]
    fn a_slice_beyond_the_buffer_is_refused() {
        let buffer = pool().allocate().unwrap().freeze(10);
        let _ = buffer.slice(5..11);
    }

    #[test]
    #[should_panic(expected = "at most the buffer")]
    fn more_than_the_slot_cannot_be_frozen() {
        let pool = pool();
        let _ = pool.allocate().unwrap().freeze(pool.slot_bytes() + 1);
    }

    #[test]
    fn a_buffer_is_filled_from_pipes_and_files() {
        let pool = pool();
        let mut buffer = pool.allocate().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&writer, b"abcdef").unwrap();
        assert_eq!(buffer.read_from(0, &reader).unwrap(), 6);
        drop(writer);
        assert_eq!(buffer.read_from(6, &reader).unwrap(), 0);
        assert_eq!(buffer.read_from(buffer.len(), &reader).unwrap(), 0);
        assert_eq!(&buffer[..6], b"abcdef");
        assert!(buffer.read_file(&reader, 0).is_err());

        let content: Vec<_> = (0..10_000_u32).map(|i| (i % 251) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        rustix::io::pwrite(&file, &content, 0).unwrap();
        let len = buffer.len();
        assert_eq!(buffer.read_file(&file, 1).unwrap(), len.min(9999));
        assert!(buffer[..len.min(9999)] == content[1..][..len.min(9999)]);
        assert_eq!(buffer.read_file(&file, 9990).unwrap(), 10);
        assert_eq!(buffer.freeze(10)[..], content[9990..]);
    }
}
