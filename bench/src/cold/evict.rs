//! Takes files out of the page cache by POSIX_FADV_DONTNEED, and checks that they are gone.
//!
//! Nothing else on the machine loses its cache.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::ensure;
use rustix::fs::{Advice, fadvise};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Evicts whole files; fails if more than one page in a hundred stays.
pub(crate) fn pages<'a>(paths: impl IntoIterator<Item = &'a Path>) -> anyhow::Result<()> {
    for path in paths {
        let file = File::open(path)?;
        // Several times: a page under I/O, or in another core's batch, is left out at first.
        let mut share = 1.0;
        for _ in 0..EVICT_ATTEMPTS {
            fadvise(&file, 0, None, Advice::DontNeed)?;
            share = resident_share(&file)?;
            if share <= MOST_RESIDENT {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        ensure!(
            share <= MOST_RESIDENT,
            "{:.0} % of {} stay cached",
            share * 100.0,
            path.display()
        );
    }
    Ok(())
}

/// How much of a file is in the page cache, 0 to 1.
///
/// mincore rather than preadv2(RWF_NOWAIT): since 6.x the latter starts a read-ahead.
fn resident_share(file: &File) -> anyhow::Result<f64> {
    let length = usize::try_from(file.metadata()?.len())?;
    if length == 0 {
        return Ok(0.0);
    }
    let mut pages = vec![0u8; length.div_ceil(rustix::param::page_size())];
    mincore(file.as_fd(), length, &mut pages)?;
    let resident = pages.iter().filter(|&&page| page & 1 == 1).count();
    Ok(resident as f64 / pages.len() as f64)
}

fn mincore(file: impl AsFd, length: usize, pages: &mut [u8]) -> std::io::Result<()> {
    assert!(
        pages.len() >= length.div_ceil(rustix::param::page_size()),
        "a byte for each page"
    );
    let null = std::ptr::null_mut();
    // SAFETY: a new mapping at an address that the kernel chooses aliases nothing; it is never
    // read through, so a truncated file cannot fault it.
    let address = unsafe { mmap(null, length, ProtFlags::READ, MapFlags::SHARED, file, 0) }?;
    // SAFETY: `address` is mapped for `length` bytes; `pages` has a byte for each page of it
    // (asserted) and outlives the call.
    let result = unsafe { libc::mincore(address, length, pages.as_mut_ptr()) };
    let error = std::io::Error::last_os_error();
    // SAFETY: this is the mapping made above, and nothing points into it.
    unsafe { munmap(address, length) }?;
    if result == 0 { Ok(()) } else { Err(error) }
}

const EVICT_ATTEMPTS: u32 = 50;
const MOST_RESIDENT: f64 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;
    use rustix::fs::{StatFs, fstatfs};

    #[test]
    fn evicted_file_is_cold_and_a_read_one_is_warm() {
        let fixture = Fixture::create(Path::new("/var/tmp")).unwrap();
        let path = fixture.root().join(fixture.file("cold", 8 << 20).unwrap());
        let file = File::open(&path).unwrap();
        let StatFs { f_type, .. } = fstatfs(&file).unwrap();
        if f_type == libc::TMPFS_MAGIC {
            zhaul_untested::skip_this("/var/tmp is a tmpfs, whose pages cannot be evicted");
            return;
        }
        std::fs::read(&path).unwrap();
        assert!(resident_share(&file).unwrap() > 0.99);
        pages([path.as_path()]).unwrap();
        assert!(resident_share(&file).unwrap() <= MOST_RESIDENT);
    }
}
