//! `preadv2(2)` with RWF_NOWAIT (only what is in the page cache) and RWF_DONTCACHE (leave nothing
//! in it).

use std::io::IoSliceMut;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::o_direct::{cached_pages, empty_cache};
use super::place::Subject;
use super::report::{Cause, Group};
use super::seen::{Mechanism, Seen};
use super::trouble::{During, Trouble};

pub(super) const NOWAIT: Mechanism = Mechanism {
    id: "rwf_nowait",
    name: "RWF_NOWAIT",
    call: "preadv2 (RWF_NOWAIT)",
    group: Group::Files,
    since: (4, 14),
    since_text: "4.14",
};

pub(super) const DONTCACHE: Mechanism = Mechanism {
    id: "rwf_dontcache",
    name: "RWF_DONTCACHE",
    call: "preadv2 (RWF_DONTCACHE)",
    group: Group::Files,
    since: (6, 14),
    since_text: "6.14",
};

const RWF_DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

pub(super) fn nowait(subject: &Subject) -> Result<Seen, Trouble> {
    let file = subject.readable()?;
    // In the page cache by now, because it was just written or read.
    match read(file, subject, ReadWriteFlags::NOWAIT) {
        Ok(_) => {}
        Err(Trouble::Call(_, Errno::AGAIN)) => {
            return Err(Seen::limited(
                Cause::FileSystemLacks,
                "it always says that the data is not there",
                "preadv2 (RWF_NOWAIT) of bytes that had just been read or written: EAGAIN",
            )
            .into());
        }
        Err(trouble) => return Err(trouble),
    }
    if subject.not_writable.is_some() || !empty_cache(file) {
        return Ok(Seen::works(
            "resident bytes were read, unchanged; a cold file was not tried",
        ));
    }
    let cold = read(file, subject, ReadWriteFlags::NOWAIT);
    Ok(match cold {
        Err(Trouble::Call(_, Errno::AGAIN)) => {
            Seen::works("resident bytes were read, unchanged; of a cold file it said EAGAIN")
        }
        // It starts to read ahead, and a disk may be as fast as the kernel looks again (seen on
        // ext4, Linux 6.12).
        _ => Seen::works(
            "resident bytes were read, unchanged; of a cold file the disk had them at once",
        ),
    })
}

pub(super) fn dontcache(subject: &Subject) -> Result<Seen, Trouble> {
    let file = subject.readable()?;
    let emptied = subject.not_writable.is_none() && empty_cache(file);
    let len = read(file, subject, RWF_DONTCACHE)?;
    if !emptied {
        return Ok(Seen::works(format!(
            "{len} bytes were read, unchanged; whether they stay in the page cache was not seen"
        )));
    }
    Ok(match cached_pages(file) {
        Some(0) => Seen::works(format!(
            "{len} bytes were read, unchanged, and did not stay in the page cache"
        )),
        _ => Seen::limited(
            Cause::FileSystemLacks,
            "accepted, but what was read stays in the page cache",
            format!("{len} bytes were read, unchanged; pages stayed"),
        ),
    })
}

/// Reads the file and compares what came. All of it: what is read ahead and not fetched stays in the
/// page cache.
fn read(file: BorrowedFd<'_>, subject: &Subject, flags: ReadWriteFlags) -> Result<usize, Trouble> {
    let content = &subject.content;
    let mut buffer = vec![0; content.len()];
    let call = if flags == RWF_DONTCACHE {
        "preadv2 (RWF_DONTCACHE)"
    } else {
        "preadv2 (RWF_NOWAIT)"
    };
    let len = preadv2(file, &mut [IoSliceMut::new(&mut buffer)], 0, flags).during(call)?;
    if len == 0 || buffer[..len] != content[..len] {
        return Err(Trouble::Differs(call));
    }
    Ok(len)
}
