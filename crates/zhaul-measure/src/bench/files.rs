//! Files without a name: nothing of them stays behind, however the run ends.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags};
use xxhash_rust::xxh3::Xxh3Default;
use zhaul::residency::{self, Residency};
use zhaul::{Lease, LeaseError};

use super::content::Content;

/// An empty file in `dir`, open for reading and writing, that has no name any more.
pub(super) fn nameless(dir: &Path) -> io::Result<File> {
    loop {
        let name = format!(".zhaul-bench-{:016x}", fastrand::u64(..));
        let path = dir.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match file {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// A file to be sent, and what makes a mapping of it safe.
#[derive(Debug)]
pub(super) struct SourceFile {
    file: File,
    bytes: u64,
    guard: Guard,
}

/// What rules out that the file is cut while it is sent out of a mapping.
#[derive(Debug)]
enum Guard {
    Lease(Lease),
    /// No lease is to be had where the file lies: a sealed copy in memory is mapped instead.
    Sealed(File),
}

impl SourceFile {
    /// Makes a file of `bytes`, all of it in the page cache.
    pub(super) fn create(dir: &Path, content: &Content, bytes: u64) -> io::Result<Self> {
        let written = nameless(dir)?;
        fill(&written, content, bytes)?;
        // Now, and not while something is timed.
        written.sync_data()?;
        // A lease is refused while anybody has the file open for writing.
        let file = File::open(format!("/proc/self/fd/{}", written.as_raw_fd()))?;
        drop(written);
        let guard = match Lease::acquire(&file) {
            Ok(lease) => Guard::Lease(lease),
            Err(_) => Guard::Sealed(sealed(content, bytes)?),
        };
        Ok(Self { file, bytes, guard })
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// What may be mapped, and the lease on it if that is what protects it.
    pub(super) fn mappable(&self) -> (BorrowedFd<'_>, Option<&Lease>) {
        match &self.guard {
            Guard::Lease(lease) => (self.file.as_fd(), Some(lease)),
            Guard::Sealed(memfd) => (memfd.as_fd(), None),
        }
    }

    /// Makes sure that all of it is in the page cache. False if it cannot be kept there.
    pub(super) fn is_cached(&self) -> bool {
        let asked = || residency::probe(&self.file, 0, self.bytes);
        if asked() != Residency::Cold {
            return true;
        }
        let read = residency::populate(self.file.as_fd(), 0, self.bytes);
        read.is_ok() && asked() != Residency::Cold
    }
}

/// A file that is written.
///
/// Its pages are in the cache before a sample and are written over. Were it empty, a sample would
/// also measure where the kernel finds free pages; in a guest whose memory the host has yet to back
/// some samples took ten times as long as others for that (seen on Linux 6.18 under Firecracker).
#[derive(Debug)]
pub(super) struct SinkFile {
    file: File,
    /// So many bytes from the beginning have been written since `emptied`.
    filled: u64,
    emptied: Instant,
}

impl SinkFile {
    /// Makes an empty one.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            file: nameless(dir)?,
            filled: 0,
            emptied: Instant::now(),
        })
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Cuts it to nothing: its pages go, those that nobody has written to a disk yet, too.
    pub(super) fn empty(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.filled = 0;
        self.emptied = Instant::now();
        Ok(())
    }

    /// Has pages for the next `bytes` to be written at its beginning.
    pub(super) fn fill(&mut self, content: &Content, bytes: u64) -> io::Result<()> {
        // Before the kernel thinks that it is time to write them to the disk.
        let is_old = self.emptied.elapsed() > DIRTY_FOR;
        // A route that shares extents takes the pages away.
        if is_old || residency::probe(&self.file, 0, self.filled) == Residency::Cold {
            self.empty()?;
        }
        let mut place = self.filled;
        while place < bytes {
            let piece = content.at(place, bytes - place);
            place += rustix::io::pwrite(&self.file, piece, place)? as u64;
        }
        self.filled = self.filled.max(bytes);
        self.file.rewind()
    }
}

/// Half of the time that the kernel leaves pages dirty by default.
const DIRTY_FOR: Duration = Duration::from_secs(15);

/// The hash of a file's content.
pub(super) fn digest(file: &File) -> io::Result<u64> {
    let mut hash = Xxh3Default::new();
    let mut buffer = vec![0; 256 << 10];
    let mut place = 0;
    loop {
        let read = rustix::io::pread(file, &mut buffer, place)?;
        if read == 0 {
            return Ok(hash.digest());
        }
        hash.update(&buffer[..read]);
        place += read as u64;
    }
}

/// Why there are no leases on files in `dir`, if so.
pub(super) fn lease_refusal(dir: &Path) -> io::Result<Option<LeaseError>> {
    let written = nameless(dir)?;
    let file = File::open(format!("/proc/self/fd/{}", written.as_raw_fd()))?;
    drop(written);
    Ok(Lease::acquire(file).err())
}

fn fill(file: &File, content: &Content, bytes: u64) -> io::Result<()> {
    let mut sink = BufWriter::with_capacity(256 << 10, file);
    content.write_to(&mut sink, bytes)?;
    sink.flush()
}

fn sealed(content: &Content, bytes: u64) -> io::Result<File> {
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
    let memfd = File::from(rustix::fs::memfd_create("zhaul-bench", flags)?);
    fill(&memfd, content, bytes)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&memfd, seals)?;
    Ok(memfd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_no_name_from_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::new();
        let source = SourceFile::create(dir.path(), &content, 3 << 20).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(source.file.metadata().unwrap().len(), 3 << 20);
        assert!(source.is_cached());
    }

    #[test]
    fn a_file_that_was_evicted_is_read_again() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let content = Content::new();
        let source = SourceFile::create(dir.path(), &content, 1 << 20).unwrap();
        rustix::fs::fadvise(&source.file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        assert!(source.is_cached());
        assert_ne!(residency::probe(&source.file, 0, 1 << 20), Residency::Cold);
    }

    #[test]
    fn a_file_to_be_written_has_its_pages_before() {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::new();
        let mut sink = SinkFile::create(dir.path()).unwrap();
        for bytes in [3 << 20, 1 << 20, 5 << 20] {
            sink.fill(&content, bytes).unwrap();
            let cached = residency::probe(&sink.file, 0, bytes);
            assert_ne!(cached, Residency::Cold, "{bytes}");
            assert!(sink.file.metadata().unwrap().len() >= bytes);
            assert_eq!(sink.file.stream_position().unwrap(), 0);
        }
        sink.empty().unwrap();
        assert_eq!(sink.file.metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_sealed_copy_has_the_same_bytes() {
        let mut content = Content::new();
        let memfd = sealed(&content, 1500).unwrap();
        let mut bytes = vec![0; 1500];
        rustix::io::pread(&memfd, &mut bytes, 0).unwrap();
        let digest = xxhash_rust::xxh3::xxh3_64(&bytes);
        assert_eq!(digest, content.digest(1500, 1500));
    }
}
