//! CPU time of another process, in nanoseconds.
//!
//! `clock_getcpuclockid` names the process CPU clock: the exact run time of all its threads, ended
//! ones included, as the scheduler accounts it. `/proc/PID/stat` counts 4 ms ticks instead, which is
//! 2 % of a short run. What interrupts do on the server's core counts as the server's; what kernel
//! workers do for it does not.

use std::io;
use std::time::Duration;

use rustix::process::Pid;

#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuClock(libc::clockid_t);

impl CpuClock {
    pub(crate) fn of(pid: Pid) -> io::Result<Self> {
        let mut id: libc::clockid_t = 0;
        // SAFETY: `id` outlives the call and is written by it.
        let error = unsafe { libc::clock_getcpuclockid(pid.as_raw_nonzero().get(), &raw mut id) };
        if error == 0 {
            Ok(Self(id))
        } else {
            Err(io::Error::from_raw_os_error(error))
        }
    }

    /// Fails once the process is gone.
    pub(crate) fn read(self) -> io::Result<Duration> {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` outlives the call and is written by it.
        if unsafe { libc::clock_gettime(self.0, &raw mut time) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec))
        else {
            return Err(io::Error::other("negative CPU time"));
        };
        Ok(Duration::new(seconds, nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::Child;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    fn cpu_over(command: Command, wall: Duration) -> Duration {
        let child = Child::spawn(command, None).unwrap();
        let clock = CpuClock::of(child.pid()).unwrap();
        let before = clock.read().unwrap();
        std::thread::sleep(wall);
        clock.read().unwrap() - before
    }

    #[test]
    fn busy_process_is_told_from_an_idle_one() {
        let mut idle = Command::new("sleep");
        idle.arg("60");
        let mut busy = Command::new("sh");
        busy.args(["-c", "while :; do :; done"])
            .stdout(Stdio::null());
        let started = Instant::now();
        let rested = cpu_over(idle, Duration::from_millis(200));
        let spent = cpu_over(busy, Duration::from_millis(300));
        // The machine may be loaded, so only that the one is more than the other.
        assert!(spent > rested, "{spent:?} and {rested:?}");
        assert!(spent <= started.elapsed());
    }

    #[test]
    fn process_that_is_gone_is_an_error() {
        let child = Child::spawn(Command::new("true"), None).unwrap();
        let clock = CpuClock::of(child.pid()).unwrap();
        drop(child);
        assert!(clock.read().is_err());
    }
}
