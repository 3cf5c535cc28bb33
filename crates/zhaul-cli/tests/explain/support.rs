//! Running the binary in a directory of its own, and peers for it to talk to.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// No single wait of a test is longer; it is generous because the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Says why a test does not apply here, and ends it.
macro_rules! skip {
    ($name:expr, $($why:tt)+) => {{
        zhaul_untested::skip($name, format_args!($($why)+));
        return;
    }};
}
pub(crate) use skip;

/// A directory for one test, in which `zhaul explain` is run.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        set_mode(dir.path(), 0o777);
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file of this many bytes, of which any two places differ.
    pub(crate) fn file(&self, name: &str, len: usize) -> Vec<u8> {
        let content = pattern(len);
        fs::write(self.path(name), &content).unwrap();
        content
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        path
    }

    /// The command, to be run here.
    pub(crate) fn explain<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Explain {
        Explain {
            dir: self.dir.path().to_owned(),
            arguments: arguments
                .into_iter()
                .map(|a| a.as_ref().to_owned())
                .collect(),
            columns: 80,
            calibration: OsString::new(),
            wrapper: Vec::new(),
            stdin: Stdio::null(),
            stdout: Stdio::piped(),
        }
    }

    /// The plan or the run as JSON; it must succeed.
    #[track_caller]
    pub(crate) fn json<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Value {
        self.explain(arguments).arg("--json").run().json()
    }
}

/// A command to be run.
pub(crate) struct Explain {
    dir: PathBuf,
    arguments: Vec<OsString>,
    columns: usize,
    calibration: OsString,
    wrapper: Vec<OsString>,
    stdin: Stdio,
    stdout: Stdio,
}

impl Explain {
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(crate) fn columns(mut self, columns: usize) -> Self {
        self.columns = columns;
        self
    }

    /// Where the thresholds are.
    pub(crate) fn calibration(mut self, path: impl Into<OsString>) -> Self {
        self.calibration = path.into();
        self
    }

    /// A command that replaces itself by ours.
    pub(crate) fn under(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(OsString::from).collect();
        self
    }

    pub(crate) fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = stdin.into();
        self
    }

    pub(crate) fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdout = stdout.into();
        self
    }

    pub(crate) fn start(self) -> Child {
        let mut words = self.wrapper;
        words.push(binary());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg("explain")
            .args(self.arguments)
            .current_dir(self.dir)
            .env("COLUMNS", self.columns.to_string())
            // What was measured on this machine must not change what is planned in a test.
            .env("ZHAUL_CALIBRATION", self.calibration)
            .stdin(self.stdin)
            .stdout(self.stdout)
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    pub(crate) fn run(self) -> Ended {
        Ended::of(self.start())
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    /// Waits for it, and ends it if it takes too long.
    pub(crate) fn of(child: Child) -> Self {
        let pid = rustix::process::Pid::from_child(&child);
        let (sender, receiver) = std::sync::mpsc::channel();
        let waiter = std::thread::spawn(move || {
            let output: Output = child.wait_with_output().unwrap();
            let _ = sender.send(());
            output
        });
        let in_time = receiver.recv_timeout(PATIENCE).is_ok();
        if !in_time {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let output = waiter.join().unwrap();
        assert!(in_time, "it did not end in time: {output:?}");
        Self {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let ended = self.succeeded();
        serde_json::from_slice(&ended.stdout)
            .unwrap_or_else(|error| panic!("{error}: {:?}", ended.text()))
    }

    /// It failed with this code, and said `zhaul: what: why (what to do)` in one last line.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        let line = self.stderr.trim_end().lines().last().unwrap_or_default();
        assert!(line.starts_with("zhaul: ") && line.ends_with(')'), "{line}");
        for word in words {
            assert!(line.contains(word), "{word:?} is missing in: {line}");
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }
}

/// The program under test. Copies of these tests that run elsewhere are told where it is.
pub(crate) fn binary() -> OsString {
    std::env::var_os("ZHAUL_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_zhaul").into())
}

/// Bytes of which any two places can be told apart: each eight tell where they stand.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    let mut place = 0_u64;
    while bytes.len() < len {
        let mixed = place.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bytes.extend_from_slice(&mixed.to_le_bytes());
        place += 1;
    }
    bytes.truncate(len);
    bytes
}

/// A TCP peer that takes one connection and reads it to its end.
pub(crate) fn tcp_reader() -> (String, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("tcp:{}", listener.local_addr().unwrap());
    let reader = std::thread::spawn(move || read_all(listener.accept().unwrap().0));
    (name, reader)
}

/// A TCP peer that takes one connection and writes `content` to it.
pub(crate) fn tcp_writer(content: Vec<u8>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("tcp:{}", listener.local_addr().unwrap());
    let writer =
        std::thread::spawn(move || listener.accept().unwrap().0.write_all(&content).unwrap());
    (name, writer)
}

/// The same with a UNIX socket.
pub(crate) fn unix_reader(path: &Path) -> JoinHandle<Vec<u8>> {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || read_all(listener.accept().unwrap().0))
}

pub(crate) fn unix_writer(path: &Path, content: Vec<u8>) -> JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || listener.accept().unwrap().0.write_all(&content).unwrap())
}

pub(crate) fn read_all(mut from: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    from.read_to_end(&mut all).unwrap();
    all
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs what follows as an ordinary user without privilege.
pub(crate) const NOBODY: [&str; 6] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all",
    "--",
];

/// Whether another user can start the binary where it lies.
pub(crate) fn nobody_can_run_it() -> bool {
    let status = Command::new(NOBODY[0])
        .args(&NOBODY[1..])
        .args([binary(), "--version".into()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

pub(crate) fn set_mode(path: impl AsRef<Path>, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Looks again and again until `done` holds, and panics with `what` if it never does.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "did not happen in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
