//! `open(2)` O_DIRECT: reads past the page cache, and the alignment they take.
//!
//! Some file systems accept the flag and read through the page cache all the same. Only one that
//! states its alignment (`statx(2)` STATX_DIOALIGN, Linux 6.1) and left the page cache alone is
//! called direct.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Advice, AtFlags, OFlags, StatxFlags, fadvise};
use rustix::io::Errno;
use zhaul_sys::cachestat::cachestat;

use super::place::Subject;
use super::report::{Cause, Group};
use super::scratch;
use super::seen::{Mechanism, Seen};
use super::trouble::{During, Trouble, described};

pub(super) const O_DIRECT: Mechanism = Mechanism {
    id: "o_direct",
    name: "O_DIRECT",
    call: "open (O_DIRECT)",
    group: Group::Files,
    since: (2, 4),
    since_text: "2.4.10, alignment 6.1",
};

/// What the file system says about direct reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alignment {
    /// Addresses and offsets are multiples of these.
    Bytes { memory: usize, offset: usize },
    /// It says that this file cannot.
    Refused,
    /// It says nothing.
    Untold,
}

/// When nothing is told: no device has larger blocks than a page.
const LARGEST: usize = 4096;

pub(super) fn try_it(subject: &Subject) -> Result<Seen, Trouble> {
    let file = subject.readable()?;
    let alignment = alignment(file);
    if alignment == Alignment::Refused {
        return Err(Seen::missing(
            Cause::FileSystemLacks,
            "the file system refuses it for such files",
            "STATX_DIOALIGN gives an alignment of 0",
        )
        .into());
    }
    let direct = match scratch::reopen(file, OFlags::RDONLY | OFlags::DIRECT) {
        Ok(direct) => direct,
        Err(errno @ Errno::INVAL) => {
            return Err(Seen::missing(
                Cause::FileSystemLacks,
                "the file system does not support it",
                format!("open (O_DIRECT) failed: {}", described(errno)),
            )
            .into());
        }
        Err(errno) => return Err(Trouble::Needs("open (O_DIRECT)", errno)),
    };
    let emptied = subject.not_writable.is_none() && empty_cache(file);
    let (memory, offset) = match alignment {
        Alignment::Bytes { memory, offset } => (memory, offset),
        _ => (LARGEST, LARGEST),
    };
    let read = read_aligned(&direct, &subject.content, memory, offset)?;
    let bypassed = emptied.then(|| cached_pages(file) == Some(0));
    Ok(judge(alignment, read, bypassed))
}

/// `bypassed` is `None` where it could not be seen.
fn judge(alignment: Alignment, read: usize, bypassed: Option<bool>) -> Seen {
    let cache = match bypassed {
        Some(true) => "the page cache stayed empty",
        Some(false) => "the page cache was used",
        None => "whether the page cache was used could not be seen",
    };
    let evidence = format!("{read} bytes were read with O_DIRECT, unchanged; {cache}");
    match (alignment, bypassed) {
        (Alignment::Bytes { memory, offset }, Some(true) | None) => {
            let evidence = format!("{evidence}; alignment: memory {memory}, offset {offset}");
            Seen::works(evidence)
                .fact("memory_alignment", memory)
                .fact("offset_alignment", offset)
        }
        (Alignment::Bytes { .. }, Some(false)) => Seen::missing(
            Cause::Misbehaves,
            "an alignment is stated, but reads go through the page cache",
            evidence,
        ),
        (_, Some(true)) => Seen::limited(
            Cause::FileSystemLacks,
            "no alignment is stated, so it may be buffered at any time",
            evidence,
        ),
        _ => Seen::missing(
            Cause::FileSystemLacks,
            "the flag is accepted, but nothing says that it is direct",
            evidence,
        ),
    }
}

fn alignment(file: BorrowedFd<'_>) -> Alignment {
    let flags = AtFlags::EMPTY_PATH;
    let Ok(stat) = rustix::fs::statx(file, "", flags, StatxFlags::DIOALIGN) else {
        return Alignment::Untold;
    };
    if stat.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return Alignment::Untold;
    }
    match (stat.stx_dio_mem_align, stat.stx_dio_offset_align) {
        (_, 0) => Alignment::Refused,
        (memory, offset) => Alignment::Bytes {
            memory: (memory as usize).max(1),
            offset: offset as usize,
        },
    }
}

/// Reads the beginning of the file in one go and compares it.
fn read_aligned(
    direct: &OwnedFd,
    content: &[u8],
    memory: usize,
    offset: usize,
) -> Result<usize, Trouble> {
    let len = content.len().next_multiple_of(offset.max(512));
    let mut room = vec![0_u8; len + memory];
    let start = room.as_ptr().align_offset(memory).min(memory);
    let buffer = &mut room[start..start + len];
    let read = rustix::io::pread(direct, &mut *buffer, 0).during("read with O_DIRECT")?;
    // A file that is not ours may have grown meanwhile.
    let expected = content.len().min(read);
    if read == 0 || buffer[..expected] != content[..expected] {
        return Err(Trouble::Differs("O_DIRECT"));
    }
    Ok(expected)
}

/// Writes the file back and drops it from the page cache; false if something of it stayed, or if
/// that cannot be seen: on overlayfs cachestat counts nothing, whatever is cached (Linux 6.12).
pub(super) fn empty_cache(file: BorrowedFd<'_>) -> bool {
    let read = scratch::content_of(file, 1);
    let counts = read.is_ok() && cached_pages(file).is_some_and(|pages| pages > 0);
    counts
        && rustix::fs::fdatasync(file).is_ok()
        && fadvise(file, 0, None, Advice::DontNeed).is_ok()
        && cached_pages(file) == Some(0)
}

/// How many of the file's pages are in the page cache.
pub(super) fn cached_pages(file: BorrowedFd<'_>) -> Option<u64> {
    cachestat(file, 0, 0).ok().map(|stat| stat.cached)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::report::Status;

    #[test]
    fn direct_is_claimed_only_with_an_alignment_and_an_untouched_cache() {
        let told = Alignment::Bytes {
            memory: 512,
            offset: 512,
        };
        let status = |alignment, bypassed| judge(alignment, 1, bypassed).of(&O_DIRECT).status;
        assert_eq!(status(told, Some(true)), Status::Available);
        assert_eq!(status(told, None), Status::Available);
        assert_eq!(status(told, Some(false)), Status::Missing);
        assert_eq!(status(Alignment::Untold, Some(true)), Status::Limited);
        assert_eq!(status(Alignment::Untold, Some(false)), Status::Missing);
        assert_eq!(status(Alignment::Untold, None), Status::Missing);
    }
}
