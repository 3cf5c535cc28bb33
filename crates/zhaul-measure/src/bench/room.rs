//! Whether files of a size fit: on the disk, in memory, and below what the kernel lets be dirty.
//!
//! A file that does not stay in the page cache would measure the disk. One that dirties more than
//! the kernel's limit makes its writer wait for the disk, which would measure it as well.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::size;

/// What there is, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    disk: u64,
    memory: u64,
    dirty: u64,
    file: u64,
}

impl Room {
    /// The room where `file` lies.
    pub(super) fn around(file: impl AsFd) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let disk = rustix::fs::fstatvfs(&file)
            .map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        let available = meminfo_bytes(&read("/proc/meminfo"), "MemAvailable");
        let cgroup = Path::new("/sys/fs/cgroup");
        let allowed = cgroup_memory_bytes(cgroup, &read("/proc/self/cgroup"));
        let memory = available.min(allowed);
        let setting = |name: &str| read(&format!("/proc/sys/vm/{name}")).trim().parse().ok();
        Self {
            disk,
            memory,
            dirty: if is_in_memory(&file) {
                u64::MAX
            } else {
                dirty_bytes(memory, &setting)
            },
            file: rustix::process::getrlimit(rustix::process::Resource::Fsize)
                .current
                .unwrap_or(u64::MAX),
        }
    }

    /// What speaks against a file of `bytes` in the page cache beside others of `beside` in all.
    pub(super) fn refuses(&self, bytes: u64, beside: u64) -> Option<String> {
        let needed = bytes.saturating_add(beside);
        if bytes > self.file {
            return Some(format!(
                "files may have {} at most (raise ulimit -f)",
                size::format(self.file)
            ));
        }
        if needed > self.disk {
            return Some(format!(
                "it needs {} MiB of space, and {} MiB are free (name another --dir)",
                needed >> 20,
                self.disk >> 20
            ));
        }
        // The rest is for everybody else: a page cache that is full gives pages up.
        if needed > self.memory / 4 * 3 {
            return Some(format!(
                "it needs {} MiB of page cache, and {} MiB of memory are available",
                needed >> 20,
                self.memory >> 20
            ));
        }
        None
    }

    /// What speaks against writing so much into a file without waiting for its disk.
    pub(super) fn refuses_to_dirty(&self, bytes: u64) -> Option<String> {
        (bytes > self.dirty).then(|| {
            format!(
                "the kernel makes a writer wait for the disk from {} MiB of dirty pages on \
                 (name a --dir in memory, such as /dev/shm)",
                self.dirty >> 20
            )
        })
    }

    /// The most that a sample of small transfers may write.
    pub(super) fn most_to_write(&self) -> u64 {
        (self.dirty / 2)
            .min(self.disk / 4)
            .min(self.memory / 8)
            .min(self.file)
    }
}

/// True on tmpfs, where nothing is ever written back.
fn is_in_memory(file: impl AsFd) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    const RAMFS_MAGIC: u64 = 0x8584_58f6;
    // The type of f_type differs between C libraries; the numbers are 32 bits wide.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
    rustix::fs::fstatfs(file)
        .is_ok_and(|stat| matches!(stat.f_type as u64 & 0xffff_ffff, TMPFS_MAGIC | RAMFS_MAGIC))
}

/// Up to here nobody waits: the middle between the limit where writing back begins and the one
/// where writers stop (`dirty_freerun_ceiling`).
fn dirty_bytes(memory: u64, setting: &dyn Fn(&str) -> Option<u64>) -> u64 {
    let limit = |bytes: &str, ratio: &str, default: u64| match setting(bytes) {
        Some(bytes) if bytes > 0 => bytes,
        _ => memory / 100 * setting(ratio).unwrap_or(default),
    };
    let background = limit("dirty_background_bytes", "dirty_background_ratio", 10);
    let stop = limit("dirty_bytes", "dirty_ratio", 20);
    u64::midpoint(background.min(stop / 2), stop)
}

fn meminfo_bytes(meminfo: &str, name: &str) -> u64 {
    let value = meminfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key == name).then(|| value.trim().split(' ').next()?.parse::<u64>().ok())?
    });
    value.map_or(u64::MAX, |kib| kib << 10)
}

/// What the control group of this process, and those above it, leave of memory.
fn cgroup_memory_bytes(root: &Path, own: &str) -> u64 {
    let Some(own) = own.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return u64::MAX;
    };
    let mut group: PathBuf = root.join(own);
    let mut least = u64::MAX;
    while group.starts_with(root) {
        let value = |name: &str| {
            let text = fs::read_to_string(group.join(name)).ok()?;
            text.trim().parse::<u64>().ok()
        };
        if let Some(max) = value("memory.max") {
            // The page cache of earlier runs counts as used, and can be had again.
            least = least.min(max);
        }
        if !group.pop() {
            break;
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room {
        disk: 10 << 30,
        memory: 4 << 30,
        dirty: 600 << 20,
        file: 1 << 40,
    };

    #[test]
    fn what_does_not_fit_is_refused_with_figures_and_remedy() {
        assert_eq!(ROOM.refuses(1 << 30, 1 << 30), None);
        let memory = ROOM.refuses(2 << 30, 2 << 30).unwrap();
        assert!(memory.contains("4096 MiB of page cache"), "{memory}");
        let disk = ROOM.refuses(9 << 30, 2 << 30).unwrap();
        assert!(
            disk.contains("10240 MiB are free (name another --dir)"),
            "{disk}"
        );
        let limited = Room {
            file: 1 << 20,
            ..ROOM
        };
        assert!(limited.refuses(2 << 20, 0).unwrap().contains("ulimit -f"));
        assert_eq!(ROOM.refuses_to_dirty(512 << 20), None);
        assert!(ROOM.refuses_to_dirty(1 << 30).unwrap().contains("600 MiB"));
    }

    #[test]
    fn writers_run_freely_up_to_the_middle_of_both_limits() {
        let ratios = |name: &str| match name {
            "dirty_background_ratio" => Some(10),
            "dirty_ratio" => Some(20),
            _ => Some(0),
        };
        assert_eq!(dirty_bytes(1000 << 20, &ratios), (1000 << 20) / 100 * 15);
        let absolute = |name: &str| match name {
            "dirty_background_bytes" => Some(100 << 20),
            "dirty_bytes" => Some(300 << 20),
            _ => None,
        };
        assert_eq!(dirty_bytes(u64::MAX, &absolute), 200 << 20);
    }

    #[test]
    fn the_tightest_control_group_above_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("a/memory.max"), "1048576\n").unwrap();
        assert_eq!(cgroup_memory_bytes(root.path(), "0::/a/b\n"), 1 << 20);
        assert_eq!(cgroup_memory_bytes(root.path(), "0::/\n"), u64::MAX);
        assert_eq!(cgroup_memory_bytes(root.path(), "3:cpu:/a\n"), u64::MAX);
    }

    #[test]
    fn memory_that_is_available_is_found() {
        let text = "MemTotal: 24684000 kB\nMemAvailable:   1024 kB\n";
        assert_eq!(meminfo_bytes(text, "MemAvailable"), 1 << 20);
        assert_eq!(meminfo_bytes("", "MemAvailable"), u64::MAX);
    }
}
