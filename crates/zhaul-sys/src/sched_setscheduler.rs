//! `sched_setscheduler(2)`: a thread that must not wait for its turn, and one that may.

use std::io;

use crate::check;

/// Puts the calling thread before all threads of ordinary priority: whenever it is ready, it runs
/// (`SCHED_FIFO` at its lowest priority). What it starts is ordinary again.
///
/// # Errors
/// EPERM without CAP_SYS_NICE and with RLIMIT_RTPRIO 0.
pub fn this_thread_first() -> io::Result<()> {
    set(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, 1)
}

/// Puts the calling thread behind all threads of ordinary priority (`SCHED_IDLE`): any of them that
/// becomes ready interrupts it. What it starts is the same.
///
/// # Errors
/// None that is known: anybody may step back.
pub fn this_thread_last() -> io::Result<()> {
    set(libc::SCHED_IDLE, 0)
}

fn set(policy: i32, sched_priority: i32) -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority };
    // SAFETY: 0 is the calling thread; the kernel reads the parameter, which lives on this stack.
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anybody_may_step_back() {
        let policy = std::thread::spawn(|| {
            this_thread_last().unwrap();
            // SAFETY: 0 is the calling thread; nothing is read or written.
            unsafe { libc::sched_getscheduler(0) }
        });
        assert_eq!(policy.join().unwrap(), libc::SCHED_IDLE);
    }

    #[test]
    fn the_calling_thread_alone_comes_first() {
        let policy_of_new_thread = || {
            let thread = std::thread::spawn(|| {
                // SAFETY: 0 is the calling thread; nothing is read or written.
                unsafe { libc::sched_getscheduler(0) }
            });
            thread.join().unwrap()
        };
        let tried = std::thread::spawn(move || {
            this_thread_first()?;
            // SAFETY: 0 is the calling thread; nothing is read or written.
            let own = unsafe { libc::sched_getscheduler(0) };
            io::Result::Ok((own, policy_of_new_thread()))
        });
        match tried.join().unwrap() {
            Ok((own, new)) => {
                assert_eq!(own, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK);
                assert_eq!(new, libc::SCHED_OTHER);
            }
            Err(error) => zhaul_untested::skip("the_calling_thread_alone_comes_first", error),
        }
    }
}
