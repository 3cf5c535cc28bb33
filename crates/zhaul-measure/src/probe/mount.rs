//! Which file system a directory lies on, and where that is mounted.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, StatxFlags};

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Type of the file system, such as `ext4`.
    pub(super) kind: String,
    pub(super) point: Option<String>,
}

/// The mount that an open directory lies on: by its mount id, or, without /proc, only the type by
/// the number that `statfs(2)` gives.
pub(super) fn mount_of(dir: BorrowedFd<'_>) -> Mount {
    let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    let stat = rustix::fs::statx(dir, "", flags, StatxFlags::MNT_ID);
    let id = stat
        .ok()
        .filter(|stat| stat.stx_mask & StatxFlags::MNT_ID.bits() != 0)
        .map(|stat| stat.stx_mnt_id);
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    id.and_then(|id| find(&table, id)).unwrap_or_else(|| Mount {
        kind: by_number(dir),
        point: None,
    })
}

/// The line `id parent major:minor root point options [tags] - type source options`.
fn find(table: &str, id: u64) -> Option<Mount> {
    let line = table.lines().find(|line| {
        let number = line.split(' ').next().and_then(|text| text.parse().ok());
        number == Some(id)
    })?;
    let point = unescaped(line.split(' ').nth(4)?);
    let (_, behind) = line.split_once(" - ")?;
    Some(Mount {
        kind: behind.split(' ').next()?.to_owned(),
        point: Some(point),
    })
}

/// Blanks and the like are written as three octal digits behind a backslash.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let code = (byte == b'\\')
            .then(|| behind.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &behind[3..];
            }
            None => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn by_number(dir: BorrowedFd<'_>) -> String {
    let Ok(statfs) = rustix::fs::fstatfs(dir) else {
        return "unknown".into();
    };
    #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    let magic = statfs.f_type as u32;
    let known = NUMBERS.iter().find(|&&(number, _)| number == magic);
    known.map_or_else(|| format!("type {magic:#x}"), |&(_, name)| name.to_owned())
}

/// linux/magic.h
const NUMBERS: [(u32, &str); 12] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x794c_7630, "overlay"),
    (0x6969, "nfs"),
    (0x6573_5546, "fuse"),
    (0xf2f5_2010, "f2fs"),
    (0x2fc1_2fc1, "zfs"),
    (0xca45_1a4e, "bcachefs"),
    (0x0102_1997, "9p"),
    (0xe0f5_e1e2, "erofs"),
];

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    const TABLE: &str = "\
25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
31 25 0:29 / /a\\040b\\134 rw master:3 propagate_from:2 - tmpfs none rw,size=4k
";

    #[test]
    fn a_mount_is_found_by_its_id_with_its_blanks() {
        let found = find(TABLE, 31).unwrap();
        assert_eq!(found.kind, "tmpfs");
        assert_eq!(found.point.unwrap(), "/a b\\");
        assert_eq!(find(TABLE, 25).unwrap().point.unwrap(), "/");
        assert_eq!(find(TABLE, 3), None);
        assert_eq!(find("7", 7), None);
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(unescaped("a\\"), "a\\");
        assert_eq!(unescaped("\\9zz\\04"), "\\9zz\\04");
        assert_eq!(unescaped("\\777é"), "\\777é");
    }

    #[test]
    fn proc_is_proc() {
        let Ok(dir) = std::fs::File::open("/proc") else {
            zhaul_untested::skip("proc_is_proc", "no /proc");
            return;
        };
        let mount = mount_of(dir.as_fd());
        assert_eq!(
            (mount.kind.as_str(), mount.point.as_deref()),
            ("proc", Some("/proc"))
        );
    }
}
