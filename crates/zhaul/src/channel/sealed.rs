//! [`SealedWriter`]: bytes that nobody can change any more, not even this process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::MemfdFlags;
use zhaul_sys::memfd_seals::{MemfdRefusal, SealedMemfd, seal_all};

use super::buffer::{Buffer, SharedMemory, View};

/// Memory of its own that is written once, from front to back, and then sealed: for receivers that do not
/// trust the sender.
///
/// Making, sealing, passing on and mapping costs 20 µs and more, a multiple of what copying a small
/// message costs (0.9 µs for 64 KiB), so put many messages into one and send slices. The sender's own
/// buffers ([`Pool`](crate::Pool)) cost none of this, and only suit receivers that trust it or copy.
#[derive(Debug)]
pub struct SealedWriter {
    memfd: OwnedFd,
}

impl SealedWriter {
    /// Nothing written.
    ///
    /// # Errors
    /// As `memfd_create(2)`.
    pub fn new() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        Ok(Self {
            memfd: rustix::fs::memfd_create("zhaul-sealed", flags)?,
        })
    }

    /// Seals what was written.
    ///
    /// # Errors
    /// EBUSY while the memory is mapped for writing or on its way out of it; EINVAL for nothing written,
    /// or holes.
    pub fn seal(self) -> io::Result<View> {
        seal_all(self.memfd.as_fd())?;
        let memfd = SealedMemfd::verify(self.memfd).map_err(|(_, refusal)| match refusal {
            MemfdRefusal::NotMemfd | MemfdRefusal::Unsealed | MemfdRefusal::Sparse => {
                io::ErrorKind::InvalidInput
            }
        })?;
        let bytes = memfd.bytes();
        let len = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let memory = Arc::new(SharedMemory::new(memfd, Vec::new()));
        let view = Buffer::new(memory, None, 0..bytes, len).view()?;
        Ok(view.expect("it is sealed"))
    }
}

impl io::Write for SealedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.memfd, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As the sink of a transfer.
impl AsFd for SealedWriter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }
}
