//! Under seccomp filters, as containers and services have them.

use serde_json::Value;
use zhaul_sys::seccomp::{Refusal, refuse_in_this_thread};

use crate::support::{Doctor, Run, by, mechanism, on_files, open_directory, skip, verdict};

/// Runs the program under a filter that refuses one system call; the thread that starts it has the
/// filter, too, and ends.
fn run_without(call: i64, refusal: Refusal, more: &[&str]) -> Option<Run> {
    let dir = open_directory();
    let mut doctor = Doctor::on(dir.path());
    for argument in more {
        doctor = doctor.arg(argument);
    }
    let thread = std::thread::spawn(move || {
        refuse_in_this_thread(call, refusal).ok()?;
        Some(doctor.run())
    });
    thread.join().unwrap()
}

fn report_without(call: i64, refusal: Refusal) -> Option<Value> {
    let run = run_without(call, refusal, &["--json"])?;
    run.assert_success();
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["kernel"]["seccomp_filter"], true);
    Some(report)
}

const ENOSYS: Refusal = Refusal::Errno(38);
const EPERM: Refusal = Refusal::Errno(1);

#[test]
fn a_call_that_is_hidden_is_not_praised_and_the_filter_is_named() {
    for refusal in [ENOSYS, EPERM] {
        let Some(report) = report_without(libc_number("sendfile"), refusal) else {
            skip!(
                "a_call_that_is_hidden_is_not_praised_and_the_filter_is_named",
                "no seccomp"
            );
        };
        for finding in [
            mechanism(&report, "sendfile"),
            on_files(&report, "sendfile"),
        ] {
            assert_eq!(finding["status"], "missing", "{finding}");
            assert_eq!(finding["cause"], "not_permitted", "{finding}");
            assert!(
                finding["reason"].as_str().unwrap().contains("seccomp"),
                "{finding}"
            );
            assert!(
                finding["remedy"]
                    .as_str()
                    .unwrap()
                    .contains("allow sendfile"),
                "{finding}"
            );
        }
        assert!(
            verdict(&report).starts_with("This machine can send files without copying: splice")
        );
        assert_eq!(mechanism(&report, "splice")["status"], "available");
    }
}

#[test]
fn a_call_that_the_filter_kills_for_is_missing_and_the_rest_is_tried() {
    const NAME: &str = "a_call_that_the_filter_kills_for_is_missing_and_the_rest_is_tried";
    for (call, id) in [
        ("io_uring_setup", "io_uring"),
        ("userfaultfd", "userfaultfd"),
        ("copy_file_range", "copy_file_range"),
        ("tee", "tee"),
    ] {
        let Some(report) = report_without(libc_number(call), Refusal::Kill) else {
            skip!(NAME, "no seccomp");
        };
        let lists = [
            &report["mechanisms"],
            &report["file_systems"][0]["findings"],
        ];
        let all: Vec<_> = lists
            .iter()
            .flat_map(|list| list.as_array().unwrap())
            .collect();
        let all = Value::from(all.into_iter().cloned().collect::<Vec<_>>());
        let finding = by(&all, "id", id);
        assert_eq!(finding["status"], "missing", "{finding}");
        assert_eq!(finding["cause"], "not_permitted");
        assert!(
            finding["reason"].as_str().unwrap().contains("kills"),
            "{finding}"
        );
        assert_eq!(mechanism(&report, "sendfile")["status"], "available");
        assert_eq!(on_files(&report, "sendfile")["status"], "available");
    }
}

#[test]
fn a_filter_is_in_the_headline() {
    let Some(run) = run_without(libc_number("tee"), EPERM, &[]) else {
        skip!("a_filter_is_in_the_headline", "no seccomp");
    };
    run.assert_success();
    let title = run.stdout.replace('\n', " ");
    assert!(title.contains("under a seccomp filter"), "{}", run.stdout);
}

#[test]
fn what_the_tries_need_and_cannot_have_is_not_held_against_the_mechanism() {
    // Without sockets nothing can be sent anywhere; sendfile itself was not refused.
    let calls = ["socket", "socketpair"].map(libc_number);
    let dir = open_directory();
    let doctor = Doctor::on(dir.path()).arg("--json");
    let thread = std::thread::spawn(move || {
        for call in calls {
            refuse_in_this_thread(call, EPERM).ok()?;
        }
        Some(doctor.run())
    });
    let Some(run) = thread.join().unwrap() else {
        skip!(
            "what_the_tries_need_and_cannot_have_is_not_held_against_the_mechanism",
            "no seccomp"
        );
    };
    run.assert_success();
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    for id in ["sendfile", "splice", "msg_zerocopy", "ktls"] {
        let finding = mechanism(&report, id);
        assert_eq!(finding["status"], "unknown", "{finding}");
        assert_eq!(finding["cause"], "not_tried", "{finding}");
    }
    assert_eq!(on_files(&report, "copy_file_range")["status"], "available");
}

/// Numbers of system calls on the two machines that zhaul runs on.
fn libc_number(name: &str) -> i64 {
    let (x86_64, aarch64) = match name {
        "sendfile" => (40, 71),
        "socket" => (41, 198),
        "socketpair" => (53, 199),
        "tee" => (276, 77),
        "userfaultfd" => (323, 282),
        "copy_file_range" => (326, 285),
        "io_uring_setup" => (425, 425),
        _ => panic!("{name}"),
    };
    if cfg!(target_arch = "x86_64") {
        x86_64
    } else {
        aarch64
    }
}
