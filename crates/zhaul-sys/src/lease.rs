//! `fcntl(2)` file leases: F_SETLEASE, F_GETLEASE, F_SETSIG, F_SETOWN_EX.
//!
//! A read lease makes whoever opens the file for writing, or truncates it, wait until the holder
//! lets go or `/proc/sys/fs/lease-break-time` has passed, and sends the holder a signal.
//!
//! The order matters: [`set_owner_thread`] and [`set_signal`] first, [`set_lease`] last. Without
//! F_SETSIG the kernel sends a plain SIGIO, whose default action ends the process, and F_UNLCK
//! resets F_SETSIG.
//!
//! `libc` lacks F_SETSIG, F_SETOWN_EX and `struct f_owner_ex` on glibc; the numbers are those of
//! `include/uapi/asm-generic/fcntl.h`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;

/// A kind of lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseKind {
    /// Broken by an open for writing and by a truncation.
    Read,
    /// No lease; also what [`lease`] reports while a break is pending that asks for no lease.
    None,
}

impl LeaseKind {
    const fn raw(self) -> libc::c_int {
        match self {
            Self::Read => libc::F_RDLCK as libc::c_int,
            Self::None => libc::F_UNLCK as libc::c_int,
        }
    }
}

/// Takes, changes or drops the lease of this open file description.
///
/// # Errors
/// EAGAIN while somebody has the file open (or mapped) in a conflicting way, EACCES for a file of
/// somebody else without CAP_LEASE, EINVAL for what is not a regular file.
pub fn set_lease(fd: BorrowedFd<'_>, kind: LeaseKind) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed for the call; F_SETLEASE takes an int.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, kind.raw()) };
    check(result).map(drop)
}

/// The lease of this open file description; while a break is pending, what it is to become.
///
/// # Errors
/// EBADF for a descriptor opened with O_PATH.
pub fn lease(fd: BorrowedFd<'_>) -> io::Result<LeaseKind> {
    // SAFETY: the descriptor is borrowed for the call; F_GETLEASE takes no argument.
    let result = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETLEASE) })?;
    Ok(match result {
        raw if raw == LeaseKind::Read.raw() => LeaseKind::Read,
        _ => LeaseKind::None,
    })
}

/// Chooses the signal that reports a break on this open file description. With a real-time
/// signal each break is queued on its own and carries the descriptor.
///
/// # Errors
/// EINVAL if it is not one of SIGRTMIN to SIGRTMAX: others mean something else to whoever gets them.
pub fn set_signal(fd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    if !(libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&signal) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the descriptor is borrowed for the call; F_SETSIG takes an int.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), F_SETSIG, signal) };
    check(result).map(drop)
}

/// A thread of this process. Signals are sent to no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread(i32);

impl Thread {
    /// The calling thread.
    pub fn current() -> Self {
        Self(rustix::thread::gettid().as_raw_nonzero().get())
    }
}

/// Directs the signals of this open file description to one thread, which has not ended.
///
/// # Errors
/// ESRCH if there is no such thread.
pub fn set_owner_thread(fd: BorrowedFd<'_>, thread: Thread) -> io::Result<()> {
    let owner = FOwnerEx {
        kind: F_OWNER_TID,
        pid: thread.0,
    };
    // SAFETY: the descriptor is borrowed for the call; F_SETOWN_EX reads a struct f_owner_ex,
    // which lives on this stack until the call returned.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), F_SETOWN_EX, &raw const owner) };
    check(result).map(drop)
}

/// `struct f_owner_ex`.
#[repr(C)]
struct FOwnerEx {
    kind: libc::c_int,
    pid: libc::pid_t,
}

const F_SETSIG: libc::c_int = 10;
const F_SETOWN_EX: libc::c_int = 15;
const F_OWNER_TID: libc::c_int = 0;

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::os::fd::AsFd;

    use super::*;
    use crate::sigwait;

    #[test]
    fn a_lease_is_taken_seen_and_dropped() {
        let named = tempfile::NamedTempFile::new().unwrap();
        let path = named.into_temp_path();
        let file = File::open(&path).unwrap();
        assert_eq!(lease(file.as_fd()).unwrap(), LeaseKind::None);
        set_lease(file.as_fd(), LeaseKind::Read).unwrap();
        assert_eq!(lease(file.as_fd()).unwrap(), LeaseKind::Read);
        set_lease(file.as_fd(), LeaseKind::None).unwrap();
        assert_eq!(lease(file.as_fd()).unwrap(), LeaseKind::None);
    }

    #[test]
    fn a_writer_elsewhere_denies_a_read_lease() {
        let named = tempfile::NamedTempFile::new().unwrap();
        let file = File::open(named.path()).unwrap();
        let error = set_lease(file.as_fd(), LeaseKind::Read).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
    }

    #[test]
    fn a_break_signals_the_chosen_thread_with_the_descriptor() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let file = File::open(&path).unwrap();
        let signal = sigwait::first_realtime_signal() + 5;
        let set = sigwait::SignalSet::of(&[signal, libc::SIGIO]).unwrap();
        sigwait::block_in_this_thread(&set).unwrap();
        set_owner_thread(file.as_fd(), Thread::current()).unwrap();
        for other in [0, libc::SIGKILL, libc::SIGSEGV, libc::SIGRTMIN() - 1] {
            assert!(set_signal(file.as_fd(), other).is_err(), "{other}");
        }
        set_signal(file.as_fd(), signal).unwrap();
        set_lease(file.as_fd(), LeaseKind::Read).unwrap();

        let error = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    use std::os::unix::fs::OpenOptionsExt;
                    OpenOptions::new()
                        .write(true)
                        .custom_flags(libc::O_NONBLOCK)
                        .open(&path)
                })
                .join()
                .unwrap()
                .unwrap_err()
        });
        assert_eq!(
            error.raw_os_error(),
            Some(libc::EAGAIN),
            "the opener has to wait"
        );
        let received = sigwait::wait(&set, Some(std::time::Duration::from_secs(5))).unwrap();
        assert_eq!(
            (received.signal, received.fd),
            (signal, Some(file.as_raw_fd()))
        );
        assert_eq!(
            lease(file.as_fd()).unwrap(),
            LeaseKind::None,
            "a break is pending"
        );
    }
}
