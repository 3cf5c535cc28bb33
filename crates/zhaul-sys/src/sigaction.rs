//! `sigaction(2)`: what this process does about a signal.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use crate::check;

/// Whether the signal is ignored. So it is in a program started by `nohup`, or in the background of
/// a shell without job control: such a program is not to begin to watch for it.
///
/// # Errors
/// EINVAL if there is no such signal.
pub fn is_ignored(signal: i32) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action nothing is changed; the old one is written to this stack.
    check(unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so the kernel has filled in all of it.
    let action = unsafe { action.assume_init() };
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_of_rust_ignores_sigpipe_and_nothing_else() {
        assert!(is_ignored(libc::SIGPIPE).unwrap());
        assert!(!is_ignored(libc::SIGUSR2).unwrap());
        assert!(is_ignored(10_000).is_err());
    }
}
