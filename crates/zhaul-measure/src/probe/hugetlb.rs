//! Huge pages: a memfd with MFD_HUGETLB, as pools of buffers use it, and the setting of the transparent
//! ones.

use std::os::fd::AsFd;

use rustix::io::Errno;
use zhaul_sys::arena::Arena;

use super::context::{Context, chosen};
use super::pattern;
use super::report::{Cause, Group};
use super::scratch;
use super::seen::{Mechanism, Seen};
use super::trouble::{During, Trouble, errno_of};

pub(super) const HUGE_PAGES: Mechanism = Mechanism {
    id: "hugepages",
    name: "huge pages",
    call: "memfd_create (MFD_HUGETLB)",
    group: Group::Memory,
    since: (4, 16),
    since_text: "4.16",
};

pub(super) fn try_it(_: &Context) -> Result<Seen, Trouble> {
    let transparent = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let transparent = transparent
        .ok()
        .and_then(|text| chosen(&text).map(str::to_owned));
    let transparent = transparent.unwrap_or_else(|| "not there".into());
    let seen = match page_bytes() {
        Some(bytes) => explicit(bytes, &transparent)?,
        None => Seen::missing(
            Cause::KernelLacks,
            "the kernel was built without hugetlbfs",
            "/proc/meminfo names no Hugepagesize",
        ),
    };
    Ok(seen.fact("transparent", transparent))
}

/// Pages that the administrator set aside.
fn explicit(bytes: usize, transparent: &str) -> Result<Seen, Trouble> {
    let arena = match Arena::new(bytes, 1, true) {
        Ok(arena) => arena,
        Err(error) if errno_of(&error) == Errno::NOMEM => {
            let count = (64 << 20) / bytes.max(1);
            return Err(Seen::limited(
                Cause::Configured,
                format!("none are set aside; transparent ones: {transparent}"),
                format!("mmap of one page of {} KiB failed: ENOMEM", bytes >> 10),
            )
            .remedy(format!("sysctl vm.nr_hugepages={} (as root)", count.max(1)))
            .fact("page_bytes", bytes)
            .into());
        }
        Err(error) => return Err(error).during("memfd_create (MFD_HUGETLB)"),
    };
    let content = pattern::bytes(pattern::FEW);
    let (source, sink) = (scratch::holding(content)?, scratch::holding(&[])?);
    let len = content.len();
    let mut page = arena.take().expect("nobody else knows it");
    rustix::io::pread(&source, &mut page[..len], 0).during("read into a huge page")?;
    rustix::io::pwrite(&sink, &page[..len], 0).during("write from a huge page")?;
    if scratch::content_of(sink.as_fd(), len).preparing("read")? != content {
        return Err(Trouble::Differs("a huge page"));
    }
    Ok(Seen::works(format!(
        "{len} bytes went through a page of {} KiB unchanged; transparent ones: {transparent}",
        bytes >> 10
    ))
    .fact("page_bytes", bytes))
}

fn page_bytes() -> Option<usize> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("Hugepagesize:"))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024).filter(|&bytes| bytes > 0)
}
