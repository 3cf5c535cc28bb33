//! Memory that is written once, read by many and sent without copying, and lists of such memory and
//! of file ranges.
//!
//! A [`Pool`] is an arena of equal slots in a memfd. [`Pool::allocate`] gives a slot to one owner, who
//! writes it ([`FBufMut`]); [`FBufMut::freeze`] makes it immutable and shared ([`FBuf`]). The last
//! reference puts the slot back, neither zeroed nor unmapped: the next owner writes to memory that is
//! mapped and likely cached. An [`Aggregate`] is an ordered list of [`Segment`]s: immutable memory, or a
//! range of a file. It is put together, cut and joined without copying a byte.
//!
//! ```
//! use zhaul::{Aggregate, Pool};
//!
//! let pool = Pool::new(64 << 10, 16)?;
//! let mut buffer = pool.allocate().expect("16 are free");
//! buffer[..5].copy_from_slice(b"hello");
//! let mut answer = Aggregate::from(buffer.freeze(5));
//! answer.prepend(format!("{}\r\n\r\n", answer.len()));
//! # Ok::<(), zhaul::PoolError>(())
//! ```
//!
//! # In the words of the papers
//! The buffers are the *fbufs* of Druschel and Peterson (SOSP 1993): immutable once they are sent,
//! passed on by reference, *cached*, that is recycled without clearing or unmapping. Aggregates are
//! those of IO-Lite (Pai, Druschel, Zwaenepoel, OSDI 1999): mutable lists of slices of immutable
//! buffers.
//!
//! | call of the paper | here |
//! |---|---|
//! | `uf_allocate` | [`Pool::allocate`] |
//! | `uf_write` | writing to an [`FBufMut`], until [`FBufMut::freeze`] |
//! | `uf_get` | reading an [`FBuf`], a slice of bytes |
//! | `uf_deallocate` | dropping it |

mod aggregate;
mod fbuf;
mod file_range;
mod pool;
mod segment;
mod waiting;

pub use aggregate::{Aggregate, Segments};
pub(crate) use fbuf::within;
pub use fbuf::{FBuf, FBufMut, Position};
pub use file_range::{FileRange, SharedFd};
pub use pool::{Pool, PoolBuilder, PoolError, PoolUsage};
pub use segment::{Memory, Segment};
pub use waiting::Allocating;
