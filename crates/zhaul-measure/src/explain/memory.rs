//! How much of a range of a file is in the page cache.

use std::os::fd::{AsFd, BorrowedFd};

use serde::{Deserialize, Serialize};
use zhaul::residency::{Residency, probe};

use crate::figure::Method;

/// The part of a source that lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct InMemory {
    /// From 0 to 1.
    pub fraction: f64,
    /// [`Method::Exact`] if every page was counted, [`Method::Sampled`] if some places were asked.
    pub method: Method,
}

/// Asks about `len` bytes from `offset` of a file or a block device; `None` if it cannot be asked.
pub(crate) fn in_memory(fd: impl AsFd, offset: u64, len: u64) -> Option<InMemory> {
    let fd = fd.as_fd();
    let len = len.min(u64::MAX - offset);
    if len == 0 {
        return None;
    }
    count(fd, offset, len).or_else(|| sample(fd, offset, len))
}

/// `cachestat(2)` counts pages, and answers the owner only.
fn count(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Option<InMemory> {
    let stat = zhaul_sys::cachestat::cachestat(fd, offset, len).ok()?;
    let page = rustix::param::page_size() as u64;
    let pages = (offset + len).div_ceil(page) - offset / page;
    Some(InMemory {
        fraction: (stat.cached as f64 / pages as f64).min(1.0),
        method: Method::Exact,
    })
}

/// Asks at places that lie evenly over the range whether a read would wait.
fn sample(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Option<InMemory> {
    let places = PLACES.min(len);
    let mut resident = 0;
    for place in 0..places {
        let at = offset + len / places * place;
        match probe(fd, at, 1) {
            Residency::Resident => resident += 1,
            Residency::Cold => {}
            _ => return None,
        }
    }
    Some(InMemory {
        fraction: f64::from(u32::try_from(resident).unwrap_or(0)) / places as f64,
        method: Method::Sampled,
    })
}

/// Enough that a percentage means something, few enough to take less than a millisecond.
const PLACES: u64 = 256;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_written_is_in_memory_by_either_way() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 1 << 20]).unwrap();
        assert_eq!(in_memory(&file, 0, 1 << 20).map(|m| m.fraction), Some(1.0));
        let sampled = sample(file.as_fd(), 4096, 100_000).unwrap();
        assert_eq!((sampled.fraction, sampled.method), (1.0, Method::Sampled));
        assert_eq!(in_memory(&file, 0, 0), None);
    }

    #[test]
    fn the_half_that_was_dropped_is_not() {
        let Ok(mut file) = tempfile::tempfile_in("/var/tmp") else {
            zhaul_untested::skip("the_half_that_was_dropped_is_not", "no /var/tmp");
            return;
        };
        file.write_all(&vec![7; 2 << 20]).unwrap();
        file.sync_all().unwrap();
        let half = std::num::NonZeroU64::new(1 << 20);
        rustix::fs::fadvise(&file, 0, half, rustix::fs::Advice::DontNeed).unwrap();
        if probe(&file, 0, 1) != Residency::Cold {
            zhaul_untested::skip(
                "the_half_that_was_dropped_is_not",
                "pages cannot be dropped here",
            );
            return;
        }
        for found in [
            in_memory(&file, 0, 2 << 20),
            sample(file.as_fd(), 0, 2 << 20),
        ] {
            let fraction = found.unwrap().fraction;
            assert!((0.45..=0.55).contains(&fraction), "{found:?}");
        }
    }
}
