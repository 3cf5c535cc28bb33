//! However a run ends, its servers end with it, and its files are removed.

// The lint's exemption for tests does not reach what test functions call.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A run with nothing but a floor, long enough to be interrupted.
fn start(dir: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_zhaul-bench"))
        .args([
            "idle",
            "--quick",
            "--rounds",
            "1000",
            "--idle-connections",
            "50",
        ])
        .args([
            "--servers",
            "canned",
            "--only",
            "idle",
            "--zhaul",
            "/nonexistent",
            "--dir",
        ])
        .arg(dir)
        .env("TMPDIR", dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Processes, zombies aside, whose command line names `dir` and a floor.
fn floors(dir: &Path) -> usize {
    let name = dir.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let command_lines =
        processes.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    command_lines
        .filter(|line| line.contains(name) && line.contains("canned\0--listen"))
        .count()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(1));
    }
}

fn interrupted_by(signal: Signal) -> (Option<i32>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start(dir.path());
    until("a floor runs", || floors(dir.path()) > 0);
    kill_process(Pid::from_child(&child), signal).unwrap();
    let status = child.wait().unwrap();
    until("the floors are gone", || floors(dir.path()) == 0);
    (status.code(), fs::read_dir(dir.path()).unwrap().count())
}

#[test]
fn interrupted_run_leaves_no_process_and_no_file() {
    assert_eq!(interrupted_by(Signal::INT), (Some(130), 0));
    assert_eq!(interrupted_by(Signal::TERM), (Some(130), 0));
}

#[test]
fn killed_run_leaves_no_process() {
    let (code, _) = interrupted_by(Signal::KILL);
    assert_eq!(code, None);
}

#[test]
fn run_that_fails_says_so_by_its_status() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_zhaul-bench"))
        .args([
            "idle",
            "--quick",
            "--only",
            "idle",
            "--servers",
            "zhaul",
            "--zhaul",
            "/bin/false",
        ])
        .arg("--dir")
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("zhaul does not start"), "{said}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
