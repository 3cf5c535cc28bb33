//! A directory in which the mechanisms of its file system are tried, and the file to try them on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::pattern;
use super::scratch;
use super::seen::Seen;
use super::trouble::{Trouble, described};

/// A directory.
#[derive(Debug)]
pub(super) struct Place {
    /// The path that was asked about.
    pub(super) path: PathBuf,
    /// The directory: the path itself, or the one that the file lies in.
    pub(super) directory: PathBuf,
    dir: OwnedFd,
    /// The regular file that was named.
    file: Option<OwnedFd>,
}

/// What the mechanisms are tried on.
#[derive(Debug)]
pub(super) struct Subject {
    dir: OwnedFd,
    /// Open for reading, and for writing if it is ours.
    file: Option<OwnedFd>,
    /// What is in it, from its start.
    pub(super) content: Vec<u8>,
    /// Why it is a file that was there already, or none at all.
    pub(super) not_writable: Option<String>,
    /// Name of the file that was there.
    pub(super) read_from: Option<String>,
}

impl Place {
    /// Looks where the path is; a path to a file stands for the directory that it lies in.
    ///
    /// # Errors
    /// As `open(2)`.
    pub(super) fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let named = rustix::fs::open(path, flags, Mode::empty())?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&named)?.st_mode);
        if kind == FileType::Directory {
            return Ok(Self {
                path: path.to_owned(),
                directory: path.to_owned(),
                dir: named,
                file: None,
            });
        }
        let real = std::fs::canonicalize(path).map_err(|e| super::trouble::errno_of(&e))?;
        let directory = real.parent().unwrap_or(Path::new("/")).to_owned();
        let dir = rustix::fs::open(&directory, flags | OFlags::DIRECTORY, Mode::empty())?;
        let file = (kind == FileType::RegularFile).then(|| scratch::reopen(named.as_fd(), READ));
        Ok(Self {
            path: path.to_owned(),
            directory,
            dir,
            file: file.and_then(Result::ok),
        })
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// A file of our own with the pattern in it; where that cannot be made, one that is there.
    pub(super) fn subject(self) -> Subject {
        let content = pattern::bytes(pattern::ALL);
        let written = scratch::in_directory(self.dir())
            .map_err(|errno| format!("no file can be made there: {}", described(errno)))
            .and_then(|file| match scratch::write_all(file.as_fd(), content) {
                Ok(()) => Ok(file),
                Err(errno) => Err(format!(
                    "no file can be written there: {}",
                    described(errno)
                )),
            });
        match written {
            Ok(file) => Subject {
                dir: self.dir,
                file: Some(file),
                content: content.to_vec(),
                not_writable: None,
                read_from: None,
            },
            Err(why) => self.existing(why),
        }
    }

    /// A file that is there: the one that was named, or another one of the directory. Reading files
    /// that the kernel makes up may do anything, so none of those is taken.
    fn existing(self, why: String) -> Subject {
        let found = if is_made_up(self.dir.as_fd()) {
            None
        } else {
            let named = self
                .file
                .map(|file| (self.path.display().to_string(), file));
            named.or_else(|| some_file(self.dir.as_fd()))
        };
        let content = found
            .as_ref()
            .and_then(|(_, file)| scratch::content_of(file.as_fd(), pattern::FEW).ok())
            .unwrap_or_default();
        let found = found.filter(|_| !content.is_empty());
        let (read_from, file) = found.unzip();
        Subject {
            dir: self.dir,
            file,
            content,
            not_writable: Some(why),
            read_from,
        }
    }
}

impl Subject {
    /// A file to read from.
    ///
    /// # Errors
    /// That there is none.
    pub(super) fn readable(&self) -> Result<BorrowedFd<'_>, Trouble> {
        self.file.as_ref().map(AsFd::as_fd).ok_or_else(|| {
            let why = self.not_writable.as_deref().unwrap_or("no file");
            Seen::unknown(
                "nothing to try it on",
                format!("{why}, and there is none to read"),
            )
            .into()
        })
    }

    /// A file of our own, which may be written.
    ///
    /// # Errors
    /// That nothing can be written.
    pub(super) fn writable(&self) -> Result<BorrowedFd<'_>, Trouble> {
        match &self.not_writable {
            None => self.readable(),
            Some(why) => Err(Seen::unknown("nothing can be written there", why.clone())
                .remedy("name a path that can be written to")
                .into()),
        }
    }

    /// Another empty file of our own.
    ///
    /// # Errors
    /// That it cannot be made.
    pub(super) fn another(&self) -> Result<OwnedFd, Trouble> {
        scratch::in_directory(self.dir.as_fd())
            .map_err(|errno| Trouble::Needs("open with O_TMPFILE", errno))
    }
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK);

/// A regular file that can be read and is not empty, one of the first entries.
fn some_file(dir: BorrowedFd<'_>) -> Option<(String, OwnedFd)> {
    let flags = READ | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listing = rustix::fs::openat(dir, ".", flags, Mode::empty()).ok()?;
    let mut entries = rustix::fs::Dir::new(listing).ok()?;
    for _ in 0..MAX_ENTRIES {
        let entry = entries.read()?.ok()?;
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let wanted = StatxFlags::TYPE | StatxFlags::SIZE;
        let Ok(stat) = rustix::fs::statx(dir, entry.file_name(), flags, wanted) else {
            continue;
        };
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        if kind != FileType::RegularFile || stat.stx_size == 0 {
            continue;
        }
        let flags = READ | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        if let Ok(file) = rustix::fs::openat(dir, entry.file_name(), flags, Mode::empty()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            return Some((name, file));
        }
    }
    None
}

const MAX_ENTRIES: usize = 256;

fn is_made_up(dir: BorrowedFd<'_>) -> bool {
    let Ok(statfs) = rustix::fs::fstatfs(dir) else {
        return true;
    };
    #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    let magic = statfs.f_type as u32;
    MADE_UP.contains(&magic)
}

/// linux/magic.h: proc, sysfs, cgroup, cgroup2, debugfs, tracefs, securityfs, configfs, bpf, efivarfs,
/// pstore, selinuxfs, devpts, fusectl, binderfs, mqueue, rpc_pipefs, smackfs, nsfs.
const MADE_UP: [u32; 19] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x6265_6570,
    0xcafe_4a11,
    0xde5e_81e4,
    0x6165_676c,
    0xf97c_ff8c,
    0x1cd1,
    0x6573_5543,
    0x6c6f_6f70,
    0x1980_0202,
    0x6759_6969,
    0x4341_5d53,
    0x6e73_6673,
];
