//! `ioctl(2)` FS_IOC_FIEMAP: where the blocks of a file lie, and whether other files share them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;

/// How the first extents of a file lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    /// How many were looked at.
    pub count: usize,
    /// How many of these have blocks that other files, or other parts of this one, use as well.
    pub shared: usize,
}

/// Writes the file back, and looks at its first extents, up to 32.
///
/// # Errors
/// EOPNOTSUPP where the file system does not tell.
pub fn extents(fd: BorrowedFd<'_>) -> io::Result<Extents> {
    let mut map = Fiemap {
        start: 0,
        length: u64::MAX,
        flags: FIEMAP_FLAG_SYNC,
        mapped_extents: 0,
        extent_count: EXTENTS as u32,
        reserved: 0,
        extents: [Extent::default(); EXTENTS],
    };
    // SAFETY: the descriptor is borrowed for the call; the request reads and stores a struct fiemap
    // followed by extent_count extents, all of which live on this stack.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FIEMAP as _, &raw mut map) })?;
    let count = (map.mapped_extents as usize).min(EXTENTS);
    let shared = map.extents[..count]
        .iter()
        .filter(|extent| extent.flags & FIEMAP_EXTENT_SHARED != 0)
        .count();
    Ok(Extents { count, shared })
}

const EXTENTS: usize = 32;

/// `struct fiemap` of `linux/fiemap.h`.
#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [Extent; EXTENTS],
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

const _: () = assert!(size_of::<Extent>() == 56);
const _: () = assert!(size_of::<Fiemap>() == 32 + EXTENTS * 56);
/// `_IOWR('f', 11, struct fiemap)`, whose size does not count the extents.
const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;
const FIEMAP_FLAG_SYNC: u32 = 1;
const FIEMAP_EXTENT_SHARED: u32 = 0x2000;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_file_of_its_own_shares_nothing() {
        let file = tempfile::tempfile().unwrap();
        rustix::io::pwrite(&file, &[5; 64 << 10], 0).unwrap();
        match extents(file.as_fd()) {
            Ok(extents) => assert!(extents.count >= 1 && extents.shared == 0, "{extents:?}"),
            Err(error) => zhaul_untested::skip("a_file_of_its_own_shares_nothing", error),
        }
    }

    #[test]
    fn a_pipe_has_no_extents() {
        assert!(extents(rustix::pipe::pipe().unwrap().0.as_fd()).is_err());
    }
}
