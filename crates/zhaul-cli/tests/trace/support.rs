//! What the tests share: traces that end with their test, servers on ports of their own, and files
//! of known content.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// No single wait of a test is longer than this; it is generous because the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Says why a test does not apply here, and ends it.
macro_rules! skip {
    ($name:expr, $($why:tt)+) => {{
        zhaul_untested::skip($name, format_args!($($why)+));
        return;
    }};
}
pub(crate) use skip;

/// Skips a test where nothing may be traced, or where a program is missing.
macro_rules! require {
    ($name:expr $(, $program:expr)*) => {
        if let Err(why) = crate::support::may_trace() {
            crate::support::skip!($name, "{why}");
        }
        $(
            if !crate::support::has_program($program) {
                crate::support::skip!($name, "{} is not installed", $program);
            }
        )*
    };
}
pub(crate) use require;

/// Tests that run elsewhere are told where it is.
pub(crate) fn binary() -> OsString {
    std::env::var_os("ZHAUL_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_zhaul").into())
}

pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this user may trace at all; if not, why.
pub(crate) fn may_trace() -> Result<(), String> {
    let tried = zhaul(["trace", "--", "true"]).output().unwrap();
    if tried.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&tried.stderr).trim().to_owned())
    }
}

/// The command, without what the environment would change.
pub(crate) fn zhaul<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .env_remove("ZHAUL_LOG")
        .env_remove("COLUMNS")
        .stdin(Stdio::null());
    command
}

/// A directory with files of known content.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Bytes that do not repeat soon.
    pub(crate) fn with(&self, name: &str, length: usize) -> PathBuf {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_ne_bytes()
        });
        let content: Vec<u8> = words.flatten().take(length).collect();
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

/// What `zhaul trace --json` said.
#[derive(Debug)]
pub(crate) struct Report(pub(crate) Value);

impl Report {
    pub(crate) fn parse(text: &str) -> Self {
        let last = text.lines().last().unwrap_or_default();
        Self(serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {text:?}")))
    }

    /// The flow from one kind to another by these calls.
    pub(crate) fn flow(&self, source: &str, sink: &str, calls: &[&str]) -> Flow<'_> {
        let flows = self.0["flows"].as_array().unwrap();
        let found = flows.iter().find(|flow| {
            flow["source"] == source && flow["sink"] == sink && flow["calls"] == Value::from(calls)
        });
        Flow(
            found
                .unwrap_or_else(|| panic!("no flow {source} to {sink} by {calls:?}: {:#}", self.0)),
        )
    }

    /// Bytes of all flows from one kind to another.
    pub(crate) fn bytes(&self, source: &str, sink: &str) -> u64 {
        let flows = self.0["flows"].as_array().unwrap().iter();
        let of_both = flows.filter(|flow| flow["source"] == source && flow["sink"] == sink);
        of_both.map(|flow| flow["bytes"].as_u64().unwrap()).sum()
    }

    pub(crate) fn call(&self, name: &str) -> &Value {
        let calls = self.0["calls"].as_array().unwrap();
        let found = calls.iter().find(|call| call["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {:#}", self.0))
    }

    pub(crate) fn lost(&self) -> u64 {
        self.0["lost"].as_u64().unwrap()
    }

    /// Something that matters was closed before it could be looked at; what the loader reads does
    /// not.
    pub(crate) fn has_guesses(&self) -> bool {
        let flows = self.0["flows"].as_array().unwrap();
        flows.iter().any(|flow| {
            let guessed = flow["source"] == "opened" || flow["sink"] == "opened";
            let bytes = &flow[if guessed { "bytes" } else { "guessed_bytes" }];
            bytes.as_u64().unwrap() >= 1 << 16
        })
    }

    /// Copies are added up by call, so that they can be foretold to the byte.
    pub(crate) fn is_by_call(&self) -> bool {
        self.0["copied"]["method"] == "by_call"
    }
}

pub(crate) struct Flow<'a>(&'a Value);

impl Flow<'_> {
    pub(crate) fn bytes(&self) -> u64 {
        self.0["bytes"].as_u64().unwrap()
    }

    pub(crate) fn copied(&self) -> u64 {
        self.0["copied_bytes"].as_u64().unwrap()
    }

    pub(crate) fn inferred(&self) -> u64 {
        self.0["inferred_bytes"].as_u64().unwrap()
    }

    pub(crate) fn verdict(&self) -> &str {
        self.0["verdict"].as_str().unwrap()
    }

    pub(crate) fn names(&self, end: &str) -> Vec<&str> {
        let names = self.0[end].as_array().unwrap();
        names.iter().map(|name| name.as_str().unwrap()).collect()
    }

    /// The bytes to the last one, copied so often, linked by addresses or descriptors.
    #[track_caller]
    pub(crate) fn assert(&self, bytes: u64, copies: u64, verdict: &str) {
        assert_eq!(self.bytes(), bytes, "{:#}", self.0);
        assert_eq!(self.inferred(), 0, "{:#}", self.0);
        assert_eq!(self.verdict(), verdict);
        let copied = self.copied();
        if self.0["method"] == "by_call" {
            assert_eq!(copied, copies * bytes, "{:#}", self.0);
        } else {
            // Copies cut short by a page fault are counted twice.
            let expected = copies * bytes;
            assert!(copied.abs_diff(expected) <= expected / 100, "{:#}", self.0);
        }
    }
}

/// Runs a command under `zhaul trace`. A file that is closed within moments may be gone before it
/// could be looked at, on a machine that is busy: that is said, and then it is tried again.
pub(crate) fn trace_command<A: AsRef<OsStr> + Clone>(
    words: impl IntoIterator<Item = A>,
) -> (ExitStatus, Report) {
    let words: Vec<A> = words.into_iter().collect();
    for _ in 0..TRIES {
        let (status, report) = trace_command_once(&words);
        if !report.has_guesses() {
            return (status, report);
        }
    }
    panic!("what was opened was never seen in {TRIES} tries");
}

const TRIES: usize = 20;

pub(crate) fn trace_command_once<A: AsRef<OsStr>>(words: &[A]) -> (ExitStatus, Report) {
    let report = tempfile::NamedTempFile::new().unwrap();
    let output = zhaul(["trace", "--json", "-o"])
        .arg(report.path())
        .arg("--")
        .args(words)
        .output()
        .unwrap();
    let text = fs::read_to_string(report.path()).unwrap();
    assert!(!text.is_empty(), "no report: {output:?}");
    (output.status, Report::parse(&text))
}

/// A trace of a process that is there.
pub(crate) struct Trace {
    child: Option<Child>,
    stderr: Option<JoinHandle<String>>,
}

impl Trace {
    /// Returns when it has attached.
    pub(crate) fn attach(pid: u32, arguments: &[&str]) -> Self {
        let mut child = zhaul(["trace", "-p", &pid.to_string()])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("zhaul: tracing ") {
            let read = lines.read_line(&mut said).unwrap();
            assert!(read > 0, "did not attach: {said}");
        }
        let stderr = std::thread::spawn(move || {
            let mut rest = said;
            lines.read_to_string(&mut rest).unwrap();
            rest
        });
        Self {
            child: Some(child),
            stderr: Some(stderr),
        }
    }

    /// Ctrl-C, and what it says then.
    pub(crate) fn stop(self) -> (ExitStatus, String) {
        self.signal(Signal::INT);
        self.wait()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let mut child = self.child.take().unwrap();
        let mut text = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        let status = child.wait().unwrap();
        let stderr = self.stderr.take().unwrap().join().unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        (status, text)
    }

    pub(crate) fn report(self) -> Report {
        let (status, text) = self.stop();
        assert!(status.success(), "{status} {text}");
        Report::parse(&text)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A program that serves until the test ends.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    /// Starts it, and waits until it listens.
    pub(crate) fn start(command: &mut Command, port: u16) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { child, port };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "does not listen: {command:?}");
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended: {ended:?} {command:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let pid = Pid::from_child(&self.child);
            // nginx's master ends its workers when it is asked to.
            let _ = kill_process(pid, Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(3);
            while Instant::now() < deadline {
                if let Ok(Some(_)) = self.child.try_wait() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// `zhaul serve` on a directory.
pub(crate) fn serve(root: &Path, arguments: &[&str]) -> Server {
    let port = free_port();
    let mut command = zhaul(["serve", "--workers", "1", "--listen"]);
    command
        .arg(format!("127.0.0.1:{port}"))
        .args(arguments)
        .arg(root);
    Server::start(&mut command, port)
}

/// Asks for a path, and compares what comes with a file.
pub(crate) fn fetch(port: u16, path: &str, expected: &Path) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a header");
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert!(
        answer[head + 4..] == fs::read(expected).unwrap(),
        "the body is that of the file"
    );
}
