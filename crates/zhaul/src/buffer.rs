//! Buffers for the copying route, recycled per thread.
//!
//! A fresh 64 KiB buffer costs sixteen page faults; a recycled one is still in the cache.
//!
//! Not those of [`BufferPool`](crate::relay::BufferPool), which bounds what all relays hold and lets a
//! relay wait for one: a transfer needs one to go on at all, and keeps it to its end, its sink
//! stalled or not. Slow readers of copied files would use up what relays share.

use std::cell::RefCell;

/// A buffer that returns to the thread it is dropped on.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
}

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Buffer {
    /// The first `len` bytes, with whatever they contain.
    pub(crate) fn room(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.is_empty() {
            let spare = SPARE.try_with(|spare| spare.borrow_mut().pop());
            self.bytes = spare.ok().flatten().unwrap_or_default();
        }
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        &mut self.bytes[..len]
    }

    /// What an earlier call of [`room`](Self::room) was filled with.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.is_empty() {
            return;
        }
        // A thread that is being torn down has no spares left to add to.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MAX_SPARE {
                spare.push(bytes);
            }
        });
    }
}

/// Enough for the few transfers of one thread that are between a read and a write.
const MAX_SPARE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let mut first = Buffer::default();
        let address = first.room(1000).as_ptr();
        drop(first);
        let mut second = Buffer::default();
        assert_eq!(second.room(10).as_ptr(), address);
        assert_eq!(second.filled().len(), 1000);
    }
}
