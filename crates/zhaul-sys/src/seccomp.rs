//! `seccomp(2)`: a filter that refuses one system call of the calling thread.
//!
//! Containers and service managers put programs under such filters; this is how tests find out what
//! a program does then. Programs that the thread starts inherit the filter.

use std::io;

use crate::check;

/// What becomes of whoever makes the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The call fails with this error number.
    Errno(u16),
    /// The process ends with SIGSYS.
    Kill,
}

/// From now on, and until it ends, the calling thread cannot make the system call of this number. It
/// cannot gain privileges by executing programs either (PR_SET_NO_NEW_PRIVS).
///
/// # Errors
/// EINVAL without CONFIG_SECCOMP_FILTER.
pub fn refuse_in_this_thread(call: libc::c_long, refusal: Refusal) -> io::Result<()> {
    let action = match refusal {
        Refusal::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
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
                println!("SKIP only_this_call_of_only_this_thread_is_refused: {error}");
                return Some(libc::EDOM);
            }
            sysinfo().err().and_then(|error| error.raw_os_error())
        });
        assert_eq!(refused.join().unwrap(), Some(libc::EDOM));
        assert!(sysinfo().is_ok());
    }

    fn sysinfo() -> io::Result<libc::c_int> {
        let mut info = std::mem::MaybeUninit::<libc::sysinfo>::uninit();
        // SAFETY: the kernel stores a struct sysinfo.
        check(unsafe { libc::sysinfo(info.as_mut_ptr()) })
    }
}
