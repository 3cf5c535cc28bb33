//! What tells one mount of a file system from another.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, StatxFlags, statx};
use xxhash_rust::xxh3::xxh3_64;

/// `STATX_MNT_ID_UNIQUE`, since Linux 6.8: a number that is given once between two boots.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// A number that this file's mount has and no other, now or after a reboot. `None` if the kernel
/// does not tell.
pub(crate) fn identity(file: impl AsFd) -> Option<u64> {
    static BOOT: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let boot = BOOT.get_or_init(|| std::fs::read("/proc/sys/kernel/random/boot_id").ok());
    let stat = statx(file, c"", AtFlags::EMPTY_PATH, MNT_ID_UNIQUE).ok()?;
    if stat.stx_mask & MNT_ID_UNIQUE.bits() == 0 {
        return None;
    }
    let mount = stat.stx_mnt_id.to_ne_bytes();
    // 0 says that the mount does not matter.
    Some(xxh3_64(&[boot.as_ref()?, &mount[..]].concat()).max(1))
}

#[cfg(test)]
mod tests {
    use super::identity;

    #[test]
    fn two_files_of_one_mount_have_one_identity_and_those_of_others_another() {
        let of = |path: &str| identity(std::fs::File::open(path).unwrap());
        assert_eq!(of("/proc/self/stat"), of("/proc/version"));
        if let Some(proc) = of("/proc/version") {
            assert_ne!(Some(proc), of(env!("CARGO_MANIFEST_DIR")));
        }
    }
}
