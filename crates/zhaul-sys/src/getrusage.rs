//! `getrusage(2)`: what the kernel accounts to a thread or a process.

use std::io;
use std::mem::MaybeUninit;

use crate::check;

/// Whose account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The calling thread (Linux 2.6.26).
    Thread,
    /// All threads of the process, ended ones included.
    Process,
    /// Children that ended and were waited for, with theirs.
    Children,
}

/// The fields that Linux keeps, of `struct rusage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user mode, in microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, in microseconds.
    pub system_us: u64,
    /// Page faults served without input.
    pub minor_faults: u64,
    /// Page faults that waited for input.
    pub major_faults: u64,
    /// Context switches because it waited.
    pub voluntary_switches: u64,
    /// Context switches because its time was up or something more urgent was there.
    pub involuntary_switches: u64,
    /// Largest resident size, in KiB; meaningless for [`Who::Thread`].
    pub max_rss_kib: u64,
}

/// Reads the account.
///
/// # Errors
/// None that can be met.
pub fn getrusage(who: Who) -> io::Result<Usage> {
    let who = match who {
        Who::Thread => libc::RUSAGE_THREAD,
        Who::Process => libc::RUSAGE_SELF,
        Who::Children => libc::RUSAGE_CHILDREN,
    };
    // Zeroed, because a seccomp filter can make a call that was never made look successful.
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel stores one struct rusage at the pointer, which is this stack's for the
    // length of the call.
    let result = unsafe { libc::getrusage(who, usage.as_mut_ptr()) };
    check(result)?;
    // SAFETY: integers only, for which zeros and whatever the kernel stored are valid.
    let usage = unsafe { usage.assume_init() };
    let count = |value: libc::c_long| u64::try_from(value).unwrap_or(0);
    Ok(Usage {
        user_us: microseconds(usage.ru_utime),
        system_us: microseconds(usage.ru_stime),
        minor_faults: count(usage.ru_minflt),
        major_faults: count(usage.ru_majflt),
        voluntary_switches: count(usage.ru_nvcsw),
        involuntary_switches: count(usage.ru_nivcsw),
        max_rss_kib: count(usage.ru_maxrss),
    })
}

fn microseconds(time: libc::timeval) -> u64 {
    let whole = u64::try_from(time.tv_sec).unwrap_or(0);
    whole * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_this_thread_is_accounted_to_it() {
        let before = getrusage(Who::Thread).unwrap();
        let mut pages = vec![0_u8; 4 << 20];
        for byte in pages.iter_mut().step_by(4096) {
            *byte = 1;
        }
        let after = getrusage(Who::Thread).unwrap();
        assert!(after.minor_faults > before.minor_faults, "{after:?}");
        drop(pages);
    }
}
