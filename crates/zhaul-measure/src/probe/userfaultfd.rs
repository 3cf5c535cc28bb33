//! `userfaultfd(2)`: a missing page filled and a write-protected one released, while a thread
//! sleeps on them.

use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use zhaul_sys::userfaultfd::{FEATURE_WRITE_PROTECT, Fault, Userfault, WatchedMemory};

use super::context::Context;
use super::deadline;
use super::ends::PATIENCE;
use super::report::{Cause, Group};
use super::seen::{Mechanism, Seen};
use super::trouble::{During, Trouble, errno_of};

pub(super) const USERFAULTFD: Mechanism = Mechanism {
    id: "userfaultfd",
    name: "userfaultfd",
    call: "userfaultfd",
    group: Group::Memory,
    since: (4, 3),
    since_text: "4.3, write protection 5.7",
};

/// How far faults are handled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Also when a system call touches the page.
    SystemCalls,
    /// Only when the program itself touches it.
    UserMode,
}

pub(super) fn try_it(_: &Context) -> Result<Seen, Trouble> {
    let (faults, reach) = open()?;
    if faults.features() & FEATURE_WRITE_PROTECT == 0 {
        return Err(Seen::limited(
            Cause::KernelLacks,
            "no write protection; Linux 5.7 has it on x86-64, 6.4 on aarch64",
            "UFFDIO_API does not list UFFD_FEATURE_PAGEFAULT_FLAG_WP",
        )
        .into());
    }
    handle_faults(&faults)?;
    let evidence = "a missing page was filled while a thread slept on it, then a write-protected \
                    one released";
    let seen = match reach {
        Reach::SystemCalls => Seen::works(evidence),
        Reach::UserMode => Seen::limited(
            Cause::NotPermitted,
            "not for pages that a system call touches",
            evidence,
        )
        .remedy(
            "CAP_SYS_PTRACE, access to /dev/userfaultfd, or sysctl vm.unprivileged_userfaultfd=1",
        ),
    };
    Ok(seen.fact("handles_system_calls", reach == Reach::SystemCalls))
}

fn open() -> Result<(Userfault, Reach), Trouble> {
    let first = match Userfault::open(false) {
        Ok(faults) => return Ok((faults, Reach::SystemCalls)),
        Err(error) => errno_of(&error),
    };
    if first != Errno::PERM {
        return Err(Trouble::Call("userfaultfd", first));
    }
    if let Ok(faults) = Userfault::open_device() {
        return Ok((faults, Reach::SystemCalls));
    }
    let faults = Userfault::open(true).during("userfaultfd (UFFD_USER_MODE_ONLY)")?;
    Ok((faults, Reach::UserMode))
}

fn handle_faults(faults: &Userfault) -> Result<(), Trouble> {
    let memory = Arc::new(WatchedMemory::pages(1).preparing("mmap")?);
    faults.watch(&memory).during("ioctl (UFFDIO_REGISTER)")?;
    let deadline = Instant::now() + PATIENCE;
    let touched = Arc::clone(&memory);
    // When this function gives up, its caller drops the descriptor, and the thread goes on.
    let toucher = deadline::start(move || {
        let before = touched.load(0);
        touched.store(0, 8);
        (before, touched.load(0))
    });
    let missing = next(faults, deadline)?;
    let page = vec![7; memory.page_bytes()];
    faults
        .fill(&memory, 0, &page, true)
        .during("ioctl (UFFDIO_COPY)")?;
    let protected = next(faults, deadline)?;
    faults
        .unprotect(&memory, 0)
        .during("ioctl (UFFDIO_WRITEPROTECT)")?;
    let seen = toucher.until(deadline);
    if missing.write_protected || !protected.write_protected || seen != Ok((7, 8)) {
        return Err(Trouble::Differs("userfaultfd"));
    }
    Ok(())
}

fn next(faults: &Userfault, deadline: Instant) -> Result<Fault, Trouble> {
    loop {
        if let Some(fault) = faults.next().during("read of a userfaultfd")? {
            return Ok(fault);
        }
        if Instant::now() >= deadline {
            return Err(Trouble::Stuck("userfaultfd"));
        }
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
}
