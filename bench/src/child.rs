//! Child processes that cannot outlive the bench.
//!
//! Contract: a [`Child`] is killed and reaped when it is dropped, on success, error and panic alike;
//! PR_SET_PDEATHSIG covers the ends that run no destructor. That signal follows the *thread* that
//! spawned the child, so servers are spawned by the main thread only.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

use crate::{affinity, interrupt};

#[derive(Debug)]
pub(crate) struct Child {
    inner: std::process::Child,
}

impl Child {
    /// Starts `command` pinned to `core`.
    pub(crate) fn spawn(mut command: Command, core: Option<usize>) -> anyhow::Result<Self> {
        let parent = getpid();
        let prepare = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died between fork and prctl; then nobody would send the signal.
            if getppid() != Some(parent) {
                return Err(rustix::io::Errno::SRCH.into());
            }
            affinity::pin(core)
        };
        // SAFETY: between fork and exec `prepare` makes three system calls, touches only what it
        // captured by value, takes no lock and allocates nothing.
        unsafe { command.pre_exec(prepare) };
        let inner = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { inner })
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.inner)
    }

    /// The exit status if the process has ended.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.inner.try_wait()
    }

    /// Waits for the end, at most `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.inner.try_wait()? {
                return Ok(status);
            }
            interrupt::check()?;
            if Instant::now() >= deadline {
                bail!("process {} did not end within {limit:?}", self.inner.id());
            }
            sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only if the process has already been reaped.
        let _ = self.inner.kill();
        // Bounded: a process in an uninterruptible disk wait must not hang the bench as well; the
        // signal stays pending and ends it later.
        let deadline = Instant::now() + REAP_LIMIT;
        while Instant::now() < deadline {
            if !matches!(self.inner.try_wait(), Ok(None)) {
                return;
            }
            sleep(POLL_INTERVAL);
        }
    }
}

const POLL_INTERVAL: Duration = Duration::from_millis(2);
const REAP_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::test_kill_process;

    fn sleeper() -> Child {
        let mut command = Command::new("sleep");
        command.arg("60");
        Child::spawn(command, None).unwrap()
    }

    #[test]
    fn dropped_child_is_dead_and_reaped() {
        let child = sleeper();
        let pid = child.pid();
        test_kill_process(pid).unwrap();
        drop(child);
        assert!(test_kill_process(pid).is_err());
    }

    #[test]
    fn child_does_not_survive_a_panic() {
        let child = sleeper();
        let pid = child.pid();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _child = child;
            panic!("on purpose");
        }));
        assert!(outcome.is_err());
        assert!(test_kill_process(pid).is_err());
    }

    #[test]
    fn child_does_not_survive_the_thread_that_owns_it() {
        // What a SIGKILLed bench leaves behind: no destructor runs, the parent thread is just gone.
        let pid = std::thread::spawn(|| {
            let child = sleeper();
            let pid = child.pid();
            std::mem::forget(child);
            pid
        })
        .join()
        .unwrap();
        // Nobody reaps it, so it stays as a zombie: look at its state, not at its existence.
        let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let text = std::fs::read_to_string(&stat).unwrap_or_default();
            if text.is_empty() || text.contains(") Z") {
                break;
            }
            assert!(Instant::now() < deadline, "still running: {text}");
            sleep(POLL_INTERVAL);
        }
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
    }

    #[test]
    fn waiting_is_bounded() {
        let mut child = sleeper();
        assert!(child.wait(Duration::from_millis(20)).is_err());
    }
}
