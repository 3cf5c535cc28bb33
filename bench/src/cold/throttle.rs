//! A cgroup whose processes read one disk slowly, by blkio (v1) or io (v2).
//!
//! Contract: the cgroup is new and is removed on drop, after the processes in it have ended. If the
//! io controller had to be enabled for the v2 root's children, that is undone as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::Pid;
use serde::Serialize;

use super::device::Device;

/// How slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Limits {
    pub(crate) read_bytes_per_second: u64,
    pub(crate) reads_per_second: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Version {
    V1,
    V2,
}

#[derive(Debug)]
pub(crate) struct Throttle {
    dir: PathBuf,
    version: Version,
    device: Device,
    /// The subtree_control in which `+io` has to be taken back.
    enabled_in: Option<PathBuf>,
}

impl Throttle {
    pub(crate) fn create(device: &Device, limits: Limits) -> anyhow::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let (version, root) = controller(&mounts, |root| {
            fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default()
        })
        .context("no cgroup controller for block I/O (blkio or io)")?;
        let enabled_in = if version == Version::V2 {
            enable_io(&root)?
        } else {
            None
        };
        let dir = root.join(format!("zhaul-bench-{}", std::process::id()));
        // From here on, dropping undoes what has been done.
        let throttle = Self {
            dir,
            version,
            device: device.clone(),
            enabled_in,
        };
        match fs::create_dir(&throttle.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error)
                    .with_context(|| format!("cannot create {}", throttle.dir.display()));
            }
            _ => {}
        }
        for (file, line) in settings(version, device, limits) {
            let path = throttle.dir.join(file);
            fs::write(&path, &line)
                .with_context(|| format!("cannot write \"{line}\" to {}", path.display()))?;
        }
        Ok(throttle)
    }

    /// Moves a process with all its threads into the cgroup.
    pub(crate) fn add(&self, pid: Pid) -> anyhow::Result<()> {
        let path = self.dir.join("cgroup.procs");
        fs::write(&path, pid.as_raw_nonzero().to_string())
            .with_context(|| format!("cannot write to {}", path.display()))
    }

    /// Reads from the disk by the cgroup since its creation.
    pub(crate) fn reads(&self) -> anyhow::Result<u64> {
        let file = match self.version {
            Version::V1 => "blkio.throttle.io_serviced",
            Version::V2 => "io.stat",
        };
        Ok(parse_reads(
            &fs::read_to_string(self.dir.join(file))?,
            self.version,
            &self.device,
        ))
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        // A killed process leaves its cgroup only when it has really ended.
        let deadline = Instant::now() + REMOVE_LIMIT;
        while fs::remove_dir(&self.dir).is_err() && self.dir.exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(control) = &self.enabled_in {
            // Fails if somebody else has come to rely on it: then it has to stay.
            let _ = fs::write(control, "-io");
        }
    }
}

/// The first usable controller in /proc/self/mounts; `controllers` reads those of a v2 root.
fn controller(mounts: &str, controllers: impl Fn(&Path) -> String) -> Option<(Version, PathBuf)> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (root, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let root = PathBuf::from(root);
        let version = match kind {
            "cgroup" if options.split(',').any(|option| option == "blkio") => Version::V1,
            "cgroup2"
                if controllers(&root)
                    .split_whitespace()
                    .any(|name| name == "io") =>
            {
                Version::V2
            }
            _ => return None,
        };
        Some((version, root))
    })
}

fn enable_io(root: &Path) -> anyhow::Result<Option<PathBuf>> {
    let control = root.join("cgroup.subtree_control");
    if fs::read_to_string(&control)?
        .split_whitespace()
        .any(|name| name == "io")
    {
        return Ok(None);
    }
    fs::write(&control, "+io")
        .with_context(|| format!("cannot enable io in {}", root.display()))?;
    Ok(Some(control))
}

fn settings(version: Version, device: &Device, limits: Limits) -> Vec<(&'static str, String)> {
    let bytes = limits.read_bytes_per_second;
    match version {
        Version::V1 => {
            let mut files = vec![(
                "blkio.throttle.read_bps_device",
                format!("{device} {bytes}"),
            )];
            if let Some(reads) = limits.reads_per_second {
                files.push((
                    "blkio.throttle.read_iops_device",
                    format!("{device} {reads}"),
                ));
            }
            files
        }
        Version::V2 => {
            let reads = limits
                .reads_per_second
                .map_or_else(String::new, |n| format!(" riops={n}"));
            vec![("io.max", format!("{device} rbps={bytes}{reads}"))]
        }
    }
}

fn parse_reads(text: &str, version: Version, device: &Device) -> u64 {
    let device = device.to_string();
    text.lines()
        .filter_map(|line| line.strip_prefix(&device)?.strip_prefix(' '))
        .find_map(|fields| match version {
            Version::V1 => fields.strip_prefix("Read ")?.trim().parse().ok(),
            Version::V2 => fields
                .split(' ')
                .find_map(|field| field.strip_prefix("rios="))?
                .parse()
                .ok(),
        })
        .unwrap_or(0)
}

/// Whether this process may try at all; the reason if not.
pub(crate) fn permitted() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("throttling a disk needs root");
    }
    Ok(())
}

const REMOVE_LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        read_bytes_per_second: 40_000_000,
        reads_per_second: Some(200),
    };

    #[test]
    fn blkio_is_found_among_v1_mounts_and_io_among_v2_roots() {
        let v1 = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /c/cpu cgroup rw,cpu 0 0\n\
                  cgroup /c/blkio cgroup rw,relatime,blkio 0 0\ncgroup2 /c/u cgroup2 rw 0 0\n";
        let none = |_: &Path| String::new();
        assert_eq!(controller(v1, none), Some((Version::V1, "/c/blkio".into())));
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";
        assert_eq!(controller(v2, none), None);
        let found = controller(v2, |_| "cpu io memory\n".into());
        assert_eq!(found, Some((Version::V2, "/sys/fs/cgroup".into())));
    }

    #[test]
    fn limits_are_written_in_each_versions_words() {
        let device = Device::for_tests();
        assert_eq!(
            settings(Version::V1, &device, LIMITS),
            [
                (
                    "blkio.throttle.read_bps_device",
                    format!("{device} 40000000")
                ),
                ("blkio.throttle.read_iops_device", format!("{device} 200")),
            ]
        );
        assert_eq!(
            settings(Version::V2, &device, LIMITS),
            [("io.max", format!("{device} rbps=40000000 riops=200"))]
        );
        let unlimited = Limits {
            reads_per_second: None,
            ..LIMITS
        };
        assert_eq!(settings(Version::V1, &device, unlimited).len(), 1);
    }

    #[test]
    fn reads_are_those_of_the_device() {
        let device = Device::for_tests();
        let v1 = format!("9{device} Read 7\n{device} Read 12\n{device} Write 3\nTotal 15\n");
        assert_eq!(parse_reads(&v1, Version::V1, &device), 12);
        let v2 = format!("9{device} rios=7\n{device} rbytes=4096 wbytes=0 rios=12 wios=0\n");
        assert_eq!(parse_reads(&v2, Version::V2, &device), 12);
        assert_eq!(parse_reads("", Version::V1, &device), 0);
    }
}
