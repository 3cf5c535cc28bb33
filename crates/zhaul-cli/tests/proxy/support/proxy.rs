//! The proxy under test as a child process: started, watched, and ended by its process id.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, connect, eventually};

/// The program under test. Copies of these tests that run elsewhere are told where it is.
pub(crate) fn binary() -> OsString {
    std::env::var_os("ZHAUL_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_zhaul").into())
}

/// A running proxy with a directory of its own. Dropping it ends it.
pub(crate) struct Proxy {
    child: Child,
    dir: TempDir,
    stderr: Arc<Mutex<String>>,
}

/// A proxy that did not start.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

/// A proxy without a configuration file in front of these servers, with a log.
pub(crate) fn simple(to: &[SocketAddr], arguments: &[&str]) -> Proxy {
    let to: Vec<_> = to.iter().map(ToString::to_string).collect();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log").display().to_string();
    let to = to.join(",");
    let mut all = vec![
        "--listen",
        "127.0.0.1:0",
        "--to",
        &to,
        "--session-log",
        &log,
        "--log-format",
        "json",
    ];
    all.extend(arguments);
    Proxy::start(dir, &all, &[]).unwrap_or_else(|refusal| panic!("{refusal:?}"))
}

/// A proxy with this configuration, in which `DIR` stands for its directory. It logs to `DIR/log` and
/// has its administrator's socket at `DIR/admin`.
pub(crate) fn configured(config: &str) -> Proxy {
    try_configured(config, &[]).unwrap_or_else(|refusal| panic!("{refusal:?}"))
}

/// The same, with more arguments; or what it said when it did not start.
pub(crate) fn try_configured(config: &str, wrapper: &[&str]) -> Result<Proxy, Refusal> {
    let dir = tempfile::tempdir().unwrap();
    let path = write_config(dir.path(), config);
    let path = path.display().to_string();
    Proxy::start(dir, &["--config", &path], wrapper)
}

fn write_config(dir: &Path, config: &str) -> PathBuf {
    let path = dir.join("proxy.toml");
    let head = "admin = \"unix:DIR/admin\"\nlog = { path = \"DIR/log\", format = \"json\" }\n";
    let text = format!("{head}{config}").replace("DIR", &dir.display().to_string());
    std::fs::write(&path, text).unwrap();
    path
}

impl Proxy {
    pub(crate) fn start(
        dir: TempDir,
        arguments: &[&str],
        wrapper: &[&str],
    ) -> Result<Self, Refusal> {
        let binary = binary();
        let mut words = wrapper.iter().map(OsString::from).chain([binary]);
        let mut child = Command::new(words.next().unwrap())
            .args(words)
            .arg("proxy")
            .args(arguments)
            .env_remove("ZHAUL_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = Arc::new(Mutex::new(String::new()));
        let theirs = Arc::clone(&stderr);
        let pipe = child.stderr.take().unwrap();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                let line = line.unwrap_or_default();
                theirs.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        let mut proxy = Self { child, dir, stderr };
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = proxy.child.try_wait().unwrap() {
                reader.join().unwrap();
                return Err(Refusal {
                    status,
                    stderr: proxy.stderr(),
                });
            }
            if proxy.stderr().contains("zhaul: listener ") {
                return Ok(proxy);
            }
            assert!(Instant::now() < deadline, "neither listens nor ends");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the first listener listens.
    pub(crate) fn address(&self) -> SocketAddr {
        let find = || {
            let stderr = self.stderr();
            let mut lines = stderr.lines();
            lines.find_map(|line| {
                let (_, address) = line.strip_prefix("zhaul: listener ")?.split_once(" on ")?;
                address.parse().ok()
            })
        };
        eventually("a listener on TCP", || find().is_some());
        find().unwrap()
    }

    pub(crate) fn connect(&self) -> std::net::TcpStream {
        connect(self.address())
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
        eventually(
            &format!("a line with {words:?} in {}", self.stderr()),
            || {
                let stderr = self.stderr();
                let mut lines = stderr.lines();
                lines.any(|line| words.iter().all(|word| line.contains(word)))
            },
        );
    }

    /// Writes another configuration and has it read.
    pub(crate) fn reload(&self, config: &str) {
        write_config(self.dir(), config);
        self.signal(Signal::HUP);
    }

    /// The lines of the log, when there are `count`.
    pub(crate) fn log(&self, count: usize) -> Vec<Value> {
        let read = || {
            let text = std::fs::read_to_string(self.dir().join("log")).unwrap_or_default();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]).to_owned();
            let lines = whole
                .lines()
                .map(|line| serde_json::from_str(line).unwrap());
            lines.collect::<Vec<Value>>()
        };
        eventually(&format!("{count} lines in the log"), || {
            read().len() >= count
        });
        read()
    }

    /// The answer to a command of the administrator.
    pub(crate) fn admin(&self, command: &str) -> String {
        use std::io::{Read, Write};
        let mut stream = UnixStream::connect(self.dir().join("admin")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{command}\n").as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
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

impl Drop for Proxy {
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
            eprintln!("stderr of the proxy:\n{stderr}");
        } else {
            let defect = stderr.contains("panicked") || stderr.contains("a defect");
            assert!(!defect, "a thread of the proxy panicked:\n{stderr}");
        }
    }
}
