//! Looks at traced processes through `/proc`, without stopping them.
//!
//! Whatever cannot be seen, because the process has ended or may not be looked at, is `None`.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags};
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use super::compare;
use super::object::{FileId, Kind, Object, Seen};
use super::world::{MappedFile, World};

/// The machine we run on.
#[derive(Debug, Default)]
pub struct Procfs {}

impl World for Procfs {
    fn object(&mut self, pid: u32, fd: i32) -> Option<Seen> {
        let path = PathBuf::from(format!("/proc/{pid}/fd/{fd}"));
        let link = fs::read_link(&path).ok()?;
        let flags = flags_of(pid, fd).unwrap_or_default();
        let mut seen = describe(&path, &link, flags)?;
        if seen.kind == Kind::Socket {
            seen.kind = socket_kind(pid, fd).unwrap_or(Kind::Socket);
        }
        seen.writable = flags & ACCESS_MODE != libc::O_RDONLY;
        seen.cloexec = flags & libc::O_CLOEXEC != 0;
        seen.appends = flags & libc::O_APPEND != 0;
        seen.looked_ns = now_ns();
        Some(seen)
    }

    fn mappings(&mut self, pid: u32) -> Vec<MappedFile> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        maps.lines().filter_map(mapped_file).collect()
    }

    fn memory(&mut self, pid: u32, address: u64, into: &mut [u8]) -> bool {
        File::open(format!("/proc/{pid}/mem"))
            .and_then(|memory| memory.read_exact_at(into, address))
            .is_ok()
    }

    fn unchanged(&mut self, source: &Object, sink: &Object) -> Option<bool> {
        compare::unchanged(source, sink)
    }
}

/// The descriptors of a process now: what it has open before any of its calls is seen.
pub(super) fn descriptors(pid: u32) -> Vec<(i32, Seen)> {
    let numbers = fs::read_dir(format!("/proc/{pid}/fd"));
    let numbers = numbers.into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let found = numbers.take(DESCRIPTORS_AT_MOST).map(|fd: i32| {
        let seen = Procfs::default().object(pid, fd)?;
        Some((fd, seen))
    });
    found.flatten().collect()
}

/// The clock of the records.
fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// A process and all that it started, as far as they are still its own.
pub fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(&parent) = family.get(at) {
        at += 1;
        for child in children(parent) {
            if !family.contains(&child) {
                family.push(child);
            }
        }
    }
    family
}

fn children(pid: u32) -> Vec<u32> {
    threads(pid)
        .into_iter()
        .filter_map(|tid| fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).ok())
        .flat_map(|list| {
            let numbers = list.split_ascii_whitespace();
            numbers.filter_map(|n| n.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}

/// The threads of a process now.
pub(super) fn threads(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let names = tasks
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    names
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect()
}

/// The process that a thread belongs to: its own number for a process, `None` if there is neither.
pub fn process_of(tid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}

/// The name of a process.
pub fn name_of(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// The `O_` flags of a descriptor.
fn flags_of(pid: u32, fd: i32) -> Option<i32> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let octal = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    i32::from_str_radix(octal.trim(), 8).ok()
}

/// What the link of a descriptor leads to.
fn describe(path: &Path, link: &Path, flags: i32) -> Option<Seen> {
    let text = link.to_string_lossy();
    if text.starts_with("anon_inode:") {
        return Some(Seen {
            kind: Kind::Event,
            ..Seen::default()
        });
    }
    let stat = rustix::fs::stat(path).ok()?;
    let mut seen = Seen {
        file: Some(FileId {
            device: (
                rustix::fs::major(stat.st_dev),
                rustix::fs::minor(stat.st_dev),
            ),
            inode: stat.st_ino,
        }),
        ..Seen::default()
    };
    seen.kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => regular_kind(path, &text, flags, &mut seen),
        FileType::Directory => Kind::Directory,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::CharacterDevice => character_kind(stat.st_rdev),
        FileType::Fifo => {
            seen.pipe = Some(stat.st_ino);
            Kind::Pipe
        }
        FileType::Socket => Kind::Socket,
        _ => Kind::Unknown,
    };
    if text.starts_with('/') {
        let name = text.strip_suffix(" (deleted)").unwrap_or(&text);
        seen.name = Some(name.to_owned());
    }
    if seen.kind.is_stored() {
        seen.bytes = u64::try_from(stat.st_size).ok();
    }
    Some(seen)
}

fn regular_kind(path: &Path, text: &str, flags: i32, seen: &mut Seen) -> Kind {
    if text.starts_with("/memfd:") {
        return Kind::Memfd;
    }
    let system = rustix::fs::statfs(path).map_or(0, |system| system.f_type as u64);
    if GENERATED.contains(&system) {
        return Kind::Generated;
    }
    seen.shares_blocks = SHARING.contains(&system);
    if flags & libc::O_DIRECT != 0 && is_direct(path) {
        return Kind::DirectFile;
    }
    Kind::File
}

/// `O_DIRECT` is taken and ignored by file systems that do not say how it has to be aligned.
/// Before Linux 6.1 none says so, and then the flag is believed.
fn is_direct(path: &Path) -> bool {
    let asked = StatxFlags::DIOALIGN;
    rustix::fs::statx(CWD, path, AtFlags::empty(), asked).map_or(true, |statx| {
        let answered = StatxFlags::from_bits_retain(statx.stx_mask).contains(asked);
        (answered && statx.stx_dio_offset_align > 0) || !kernel_knows_dio_alignment()
    })
}

fn kernel_knows_dio_alignment() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 1)
}

fn character_kind(device: u64) -> Kind {
    match (rustix::fs::major(device), rustix::fs::minor(device)) {
        (1, 3) => Kind::Null,
        (1, 5) => Kind::Zero,
        (4 | 5 | 136..=143, _) => Kind::Terminal,
        _ => Kind::Device,
    }
}

/// The family of a socket: asked of a duplicate of the descriptor, which lives for as long as the
/// question takes.
fn socket_kind(pid: u32, fd: i32) -> Option<Kind> {
    let socket = duplicate(pid, fd)?;
    let domain = sockopt::socket_domain(&socket).ok()?;
    if domain == AddressFamily::UNIX {
        return Some(Kind::Unix);
    }
    if domain != AddressFamily::INET && domain != AddressFamily::INET6 {
        return Some(Kind::Socket);
    }
    let protocol = sockopt::socket_protocol(&socket).ok()?;
    Some(match sockopt::socket_type(&socket).ok()? {
        SocketType::STREAM if protocol == Some(ipproto::TCP) => Kind::Tcp,
        SocketType::DGRAM => Kind::Udp,
        _ => Kind::Socket,
    })
}

fn duplicate(pid: u32, fd: i32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
    rustix::process::pidfd_getfd(process, fd, PidfdGetfdFlags::empty()).ok()
}

/// A line of `/proc/PID/maps`:
/// `7f00-7f10 r-xp 00000000 08:01 1234    /usr/lib/libc.so.6`.
fn mapped_file(line: &str) -> Option<MappedFile> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let (major, minor) = fields.nth(1)?.split_once(':')?;
    let inode: u64 = fields.next()?.parse().ok()?;
    let name = &line[line.find('/')?..];
    let hexadecimal = |text| u32::from_str_radix(text, 16).ok();
    // Shared memory in the guise of files is the program's memory.
    let is_memory = ["/memfd:", "/dev/shm/", "/dev/zero", "/SYSV"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    // What a program may change there is no longer the file's, unless all see it.
    let is_own = permissions.contains('w') && permissions.contains('p');
    if inode == 0 || is_memory || is_own {
        return None;
    }
    Some(MappedFile {
        range: u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?,
        executable: permissions.contains('x'),
        file: Seen {
            kind: Kind::File,
            name: Some(name.to_owned()),
            file: Some(FileId {
                device: (hexadecimal(major)?, hexadecimal(minor)?),
                inode,
            }),
            ..Seen::default()
        },
    })
}

const ACCESS_MODE: i32 = libc::O_ACCMODE;
/// Each takes some ten microseconds; those beyond are looked at when they are used.
const DESCRIPTORS_AT_MOST: usize = 4096;

/// File systems whose files are made when they are read: procfs, sysfs, debugfs, tracefs, both
/// cgroups.
const GENERATED: [u64; 6] = [
    0x9fa0,
    0x6265_6572,
    0x6462_6720,
    0x7472_6163,
    0x0027_e0eb,
    0x6367_7270,
];

/// File systems whose files can share blocks: btrfs, XFS, OCFS2, bcachefs; and those that copy
/// where the files are: NFS, SMB, Ceph.
const SHARING: [u64; 7] = [
    0x9123_683e,
    0x5846_5342,
    0x7461_636f,
    0xca45_1a4e,
    0x6969,
    0xfe53_4d42,
    0x00c3_6400,
];

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    fn own(fd: &impl AsRawFd) -> Seen {
        Procfs::default()
            .object(std::process::id(), fd.as_raw_fd())
            .unwrap()
    }

    #[test]
    fn own_descriptors_are_told_apart() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all(b"12345").unwrap();
        let seen = own(file.as_file());
        assert_eq!((seen.kind, seen.bytes), (Kind::File, Some(5)));
        assert_eq!(seen.name.as_deref(), file.path().to_str());
        assert!(seen.writable && seen.cloexec);

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(own(&listener).kind, Kind::Tcp);
        assert_eq!(
            own(&std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).kind,
            Kind::Udp
        );
        let (left, _right) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(own(&left).kind, Kind::Unix);

        let (reader, writer) = std::io::pipe().unwrap();
        let (reader, writer) = (own(&reader), own(&writer));
        assert_eq!((reader.kind, reader.pipe), (Kind::Pipe, writer.pipe));
        assert!(writer.writable && !reader.writable);

        for (path, kind) in [
            ("/dev/null", Kind::Null),
            ("/dev/zero", Kind::Zero),
            ("/proc/self/stat", Kind::Generated),
            ("/proc", Kind::Directory),
        ] {
            assert_eq!(own(&File::open(path).unwrap()).kind, kind, "{path}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_seen() {
        let mut world = Procfs::default();
        assert!(world.object(std::process::id(), 1_000_000).is_none());
        assert!(world.object(u32::MAX, 0).is_none());
        assert!(world.mappings(u32::MAX).is_empty());
        assert!(!world.memory(std::process::id(), 8, &mut [0; 8]));
    }

    #[test]
    fn own_memory_is_read() {
        let word = 0x1234_5678_9abc_def0_u64;
        let mut bytes = [0; 8];
        let address = std::ptr::from_ref(&word) as u64;
        assert!(Procfs::default().memory(std::process::id(), address, &mut bytes));
        assert_eq!(u64::from_ne_bytes(bytes), word);
    }

    #[test]
    fn mappings_are_read_with_blanks_in_their_names() {
        let line = "7f0000000000-7f0000002000 r--s 00000000 fe:01 1234     /srv/a file";
        let mapped = mapped_file(line).unwrap();
        assert_eq!(mapped.range, 0x7f00_0000_0000..0x7f00_0000_2000);
        assert_eq!(mapped.file.name.as_deref(), Some("/srv/a file"));
        assert_eq!(mapped.file.file.unwrap().device, (0xfe, 1));
        assert!(!mapped.executable);
        assert!(mapped_file("7f00-7f01 rw-p 00000000 fe:01 12 /srv/a").is_none());
        assert!(mapped_file("7f00-7f01 rw-p 00000000 00:00 0 [stack]").is_none());
        assert!(mapped_file("7f00-7f01 rw-s 00000000 00:01 7 /memfd:a (deleted)").is_none());
        assert!(mapped_file("nonsense").is_none());
    }
}
