//! `fcntl(2)` F_GET_SEALS: a memfd of somebody else that can be mapped without fear.
//!
//! A [`SealedMemfd`] cannot shrink, no page of it can be taken away, and nobody can begin to write to
//! it: F_SEAL_SHRINK with F_SEAL_WRITE or F_SEAL_FUTURE_WRITE (Linux 5.1), and as many blocks are
//! allocated as it has bytes. Seals cannot be removed, so what was verified once stays true.
//!
//! Somebody who means harm can have allocated blocks beyond the end. Whoever maps such a memfd therefore
//! reads every page in first (see [`memfd_map`](crate::memfd_map)): then a load from the mapping is never
//! a SIGBUS, not even where memory is accounted strictly.
//!
//! The descriptor may be anything. Nothing is asked of it that its file system would have to answer
//! (`fstat(2)` of a FUSE file may wait forever) before F_GET_SEALS said that it is a memfd; closing what
//! was refused may wait as well, so it is given back.
//!
//! With F_SEAL_FUTURE_WRITE alone, whoever mapped it before may still write: see
//! [`is_immutable`](SealedMemfd::is_immutable).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::SealFlags;

/// A memfd with a size and blocks that stay.
#[derive(Debug)]
pub struct SealedMemfd {
    fd: OwnedFd,
    bytes: u64,
    seals: SealFlags,
}

/// Why a descriptor is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemfdRefusal {
    /// It has no seals: another kind of file.
    NotMemfd,
    /// It could shrink, or lose pages, or others could begin to write to it.
    Unsealed,
    /// Some of its bytes have no memory, which a load could fail to get.
    Sparse,
}

impl SealedMemfd {
    /// Asks for the seals, then for size and blocks.
    ///
    /// # Errors
    /// The descriptor and why it was refused. Close it where waiting does no harm.
    pub fn verify(fd: OwnedFd) -> Result<Self, (OwnedFd, MemfdRefusal)> {
        match examine(fd.as_fd()) {
            Ok((bytes, seals)) => Ok(Self { fd, bytes, seals }),
            Err(refusal) => Err((fd, refusal)),
        }
    }

    /// Bytes that it has, now and always at least.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// True if nobody can change a byte (F_SEAL_WRITE). Else who mapped it before it was sealed still
    /// can.
    pub const fn is_immutable(&self) -> bool {
        self.seals.contains(SealFlags::WRITE)
    }
}

impl AsFd for SealedMemfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn examine(fd: BorrowedFd<'_>) -> Result<(u64, SealFlags), MemfdRefusal> {
    let seals = rustix::fs::fcntl_get_seals(fd).map_err(|_| MemfdRefusal::NotMemfd)?;
    let no_writers = seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE);
    if !seals.contains(SealFlags::SHRINK) || !no_writers {
        return Err(MemfdRefusal::Unsealed);
    }
    let stat = rustix::fs::fstat(fd).map_err(|_| MemfdRefusal::NotMemfd)?;
    let bytes = u64::try_from(stat.st_size).map_err(|_| MemfdRefusal::NotMemfd)?;
    let allocated = u64::try_from(stat.st_blocks)
        .unwrap_or(0)
        .saturating_mul(512);
    if allocated < bytes {
        return Err(MemfdRefusal::Sparse);
    }
    Ok((bytes, seals))
}

/// Seals a memfd that is completely written, and that nobody has mapped for writing, against everything.
///
/// # Errors
/// EBUSY while it is mapped for writing or pages of it are in the kernel's hands; EPERM if it was made
/// without MFD_ALLOW_SEALING or sealed with F_SEAL_SEAL; EINVAL for what is no memfd.
pub fn seal_all(fd: BorrowedFd<'_>) -> io::Result<()> {
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    Ok(rustix::fs::fcntl_add_seals(fd, seals)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::MemfdFlags;

    fn memfd(bytes: &[u8]) -> OwnedFd {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .unwrap();
        rustix::io::pwrite(&fd, bytes, 0).unwrap();
        fd
    }

    fn refusal(fd: OwnedFd) -> MemfdRefusal {
        SealedMemfd::verify(fd).unwrap_err().1
    }

    #[test]
    fn a_sealed_memfd_is_taken_and_immutable() {
        let fd = memfd(b"four");
        seal_all(fd.as_fd()).unwrap();
        let sealed = SealedMemfd::verify(fd).unwrap();
        assert_eq!(sealed.bytes(), 4);
        assert!(sealed.is_immutable());
        assert!(rustix::io::pwrite(&sealed, b"x", 0).is_err());
    }

    #[test]
    fn what_can_shrink_or_be_written_is_refused() {
        assert_eq!(refusal(memfd(b"x")), MemfdRefusal::Unsealed);
        for seals in [SealFlags::SHRINK, SealFlags::WRITE, SealFlags::FUTURE_WRITE] {
            let fd = memfd(b"x");
            rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
            assert_eq!(refusal(fd), MemfdRefusal::Unsealed);
        }
    }

    #[test]
    fn a_hole_is_refused() {
        let fd = memfd(b"x");
        rustix::fs::ftruncate(&fd, 1 << 20).unwrap();
        seal_all(fd.as_fd()).unwrap();
        assert_eq!(refusal(fd), MemfdRefusal::Sparse);
    }

    #[test]
    fn other_kinds_are_refused() {
        let (pipe, _writer) = rustix::pipe::pipe().unwrap();
        assert_eq!(refusal(pipe), MemfdRefusal::NotMemfd);
        assert_eq!(
            refusal(tempfile::tempfile().unwrap().into()),
            // A file of a tmpfs has seals, too, of which none is set.
            match rustix::fs::fcntl_get_seals(tempfile::tempfile().unwrap()) {
                Ok(_) => MemfdRefusal::Unsealed,
                Err(_) => MemfdRefusal::NotMemfd,
            }
        );
    }
}
