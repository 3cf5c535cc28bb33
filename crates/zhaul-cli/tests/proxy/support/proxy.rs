//! The proxy under test as a child process.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::running::{Refusal, Running, binary};
use super::{PATIENCE, connect, eventually};

/// A running proxy with a directory of its own. Dropping it ends it.
pub(crate) struct Proxy {
    running: Running,
    dir: TempDir,
}

impl Deref for Proxy {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl DerefMut for Proxy {
    fn deref_mut(&mut self) -> &mut Running {
        &mut self.running
    }
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
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .arg("proxy")
            .args(arguments)
            .env_remove("ZHAUL_LOG")
            .stdout(Stdio::null());
        let listens = |stderr: &str| stderr.contains("zhaul: listener ").then_some(());
        let (running, ()) = Running::start(&mut command, |_| false).until(listens)?;
        Ok(Self { running, dir })
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
}
