//! Stands for the memory of an arena where there is no memfd: in Miri, which checks what the slots do.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::ptr::NonNull;

#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the range belongs to the process and not to a thread; Mapping itself does not access it.
unsafe impl Send for Mapping {}
// SAFETY: as for Send.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn new(len: usize, _huge: bool) -> io::Result<Self> {
        let layout = Layout::from_size_align(len, page_bytes()).map_err(io::Error::other)?;
        // SAFETY: the length was checked not to be 0.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, layout })
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: of alloc_zeroed with this layout, freed once, and every slot that referred into it held
        // the arena, which is gone.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

pub(super) fn page_bytes() -> usize {
    4096
}
