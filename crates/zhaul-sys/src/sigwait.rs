//! `pthread_sigmask(3)` and `sigtimedwait(2)`: signals taken synchronously by one thread.
//!
//! A thread that blocks a signal and waits for it needs no handler, so nothing process-wide
//! changes: signals directed at that thread stay pending until it fetches them.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;
use std::time::Duration;

use crate::check;

/// A set of signals.
#[derive(Clone, Copy)]
pub struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// The set of these signals.
    ///
    /// # Errors
    /// EINVAL if there is no such signal.
    pub fn of(signals: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset writes the whole set it is given; it lives on this stack.
        check(unsafe { libc::sigemptyset(set.as_mut_ptr()) })?;
        // SAFETY: sigemptyset succeeded, so the set is initialised.
        let mut set = unsafe { set.assume_init() };
        for &signal in signals {
            // SAFETY: the set is initialised and lives on this stack.
            check(unsafe { libc::sigaddset(&raw mut set, signal) })?;
        }
        Ok(Self(set))
    }
}

/// A signal taken by [`wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub signal: i32,
    /// `si_code`: `POLL_MSG` (3) for a lease break, `SI_KERNEL` when the real-time queue was
    /// full and the kernel fell back to SIGIO.
    pub code: i32,
    /// The descriptor it is about; only signals about I/O carry one.
    pub fd: Option<RawFd>,
}

/// The first real-time signal that the C library leaves to programs (SIGRTMIN).
pub fn first_realtime_signal() -> i32 {
    libc::SIGRTMIN()
}

/// SIGIO, which the kernel sends when it cannot queue a real-time signal.
pub const SIGIO: i32 = libc::SIGIO;

/// Blocks the signals in the calling thread, in addition to those blocked already.
///
/// # Errors
/// None on Linux for a valid set.
pub fn block_in_this_thread(set: &SignalSet) -> io::Result<()> {
    // SAFETY: the set is initialised and outlives the call; the old mask is not asked for.
    let error =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set.0, ptr::null_mut()) };
    if error == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(error))
    }
}

/// Waits for one of the signals, which the calling thread must have blocked; without a timeout
/// for ever.
///
/// # Errors
/// EAGAIN when the time is up, EINTR when a handler of another signal ran.
pub fn wait(set: &SignalSet, timeout: Option<Duration>) -> io::Result<Received> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout_ptr = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: set, info and timeout live on this stack (or in the caller) during the call; a null
    // timeout waits for ever.
    check(unsafe { libc::sigtimedwait(&raw const set.0, info.as_mut_ptr(), timeout_ptr) })?;
    let poll = info.as_ptr().cast::<SigPoll>();
    // SAFETY: info is 128 zeroed bytes that the kernel filled in; SigPoll is a prefix of it made
    // of integers only, at the same alignment, so any content is valid.
    let poll = unsafe { poll.read() };
    let about_io = (POLL_IN..=POLL_HUP).contains(&poll.code);
    Ok(Received {
        signal: poll.signal,
        code: poll.code,
        fd: about_io.then_some(poll.fd),
    })
}

/// `siginfo_t` as signals about I/O fill it on 64-bit Linux: `_sifields` begins at its own
/// alignment of eight bytes, with `si_band` (long) and then `si_fd`.
#[repr(C)]
struct SigPoll {
    signal: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    padding: libc::c_int,
    band: libc::c_long,
    fd: libc::c_int,
}

const _: () = assert!(size_of::<SigPoll>() <= size_of::<libc::siginfo_t>());
const _: () = assert!(align_of::<SigPoll>() <= align_of::<libc::siginfo_t>());

// The codes of signals about I/O, `asm-generic/siginfo.h`.
const POLL_IN: libc::c_int = 1;
const POLL_HUP: libc::c_int = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_directed_at_the_thread_is_fetched() {
        let signal = first_realtime_signal() + 6;
        let set = SignalSet::of(&[signal]).unwrap();
        block_in_this_thread(&set).unwrap();
        // SAFETY: pthread_self is this thread, which lives.
        let this_thread = unsafe { libc::pthread_self() };
        // SAFETY: the thread lives and blocks the signal, so it only becomes pending.
        assert_eq!(unsafe { libc::pthread_kill(this_thread, signal) }, 0);
        let received = wait(&set, Some(Duration::from_secs(5))).unwrap();
        assert_eq!((received.signal, received.fd), (signal, None));
    }

    #[test]
    fn time_runs_out_without_a_signal() {
        let set = SignalSet::of(&[first_realtime_signal() + 7]).unwrap();
        block_in_this_thread(&set).unwrap();
        let error = wait(&set, Some(Duration::from_millis(5))).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
    }

    #[test]
    fn there_is_no_signal_ten_thousand() {
        assert!(SignalSet::of(&[10_000]).is_err());
    }
}
