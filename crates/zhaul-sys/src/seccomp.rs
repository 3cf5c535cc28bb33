//! `seccomp(2)`: a filter that refuses one system call of the calling thread.
//!
//! Containers and service managers put programs under such filters; this is how tests find out what
//! a program does then. Programs that the thread starts inherit the filter.

use std::io;

use crate::check;

/// What becomes of whoever makes the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The call fails with this error number, 1 to 4095. With 0 it would seem to succeed without
    /// having done anything, and whoever relies on what it was to store would read old memory.
    Errno(u16),
    /// The process ends with SIGSYS.
    Kill,
}

/// From now on, and until it ends, the calling thread cannot make the system call of this number. It
/// cannot gain privileges by executing programs either (PR_SET_NO_NEW_PRIVS).
///
/// # Errors
/// EINVAL without CONFIG_SECCOMP_FILTER, for an error number that is none, and for calls that have no
/// way to fail: their callers go on as if they had been made, into whatever lies behind.
pub fn refuse_in_this_thread(call: libc::c_long, refusal: Refusal) -> io::Result<()> {
    let action = match refusal {
        Refusal::Errno(1..=MAX_ERRNO) if NEVER_RETURN.contains(&call) => {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Refusal::Errno(errno @ 1..=MAX_ERRNO) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
        Refusal::Errno(_) => return Err(io::ErrorKind::InvalidInput.into()),
        Refusal::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    };
    let call = u32::try_from(call).map_err(|_| io::ErrorKind::InvalidInput)?;
    // Load the number, compare, refuse, allow.
    let mut program = [
        statement(0x20, 0, 0, 0),
        statement(0x15, 0, 1, call),
        statement(0x06, 0, 0, action),
        statement(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_mut_ptr(),
    };
    let (yes, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, unused, unused, unused) })?;
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: the kernel copies the program, which lives on this stack until the call returned.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) }).map(drop)
}

/// The kernel's MAX_ERRNO: a filter's larger ones are reported as this one.
const MAX_ERRNO: u16 = 4095;

/// Calls after which there is no caller to return to.
const NEVER_RETURN: [libc::c_long; 3] =
    [libc::SYS_rt_sigreturn, libc::SYS_exit, libc::SYS_exit_group];

const fn statement(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_call_of_only_this_thread_is_refused() {
        let refused = std::thread::spawn(|| {
            let refusal = Refusal::Errno(libc::EDOM as u16);
            if let Err(error) = refuse_in_this_thread(libc::SYS_sysinfo, refusal) {
                zhaul_untested::skip("only_this_call_of_only_this_thread_is_refused", error);
                return Some(libc::EDOM);
            }
            sysinfo().err().and_then(|error| error.raw_os_error())
        });
        assert_eq!(refused.join().unwrap(), Some(libc::EDOM));
        assert!(sysinfo().is_ok());
    }

    #[test]
    fn a_refusal_that_looks_like_success_is_none() {
        std::thread::spawn(|| {
            for errno in [0, 4096, u16::MAX] {
                let refused = refuse_in_this_thread(libc::SYS_getrusage, Refusal::Errno(errno));
                assert!(refused.is_err(), "{errno}");
            }
            let ours = crate::getrusage::getrusage(crate::getrusage::Who::Process).unwrap();
            assert!(ours.max_rss_kib > 0, "the call is still made");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn calls_that_cannot_fail_cannot_be_made_to() {
        for call in NEVER_RETURN {
            assert!(refuse_in_this_thread(call, Refusal::Errno(1)).is_err());
        }
    }

    fn sysinfo() -> io::Result<libc::c_int> {
        let mut info = std::mem::MaybeUninit::<libc::sysinfo>::zeroed();
        // SAFETY: the kernel stores a struct sysinfo.
        check(unsafe { libc::sysinfo(info.as_mut_ptr()) })
    }
}
