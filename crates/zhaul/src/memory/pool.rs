//! [`Pool`]: where buffers come from and go back to.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use zhaul_core::Errno;
use zhaul_sys::arena::Arena;

use super::fbuf::FBufMut;
use super::waiting::{self, Allocating};
use crate::errno_of;

/// An arena of `slots` buffers of `slot_bytes`, page-aligned, in a memfd. Clones are the same pool.
///
/// Its memory is allocated when it is made and bounded by that. It is unmapped when the pool and all its
/// buffers are gone.
#[derive(Clone, Debug)]
pub struct Pool {
    pub(crate) arena: Arena,
}

impl Pool {
    /// A pool of ordinary pages; `slot_bytes` is rounded up to whole pages.
    ///
    /// # Errors
    /// As [`PoolBuilder::build`].
    pub fn new(slot_bytes: usize, slots: usize) -> Result<Self, PoolError> {
        Self::builder(slot_bytes, slots).build()
    }

    /// A pool to be made.
    pub const fn builder(slot_bytes: usize, slots: usize) -> PoolBuilder {
        PoolBuilder {
            slot_bytes,
            slots,
            huge_pages: false,
            locked: false,
        }
    }

    /// A buffer for the caller to write, with what its last owner left in it; `None` if all are in use.
    pub fn allocate(&self) -> Option<FBufMut> {
        Some(FBufMut::new(self.arena.take()?))
    }

    /// A buffer as soon as one is free, in the order in which it is asked for. Who waits goes before
    /// [`allocate`](Self::allocate). Works with any runtime; dropped, the future waits no longer.
    pub fn allocate_async(&self) -> Allocating {
        Allocating(self.arena.taking())
    }

    /// The same for a thread, which waits in `futex(2)`; [`Duration::MAX`] is for ever.
    pub fn allocate_within(&self, at_most: Duration) -> Option<FBufMut> {
        waiting::block(self, at_most)
    }

    /// Bytes in a buffer, a multiple of the page size.
    pub fn slot_bytes(&self) -> usize {
        self.arena.slot_bytes()
    }

    /// What is in use now.
    pub fn usage(&self) -> PoolUsage {
        PoolUsage {
            slots: self.arena.slots(),
            in_use: self.arena.in_use(),
            waiting: self.arena.waiting(),
        }
    }

    /// The file behind the memory, for another process to map and read: slot `n` is at
    /// `n * slot_bytes()`. It is sealed: nobody can write to it or resize it, but its content changes when
    /// slots are used again.
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.arena.memfd()
    }
}

/// How much of a [`Pool`] is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolUsage {
    /// Buffers that there are.
    pub slots: usize,
    /// Buffers that somebody writes, reads or sends.
    pub in_use: usize,
    /// Threads and tasks that wait for one.
    pub waiting: usize,
}

/// A [`Pool`] to be made.
#[derive(Clone, Copy, Debug)]
#[must_use = "there is no pool before build()"]
pub struct PoolBuilder {
    slot_bytes: usize,
    slots: usize,
    huge_pages: bool,
    locked: bool,
}

impl PoolBuilder {
    /// In huge pages of the default size, which the administrator set aside (`vm.nr_hugepages`): fewer
    /// TLB misses. Without enough of them there is no pool.
    pub const fn huge_pages(mut self, wanted: bool) -> Self {
        self.huge_pages = wanted;
        self
    }

    /// Never swapped out (`mlock(2)`), as far as RLIMIT_MEMLOCK allows.
    pub const fn locked(mut self, wanted: bool) -> Self {
        self.locked = wanted;
        self
    }

    /// Makes the pool and allocates its memory.
    ///
    /// # Errors
    /// If there is not so much memory, or not as asked for.
    pub fn build(self) -> Result<Pool, PoolError> {
        let Self {
            slot_bytes, slots, ..
        } = self;
        let arena =
            Arena::new(slot_bytes, slots, self.huge_pages).map_err(|error| {
                match errno_of(&error) {
                    Errno::EINVAL if !self.huge_pages => PoolError::Size { slot_bytes, slots },
                    errno if self.huge_pages => PoolError::HugePages(errno),
                    errno => PoolError::Memory(errno),
                }
            })?;
        if self.locked {
            arena.lock().map_err(|error| PoolError::Locked {
                errno: errno_of(&error),
                bytes: arena.slot_bytes() * arena.slots(),
                limit: getrlimit(Resource::Memlock).current,
            })?;
        }
        Ok(Pool { arena })
    }
}

/// Why there is no [`Pool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolError {
    /// No slots, no bytes, slots of 4 GiB or more, or more than can be addressed.
    Size {
        /// As asked for.
        slot_bytes: usize,
        /// As asked for.
        slots: usize,
    },
    /// The memfd could not be made, allocated or mapped.
    Memory(Errno),
    /// The same of huge pages: ENOMEM or ENOSPC if too few were set aside.
    HugePages(Errno),
    /// `mlock(2)` refused.
    Locked {
        /// ENOMEM beyond the limit, EPERM if it is 0.
        errno: Errno,
        /// What the pool has.
        bytes: usize,
        /// RLIMIT_MEMLOCK in bytes; `None` for no limit.
        limit: Option<u64>,
    },
}

impl PoolError {
    /// What the kernel said.
    pub const fn errno(&self) -> Errno {
        match *self {
            Self::Size { .. } => Errno::EINVAL,
            Self::Memory(errno) | Self::HugePages(errno) | Self::Locked { errno, .. } => errno,
        }
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { slot_bytes, slots } => {
                write!(f, "a pool of {slots} slots of {slot_bytes} bytes cannot be")
            }
            Self::Memory(errno) => write!(f, "memory for a pool: {errno}"),
            Self::HugePages(errno) => write!(
                f,
                "huge pages for a pool: {errno} (vm.nr_hugepages sets them aside)"
            ),
            Self::Locked {
                errno,
                bytes,
                limit: Some(limit),
            } => write!(
                f,
                "locking a pool of {bytes} bytes: {errno} (RLIMIT_MEMLOCK is {limit} bytes)"
            ),
            Self::Locked { errno, bytes, .. } => {
                write!(f, "locking a pool of {bytes} bytes: {errno}")
            }
        }
    }
}

impl std::error::Error for PoolError {}

impl From<PoolError> for io::Error {
    fn from(error: PoolError) -> Self {
        Self::new(Self::from(error.errno()).kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_bounded_and_counts() {
        let pool = Pool::new(1, 2).unwrap();
        let first = pool.allocate().unwrap();
        let second = pool.clone().allocate().unwrap().freeze(1);
        assert!(pool.allocate().is_none());
        let usage = pool.usage();
        assert_eq!((usage.slots, usage.in_use), (2, 2));
        drop((first, second));
        assert_eq!(pool.usage().in_use, 0);
    }

    #[test]
    fn what_cannot_be_says_so() {
        let error = Pool::new(0, 1).unwrap_err();
        assert_eq!(
            error,
            PoolError::Size {
                slot_bytes: 0,
                slots: 1
            }
        );
        let error = io::Error::from(error);
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        // More than can be mapped.
        let error = Pool::new(1 << 30, 1 << 20).unwrap_err();
        assert!(matches!(error, PoolError::Memory(_)), "{error}");
    }

    #[test]
    fn locked_memory_is_locked() {
        let pool = match Pool::builder(1, 4).locked(true).build() {
            Ok(pool) => pool,
            Err(error) => {
                assert!(error.to_string().contains("RLIMIT_MEMLOCK"), "{error}");
                zhaul_untested::skip_this(error);
                return;
            }
        };
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let of_pools = maps.split("zhaul-pool").skip(1);
        let locked = of_pools.filter_map(|map| {
            let line = map.lines().find_map(|line| line.strip_prefix("Locked:"))?;
            line.trim().strip_suffix(" kB")?.parse::<usize>().ok()
        });
        let kib = pool.slot_bytes() * 4 / 1024;
        assert!(locked.into_iter().any(|locked| locked == kib), "{maps}");
    }

    #[test]
    fn huge_pages_are_huge_or_the_setting_is_named() {
        let pool = match Pool::builder(1, 4).huge_pages(true).build() {
            Ok(pool) => pool,
            Err(error) => {
                assert!(error.to_string().contains("vm.nr_hugepages"), "{error}");
                zhaul_untested::skip_this(error);
                return;
            }
        };
        let stat = rustix::fs::fstat(pool.memfd()).unwrap();
        assert!(stat.st_blksize as usize > rustix::param::page_size());
        let mut buffer = pool.allocate().unwrap();
        buffer.fill(7);
        let buffer = buffer.freeze(pool.slot_bytes());
        let mut seen = vec![0; buffer.len()];
        rustix::io::pread(pool.memfd(), &mut seen, 0).unwrap();
        assert!(seen == *buffer);
    }
}
