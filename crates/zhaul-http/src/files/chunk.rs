//! Reading files of file systems that may not answer: threads read, the event loop only sends.
//!
//! sendfile(2) from such a file can wait for a server or a daemon even if its pages are in memory, and so
//! can fstat(2) between two chunks. So both happen in the pool: a chunk is read into memory, then the
//! file is compared with the version that was announced, and only what was read before it is sent. That
//! is a copy, where reaching the file system takes several. The next chunk is read while one is sent, so
//! that a connection holds two at most.

use std::ops::Range;
use std::sync::Arc;

use rustix::io::Errno;
use zhaul::Version;
use zhaul::cold::ColdJob;

use crate::files::entry::Representation;
use crate::files::open_file::OpenFile;
use crate::files::root::Root;
use crate::files::storage::Storage;

/// What is read at a time, and so the memory that an answer takes, twice.
const CHUNK_BYTES: u64 = 128 * 1024;

/// Why a file cannot be sent any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It is not the version that was announced.
    Changed,
    Failed(Errno),
    TimedOut,
}

/// A piece of a file in memory.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) at: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Has the pool read a file's chunk at `range.start`.
pub(crate) async fn begin(
    file: &Representation,
    range: &Range<u64>,
) -> ColdJob<Result<Chunk, Trouble>> {
    let (open, version) = (Arc::clone(&file.file), file.version);
    let at = range.start;
    let end = range.end.min(at + CHUNK_BYTES);
    let reads = &file.file.file_system().reads;
    reads.submit(move || read(&open, &version, at..end)).await
}

/// The first chunk of a range, so that a failure can still be told.
pub(crate) async fn first_chunk(
    storage: &Storage,
    file: &Representation,
    range: &Range<u64>,
) -> Result<Chunk, Trouble> {
    let read = async { begin(file, range).await.join().await };
    storage
        .within_limit(read)
        .await
        .unwrap_or(Err(Trouble::TimedOut))
}

fn read(file: &OpenFile, version: &Version, range: Range<u64>) -> Result<Chunk, Trouble> {
    let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let at = range.start + filled as u64;
        match rustix::io::pread(file, &mut bytes[filled..], at) {
            Ok(0) => return Err(Trouble::Changed),
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Trouble::Failed(errno)),
        }
    }
    let now = Root::version_of(file).map_err(Trouble::Failed)?;
    if !is_same(version, &now) {
        return Err(Trouble::Changed);
    }
    let at = range.start;
    Ok(Chunk { at, bytes })
}

/// A file that only grows keeps what it had. Its ctime moves with every chmod and link.
fn is_same(then: &Version, now: &Version) -> bool {
    (then.dev, then.ino) == (now.dev, now.ino)
        && (now.size > then.size || (now.size == then.size && now.mtime == then.mtime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_have_been_written_to_is_the_same() {
        let then = Version {
            ino: 7,
            size: 10,
            ..Version::default()
        };
        let mut touched = then;
        touched.ctime.seconds += 1;
        assert!(is_same(&then, &touched));
        let mut grown = then;
        grown.size += 1;
        grown.mtime.seconds += 1;
        assert!(is_same(&then, &grown));
        let mut edited = then;
        edited.mtime.nanoseconds += 1;
        assert!(!is_same(&then, &edited));
        assert!(!is_same(&then, &Version { size: 9, ..grown }));
        assert!(!is_same(&then, &Version { ino: 8, ..then }));
    }
}
