//! The server under test as a child process: started, watched, and ended by its process id.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Client, PATIENCE, eventually};

/// A server that is to be started.
pub(crate) struct Serve {
    root: PathBuf,
    arguments: Vec<OsString>,
    listen: Vec<String>,
    wrapper: Vec<OsString>,
    stdout: Option<PathBuf>,
    announcements: usize,
    hangs_up: bool,
}

/// The program under test. Copies of these tests that run elsewhere are told where it is.
pub(crate) fn binary() -> OsString {
    std::env::var_os("ZHAUL_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_zhaul").into())
}

/// A running server. Dropping it ends it.
pub(crate) struct Server {
    child: Child,
    urls: Vec<String>,
    stderr: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

/// A server that did not start.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

impl Serve {
    pub(crate) fn new(root: impl AsRef<Path>) -> Self {
        Self {
            root: root.as_ref().to_owned(),
            arguments: Vec::new(),
            listen: vec!["127.0.0.1:0".to_owned()],
            wrapper: Vec::new(),
            stdout: None,
            announcements: 1,
            hangs_up: false,
        }
    }

    pub(crate) fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(args.into_iter().map(Into::into));
        self
    }

    /// Where to listen instead of a free port of 127.0.0.1.
    pub(crate) fn listen<A: ToString>(mut self, addresses: impl IntoIterator<Item = A>) -> Self {
        self.listen = addresses.into_iter().map(|a| a.to_string()).collect();
        self.announcements = self.listen.len();
        self
    }

    /// A command that replaces itself by the server, such as `prlimit` or `setpriv`.
    pub(crate) fn under<A: Into<OsString>>(mut self, words: impl IntoIterator<Item = A>) -> Self {
        self.wrapper = words.into_iter().map(Into::into).collect();
        self
    }

    pub(crate) fn stdout_to(mut self, path: impl Into<PathBuf>) -> Self {
        self.stdout = Some(path.into());
        self
    }

    /// Closes the reading side of the server's stderr once it has said where it listens.
    pub(crate) fn hang_up_on_stderr(mut self) -> Self {
        self.hangs_up = true;
        self
    }

    pub(crate) fn start(self) -> Server {
        match self.try_start() {
            Ok(server) => server,
            Err(refusal) => panic!("the server did not start: {refusal:?}"),
        }
    }

    /// The server when it listens, or what it said when it ended before.
    pub(crate) fn try_start(self) -> Result<Server, Refusal> {
        let mut command = self.command();
        let stdout = match &self.stdout {
            Some(path) => std::fs::File::create(path).unwrap().into(),
            None => Stdio::null(),
        };
        command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = Arc::new(Mutex::new(String::new()));
        let pipe = child.stderr.take().unwrap();
        let theirs = Arc::clone(&stderr);
        let enough = self.hangs_up.then_some(self.announcements);
        let reader = std::thread::spawn(move || {
            let mut lines = BufReader::new(pipe);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                theirs
                    .lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&line));
                line.clear();
                let said = announced(&theirs.lock().unwrap()).len();
                if enough.is_some_and(|enough| said >= enough) {
                    break;
                }
            }
        });
        let mut server = Server {
            child,
            urls: Vec::new(),
            stderr,
            reader: Some(reader),
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            server.urls = announced(&server.stderr());
            if server.urls.len() >= self.announcements {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait().unwrap() {
                server.reader.take().unwrap().join().unwrap();
                return Err(Refusal {
                    status,
                    stderr: server.stderr(),
                });
            }
            assert!(
                Instant::now() < deadline,
                "neither listens nor ends: {}",
                server.stderr()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn command(&self) -> Command {
        let binary = binary();
        let mut words = self.wrapper.iter().chain([&binary]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .arg("serve")
            .arg(&self.root)
            .args(&self.arguments);
        for address in &self.listen {
            command.arg("--listen").arg(address);
        }
        command.env_remove("ZHAUL_LOG");
        command
    }
}

fn announced(stderr: &str) -> Vec<String> {
    let lines = stderr
        .lines()
        .filter(|line| line.starts_with("zhaul: serving "));
    lines
        .filter_map(|line| Some(line.split_once(" on ")?.1.to_owned()))
        .collect()
}

impl Server {
    /// A server of `root` with these arguments.
    pub(crate) fn of(root: impl AsRef<Path>, arguments: &[&str]) -> Self {
        Serve::new(root).args(arguments.iter().copied()).start()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::tcp(self.address())
    }

    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The first TCP address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        let urls = self.urls.iter();
        let mut addresses =
            urls.filter_map(|url| url.strip_prefix("http://")?.strip_suffix('/')?.parse().ok());
        addresses.next().expect("it listens on TCP")
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

    /// Waits for a line on stderr that contains all of `words`.
    pub(crate) fn wait_for_warning(&self, words: &[&str]) {
        eventually(&format!("a line on stderr with {words:?}"), || {
            self.stderr()
                .lines()
                .any(|line| words.iter().all(|word| line.contains(word)))
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

impl Drop for Server {
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
        if std::thread::panicking() {
            eprintln!("stderr of the server:\n{}", self.stderr());
        } else {
            let stderr = self.stderr();
            assert!(
                !stderr.contains("panicked"),
                "a thread of the server panicked:\n{stderr}"
            );
        }
    }
}
