//! Sessions on other processes, with their threads and children.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use zhaul_measure::perf::{Error, Kind, Record, Session, Target, Woken};

use crate::worker::{self, Worker};
use crate::{getppid_only, permitted, sys_enter};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(5);

#[test]
fn a_program_and_its_children_are_seen_whole() {
    const TEST: &str = "a_program_and_its_children_are_seen_whole";
    let Some(enter) = sys_enter(TEST) else { return };
    let mut builder = Session::builder();
    builder.tracepoint(&enter, None);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "for i in 1 2 3; do /bin/true; done"]);
    let Some((mut session, mut child)) = permitted(TEST, builder.spawn(&mut command)) else {
        return;
    };
    while session.wait(LONG).unwrap() != Woken::Ended {}
    child.wait().unwrap();
    let (mut execs, mut pids, mut last) = (Vec::new(), BTreeSet::new(), 0);
    let drained = session.drain_all(|record| {
        assert!(record.time_ns >= last);
        last = record.time_ns;
        pids.insert(record.pid);
        if let Kind::Comm { name, exec: true } = record.kind {
            execs.push(String::from_utf8_lossy(name).into_owned());
        }
    });
    assert_eq!(execs, ["sh", "true", "true", "true"], "{drained:?}");
    assert_eq!(pids.len(), 4, "{pids:?}");
    assert!(!pids.contains(&std::process::id()), "nothing of ours");
}

#[test]
fn all_threads_and_children_of_a_program_are_counted() {
    const TEST: &str = "all_threads_and_children_of_a_program_are_counted";
    let Some(enter) = sys_enter(TEST) else { return };
    let mut builder = Session::builder();
    let recorded = builder.tracepoint(&enter, Some(&getppid_only()));
    let counted = builder.count(&enter, Some(&getppid_only()));
    let spawned = builder.spawn(&mut worker::command("threads"));
    let Some((mut session, child)) = permitted(TEST, spawned) else {
        return;
    };
    let mut worker = Worker(child);
    worker.go();
    while session.wait(LONG).unwrap() != Woken::Ended {}
    worker.end();
    let (mut calls, mut tids) = (0, BTreeSet::new());
    session.drain_all(|record| {
        if let Kind::Tracepoint { event, .. } = record.kind {
            assert_eq!(event, recorded);
            calls += 1;
            tids.insert(record.tid);
        }
    });
    assert_eq!((calls, tids.len()), (1000, 10), "{tids:?}");
    assert_eq!(session.total(counted).unwrap(), 1000);
    assert_eq!(session.lost().unwrap(), 0);
}

#[test]
fn a_running_process_is_seen_from_then_on() {
    const TEST: &str = "a_running_process_is_seen_from_then_on";
    let Some(enter) = sys_enter(TEST) else { return };
    let mut worker = Worker::start("threads");
    let mut builder = Session::builder();
    builder.tracepoint(&enter, Some(&getppid_only()));
    builder.inherit(true);
    let attached = builder.attach(Target::Process(worker.0.id()));
    let attached = permitted(TEST, attached);
    if let Some(session) = &attached {
        session.enable().unwrap();
    }
    worker.go();
    worker.end();
    let Some(mut session) = attached else { return };
    assert_eq!(session.wait(LONG).unwrap(), Woken::Ended);
    let mut calls = 0;
    session.drain_all(|record| calls += u64::from(matches!(record.kind, Kind::Tracepoint { .. })));
    assert_eq!(calls, 1000);
}

#[test]
fn threads_that_come_while_we_attach_are_seen_once() {
    const TEST: &str = "threads_that_come_while_we_attach_are_seen_once";
    let Some(enter) = sys_enter(TEST) else { return };
    for _ in 0..5 {
        let mut worker = Worker::start("spawner");
        worker.line("ready ");
        let mut builder = Session::builder();
        builder.tracepoint(&enter, Some(&getppid_only()));
        builder.inherit(true);
        let mut attached = permitted(TEST, builder.attach(Target::Process(worker.0.id())));
        if let Some(session) = &attached {
            session.enable().unwrap();
        }
        worker.go();
        let mut calls = 0;
        if let Some(mut session) = attached.take() {
            let mut each = |record: Record<'_>| {
                calls += u64::from(matches!(record.kind, Kind::Tracepoint { .. }));
            };
            while session.wait(SHORT).unwrap() != Woken::Ended {
                session.drain(&mut each);
            }
            let drained = session.drain_all(&mut each);
            assert_eq!((session.lost().unwrap(), drained.misread), (0, 0));
        } else {
            return worker.end();
        }
        let made = worker.line("made ");
        worker.end();
        assert_eq!(calls, 10 * made, "{made} threads");
    }
}

#[test]
fn a_process_that_does_not_exist_is_said_not_to() {
    const TEST: &str = "a_process_that_does_not_exist_is_said_not_to";
    let Some(enter) = sys_enter(TEST) else { return };
    let mut ended = Command::new("/bin/true").spawn().unwrap();
    ended.wait().unwrap();
    for pid in [0, u32::MAX, i32::MAX as u32, ended.id()] {
        for target in [Target::Process(pid), Target::Thread(pid)] {
            let mut builder = Session::builder();
            builder.tracepoint(&enter, None);
            match builder.attach(target) {
                Err(Error::NoProcess(said)) => assert_eq!(said, pid),
                other => {
                    if permitted(TEST, other.map(drop)).is_some() {
                        panic!("attached to {target:?}");
                    }
                    return;
                }
            }
        }
    }
}

#[test]
fn a_zombie_cannot_be_attached_to() {
    const TEST: &str = "a_zombie_cannot_be_attached_to";
    let Some(enter) = sys_enter(TEST) else { return };
    let mut worker = Worker::start("waiter");
    worker.go();
    let pid = worker.0.id();
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    while !stat().contains(") Z ") {
        std::thread::yield_now();
    }
    let mut builder = Session::builder();
    builder.tracepoint(&enter, None);
    let attached = builder.attach(Target::Process(pid));
    worker.end();
    match attached {
        Err(Error::NoProcess(said)) => assert_eq!(said, pid),
        other => assert!(
            permitted(TEST, other.map(drop)).is_none(),
            "attached to a zombie"
        ),
    }
}

#[test]
fn a_program_that_cannot_be_started_is_an_error() {
    const TEST: &str = "a_program_that_cannot_be_started_is_an_error";
    let Some(enter) = sys_enter(TEST) else { return };
    let mut builder = Session::builder();
    builder.tracepoint(&enter, None);
    match builder.spawn(&mut Command::new("/absent/program")) {
        Err(Error::Io { what, source }) => {
            assert_eq!(what, "starting \"/absent/program\"");
            assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
        }
        other => assert!(permitted(TEST, other.map(drop)).is_none()),
    }
}
