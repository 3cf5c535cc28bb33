//! A run that is stopped from outside ends at once and tells what it had done.

use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Ended, Place, eventually};

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Once the process asks for signals, they are caught.
fn catches(child: &Child, wanted: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & (1 << (wanted.as_raw() - 1)) != 0)
}

#[test]
fn an_interrupt_cancels_an_endless_transfer_and_prints_what_was_done() {
    let place = Place::new();
    for wanted in [Signal::INT, Signal::TERM] {
        let child = place.explain(["/dev/zero", "null", "--run"]).start();
        eventually("signals are caught", || catches(&child, wanted));
        signal(&child, wanted);
        let ended = Ended::of(child).failed(1, &["/dev/zero to null: cancelled", "after"]);
        let text = ended.text();
        assert!(
            text.contains("stopped  ") && text.contains("ended by: cancelled"),
            "{text}"
        );
    }
}

#[test]
fn a_reader_that_has_stopped_reading_does_not_hold_it() {
    let place = Place::new();
    let content = place.file("file", 10 << 20);
    let path = place.fifo("fifo");
    for promise in ["immutable", "may-change"] {
        let child = place
            .explain([
                "file",
                "fifo",
                "--run",
                "--plain",
                "--json",
                "--stability",
                promise,
            ])
            .start();
        let mut reader = fs::File::open(&path).unwrap();
        let mut head = [0; 100_000];
        reader.read_exact(&mut head).unwrap();
        eventually("signals are caught", || catches(&child, Signal::INT));
        signal(&child, Signal::INT);
        let ended = Ended::of(child);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let run: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        // What it says it moved is what arrived.
        let arrived = head.len() + rest.len();
        assert_eq!(run["measured"]["bytes"], arrived);
        assert_eq!(run["measured"]["finished"], false);
        assert!(head[..] == content[..head.len()] && rest[..] == content[head.len()..arrived]);
    }
}

#[test]
fn nor_does_one_of_standard_output() {
    let place = Place::new();
    place.file("file", 10 << 20);
    let mut child = place
        .explain(["file", "-", "--run", "--plain", "--stability", "immutable"])
        .stdout(Stdio::piped())
        .start();
    let mut pipe = child.stdout.take().unwrap();
    pipe.read_exact(&mut [0; 100_000]).unwrap();
    eventually("signals are caught", || catches(&child, Signal::INT));
    signal(&child, Signal::INT);
    Ended::of(child).failed(1, &["cancelled"]);
}
