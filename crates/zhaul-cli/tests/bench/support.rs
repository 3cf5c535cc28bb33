//! Running the command, and looking at what became of it.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use zhaul_measure::bench::results::Results;

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

/// A run that ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) exit: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            exit: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn assert_success(self) -> Self {
        assert_eq!(self.exit, Some(0), "{self:#?}");
        self
    }

    /// `zhaul: what: why (what to do)` on stderr, these words in it, and nothing on stdout.
    #[track_caller]
    pub(crate) fn assert_refused(&self, exit: i32, words: &[&str]) {
        assert_eq!(self.exit, Some(exit), "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
        assert!(self.stderr.starts_with("zhaul: "), "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing: {self:#?}");
        }
    }
}

/// The command with these arguments, to be run from an empty directory that is its `TMPDIR`.
pub(crate) fn command<A: AsRef<OsStr>>(dir: &TempDir, args: &[A]) -> Command {
    let mut command = Command::new(binary());
    command
        .arg("bench")
        .args(args)
        .current_dir(dir.path())
        .env("TMPDIR", dir.path())
        .env("COLUMNS", "80")
        // Nothing of this machine's.
        .env("ZHAUL_CALIBRATION", "")
        .stdin(Stdio::null());
    command
}

pub(crate) fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Runs it to its end.
pub(crate) fn bench<A: AsRef<OsStr>>(dir: &TempDir, args: &[A]) -> Run {
    Run::of(command(dir, args).output().unwrap())
}

/// A run of one small cell with its contenders, as JSON in `name`.
pub(crate) fn small_run(dir: &TempDir, name: &str, rounds: &str) -> Results {
    let args = [
        "sendfile", "--path", "file-tcp", "--sizes", "1K", "--json", name,
    ];
    let more = ["--rounds", rounds, "--no-profile"];
    bench(dir, &[&args[..], &more[..]].concat()).assert_success();
    load(&dir.path().join(name))
}

pub(crate) fn load(path: &Path) -> Results {
    zhaul_measure::bench::compare::load(path).unwrap()
}

/// The names in a directory, in order.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}
