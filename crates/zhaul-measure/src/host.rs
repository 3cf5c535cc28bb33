//! What the figures were measured on.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The machine, as far as it explains figures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Host {
    /// Release and architecture.
    pub kernel: String,
    /// The processor's own name for itself.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// All memory.
    pub memory_mib: u64,
    /// The type of the file system where the files lie.
    pub file_system: String,
    /// Runnable tasks when the run began: above 1 or so, the figures are disturbed.
    pub load: String,
}

impl Host {
    /// Describes this machine, with files in `dir`.
    pub fn describe(dir: &Path) -> Self {
        let uname = rustix::system::uname();
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let meminfo = read("/proc/meminfo");
        let memory = value_of(&meminfo, "MemTotal");
        let cpuinfo = read("/proc/cpuinfo");
        Self {
            kernel: format!(
                "{} {}",
                uname.release().to_string_lossy(),
                uname.machine().to_string_lossy()
            ),
            cpu: value_of(&cpuinfo, "model name")
                .unwrap_or("unknown")
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            memory_mib: memory
                .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib >> 10),
            file_system: file_system(&read("/proc/self/mounts"), dir),
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

/// The value of a line `name : value`.
fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The type of the deepest mount that `dir` is below.
fn file_system(mounts: &str, dir: &Path) -> String {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (mount, kind) = (Path::new(fields.next()?), fields.next()?);
            dir.starts_with(mount)
                .then(|| (mount.components().count(), kind))
        })
        // The last of equals: it is mounted over the others.
        .max_by_key(|&(depth, _)| depth)
        .map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_system_is_that_of_the_deepest_and_last_mount() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /nowhere/b tmpfs rw 0 0\n\
                      /dev/c /nowhere xfs rw 0 0\n/dev/d /nowhere/b btrfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/nowhere/b/c")), "btrfs");
        assert_eq!(file_system(mounts, Path::new("/nowhere/bc")), "xfs");
        assert_eq!(file_system(mounts, Path::new("/elsewhere")), "ext4");
        assert_eq!(file_system("", Path::new("/elsewhere")), "unknown");
    }

    #[test]
    fn value_is_found_by_its_whole_name() {
        let text = "model\t\t: 17\nmodel name\t: AMD EPYC\n";
        assert_eq!(value_of(text, "model name"), Some("AMD EPYC"));
        assert_eq!(value_of(text, "name"), None);
    }
}
