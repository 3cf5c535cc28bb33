//! Reflinks: `ioctl(2)` FICLONE and FICLONERANGE, two files that share their blocks until one is
//! written.

use std::os::fd::AsFd;

use rustix::io::Errno;
use zhaul_sys::ficlonerange::ficlonerange;

use super::copy_file_range::shares_blocks;
use super::place::Subject;
use super::report::{Cause, Group};
use super::scratch;
use super::seen::{Mechanism, Seen};
use super::trouble::{During, Trouble, described};

pub(super) const REFLINK: Mechanism = Mechanism {
    id: "reflink",
    name: "reflink",
    call: "ioctl (FICLONE)",
    group: Group::Files,
    since: (4, 5),
    since_text: "4.5",
};

pub(super) fn try_it(subject: &Subject) -> Result<Seen, Trouble> {
    let source = subject.writable()?;
    let clone = subject.another()?;
    match rustix::fs::ioctl_ficlone(&clone, source) {
        Ok(()) => {}
        Err(errno @ (Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::XDEV)) => {
            return Err(Seen::missing(
                Cause::FileSystemLacks,
                "this file system cannot share blocks",
                format!("ioctl (FICLONE) failed: {}", described(errno)),
            )
            .remedy("Btrfs, bcachefs, or XFS made with reflink=1")
            .into());
        }
        Err(errno) => return Err(Trouble::Call("ioctl (FICLONE)", errno)),
    }
    let len = subject.content.len();
    let same = scratch::content_of(clone.as_fd(), len).preparing("read")? == subject.content;
    // Before it is written to, or its blocks are its own again.
    let shared = shares_blocks(clone.as_fd());
    let ranges = subject.another()?;
    let by_range = ficlonerange(ranges.as_fd(), 0, source, 0, 0).is_ok();
    rustix::io::pwrite(&clone, &[!subject.content[0]], 0).preparing("write to a clone")?;
    let kept = scratch::content_of(source, len).preparing("read")? == subject.content;
    if !same || !kept {
        return Err(Trouble::Differs("FICLONE"));
    }
    let told = match shared {
        Some(true) => "; FIEMAP calls the blocks shared",
        Some(false) => "; FIEMAP does not call the blocks shared",
        None => "",
    };
    let evidence =
        format!("a clone had the same {len} bytes, and a write to it left the source alone{told}");
    Ok(Seen::works(evidence).fact("by_range", by_range))
}
