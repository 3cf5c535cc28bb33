//! For tests that find that they cannot run here: [`skip`].
//!
//! A test has no way to tell its harness that it did not run. It passes, and what a passing test
//! prints is swallowed. So the reason goes to standard error past the harness, and into a list beside
//! the test programs, which the last program that `cargo test` runs prints.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::parent_id;
use std::panic::Location;
use std::path::PathBuf;
use std::{env, fs, thread};

/// Says that the test of this name did not run, and why: `SKIP name: why`, a line of its own.
pub fn skip(test: &str, why: impl Display) {
    let line = format!("SKIP {test}: {why}\n");
    // Whoever does not listen does not want to know.
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(mut list) = list().and_then(|path| append(path).ok()) {
        let _ = list.write_all(line.as_bytes());
    }
}

/// As [`skip`], for the test that this thread runs.
#[track_caller]
pub fn skip_this(why: impl Display) {
    match thread::current().name() {
        // With a single thread the harness runs tests on its own.
        None | Some("main") => skip(&Location::caller().to_string(), why),
        Some(test) => skip(test, why),
    }
}

/// What was skipped so far by the programs that this `cargo test` ran. They are forgotten.
pub fn take() -> Vec<String> {
    let text = list().and_then(|path| {
        let text = fs::read_to_string(&path).ok();
        let _ = fs::remove_file(path);
        text
    });
    let mut lines: Vec<_> = text
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

fn append(path: PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// The list of this run of cargo, which started this program; `None` if somebody else did.
fn list() -> Option<PathBuf> {
    let cargo = format!("/proc/{}", parent_id());
    let stat = fs::read_to_string(format!("{cargo}/stat")).ok()?;
    // The name in brackets may contain anything.
    let (name, rest) = stat.rsplit_once(')')?;
    if !name.ends_with("(cargo") {
        return None;
    }
    // Field 22 tells it from an earlier process with its number; the rest begins with field 3.
    let started = rest.split_whitespace().nth(22 - 3)?;
    let programs = env::current_exe().ok()?.parent()?.to_owned();
    Some(programs.join(format!("untested-{}-{started}", parent_id())))
}
