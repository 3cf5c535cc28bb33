//! Holes: where they are in a source, and how a sink gets one.
//!
//! SEEK_HOLE is there since Linux 3.1, FALLOC_FL_PUNCH_HOLE since 2.6.38.
//! [lseek(2)](https://man7.org/linux/man-pages/man2/lseek.2.html),
//! [fallocate(2)](https://man7.org/linux/man-pages/man2/fallocate.2.html)

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno as Raw;

use zhaul_core::Errno;

use crate::errno::of_rustix;

/// Looks for holes and data in a source.
///
/// `lseek(2)` answers by moving the position, which is the caller's and all others' who share the
/// open file description; so the file is opened anew for it, through `/proc`.
#[derive(Debug, Default)]
pub(crate) struct Extents {
    anew: Option<OwnedFd>,
}

impl Extents {
    /// How far the hole at `offset` reaches, to the end of the file at most; 0 if there is none.
    pub(crate) fn hole(&mut self, source: BorrowedFd<'_>, offset: u64) -> Result<usize, Errno> {
        let file = self.anew(source)?;
        let next_data = || rustix::fs::seek(file, SeekFrom::Data(offset));
        let end = match next_data() {
            // No data from here on. Who appends makes the end a later one, behind data: the hole
            // reaches to an end before which there is still none.
            Err(Raw::NXIO) => {
                rustix::fs::seek(file, SeekFrom::End(0)).and_then(|end| match next_data() {
                    Err(Raw::NXIO) => Ok(end),
                    answer => answer,
                })
            }
            answer => answer,
        };
        length(offset, end.map_err(of_rustix)?)
    }

    /// How far the data at `offset` reaches.
    pub(crate) fn data(&mut self, source: BorrowedFd<'_>, offset: u64) -> Result<usize, Errno> {
        let file = self.anew(source)?;
        let end = rustix::fs::seek(file, SeekFrom::Hole(offset)).map_err(of_rustix)?;
        length(offset, end)
    }

    fn anew(&mut self, source: BorrowedFd<'_>) -> Result<&OwnedFd, Errno> {
        if self.anew.is_none() {
            let path = format!("/proc/thread-self/fd/{}", source.as_raw_fd());
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let anew = rustix::fs::open(path, flags, Mode::empty()).map_err(of_rustix)?;
            let is_same = |(one, other): (rustix::fs::Stat, rustix::fs::Stat)| {
                (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
            };
            let both = (
                rustix::fs::fstat(&anew).map_err(of_rustix)?,
                rustix::fs::fstat(source).map_err(of_rustix)?,
            );
            if !is_same(both) {
                return Err(Errno::ENXIO);
            }
            self.anew = Some(anew);
        }
        self.anew.as_ref().ok_or(Errno::EBADF)
    }
}

fn length(from: u64, to: u64) -> Result<usize, Errno> {
    usize::try_from(to.saturating_sub(from)).map_err(|_| Errno::EOVERFLOW)
}

/// Makes `len` bytes of a file read as zeros without writing them: what it has there is dropped, and
/// behind its end it grows. Without an offset that happens at its own position, which moves on.
pub(crate) fn punch_hole(
    sink: BorrowedFd<'_>,
    offset: Option<u64>,
    len: usize,
) -> Result<usize, Errno> {
    punch(sink, offset, len as u64)
        .map(|()| len)
        .map_err(of_rustix)
}

fn punch(sink: BorrowedFd<'_>, offset: Option<u64>, len: u64) -> rustix::io::Result<()> {
    let start = match offset {
        Some(offset) => offset,
        None => rustix::fs::seek(sink, SeekFrom::Current(0))?,
    };
    let end = start.checked_add(len).ok_or(Raw::FBIG)?;
    let size = u64::try_from(rustix::fs::fstat(sink)?.st_size).unwrap_or(0);
    if end > size && len > 0 {
        // Not ftruncate(2): by now others may have written behind `end`, and it would cut that.
        rustix::io::pwrite(sink, &[0], end - 1)?;
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(sink, flags, start, len) {
        // It had nothing there, and on this file system keeps a block for the last byte.
        Err(Raw::OPNOTSUPP) if start >= size => {}
        outcome => outcome?,
    }
    if offset.is_none() {
        rustix::fs::seek(sink, SeekFrom::Start(end))?;
    }
    Ok(())
}
