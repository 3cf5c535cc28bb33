//! The memory in which the kernel stores records, and from which they are taken.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

use super::PerfEvent;

/// The ring of one event, and of those that were redirected into it.
///
/// The kernel writes behind `data_head`, and never over what lies before `data_tail`: what does not
/// fit is lost, and counted in a record.
#[derive(Debug)]
pub struct Ring {
    /// Start of the mapping: the control page, then the data.
    start: NonNull<u8>,
    mapped_bytes: usize,
    data_offset: usize,
    /// A power of two.
    data_bytes: usize,
}

// SAFETY: a Ring owns its mapping, which belongs to the process and not to a thread; everything
// that moves data_tail takes &mut self.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps a ring of `pages` pages, a power of two, for the event: the only one it ever has.
    ///
    /// # Errors
    /// EBUSY: the event has or had a ring, or stores its records in that of another; EPERM: more locked memory than `kernel.perf_event_mlock_kb` and RLIMIT_MEMLOCK allow;
    /// EINVAL: not a power of two, or an event that is inherited and has no CPU; ENOMEM.
    pub fn map(event: &PerfEvent, pages: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        if !pages.is_power_of_two() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let data_bytes = pages.checked_mul(page).ok_or(io::ErrorKind::InvalidInput)?;
        let mapped_bytes = data_bytes
            .checked_add(page)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let start = event.claim_output(|| {
            // SAFETY: a fresh range chosen by the kernel aliases no address. Its memory is shared
            // with the kernel, which is why it is only reached through raw pointers and atomics
            // below, and with no other ring, which claim_output() sees to.
            let start = unsafe {
                rustix::mm::mmap(
                    ptr::null_mut(),
                    mapped_bytes,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::SHARED,
                    event.fd.as_fd(),
                    0,
                )
            };
            Ok(start?)
        })?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            start,
            mapped_bytes,
            data_offset: page,
            data_bytes,
        })
    }

    /// Appends all whole records that wait to `into`, frees their room, and says how many bytes
    /// that was.
    pub fn take(&mut self, into: &mut Vec<u8>) -> usize {
        // Acquire: the records before this head are seen as the kernel wrote them.
        let head = self.control(DATA_HEAD).load(Ordering::Acquire);
        // Only this process stores the tail, and only here.
        let tail = self.control(DATA_TAIL).load(Ordering::Relaxed);
        let (first, second) = pieces(self.data_bytes, tail, head);
        let taken = first.len() + second.len();
        into.reserve(taken);
        for piece in [first, second] {
            self.copy(piece, into);
        }
        // Release: the copies above are done before the kernel may write there again.
        self.control(DATA_TAIL).store(head, Ordering::Release);
        taken
    }

    /// Appends a piece of the data to `into`, which has room for it.
    fn copy(&self, piece: Range<usize>, into: &mut Vec<u8>) {
        let (old, added) = (into.len(), piece.len());
        assert!(piece.end <= self.data_bytes && into.capacity() - old >= added);
        // SAFETY: data_offset + data_bytes is the length of the mapping, and the piece lies in its
        // data.
        let from = unsafe { self.start.as_ptr().add(self.data_offset + piece.start) };
        // SAFETY: old is the length of the vector, whose capacity is not smaller.
        let to = unsafe { into.as_mut_ptr().add(old) };
        // SAFETY: both ranges are `added` bytes long (asserted above), and apart: one is in the
        // mapping, one on the heap. The kernel does not write between tail and head, and the tail
        // is moved only after this.
        unsafe { ptr::copy_nonoverlapping(from.cast_const(), to, added) };
        // SAFETY: old + added is within the capacity, and those bytes were stored just now.
        unsafe { into.set_len(old + added) };
    }

    /// A counter of the control page, which lies at a multiple of 8.
    fn control(&self, offset: usize) -> &AtomicU64 {
        assert!(offset + size_of::<AtomicU64>() <= self.data_offset);
        // SAFETY: the offset is inside the control page, checked above.
        let counter = unsafe { self.start.as_ptr().add(offset) };
        // SAFETY: the mapping is page-aligned and the offset a multiple of 8, so it is aligned; it
        // lives as long as self; the kernel and this process touch it only with whole 8-byte loads
        // and stores.
        unsafe { AtomicU64::from_ptr(counter.cast()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by map(), is unmapped once, and no reference into it is
        // left: control() borrows self.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.mapped_bytes) };
        debug_assert!(result.is_ok(), "munmap of an own range succeeds");
    }
}

/// Where in a ring of `size` bytes, a power of two, the bytes from `tail` to `head` lie. Both only
/// grow, and may wrap around the end of u64.
fn pieces(size: usize, tail: u64, head: u64) -> (Range<usize>, Range<usize>) {
    let waiting =
        usize::try_from(head.wrapping_sub(tail)).map_or(size, |waiting| waiting.min(size));
    // The mask is smaller than the size, so the cast loses nothing.
    let start = (tail & (size as u64 - 1)) as usize;
    let first = waiting.min(size - start);
    (start..start + first, 0..waiting - first)
}

/// Offsets in `struct perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn what_does_not_reach_the_end_is_one_piece() {
        assert_eq!(pieces(4096, 4096 + 8, 4096 + 24), (8..24, 0..0));
        assert_eq!(pieces(4096, 8, 8), (8..8, 0..0));
    }

    #[test]
    fn what_wraps_around_is_two_pieces() {
        assert_eq!(pieces(4096, 4088, 4104), (4088..4096, 0..8));
        assert_eq!(pieces(4096, 4096, 8192), (0..4096, 0..0));
        assert_eq!(pieces(4096, 100, 4196), (100..4096, 0..100));
    }

    #[test]
    fn counters_may_wrap_around_the_end_of_their_type() {
        assert_eq!(pieces(4096, u64::MAX - 7, 8), (4088..4096, 0..8));
    }

    #[test]
    fn a_head_out_of_reach_never_leaves_the_ring() {
        assert_eq!(pieces(4096, 0, 1 << 40), (0..4096, 0..0));
        assert_eq!(pieces(4096, 10, 0), (10..4096, 0..10));
    }
}
