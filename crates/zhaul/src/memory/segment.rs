//! [`Segment`]: what an aggregate is a list of.

use std::fmt;
use std::ops::{Deref, Range, RangeBounds};

use bytes::Bytes;

use super::fbuf::{FBuf, within};
use super::file_range::FileRange;

/// One contiguous piece of immutable memory: of a pool, of [`Bytes`], or static. Clones are the same
/// memory, which stays as it is as long as there is one.
#[derive(Clone)]
pub struct Memory(Owner);

#[derive(Clone)]
enum Owner {
    Pool(FBuf),
    /// Static memory, too.
    Bytes(Bytes),
}

impl Memory {
    /// A part of it, without copying.
    ///
    /// # Panics
    /// If the range is not inside.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let mut part = self.clone();
        part.narrow(within(range, self.len()));
        part
    }

    /// The buffer, if it is of a pool.
    pub const fn as_fbuf(&self) -> Option<&FBuf> {
        match &self.0 {
            Owner::Pool(buffer) => Some(buffer),
            Owner::Bytes(_) => None,
        }
    }

    fn narrow(&mut self, range: Range<usize>) {
        match &mut self.0 {
            Owner::Pool(buffer) => buffer.narrow(range),
            Owner::Bytes(bytes) => {
                bytes.truncate(range.end);
                bytes::Buf::advance(bytes, range.start);
            }
        }
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Owner::Pool(buffer) => buffer,
            Owner::Bytes(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Owner::Pool(buffer) => buffer.fmt(f),
            Owner::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
        }
    }
}

/// The same memory: nothing is copied.
impl From<Memory> for Bytes {
    fn from(memory: Memory) -> Self {
        match memory.0 {
            Owner::Pool(buffer) => buffer.into(),
            Owner::Bytes(bytes) => bytes,
        }
    }
}

impl From<FBuf> for Memory {
    fn from(buffer: FBuf) -> Self {
        Self(Owner::Pool(buffer))
    }
}

impl From<Bytes> for Memory {
    fn from(bytes: Bytes) -> Self {
        Self(Owner::Bytes(bytes))
    }
}

impl From<Vec<u8>> for Memory {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Memory {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static [u8]> for Memory {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl<const N: usize> From<&'static [u8; N]> for Memory {
    fn from(bytes: &'static [u8; N]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl From<&'static str> for Memory {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

/// Immutable memory, or a range of a file. Anything else whose bytes stay as they are becomes one by
/// [`Bytes::from_owner`].
#[derive(Clone, Debug)]
pub enum Segment {
    /// Bytes that are in memory.
    Memory(Memory),
    /// Bytes that are in a file.
    File(FileRange),
}

impl Segment {
    /// How many bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(memory) => memory.len() as u64,
            Self::File(range) => range.len(),
        }
    }

    /// True for none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A part of it, without copying.
    ///
    /// # Panics
    /// If the range is not inside.
    #[must_use]
    pub fn slice(&self, range: Range<u64>) -> Self {
        let mut part = self.clone();
        part.narrow(range);
        part
    }

    pub(super) fn narrow(&mut self, range: Range<u64>) {
        match self {
            Self::Memory(memory) => {
                // What exceeds an address is not inside.
                let bound = |at| usize::try_from(at).unwrap_or(usize::MAX);
                memory.narrow(within(bound(range.start)..bound(range.end), memory.len()));
            }
            Self::File(file) => file.narrow(range),
        }
    }
}

impl From<FileRange> for Segment {
    fn from(range: FileRange) -> Self {
        Self::File(range)
    }
}

impl From<Memory> for Segment {
    fn from(memory: Memory) -> Self {
        Self::Memory(memory)
    }
}

macro_rules! memory_is_a_segment {
    ($($memory:ty),*) => {$(
        impl From<$memory> for Segment {
            fn from(memory: $memory) -> Self {
                Self::Memory(memory.into())
            }
        }
    )*};
}

memory_is_a_segment!(FBuf, Bytes, Vec<u8>, String, &'static [u8], &'static str);

impl<const N: usize> From<&'static [u8; N]> for Segment {
    fn from(bytes: &'static [u8; N]) -> Self {
        Self::Memory(bytes.into())
    }
}
