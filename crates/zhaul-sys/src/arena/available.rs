//! Whether there is so much memory, as far as `/proc/meminfo` tells.
//!
//! The kernel does not refuse to allocate the pages of a memfd: it allocates until somebody is killed
//! for it.

use std::fs;

/// False if the machine has no `bytes` to give without swapping out what others use.
pub(super) fn suffices_for(bytes: u64) -> bool {
    // Who cannot know tries.
    let Ok(meminfo) = fs::read_to_string("/proc/meminfo") else {
        return true;
    };
    available(&meminfo).is_none_or(|available| bytes <= available)
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_available_is_told_in_kib() {
        let text = "MemTotal:       24000 kB\nMemAvailable:    8192 kB\nBuffers: 1 kB\n";
        assert_eq!(available(text), Some(8192 << 10));
        assert_eq!(available("MemTotal: 24000 kB\n"), None);
        assert_eq!(available("MemAvailable: much kB\n"), None);
    }

    #[test]
    fn a_page_can_be_had_and_an_exbibyte_cannot() {
        assert!(suffices_for(4096));
        assert!(!suffices_for(1 << 60));
    }
}
