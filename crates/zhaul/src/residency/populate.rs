//! Makes a range of a file resident, on a thread that may wait for the disk.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use rustix::fs::Advice;
use rustix::io::Errno as Raw;

use zhaul_core::Errno;

use crate::errno::of_rustix;

/// Brings `len` bytes from `offset` into memory and waits until they are there and up to date.
/// Returns how many there are before the end of the file. For threads that may block.
///
/// `posix_fadvise(2)` WILLNEED queues all reads at once; `sendfile(2)` into `/dev/null` then waits
/// for each page without copying it. Where a file has no page cache to send from, it is read.
///
/// # Errors
/// What the disk says, typically EIO.
pub fn populate(fd: impl AsFd, offset: u64, len: u64) -> Result<u64, Errno> {
    let fd = fd.as_fd();
    let len = len.min(u64::MAX - offset);
    let Some(nonzero_len) = std::num::NonZeroU64::new(len) else {
        return Ok(0);
    };
    // Advice: without it the reads below queue one after the other.
    let _ = rustix::fs::fadvise(fd, offset, Some(nonzero_len), Advice::WillNeed);
    match null().map_or(Err(Raw::NOENT), |null| send_to_null(fd, null, offset, len)) {
        Err(Raw::INVAL | Raw::NOSYS | Raw::OPNOTSUPP | Raw::PERM | Raw::NOENT) => {
            read_through(fd, offset, len)
        }
        result => result,
    }
    .map_err(of_rustix)
}

fn send_to_null(fd: BorrowedFd<'_>, null: &File, offset: u64, len: u64) -> Result<u64, Raw> {
    let end = offset + len;
    let mut at = offset;
    while at < end {
        let piece = (end - at).min(PIECE_BYTES);
        let count = usize::try_from(piece).unwrap_or(usize::MAX);
        let mut position = at;
        match rustix::fs::sendfile(null, fd, Some(&mut position), count) {
            Ok(0) => break,
            Ok(sent) => at += sent as u64,
            Err(Raw::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(at - offset)
}

fn read_through(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<u64, Raw> {
    let mut buffer = crate::buffer::Buffer::default();
    let end = offset + len;
    let mut at = offset;
    while at < end {
        let piece = usize::try_from(end - at)
            .unwrap_or(usize::MAX)
            .min(64 << 10);
        match rustix::io::pread(fd, buffer.room(piece), at) {
            Ok(0) => break,
            Ok(read) => at += read as u64,
            Err(Raw::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(at - offset)
}

fn null() -> Option<&'static File> {
    static NULL: OnceLock<Option<File>> = OnceLock::new();
    NULL.get_or_init(|| File::options().write(true).open("/dev/null").ok())
        .as_ref()
}

/// A thread that waits for one piece after another gives the disk's queue time to fill.
const PIECE_BYTES: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::residency::{Residency, probe};

    #[test]
    fn populate_waits_until_the_data_is_up_to_date() {
        let mut file = tempfile::tempfile_in("/var/tmp").unwrap();
        let len = 8 << 20;
        file.write_all(&vec![3; len]).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        if probe(&file, 0, len as u64) == Residency::Resident {
            zhaul_untested::skip_this("pages cannot be dropped here");
        }
        assert_eq!(populate(&file, 0, len as u64), Ok(len as u64));
        // Every single page answers without waiting.
        for page in 0..len as u64 / 4096 {
            assert_eq!(
                probe(&file, page * 4096, 1),
                Residency::Resident,
                "page {page}"
            );
        }
    }

    #[test]
    fn populate_stops_at_the_end_of_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 5000]).unwrap();
        assert_eq!(populate(&file, 4000, 1 << 20), Ok(1000));
        assert_eq!(populate(&file, 9000, 10), Ok(0));
        assert_eq!(populate(&file, 0, 0), Ok(0));
    }

    #[test]
    fn a_file_that_cannot_be_sent_from_is_read() {
        let status = File::open("/proc/self/status").unwrap();
        assert!(populate(&status, 0, 1 << 20).unwrap() > 100);
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert!(populate(&reader, 0, 10).is_err());
    }
}
