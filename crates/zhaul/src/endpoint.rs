//! What a descriptor is: facts for the planner, from the descriptor itself.
//!
//! A handful of system calls per end, made once per transfer. Callers on a hot path who know the
//! answers build [`SourceFacts`] and [`SinkFacts`] themselves.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, OFlags, SealFlags, SeekFrom, Stat};
use rustix::net::SocketType;

use zhaul_core::{
    Errno, HostFacts, InPlaceEnd, Seals, SinkFacts, SinkKind, SourceFacts, SourceKind, Timestamp,
    Version,
};

use crate::calibration;
use crate::errno::of_rustix;
use crate::peer;

/// The version of a file: one `fstat(2)`.
///
/// # Errors
/// As `fstat(2)`.
pub fn version(fd: impl AsFd) -> Result<Version, Errno> {
    rustix::fs::fstat(fd)
        .map(|stat| version_of_stat(&stat))
        .map_err(of_rustix)
}

/// The version in a `struct stat` that the caller has already.
pub(crate) fn version_of_stat(stat: &Stat) -> Version {
    Version {
        dev: stat.st_dev,
        ino: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: timestamp(stat.st_mtime, stat.st_mtime_nsec),
        ctime: timestamp(stat.st_ctime, stat.st_ctime_nsec),
        // Its width differs between architectures.
        #[allow(clippy::unnecessary_cast, trivial_numeric_casts)]
        nlink: stat.st_nlink as u64,
    }
}

/// Facts about this host, with its [calibrated](crate::calibration) thresholds. Costs no system
/// call but the first time.
pub fn host_facts() -> HostFacts {
    let mut facts = HostFacts::default();
    facts.page_bytes = rustix::param::page_size();
    facts.thresholds = calibration::thresholds();
    facts
}

/// Facts about a source.
///
/// # Errors
/// As `fstat(2)`; EISDIR for a directory, EBADF for a descriptor that is not open for reading.
pub fn source_facts(fd: impl AsFd) -> Result<SourceFacts, Errno> {
    let fd = fd.as_fd();
    let stat = rustix::fs::fstat(fd).map_err(of_rustix)?;
    let flags = rustix::fs::fcntl_getfl(fd).map_err(of_rustix)?;
    if flags.contains(OFlags::PATH) || flags & OFlags::RWMODE == OFlags::WRONLY {
        return Err(Errno::EBADF);
    }
    let version = version_of_stat(&stat);
    let facts = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => return Err(Errno::EISDIR),
        FileType::RegularFile => match regular_source(fd, version).with_sparse(is_sparse(&stat)) {
            // Not all of these are.
            facts if facts.kind == SourceKind::Pseudo => facts,
            facts => return Ok(facts),
        },
        FileType::BlockDevice => SourceFacts::new(SourceKind::Block).with_device(stat.st_rdev),
        FileType::CharacterDevice => SourceFacts::new(SourceKind::Device),
        FileType::Fifo => return Ok(SourceFacts::new(SourceKind::Pipe)),
        FileType::Socket if is_stream(fd)? => {
            return Ok(SourceFacts::new(SourceKind::StreamSocket));
        }
        FileType::Socket => return Ok(SourceFacts::new(SourceKind::MessageSocket)),
        _ => return Ok(SourceFacts::new(SourceKind::Other)),
    };
    Ok(facts.with_seekable(is_seekable(fd)))
}

pub(crate) fn is_seekable(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::seek(fd, SeekFrom::Current(0)).is_ok()
}

/// Facts about a sink. For a stream socket this asks the kernel for the route to its peer
/// ([`peer`]), which matters to transfers under a lease.
///
/// # Errors
/// As `fstat(2)`; EISDIR for a directory, EBADF for a descriptor that is not open for writing.
pub fn sink_facts(fd: impl AsFd) -> Result<SinkFacts, Errno> {
    sink_facts_with(fd.as_fd(), |fd| peer::in_place_end(fd))
}

/// The same with an answer to where page references queued in a stream socket end, which is asked
/// for only if it is one.
pub(crate) fn sink_facts_with(
    fd: BorrowedFd<'_>,
    in_place_end: impl FnOnce(BorrowedFd<'_>) -> InPlaceEnd,
) -> Result<SinkFacts, Errno> {
    let stat = rustix::fs::fstat(fd).map_err(of_rustix)?;
    let flags = rustix::fs::fcntl_getfl(fd).map_err(of_rustix)?;
    if flags.contains(OFlags::PATH) || flags & OFlags::RWMODE == OFlags::RDONLY {
        return Err(Errno::EBADF);
    }
    let facts = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => return Err(Errno::EISDIR),
        FileType::RegularFile => {
            let position = rustix::fs::seek(fd, SeekFrom::Current(0)).ok();
            SinkFacts::new(SinkKind::Regular).with_file((stat.st_dev, stat.st_ino), position)
        }
        FileType::BlockDevice => {
            let position = rustix::fs::seek(fd, SeekFrom::Current(0)).ok();
            SinkFacts::new(SinkKind::Block).with_device(stat.st_rdev, position)
        }
        FileType::CharacterDevice if is_null(&stat) => SinkFacts::new(SinkKind::Null),
        FileType::CharacterDevice => SinkFacts::new(SinkKind::Device),
        FileType::Fifo => SinkFacts::new(SinkKind::Pipe),
        FileType::Socket if is_stream(fd)? => SinkFacts::stream_socket(in_place_end(fd)),
        FileType::Socket => SinkFacts::new(SinkKind::MessageSocket),
        _ => SinkFacts::new(SinkKind::Other),
    };
    Ok(facts.with_append(flags.contains(OFlags::APPEND)))
}

/// A regular file by its mode may be a memfd (which has seals), or a file of a file system that
/// makes its content up.
fn regular_source(fd: BorrowedFd<'_>, version: Version) -> SourceFacts {
    match file_system(fd) {
        FileSystem::MadeUp => SourceFacts::new(SourceKind::Pseudo),
        FileSystem::Memory if version.nlink == 0 => memfd_or_unlinked(fd, version),
        FileSystem::Memory | FileSystem::Other => SourceFacts::regular(version),
    }
}

/// A memfd answers F_GET_SEALS, and so does any file on tmpfs; a memfd never had a name. An
/// unlinked tmpfs file is like a memfd in everything that matters here.
fn memfd_or_unlinked(fd: BorrowedFd<'_>, version: Version) -> SourceFacts {
    match rustix::fs::fcntl_get_seals(fd) {
        Ok(seals) => SourceFacts::new(SourceKind::Memfd)
            .with_version(Some(version))
            .with_seals(Seals {
                shrink: seals.contains(SealFlags::SHRINK),
                write: seals.contains(SealFlags::WRITE),
            }),
        Err(_) => SourceFacts::regular(version),
    }
}

/// True if a write to it may wait for a disk, or for whoever else keeps what is written.
#[cfg(feature = "tokio")]
pub(crate) fn waits_for_disk(fd: BorrowedFd<'_>) -> bool {
    let Ok(stat) = rustix::fs::fstat(fd) else {
        return false;
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => file_system(fd) != FileSystem::Memory,
        FileType::BlockDevice => true,
        _ => false,
    }
}

/// What the file system of a regular file does with its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// Keeps it in the page cache only: tmpfs, memfd, hugetlbfs.
    Memory,
    /// Makes it up at each read.
    MadeUp,
    /// Keeps it elsewhere.
    Other,
}

pub(crate) fn file_system(fd: BorrowedFd<'_>) -> FileSystem {
    let Ok(statfs) = rustix::fs::fstatfs(fd) else {
        return FileSystem::Other;
    };
    // The type of f_type differs between C libraries; the numbers are 32 bits wide.
    #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    let magic = statfs.f_type as u32;
    match magic {
        TMPFS_MAGIC | HUGETLBFS_MAGIC | RAMFS_MAGIC => FileSystem::Memory,
        PROC_SUPER_MAGIC | SYSFS_MAGIC | DEBUGFS_MAGIC | TRACEFS_MAGIC | SECURITYFS_MAGIC
        | CGROUP_SUPER_MAGIC | CGROUP2_SUPER_MAGIC | BPF_FS_MAGIC | PSTOREFS_MAGIC
        | EFIVARFS_MAGIC | CONFIGFS_MAGIC => FileSystem::MadeUp,
        _ => FileSystem::Other,
    }
}

fn is_stream(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let kind = rustix::net::sockopt::socket_type(fd).map_err(of_rustix)?;
    Ok(kind == SocketType::STREAM)
}

/// Blocks are counted by 512 bytes whatever the file system. A compressed file has fewer too, and
/// says then that it has no holes.
#[allow(clippy::unnecessary_cast, trivial_numeric_casts)]
fn is_sparse(stat: &Stat) -> bool {
    (stat.st_blocks as i64).saturating_mul(512) < stat.st_size as i64
}

/// `/dev/null` is character device 1:3 wherever its node lies.
fn is_null(stat: &Stat) -> bool {
    (
        rustix::fs::major(stat.st_rdev),
        rustix::fs::minor(stat.st_rdev),
    ) == (1, 3)
}

/// The nanoseconds are below a thousand million, whatever the width of their field.
#[allow(clippy::unnecessary_cast, trivial_numeric_casts)]
fn timestamp(seconds: impl TryInto<i64>, nanoseconds: impl TryInto<u32>) -> Timestamp {
    Timestamp {
        seconds: seconds.try_into().unwrap_or(0),
        nanoseconds: nanoseconds.try_into().unwrap_or(0),
    }
}

// linux/magic.h
const PROC_SUPER_MAGIC: u32 = 0x9fa0;
const SYSFS_MAGIC: u32 = 0x6265_6572;
const DEBUGFS_MAGIC: u32 = 0x6462_6720;
const TRACEFS_MAGIC: u32 = 0x7472_6163;
const SECURITYFS_MAGIC: u32 = 0x7363_6673;
const CGROUP_SUPER_MAGIC: u32 = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: u32 = 0x6367_7270;
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
const PSTOREFS_MAGIC: u32 = 0x6165_676c;
const EFIVARFS_MAGIC: u32 = 0xde5e_81e4;
const CONFIGFS_MAGIC: u32 = 0x6265_6570;
const TMPFS_MAGIC: u32 = 0x0102_1994;
const RAMFS_MAGIC: u32 = 0x8584_58f6;
const HUGETLBFS_MAGIC: u32 = 0x9584_58f6;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use rustix::fs::MemfdFlags;

    use super::*;

    fn source_kind(fd: impl AsFd) -> SourceKind {
        source_facts(fd).unwrap().kind
    }

    fn sink_kind(path: &str) -> SinkKind {
        let file = File::options().write(true).open(path).unwrap();
        sink_facts(&file).unwrap().kind
    }

    #[test]
    fn every_kind_of_source_is_recognised() {
        assert_eq!(
            source_kind(tempfile::tempfile().unwrap()),
            SourceKind::Regular
        );
        assert_eq!(
            source_kind(File::open("/proc/self/status").unwrap()),
            SourceKind::Pseudo
        );
        assert_eq!(
            source_kind(File::open("/dev/zero").unwrap()),
            SourceKind::Device
        );
        assert_eq!(
            source_kind(rustix::pipe::pipe().unwrap().0),
            SourceKind::Pipe
        );
        assert_eq!(
            source_kind(UnixStream::pair().unwrap().0),
            SourceKind::StreamSocket
        );
        assert_eq!(
            source_kind(UnixDatagram::pair().unwrap().0),
            SourceKind::MessageSocket
        );
        assert_eq!(source_facts(File::open("/").unwrap()), Err(Errno::EISDIR));
    }

    #[test]
    fn every_kind_of_sink_is_recognised() {
        assert_eq!(sink_kind("/dev/null"), SinkKind::Null);
        assert_eq!(sink_kind("/dev/zero"), SinkKind::Device);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(sink_facts(&socket).unwrap().kind, SinkKind::StreamSocket);
        assert_eq!(
            sink_facts(rustix::pipe::pipe().unwrap().1).unwrap().kind,
            SinkKind::Pipe
        );
    }

    #[test]
    fn a_descriptor_open_the_other_way_is_refused() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        assert_eq!(sink_facts(File::open(&path).unwrap()), Err(Errno::EBADF));
        let write_only = File::options().write(true).open(&path).unwrap();
        assert_eq!(source_facts(write_only), Err(Errno::EBADF));
    }

    #[test]
    fn appending_and_position_are_seen() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::write(&path, "12345").unwrap();
        let appending = File::options().append(true).open(&path).unwrap();
        assert!(sink_facts(&appending).unwrap().append);
        let positioned = File::options().write(true).open(&path).unwrap();
        rustix::fs::seek(&positioned, SeekFrom::Start(3)).unwrap();
        assert_eq!(sink_facts(&positioned).unwrap().position, Some(3));
    }

    #[test]
    fn the_seals_of_a_memfd_are_read() {
        let memfd = rustix::fs::memfd_create("facts", MemfdFlags::ALLOW_SEALING).unwrap();
        let facts = source_facts(&memfd).unwrap();
        assert_eq!((facts.kind, facts.is_sealed()), (SourceKind::Memfd, false));
        rustix::fs::fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::WRITE).unwrap();
        assert!(source_facts(&memfd).unwrap().is_sealed());
    }

    #[test]
    fn a_version_changes_when_the_file_is_written() {
        let mut file = tempfile::tempfile().unwrap();
        let before = version(&file).unwrap();
        std::io::Write::write_all(&mut file, b"more").unwrap();
        assert_eq!(
            before.drift_to(&version(&file).unwrap()),
            zhaul_core::Drift::Grown
        );
    }
}
