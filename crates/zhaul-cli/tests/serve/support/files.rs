//! A directory to be served, with files whose age is known.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

/// Longer than the server takes a change for too recent to be sure of (25 ms).
const SETTLE: Duration = Duration::from_millis(40);

/// When files of the tests were last changed: any time long ago.
pub(crate) const LONG_AGO_S: u64 = 1_700_000_000;

/// A temporary directory; `www` in it is the root, so that there is an outside next to it.
pub(crate) struct Files {
    dir: TempDir,
    root: PathBuf,
}

impl Files {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // A server that runs as another user has to get in.
        set_mode(dir.path(), 0o755);
        let root = dir.path().join("www");
        fs::create_dir(&root).unwrap();
        Self { dir, root }
    }

    /// With these files in it, settled.
    pub(crate) fn with(files: &[(&str, &[u8])]) -> Self {
        let all = Self::new();
        for (path, content) in files {
            all.write(path, content);
        }
        settle();
        all
    }

    /// With these files in it as they were written, and the second over in which that was.
    pub(crate) fn written(files: &[(&str, &[u8])]) -> Self {
        let all = Self::new();
        for (path, content) in files {
            let path = all.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        wait_for_the_next_second();
        all
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory around the root.
    pub(crate) fn outside(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// Writes a file, with the directories that lead to it, as if it were old.
    pub(crate) fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        make_old(&path);
        path
    }

    /// Replaces a file as deploy tools do: a new one, renamed over it.
    pub(crate) fn replace(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let new = self.outside().join(".new");
        fs::write(&new, content).unwrap();
        make_old(&new);
        fs::rename(&new, self.path(path)).unwrap();
    }

    pub(crate) fn symlink(&self, target: impl AsRef<Path>, path: impl AsRef<Path>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// Makes `path` a link to `target`, in one step for whoever looks.
    pub(crate) fn switch_symlink(&self, target: impl AsRef<Path>, path: impl AsRef<Path>) {
        let new = self.outside().join(".link");
        symlink(target, &new).unwrap();
        fs::rename(&new, self.path(path)).unwrap();
    }

    pub(crate) fn remove(&self, path: impl AsRef<Path>) {
        fs::remove_file(self.path(path)).unwrap();
    }

    /// Writes over the front of a file and leaves everything else of it as it is.
    pub(crate) fn edit(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new()
            .write(true)
            .open(self.path(path))
            .unwrap();
        file.write_all(content.as_ref()).unwrap();
    }
}

/// Sets mtime back, so that Last-Modified can be trusted at once.
pub(crate) fn make_old(path: impl AsRef<Path>) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(LONG_AGO_S);
    let times = FileTimes::new().set_modified(time).set_accessed(time);
    File::open(path).unwrap().set_times(times).unwrap();
}

/// Waits until what was just written is of a second that is over.
pub(crate) fn wait_for_the_next_second() {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let rest = Duration::from_secs(now.as_secs() + 1) - now;
    std::thread::sleep(rest + SETTLE);
}

pub(crate) fn set_mode(path: impl AsRef<Path>, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Waits until the last change lies so far back that the server keeps what it loads.
pub(crate) fn settle() {
    std::thread::sleep(SETTLE);
}

/// Bytes of which any two places can be told apart: each eight tell where they stand.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    let mut place = 0_u64;
    while bytes.len() < len {
        let mixed = place.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bytes.extend_from_slice(&mixed.to_le_bytes());
        place += 1;
    }
    bytes.truncate(len);
    bytes
}
