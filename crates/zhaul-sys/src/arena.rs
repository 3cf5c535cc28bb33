//! `memfd_create(2)` and `mmap(2)`: memory of equal slots, each written by one owner and then read by
//! many, and used again when the last of them is gone.
//!
//! An [`Arena`] gives out a slot as [`UniqueSlot`], which can be written. It becomes a [`SharedSlot`],
//! which can be cloned and no longer written, until somebody holds the only one. The last reference
//! puts the slot back as it is: neither zeroed nor unmapped. The mapping lives as long as anything that
//! refers to it.
//!
//! The memory is a memfd, so that another process can map it. It is sealed against writing by anybody
//! but this mapping (F_SEAL_FUTURE_WRITE, Linux 5.1) and against changes of its size, so whoever gets
//! the descriptor can neither change what a [`SharedSlot`] shows nor make a load a SIGBUS. All of it is
//! allocated at the start (`fallocate(2)`), so neither can a limit that is met later.
//!
//! After `fork(2)` parent and child share the memory; the child must not use the arena.

#[cfg(not(miri))]
mod available;
#[cfg(not(miri))]
pub(crate) mod mapping;
#[cfg(miri)]
#[path = "arena/heap.rs"]
mod mapping;
mod slots;
mod sync;
mod waiters;

use std::io;
use std::ops::{Deref, DerefMut};
#[cfg(not(miri))]
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll};

use mapping::Mapping;
use slots::Slots;
use waiters::{Ticket, Waiters};

/// Memory of equal slots.
#[derive(Clone, Debug)]
pub struct Arena {
    shared: Arc<Shared>,
}

/// Apart from the counts of the Arc, which change with every slot that is taken, while this is read with
/// every byte.
#[derive(Debug)]
#[repr(align(64))]
struct Shared {
    mapping: Mapping,
    slots: Slots,
    waiters: Waiters,
    slot_bytes: usize,
}

impl Arena {
    /// `slots` slots of at least `slot_bytes`, rounded up to pages of 4 KiB (or what the machine has),
    /// in pages of the default huge size if `huge`.
    ///
    /// # Errors
    /// EINVAL for no slots, no bytes, slots of 4 GiB, 2^32 slots, or more than can be addressed; ENOMEM
    /// or ENOSPC if there is not so much memory, or not so many huge pages were set aside; EMFILE,
    /// ENFILE; ENODEV or EINVAL for huge pages on a kernel without hugetlbfs.
    pub fn new(slot_bytes: usize, slots: usize, huge: bool) -> io::Result<Self> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let slot_bytes = slot_bytes
            .checked_next_multiple_of(mapping::page_bytes())
            .ok_or_else(invalid)?;
        let len = slot_bytes.checked_mul(slots).ok_or_else(invalid)?;
        let addressable = len > 0 && isize::try_from(len).is_ok();
        if !addressable || u32::try_from(slot_bytes).is_err() || u32::try_from(slots).is_err() {
            return Err(invalid());
        }
        let shared = Shared {
            mapping: Mapping::new(len, huge)?,
            slots: Slots::new(slots),
            waiters: Waiters::default(),
            slot_bytes,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// `mlock(2)`: the memory is never swapped out. It is unlocked when it is unmapped.
    ///
    /// # Errors
    /// ENOMEM beyond RLIMIT_MEMLOCK, EPERM where that is 0, EAGAIN.
    #[cfg(not(miri))]
    pub fn lock(&self) -> io::Result<()> {
        self.shared.mapping.lock()
    }

    /// A slot for nobody but the caller, with what its last owner left in it; `None` if all are in use.
    pub fn take(&self) -> Option<UniqueSlot> {
        self.shared.slots.take().map(|index| self.slot(index))
    }

    /// The same, as soon as one is free and given to the caller: who asked first gets it first, and
    /// before it is to be had by [`take`](Self::take).
    pub fn taking(&self) -> Taking {
        Taking {
            arena: self.clone(),
            ticket: None,
        }
    }

    fn slot(&self, index: u32) -> UniqueSlot {
        // The slot in use holds a reference to the arena, which its last owner gives back.
        let shared = Arc::into_raw(Arc::clone(&self.shared));
        UniqueSlot(SharedSlot {
            shared: NonNull::new(shared.cast_mut()).expect("an Arc is not null"),
            index,
        })
    }

    /// Bytes in a slot.
    pub fn slot_bytes(&self) -> usize {
        self.shared.slot_bytes
    }

    /// How many there are.
    pub fn slots(&self) -> usize {
        self.shared.slots.len()
    }

    /// How many are in use; while others take and drop some, a number that was true of none of them.
    pub fn in_use(&self) -> usize {
        self.shared.slots.in_use()
    }

    /// How many wait for one.
    pub fn waiting(&self) -> usize {
        self.shared.waiters.count()
    }

    /// The memory in pieces of as many whole slots as `most` bytes have, and how many these are; `None`
    /// if one slot has more.
    #[cfg(all(feature = "io-uring", not(miri)))]
    pub(crate) fn pieces(&self, most: usize) -> Option<(Vec<libc::iovec>, u32)> {
        let Shared {
            mapping,
            slot_bytes,
            ..
        } = &*self.shared;
        let slots_of_piece = u32::try_from(most / slot_bytes).ok().filter(|&n| n > 0)?;
        let piece_bytes = slots_of_piece as usize * slot_bytes;
        let len = self.slots() * slot_bytes;
        let pieces = (0..len).step_by(piece_bytes).map(|offset| libc::iovec {
            iov_base: mapping.start().as_ptr().wrapping_add(offset).cast(),
            iov_len: piece_bytes.min(len - offset),
        });
        Some((pieces.collect(), slots_of_piece))
    }

    /// The file behind the memory: slot `n` is at `n * slot_bytes()`. Nobody can write to it or change its
    /// size; its content changes as slots are used again.
    #[cfg(not(miri))]
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.shared.mapping.memfd()
    }
}

/// Waits for a slot; see [`Arena::taking`]. Dropped, it waits no longer.
#[derive(Debug)]
#[must_use = "nothing is taken before it is polled"]
pub struct Taking {
    arena: Arena,
    /// Given up when there is a slot.
    ticket: Option<Ticket>,
}

impl Future for Taking {
    type Output = UniqueSlot;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<UniqueSlot> {
        let Self { arena, ticket } = &mut *self;
        let Shared { slots, waiters, .. } = &*arena.shared;
        match waiters.poll(slots, ticket, context.waker()) {
            Some(index) => {
                *ticket = None;
                Poll::Ready(arena.slot(index))
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        let Shared { slots, waiters, .. } = &*self.arena.shared;
        if let Some(ticket) = self.ticket {
            waiters.leave(slots, ticket);
        }
    }
}

/// A slot that nobody else refers to.
#[derive(Debug)]
pub struct UniqueSlot(SharedSlot);

impl UniqueSlot {
    /// Ends writing.
    pub fn share(self) -> SharedSlot {
        self.0
    }
}

impl Deref for UniqueSlot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for UniqueSlot {
    fn deref_mut(&mut self) -> &mut [u8] {
        let slot_bytes = self.0.shared().slot_bytes;
        // SAFETY: the range is this slot's, mapped as long as the slot is in use. A UniqueSlot is the only
        // reference to it (of take() or unique()), mutably borrowed here; other processes cannot write.
        unsafe { std::slice::from_raw_parts_mut(self.0.start(), slot_bytes) }
    }
}

/// A slot that may have many owners, all of which read it.
#[derive(Debug)]
pub struct SharedSlot {
    /// From `Arc::into_raw`; one strong count for all references to this slot.
    shared: NonNull<Shared>,
    index: u32,
}

// SAFETY: a reference to memory and counts that belong to the process and not to a thread; the counts
// are atomic, and the memory is not written while there is more than one reference.
unsafe impl Send for SharedSlot {}
// SAFETY: as for Send; with a shared reference the memory is only read.
unsafe impl Sync for SharedSlot {}

impl SharedSlot {
    /// Begins writing again, if this is the only reference.
    ///
    /// # Errors
    /// The slot itself, if there are others.
    pub fn unique(self) -> Result<UniqueSlot, Self> {
        if self.shared().slots.is_unique(self.index) {
            Ok(UniqueSlot(self))
        } else {
            Err(self)
        }
    }

    /// Which slot it is.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// How often the slot was used before.
    pub fn generation(&self) -> u64 {
        self.shared().slots.generation(self.index)
    }

    /// True if it is a slot of this arena.
    pub fn is_of(&self, arena: &Arena) -> bool {
        std::ptr::eq(self.shared.as_ptr(), Arc::as_ptr(&arena.shared))
    }

    /// The arena that it is a slot of.
    pub fn arena(&self) -> Arena {
        // SAFETY: the pointer is of Arc::into_raw, and the strong count of this slot is not given back
        // before its last reference, this or another, is dropped.
        unsafe { Arc::increment_strong_count(self.shared.as_ptr()) };
        // SAFETY: owns the count that was added just now.
        let shared = unsafe { Arc::from_raw(self.shared.as_ptr()) };
        Arena { shared }
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the slot in use holds a strong count, which only the drop of its last reference gives
        // back; Shared is never borrowed mutably after Arc::new.
        unsafe { self.shared.as_ref() }
    }

    fn start(&self) -> *mut u8 {
        let shared = self.shared();
        let offset = self.index as usize * shared.slot_bytes;
        // SAFETY: index < slots, and the mapping is slots * slot_bytes long.
        unsafe { shared.mapping.start().as_ptr().add(offset) }
    }
}

impl Deref for SharedSlot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let slot_bytes = self.shared().slot_bytes;
        // SAFETY: the range is this slot's, mapped and initialised as long as the slot is in use. It is
        // written through a UniqueSlot only, which does not exist beside this.
        unsafe { std::slice::from_raw_parts(self.start(), slot_bytes) }
    }
}

impl Clone for SharedSlot {
    fn clone(&self) -> Self {
        self.shared().slots.retain(self.index);
        Self {
            shared: self.shared,
            index: self.index,
        }
    }
}

impl Drop for SharedSlot {
    fn drop(&mut self) {
        let shared = self.shared();
        if shared.slots.release(self.index) {
            shared.waiters.freed(&shared.slots);
            // SAFETY: the pointer is of Arc::into_raw in take(). This was the last reference to the slot, so
            // its strong count is given back here and once.
            drop(unsafe { Arc::from_raw(self.shared.as_ptr()) });
        }
    }
}

#[cfg(test)]
mod tests;
