//! Runs that are stopped: they show what they have, say so, and leave nothing behind.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{Run, command, dir, load, names};

/// A run that would take hours.
fn start(dir: &TempDir) -> Child {
    let args = [
        "read+write",
        "--path",
        "file-file",
        "--sizes",
        "1K,4K",
        "--rounds",
        "1000",
    ];
    let more = ["--no-profile", "--json", "a.json"];
    command(dir, &[&args[..], &more[..]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    // It may have ended.
    let _ = kill_process(pid, signal);
}

/// Stops a run after some time, and says what became of it.
fn stopped_after(dir: &TempDir, time: Duration, with: Signal) -> Run {
    let child = start(dir);
    std::thread::sleep(time);
    signal(&child, with);
    Run::of(child.wait_with_output().unwrap())
}

#[test]
fn an_interrupted_run_shows_and_writes_what_it_has() {
    for with in [Signal::INT, Signal::TERM] {
        let dir = dir();
        // Until there is something to show: the machine may be busy.
        let mut time = Duration::from_secs(2);
        let run = loop {
            let run = stopped_after(&dir, time, with);
            assert_eq!(run.exit, Some(130), "{run:#?}");
            assert!(run.stderr.starts_with("zhaul: bench"), "{run:#?}");
            assert!(run.stderr.contains("interrupted"), "{run:#?}");
            if !run.stderr.contains("before the first figure") {
                break run;
            }
            assert_eq!(run.stdout, "", "{run:#?}");
            assert!(time < Duration::from_secs(60), "{run:#?}");
            time *= 2;
        };
        assert!(run.stdout.contains("file → file"), "{run:#?}");
        assert!(run.stdout.contains("INTERRUPTED"), "{run:#?}");
        assert!(run.stderr.contains("of 1000 rounds") || run.stderr.contains("all 1000 rounds"));
        let results = load(&dir.path().join("a.json"));
        assert!(results.interrupted && !results.cells.is_empty());
        assert!(results.cells.iter().all(|cell| !cell.samples.is_empty()));
        assert_eq!(names(dir.path()), ["a.json"]);
    }
}

#[test]
fn nothing_has_a_name_while_it_runs_so_nothing_stays_however_it_ends() {
    let dir = dir();
    let mut child = start(&dir);
    let until = Instant::now() + Duration::from_millis(1500);
    let mut seen = Vec::new();
    while Instant::now() < until {
        seen.extend(names(dir.path()));
        std::thread::sleep(Duration::from_millis(20));
    }
    // Not even time to tidy up.
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    assert!(names(dir.path()).is_empty());
    // A file has a name for the moment between its creation and its removal.
    assert!(seen.len() < 5, "{seen:?}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let dir = dir();
    let child = start(&dir);
    std::thread::sleep(Duration::from_millis(500));
    signal(&child, Signal::INT);
    std::thread::sleep(Duration::from_millis(1));
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    use std::os::unix::process::ExitStatusExt as _;
    let status = output.status;
    assert!(
        status.code() == Some(130) || status.signal() == Some(2),
        "{output:?}"
    );
    let left = names(dir.path());
    assert!(left.is_empty() || left == ["a.json"], "{left:?}");
}
