//! The block device that holds a directory.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::bail;

/// A whole disk: the controllers throttle disks, not partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    major: u32,
    minor: u32,
}

impl Device {
    /// Fails for file systems without a device of their own (tmpfs, overlay, Btrfs, network).
    pub(crate) fn holding(dir: &Path) -> anyhow::Result<Self> {
        let number = fs::metadata(dir)?.dev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let sys = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        if !sys.exists() {
            bail!(
                "{} is not on a block device (device {major}:{minor})",
                dir.display()
            );
        }
        if !sys.join("partition").exists() {
            return Ok(Self { major, minor });
        }
        let disk = fs::canonicalize(&sys)?.join("../dev");
        let (major, minor) = parse(&fs::read_to_string(disk)?)?;
        Ok(Self { major, minor })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

fn parse(text: &str) -> anyhow::Result<(u32, u32)> {
    match text.trim().split_once(':') {
        Some((major, minor)) => Ok((major.parse()?, minor.parse()?)),
        None => bail!("not a device number: {text}"),
    }
}

#[cfg(test)]
impl Device {
    pub(super) fn for_tests() -> Self {
        Self {
            major: 254,
            minor: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_number_is_parsed() {
        assert_eq!(parse("254:0\n").unwrap(), (254, 0));
        assert!(parse("254").is_err());
    }

    #[test]
    fn procfs_is_on_no_device() {
        let error = Device::holding(Path::new("/proc")).unwrap_err().to_string();
        assert!(error.contains("not on a block device"), "{error}");
    }
}
