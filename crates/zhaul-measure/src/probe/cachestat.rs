//! `cachestat(2)`: how much of a file is in the page cache.

use rustix::io::Errno;
use zhaul_sys::cachestat::cachestat;

use super::place::Subject;
use super::report::{Cause, Group};
use super::seen::{Mechanism, Seen};
use super::trouble::{During, Trouble, described, errno_of};

pub(super) const CACHESTAT: Mechanism = Mechanism {
    id: "cachestat",
    name: "cachestat",
    call: "cachestat",
    group: Group::Files,
    since: (6, 5),
    since_text: "6.5",
};

pub(super) fn try_it(subject: &Subject) -> Result<Seen, Trouble> {
    let file = subject.readable()?;
    // Makes sure that something is in the page cache.
    super::scratch::content_of(file, 1).preparing("read")?;
    let stat = match cachestat(file, 0, 0) {
        Ok(stat) => stat,
        Err(error) if errno_of(&error) == Errno::PERM && subject.not_writable.is_some() => {
            return Err(Seen::limited(
                Cause::NotPermitted,
                "not for files of others",
                format!("cachestat failed: {}", described(Errno::PERM)),
            )
            .remedy("own the files, or be able to write to them")
            .into());
        }
        Err(error) => return Err(error).during("cachestat"),
    };
    let evidence = format!(
        "of a file that was just read, {} pages are cached",
        stat.cached
    );
    Ok(if stat.cached > 0 {
        Seen::works(evidence)
    } else {
        Seen::missing(
            Cause::FileSystemLacks,
            "it counts nothing on this file system",
            evidence,
        )
    })
}
