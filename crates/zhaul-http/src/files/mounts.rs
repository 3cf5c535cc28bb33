//! What is mounted where, by `/proc/self/mountinfo`, and what may keep a caller waiting.
//!
//! `statfs(2)` would tell a file system's kind, too, but asks the very server or daemon that may not
//! answer. The table of mounts never waits for one.
//!
//! Pure: text in, answers out.

use std::collections::HashMap;

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    id: u64,
    parent: u64,
    device: Device,
    point: Vec<u8>,
    is_remote: bool,
}

/// The device number of a file system, which its mounts share.
pub(crate) type Device = (u32, u32);

/// Everything that is mounted in this process's namespace.
#[derive(Debug, Default)]
pub(crate) struct MountTable {
    mounts: Vec<Mount>,
    by_id: HashMap<u64, usize>,
}

impl MountTable {
    /// Reads the text of `/proc/self/mountinfo` (proc_pid_mountinfo(5)); lines that it cannot make
    /// sense of are left out.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let mut table = Self::default();
        let mut layers = Vec::new();
        for line in text.split(|&byte| byte == b'\n') {
            let Some((mount, below)) = parse_line(line) else {
                continue;
            };
            layers.push(below);
            table.by_id.insert(mount.id, table.mounts.len());
            table.mounts.push(mount);
        }
        // A stacked file system is as remote as what it is stacked upon.
        for (index, below) in layers.iter().enumerate() {
            let remote = below
                .iter()
                .any(|dir| table.of_path(dir).is_some_and(|mount| mount.is_remote));
            table.mounts[index].is_remote |= remote;
        }
        table
    }

    /// Whether there is nothing to go by.
    pub(crate) fn is_empty(&self) -> bool {
        self.mounts.is_empty()
    }

    /// Whether anything is mounted that may keep a caller waiting.
    pub(crate) fn has_remote(&self) -> bool {
        self.mounts.iter().any(|mount| mount.is_remote)
    }

    /// Whether something of that kind lies below a directory.
    pub(crate) fn has_remote_below(&self, dir: &[u8]) -> bool {
        let mut remote = self.mounts.iter().filter(|mount| mount.is_remote);
        remote.any(|mount| is_below(&mount.point, dir))
    }

    /// The file system of a mount.
    pub(crate) fn device(&self, id: u64) -> Option<Device> {
        Some(self.mounts[*self.by_id.get(&id)?].device)
    }

    /// Whether a walk from a directory in the mount `from` to a file in the mount `id` passes
    /// something that may keep it waiting. What is not in the table may.
    pub(crate) fn is_remote(&self, id: u64, from: u64) -> bool {
        let mut at = id;
        // As many steps as there are mounts, should the table be inconsistent.
        for _ in 0..=self.mounts.len() {
            let Some(mount) = self.by_id.get(&at).map(|&index| &self.mounts[index]) else {
                return at == id;
            };
            if mount.is_remote {
                return true;
            }
            if at == from || mount.parent == at {
                return false;
            }
            at = mount.parent;
        }
        false
    }

    /// The file system that a path leads to, links aside, and whether it may keep a caller waiting.
    pub(crate) fn at(&self, path: &[u8]) -> Option<(Device, bool)> {
        let mount = self.of_path(path)?;
        Some((mount.device, mount.is_remote))
    }

    /// Of several mounts on one point the last one is seen.
    fn of_path(&self, path: &[u8]) -> Option<&Mount> {
        let mounts = self.mounts.iter();
        mounts
            .filter(|mount| is_below(path, &mount.point))
            .max_by_key(|mount| mount.point.len())
    }

    /// Devices that something is mounted from.
    pub(crate) fn devices(&self) -> impl Iterator<Item = Device> {
        self.mounts.iter().map(|mount| mount.device)
    }
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/root rw,errors=continue`, and the
/// directories that the file system is stacked upon.
fn parse_line(line: &[u8]) -> Option<(Mount, Vec<Vec<u8>>)> {
    let is_space = |byte: &u8| *byte == b' ';
    let dash = line.windows(3).position(|three| three == b" - ")?;
    let mut front = line[..dash].split(is_space);
    let mut text = || std::str::from_utf8(front.next()?).ok();
    let id = text()?.parse().ok()?;
    let parent = text()?.parse().ok()?;
    let (major, minor) = text()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    // Names are bytes, in whatever encoding.
    let point = unescape(front.nth(1)?);
    let mut back = line[dash + 3..].split(is_space);
    let kind = std::str::from_utf8(back.next()?).ok()?;
    let options = back.nth(1).unwrap_or_default();
    let below = match kind {
        "overlay" | "aufs" | "unionfs" => layers(options),
        _ => Vec::new(),
    };
    let mount = Mount {
        id,
        parent,
        device,
        point,
        is_remote: is_remote(kind),
    };
    Some((mount, below))
}

/// Whether files of this kind of file system are kept by somebody who may not answer: another
/// machine, the host of a guest, or a program on this one.
fn is_remote(kind: &str) -> bool {
    let (kind, _) = kind.split_once('.').unwrap_or((kind, ""));
    REMOTE.contains(&kind)
}

const REMOTE: &[&str] = &[
    "9p",
    "acfs",
    "afs",
    "autofs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "davfs",
    "fuse",
    "fuseblk",
    "gfs2",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "panfs",
    "prl_fs",
    "pvfs2",
    "smb3",
    "smbfs",
    "sshfs",
    "vboxsf",
    "virtiofs",
    "vmhgfs",
    "wekafs",
];

/// Whether `f_type` of statfs(2) is that of a file system that keeps its files on this machine. Of what
/// an overlay is stacked upon nothing is known; containers, where it is most common, have it here.
pub(crate) fn is_local_kind(magic: u64) -> bool {
    LOCAL.contains(&magic)
}

/// linux/magic.h, and of those that are not in there their own headers.
const LOCAL: &[u64] = &[
    0x0000_4d44, // vfat
    0x0000_9660, // iso9660
    0x0000_9fa0, // proc
    0x0000_ef53, // ext2, ext3, ext4
    0x0102_1994, // tmpfs
    0x2011_bab0, // exfat
    0x2fc1_2fc1, // zfs
    0x3153_464a, // jfs
    0x5846_5342, // xfs
    0x6265_6572, // sysfs
    0x7366_746e, // ntfs3
    0x7371_7368, // squashfs
    0x794c_7630, // overlay
    0x8584_58f6, // ramfs
    0x9123_683e, // btrfs
    0xca45_1a4e, // bcachefs
    0xe0f5_e1e2, // erofs
    0xf2f5_2010, // f2fs
];

/// `lowerdir=/a:/b,upperdir=/c`. The paths are as whoever mounted it saw them.
fn layers(options: &[u8]) -> Vec<Vec<u8>> {
    let mut dirs = Vec::new();
    for option in options.split(|&byte| byte == b',') {
        let Some(equals) = option.iter().position(|&byte| byte == b'=') else {
            continue;
        };
        let (name, value) = (&option[..equals], &option[equals + 1..]);
        if matches!(
            name,
            b"lowerdir" | b"upperdir" | b"lowerdir+" | b"datadir+" | b"br" | b"dirs"
        ) {
            let paths = value.split(|&byte| byte == b':');
            let paths = paths.filter(|path| !path.is_empty());
            // aufs writes the rights behind each.
            let path_of = |path: &[u8]| unescape(path.split(|&b| b == b'=').next().unwrap_or(path));
            dirs.extend(paths.map(path_of));
        }
    }
    dirs
}

/// Space, tab, newline and backslash are written in octal.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        let octal = after
            .get(..3)
            .filter(|digits| *byte == b'\\' && digits.iter().all(|d| (b'0'..b'8').contains(d)));
        if let Some(digits) = octal {
            let value = digits
                .iter()
                .fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
            bytes.push(value as u8);
            rest = &after[3..];
        } else {
            bytes.push(*byte);
            rest = after;
        }
    }
    bytes
}

/// Whether `path` is `dir` or lies below it.
fn is_below(path: &[u8], dir: &[u8]) -> bool {
    let dir = dir.strip_suffix(b"/").unwrap_or(dir);
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_another_encoding_is_a_name() {
        let line = b"7 1 0:9 / /srv/caf\xe9 rw - nfs host:/\xe9 rw\n";
        let table = MountTable::parse(line);
        assert_eq!(table.at(b"/srv/caf\xe9/x"), Some(((0, 9), true)));
    }

    const TABLE: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /srv/www/far rw shared:2 - nfs4 10.0.0.1:/x rw,vers=4.2
31 22 0:41 / /srv/a\\040b rw - fuse.sshfs host:/ rw,user_id=0
32 30 8:2 / /srv/www/far/near rw - xfs /dev/sdb1 rw
33 22 0:42 / /over rw - overlay overlay rw,lowerdir=/srv/www/far/l:/usr,upperdir=/u,workdir=/w
34 22 0:43 / /over2 rw - overlay overlay rw,lowerdir=/usr,upperdir=/u,workdir=/w
35 22 0:44 / /tmp rw - tmpfs tmpfs rw
36 35 0:45 / /tmp rw - 9p host rw
nonsense
";

    fn table() -> MountTable {
        MountTable::parse(TABLE.as_bytes())
    }

    #[test]
    fn network_and_user_space_file_systems_are_remote() {
        let table = table();
        let remote = |id| table.is_remote(id, 22);
        assert!(!remote(22) && remote(30) && remote(31) && remote(36) && !remote(35));
        assert!(table.has_remote());
        assert!(!MountTable::default().has_remote());
    }

    #[test]
    fn what_is_reached_through_a_remote_directory_is_remote() {
        let table = table();
        assert!(table.is_remote(32, 22), "the walk passes NFS");
        assert!(!table.is_remote(32, 32), "the walk begins behind it");
        assert!(table.is_remote(99, 22), "nobody knows what this is");
    }

    #[test]
    fn an_overlay_is_what_its_layers_are() {
        let table = table();
        assert!(table.is_remote(33, 22));
        assert!(!table.is_remote(34, 22));
    }

    #[test]
    fn paths_lead_to_the_innermost_and_last_mount() {
        let table = table();
        assert_eq!(table.at(b"/srv/www/x"), Some(((8, 1), false)));
        assert_eq!(table.at(b"/srv/www/far"), Some(((0, 40), true)));
        assert_eq!(table.at(b"/srv/www/farther"), Some(((8, 1), false)));
        assert_eq!(table.at(b"/srv/www/far/near/f"), Some(((8, 2), false)));
        assert_eq!(table.at(b"/srv/a b/f"), Some(((0, 41), true)));
        assert_eq!(table.at(b"/tmp/f"), Some(((0, 45), true)));
        assert!(table.has_remote_below(b"/srv/www"));
        assert!(!table.has_remote_below(b"/usr"));
        assert!(table.has_remote_below(b"/"));
        assert_eq!(table.device(32), Some((8, 2)));
    }
}
