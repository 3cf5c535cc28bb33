//! Files to try things on, without a name from the start, so that nothing can be left behind.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;

use super::trouble::{During, Trouble};

/// An empty file in memory.
pub(super) fn in_memory() -> Result<OwnedFd, Trouble> {
    rustix::fs::memfd_create("zhaul-doctor", MemfdFlags::CLOEXEC).preparing("memfd_create")
}

/// A file with this content, in memory where that is possible and else in the directory for
/// temporary files.
pub(super) fn holding(content: &[u8]) -> Result<OwnedFd, Trouble> {
    let file = in_memory().or_else(|error| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(std::env::temp_dir(), flags, Mode::empty());
        dir.and_then(|dir| in_directory(dir.as_fd()))
            .map_err(|_| error)
    })?;
    write_all(file.as_fd(), content).preparing("write to a temporary file")?;
    Ok(file)
}

/// An empty file in a directory.
pub(super) fn in_directory(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::openat(dir, ".", flags, mode) {
        // What file systems and kernels without O_TMPFILE answer.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => named(dir),
        opened => opened,
    }
}

/// Has a name for two system calls.
fn named(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let name = format!(
        ".zhaul-doctor-{}-{:016x}",
        std::process::id(),
        fastrand::u64(..)
    );
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(dir, name.as_str(), flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::unlinkat(dir, name.as_str(), AtFlags::empty())?;
    Ok(file)
}

/// The same file through another open file description.
pub(super) fn reopen(file: BorrowedFd<'_>, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Writes from the start of the file.
pub(super) fn write_all(file: BorrowedFd<'_>, content: &[u8]) -> rustix::io::Result<()> {
    let mut at = 0;
    while at < content.len() {
        match rustix::io::pwrite(file, &content[at..], at as u64) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(n) => at += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The content of a file from its start, at most `limit` bytes.
pub(super) fn content_of(file: BorrowedFd<'_>, limit: usize) -> rustix::io::Result<Vec<u8>> {
    let mut content = vec![0; limit];
    let mut filled = 0;
    while filled < limit {
        match rustix::io::pread(file, &mut content[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    content.truncate(filled);
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &std::path::Path) -> OwnedFd {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(dir, flags, Mode::empty()).unwrap()
    }

    #[test]
    fn neither_way_leaves_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let opened = open(dir.path());
        let files = [in_directory(opened.as_fd()), named(opened.as_fd())];
        for file in files {
            let file = file.unwrap();
            write_all(file.as_fd(), b"kept").unwrap();
            assert_eq!(content_of(file.as_fd(), 100).unwrap(), b"kept");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_file_without_a_name_can_be_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = in_directory(open(dir.path()).as_fd()).unwrap();
        write_all(file.as_fd(), b"kept").unwrap();
        let again = reopen(file.as_fd(), OFlags::RDONLY).unwrap();
        assert_eq!(content_of(again.as_fd(), 2).unwrap(), b"ke");
        assert!(rustix::io::pwrite(&again, b"x", 0).is_err());
    }
}
