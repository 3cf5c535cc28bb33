//! File leases: `fcntl(2)` F_SETLEASE, and whether an open for writing really has to wait.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use zhaul_sys::lease::{LeaseKind, Thread, set_lease, set_owner_thread, set_signal};
use zhaul_sys::sigwait::{SIGIO, SignalSet, block_in_this_thread, first_realtime_signal, wait};

use super::place::Subject;
use super::report::{Cause, Group};
use super::scratch;
use super::seen::{Mechanism, Seen};
use super::trouble::{During, Trouble, described, errno_of};

pub(super) const LEASE: Mechanism = Mechanism {
    id: "lease",
    name: "lease",
    call: "fcntl (F_SETLEASE)",
    group: Group::Files,
    since: (2, 4),
    since_text: "2.4",
};

/// Not the one that zhaul's own leases use.
const SIGNAL_OFFSET: i32 = 12;

const PATIENCE: Duration = Duration::from_secs(3);

/// The signals go to the thread that calls this, which blocks them from now on; it is one of the
/// probes' own.
pub(super) fn try_it(subject: &Subject) -> Result<Seen, Trouble> {
    subject.writable()?;
    // A file nobody has open for writing, or no lease is given.
    let file = subject.another()?;
    let held = scratch::reopen(file.as_fd(), OFlags::RDONLY).preparing("open /proc/self/fd")?;
    drop(file);
    let signal = first_realtime_signal() + SIGNAL_OFFSET;
    let signals = SignalSet::of(&[signal, SIGIO]).preparing("sigaddset")?;
    block_in_this_thread(&signals).preparing("pthread_sigmask")?;
    set_owner_thread(held.as_fd(), Thread::current()).preparing("fcntl (F_SETOWN_EX)")?;
    set_signal(held.as_fd(), signal).preparing("fcntl (F_SETSIG)")?;
    set_lease(held.as_fd(), LeaseKind::Read).map_err(|error| match errno_of(&error) {
        Errno::INVAL => switched_off_or_lacking(errno_of(&error)).into(),
        errno => Trouble::Call("fcntl (F_SETLEASE)", errno),
    })?;
    let first = open_to_write(held.as_fd());
    let told = wait(&signals, Some(PATIENCE)).is_ok();
    set_lease(held.as_fd(), LeaseKind::None).during("fcntl (F_SETLEASE)")?;
    let second = open_to_write(held.as_fd());
    const BROKEN: &str = "while a lease was held, an open for writing had to wait (EAGAIN) and the \
                          holder was told by a signal; afterwards it succeeded";
    match (first, told, second) {
        (Err(Errno::AGAIN), true, Ok(_)) if zhaul::lease::is_shared_by_machines(&held) => {
            Ok(Seen::limited(
                Cause::FileSystemLacks,
                "editors on other machines do not wait for it",
                BROKEN,
            ))
        }
        (Err(Errno::AGAIN), true, Ok(_)) => Ok(Seen::works(BROKEN)),
        (first, told, _) => Err(Seen::missing(
            Cause::Misbehaves,
            "granted, but it keeps nobody out",
            format!(
                "an open for writing while the lease was held: {}; the holder was {}told",
                first.map_or_else(described, |_| "succeeded".into()),
                if told { "" } else { "not " }
            ),
        )
        .remedy("have files copied while they are sent: zhaul serve --stability copy")
        .into()),
    }
}

fn open_to_write(file: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    scratch::reopen(file, OFlags::WRONLY | OFlags::NONBLOCK)
}

fn switched_off_or_lacking(errno: Errno) -> Seen {
    let evidence = format!("fcntl (F_SETLEASE) failed: {}", described(errno));
    let setting = std::fs::read_to_string("/proc/sys/fs/leases-enable");
    if setting.is_ok_and(|text| text.trim() == "0") {
        return Seen::missing(
            Cause::Configured,
            "switched off: fs.leases-enable is 0",
            evidence,
        )
        .remedy("sysctl fs.leases-enable=1 (as root)");
    }
    Seen::missing(
        Cause::FileSystemLacks,
        "this file system gives no leases",
        evidence,
    )
    .remedy("have files copied while they are sent: zhaul serve --stability copy")
}
