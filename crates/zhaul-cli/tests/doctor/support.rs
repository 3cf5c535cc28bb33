//! What the tests share: a run of the program that cannot last for ever, and its report.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The program gives up everything that hangs after a quarter of a minute; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// Says why a test does not apply here, and ends it.
macro_rules! skip {
    ($name:expr, $($why:tt)+) => {{
        zhaul_untested::skip($name, format_args!($($why)+));
        return;
    }};
}
pub(crate) use skip;

/// The program under test. Copies of these tests that run elsewhere are told where it is.
pub(crate) fn binary() -> OsString {
    std::env::var_os("ZHAUL_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_zhaul").into())
}

/// A run of the program that is to be.
pub(crate) struct Doctor {
    arguments: Vec<OsString>,
    wrapper: Vec<OsString>,
    variables: Vec<(&'static str, String)>,
}

/// A run that is over.
pub(crate) struct Run {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Doctor {
    pub(crate) fn on(path: impl AsRef<Path>) -> Self {
        Self::with([path.as_ref().as_os_str().to_owned()])
    }

    pub(crate) fn with<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self {
            arguments: arguments.into_iter().map(Into::into).collect(),
            wrapper: Vec::new(),
            variables: Vec::new(),
        }
    }

    pub(crate) fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// A command that replaces itself by the program, such as `prlimit` or `setpriv`.
    pub(crate) fn under<A: Into<OsString>>(mut self, words: impl IntoIterator<Item = A>) -> Self {
        self.wrapper = words.into_iter().map(Into::into).collect();
        self
    }

    /// A shell script in namespaces of its own that prepares something and then runs `"$@"`.
    pub(crate) fn after(self, namespaces: &[&str], script: &str) -> Self {
        let mut words = vec!["unshare"];
        words.extend(namespaces);
        words.extend(["sh", "-euc", script, "sh"]);
        self.under(words)
    }

    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    pub(crate) fn columns(self, columns: usize) -> Self {
        self.variable("COLUMNS", columns.to_string())
    }

    pub(crate) fn command(&self) -> Command {
        let binary = binary();
        let mut words = self.wrapper.iter().chain([&binary]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg("doctor").args(&self.arguments);
        for name in [
            "ZHAUL_LOG",
            "COLUMNS",
            "NO_COLOR",
            "CLICOLOR_FORCE",
            "CLICOLOR",
        ] {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs it to its end, which must come.
    pub(crate) fn run(&self) -> Run {
        let mut command = self.command();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let out = std::thread::spawn(move || text_of(&mut stdout));
        let err = std::thread::spawn(move || text_of(&mut stderr));
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                panic!("it does not end: {command:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        Run {
            status,
            stdout: out.join().unwrap(),
            stderr: err.join().unwrap(),
        }
    }

    /// Runs it, and what it says must be a report.
    #[track_caller]
    pub(crate) fn report(self) -> Value {
        let run = self.arg("--json").run();
        run.assert_success();
        serde_json::from_str(&run.stdout).unwrap()
    }
}

fn text_of(pipe: &mut impl Read) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).unwrap();
    text
}

impl Run {
    #[track_caller]
    pub(crate) fn assert_success(&self) {
        assert!(self.status.success(), "{:?}: {}", self.status, self.stderr);
        assert_eq!(self.stderr, "");
    }

    /// `zhaul: what: why (what to do)` on one line of stderr, and nothing on stdout.
    #[track_caller]
    pub(crate) fn assert_refused(&self, exit: i32, words: &[&str]) {
        assert_eq!(self.status.code(), Some(exit), "{}", self.stderr);
        assert_eq!(self.stdout, "");
        let text = self.stderr.trim_end();
        assert!(
            text.starts_with("zhaul: ") && !text.contains("panicked"),
            "{text}"
        );
        for word in words {
            assert!(text.contains(word), "{word:?} is missing in: {text}");
        }
    }
}

/// The mechanism of the host with this id.
#[track_caller]
pub(crate) fn mechanism<'a>(report: &'a Value, id: &str) -> &'a Value {
    by(&report["mechanisms"], "id", id)
}

/// The finding with this id on the first file system of the report.
#[track_caller]
pub(crate) fn on_files<'a>(report: &'a Value, id: &str) -> &'a Value {
    by(&report["file_systems"][0]["findings"], "id", id)
}

/// The limit of this name.
#[track_caller]
pub(crate) fn limit<'a>(report: &'a Value, name: &str) -> &'a Value {
    by(&report["limits"], "name", name)
}

#[track_caller]
pub(crate) fn by<'a>(list: &'a Value, key: &str, value: &str) -> &'a Value {
    let entries = list.as_array().unwrap();
    let found = entries.iter().find(|entry| entry[key] == value);
    found.unwrap_or_else(|| panic!("no {value} in {entries:#?}"))
}

/// The words with which the report says what it comes down to.
pub(crate) fn verdict(report: &Value) -> String {
    let sentences = report["verdict"].as_array().unwrap();
    let sentences: Vec<_> = sentences.iter().map(|s| s.as_str().unwrap()).collect();
    sentences.join("\n")
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a program is installed.
pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

/// Whether all of these programs are installed and this is root with namespaces to make.
pub(crate) fn can_unshare(programs: &[&str]) -> bool {
    let quiet = |mut command: Command| {
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--net", "true"]);
    is_root() && programs.iter().all(|name| has_program(name)) && quiet(unshare)
}

/// How to be an ordinary user without any privilege.
pub(crate) const NOBODY: [&str; 4] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

/// Whether the program can be started as another user from where it lies.
pub(crate) fn can_be_nobody() -> bool {
    let status = Command::new(NOBODY[0])
        .args(&NOBODY[1..])
        .args([binary(), "--version".into()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    is_root() && status.is_ok_and(|status| status.success())
}

/// Permissions of a directory; who makes one read-only makes it writable again, or it stays.
pub(crate) fn set_mode(dir: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A directory that other users may enter.
pub(crate) fn open_directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o755);
    dir
}
