//! A process that locks its memory: the kernel then copies pages of private mappings by itself. Alone
//! in its process, since that is what is locked.
#![allow(clippy::unwrap_used)]

use rustix::mm::{MlockAllFlags, mlockall, munlockall};
use zhaul::CowRegion;

#[test]
fn pages_that_the_kernel_copied_when_memory_was_locked_are_not_shown() {
    let mut region = CowRegion::builder(1 << 17).copy_above(1.0).build().unwrap();
    for flags in [
        MlockAllFlags::CURRENT,
        MlockAllFlags::CURRENT | MlockAllFlags::FUTURE,
    ] {
        let first = region.snapshot().unwrap();
        region.fill(1);
        drop(first);
        region.fill(2);
        if let Err(error) = mlockall(flags) {
            return zhaul_untested::skip_this(error);
        }
        region.fill(3);
        let snapshot = region.snapshot().unwrap();
        assert!(region.iter().chain(&snapshot[..]).all(|&byte| byte == 3));
        region.fill(4);
        let beside = region.snapshot().unwrap();
        mlockall(flags).unwrap();
        region.fill(5);
        assert!(snapshot.iter().all(|&byte| byte == 3));
        assert!(beside.iter().all(|&byte| byte == 4));
        drop((snapshot, beside));
        region[0] = 5;
        assert!(region.iter().all(|&byte| byte == 5));
        let mut other = CowRegion::builder(1 << 17).copy_above(1.0).build().unwrap();
        other.fill(1);
        let snapshot = other.snapshot().unwrap();
        other.fill(2);
        assert!(snapshot.iter().all(|&byte| byte == 1));
        munlockall().unwrap();
    }
}
