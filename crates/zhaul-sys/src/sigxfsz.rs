//! `write(2)` beyond RLIMIT_FSIZE: EFBIG, without the signal that ends the process.
//!
//! The kernel sends SIGXFSZ to the thread whose write would begin at the limit, and its default action
//! ends the process. A library may not change a signal's action, which belongs to the program; but a
//! thread may block the signal for the length of a call and take it back afterwards.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use crate::check;

/// Whether files that this process writes may only grow to a limit.
pub fn is_file_size_limited() -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize);
    limit.current.is_some()
}

/// Makes calls, in which a write beyond the limit is an error and no signal. Costs two system calls,
/// and a third where a signal came.
pub fn without_sigxfsz<R>(calls: impl FnOnce() -> R) -> R {
    let _blocked = Blocked::new();
    calls()
}

/// SIGXFSZ is blocked in this thread, and taken back on drop if it came meanwhile.
struct Blocked {
    signal: libc::sigset_t,
    /// The mask to go back to; `None` if the caller had it blocked: then what comes is the caller's.
    before: Option<libc::sigset_t>,
}

impl Blocked {
    fn new() -> Self {
        let mut signal = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: sigemptyset writes the whole set, which lives on this stack.
        let emptied = check(unsafe { libc::sigemptyset(signal.as_mut_ptr()) });
        debug_assert!(emptied.is_ok(), "a valid pointer");
        // SAFETY: integers only, zeroed and written.
        let mut signal = unsafe { signal.assume_init() };
        // SAFETY: the set is initialised and lives on this stack.
        let added = check(unsafe { libc::sigaddset(&raw mut signal, libc::SIGXFSZ) });
        debug_assert!(added.is_ok(), "the signal exists");
        let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: reads one set and stores another, both on this stack.
        let error = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signal, before.as_mut_ptr())
        };
        debug_assert!(error == 0, "blocking a signal succeeds");
        // SAFETY: integers only, zeroed and written.
        let before = unsafe { before.assume_init() };
        // SAFETY: the set is initialised and lives on this stack.
        let was_blocked = unsafe { libc::sigismember(&raw const before, libc::SIGXFSZ) } == 1;
        Self {
            signal,
            before: (!was_blocked).then_some(before),
        }
    }

    fn is_pending() -> bool {
        let mut pending = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: stores a set, which lives on this stack.
        let told = check(unsafe { libc::sigpending(pending.as_mut_ptr()) });
        // SAFETY: integers only, zeroed and written.
        let pending = unsafe { pending.assume_init() };
        // SAFETY: the set is initialised and lives on this stack.
        told.is_ok() && unsafe { libc::sigismember(&raw const pending, libc::SIGXFSZ) } == 1
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let Some(before) = self.before else {
            return;
        };
        let at_once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        while Self::is_pending() {
            // SAFETY: set and time live on this stack; what came is not asked for.
            let taken = check(unsafe {
                libc::sigtimedwait(&raw const self.signal, ptr::null_mut(), &raw const at_once)
            });
            match taken {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        // SAFETY: the set is initialised and lives on this stack; the old one is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    const CHILD: &str = "ZHAUL_TEST_SIGXFSZ";

    /// The limit is the process's, so the test runs itself again.
    #[test]
    fn a_write_beyond_the_limit_is_an_error_and_the_process_lives() {
        if std::env::var_os(CHILD).is_none() {
            let test = "sigxfsz::tests::a_write_beyond_the_limit_is_an_error_and_the_process_lives";
            let ended = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test])
                .env(CHILD, "1")
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert!(ended.success(), "{ended}");
            return;
        }
        assert!(!is_file_size_limited());
        let mut file = tempfile::tempfile().unwrap();
        let limit = rustix::process::Rlimit {
            current: Some(1000),
            maximum: None,
        };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
        assert!(is_file_size_limited());
        let written = without_sigxfsz(|| file.write(&[1; 3000]).unwrap());
        assert_eq!(written, 1000);
        for _ in 0..3 {
            let error = without_sigxfsz(|| file.write(&[1; 3000]).unwrap_err());
            assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
        }
    }

    #[test]
    fn the_mask_is_as_before() {
        let is_blocked = || {
            let inner = Blocked::new();
            inner.before.is_none()
        };
        assert!(!is_blocked());
        without_sigxfsz(|| assert!(is_blocked()));
        assert!(!is_blocked());
        let panicked = std::panic::catch_unwind(|| without_sigxfsz(|| panic!("on the way")));
        assert!(panicked.is_err());
        assert!(!is_blocked());
    }
}
