//! The server under test as a child process.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Client;
use super::running::{Refusal, Running, binary};

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

/// A running server. Dropping it ends it.
pub(crate) struct Server {
    running: Running,
    urls: Vec<String>,
}

impl Deref for Server {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Running {
        &mut self.running
    }
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
        command.stdout(stdout);
        let (hangs_up, announcements) = (self.hangs_up, self.announcements);
        let is_enough = move |said: &str| hangs_up && announced(said).len() >= announcements;
        let listens = |said: &str| Some(announced(said)).filter(|urls| urls.len() >= announcements);
        let (running, urls) = Running::start(&mut command, is_enough).until(listens)?;
        Ok(Server { running, urls })
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
}
