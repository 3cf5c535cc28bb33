//! A program under test as a child process: started, watched, and ended by its process id.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, eventually};

/// The program under test. Copies of these tests that run elsewhere are told where it is.
pub(crate) fn binary() -> OsString {
    std::env::var_os("ZHAUL_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_zhaul").into())
}

/// A command that replaces itself by one that ignores these signals, as nohup and background shells do.
pub(crate) fn ignoring(signals: &str) -> [String; 4] {
    let script = format!("trap '' {signals}; exec \"$@\"");
    ["sh", "-c", &script, "sh"].map(str::to_owned)
}

/// A program that runs. Dropping it ends it.
pub(crate) struct Running {
    child: Child,
    stderr: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

/// A program that ended before it did what it was started for.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

impl Running {
    /// Starts it; its stderr is read until `is_enough` says so of what was said, and then closed.
    pub(crate) fn start(
        command: &mut Command,
        is_enough: impl Fn(&str) -> bool + Send + 'static,
    ) -> Self {
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = Arc::new(Mutex::new(String::new()));
        let pipe = child.stderr.take().unwrap();
        let theirs = Arc::clone(&stderr);
        let reader = std::thread::spawn(move || {
            let mut lines = BufReader::new(pipe);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let mut said = theirs.lock().unwrap();
                said.push_str(&String::from_utf8_lossy(&line));
                line.clear();
                if is_enough(&said) {
                    break;
                }
            }
        });
        Self {
            child,
            stderr,
            reader: Some(reader),
        }
    }

    /// Waits until `ready` finds on stderr what it looks for, or the program ends.
    pub(crate) fn until<T>(
        mut self,
        ready: impl Fn(&str) -> Option<T>,
    ) -> Result<(Self, T), Refusal> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = ready(&self.stderr()) {
                return Ok((self, found));
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                self.reader.take().unwrap().join().unwrap();
                let stderr = self.stderr();
                return Err(Refusal { status, stderr });
            }
            let stderr = self.stderr();
            assert!(
                Instant::now() < deadline,
                "neither listens nor ends: {stderr}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// What it has said on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits until it has said something with all of `words` in one line.
    pub(crate) fn wait_for(&self, words: &[&str]) {
        let what = format!("a line with {words:?} in {}", self.stderr());
        eventually(&what, || {
            let stderr = self.stderr();
            let mut lines = stderr.lines();
            lines.any(|line| words.iter().all(|word| line.contains(word)))
        });
    }

    /// How it ended, if it does so within `bound`.
    pub(crate) fn wait(&mut self, bound: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + bound;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not reaped yet, so that the process id is still ours.
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process(self.pid(), Signal::TERM);
            // A second one says: at once.
            let _ = kill_process(self.pid(), Signal::TERM);
            if self.wait(Duration::from_secs(2)).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        let stderr = self.stderr();
        if std::thread::panicking() {
            eprintln!("what it said on stderr:\n{stderr}");
        } else {
            let defect = stderr.contains("panicked") || stderr.contains("a defect");
            assert!(!defect, "one of its threads panicked:\n{stderr}");
        }
    }
}
