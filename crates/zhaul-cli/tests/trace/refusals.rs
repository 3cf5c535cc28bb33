//! What cannot be traced, and what is said then.

use std::process::{Command, Output};

use crate::support::{Files, binary, has_program, is_root, require, skip, zhaul};

fn refused(output: &Output, exit: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{stderr}");
    assert!(stderr.starts_with("zhaul: "), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in {stderr}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn a_process_that_does_not_exist() {
    // Above what pid_max allows.
    for pid in ["99999999", "4294967295"] {
        let output = zhaul(["trace", "-p", pid]).output().unwrap();
        refused(&output, 1, &["cannot trace process", pid, "there is none"]);
    }
    let itself = Command::new("sh")
        .args(["-c", "exec \"$0\" trace -p $$"])
        .arg(binary())
        .output()
        .unwrap();
    refused(&itself, 1, &["it is this one"]);
}

#[test]
fn wrong_usage() {
    for words in [
        &["trace"][..],
        &["trace", "-p", "1", "--", "true"],
        &["trace", "-p", "one"],
        &["trace", "-p", "-1"],
        &["trace", "--copies", "guess", "--", "true"],
        &["trace", "--count", "--copies", "exact", "--", "true"],
        &["trace", "--seconds", "-1", "--", "true"],
        &["trace", "--seconds", "soon", "--", "true"],
        &["trace", "--interval", "NaN", "--", "true"],
    ] {
        refused(&zhaul(words).output().unwrap(), 2, &[]);
    }
}

#[test]
fn a_command_that_is_not_there_or_cannot_run() {
    require!("a_command_that_is_not_there_or_cannot_run");
    let files = Files::new();
    let text = files.with("text", 10);
    for count in [&[][..], &["--count"]] {
        let run = |command: &str| {
            let mut words = vec!["trace"];
            words.extend(count);
            words.extend(["--", command]);
            zhaul(words).output().unwrap()
        };
        let missing = run("no-such-command-here");
        refused(
            &missing,
            127,
            &["cannot run no-such-command-here", "No such file"],
        );
        refused(
            &run(text.to_str().unwrap()),
            126,
            &["cannot run", "ermission denied"],
        );
    }
}

#[test]
fn without_permission_the_capability_is_named() {
    const NAME: &str = "without_permission_the_capability_is_named";
    if is_root() && !has_program("setpriv") {
        skip!(NAME, "setpriv is not installed");
    }
    // An ordinary user already lacks it; root gives it away.
    let as_user = |words: &[&str]| {
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command
                .args([
                    "--reuid=65534",
                    "--regid=65534",
                    "--clear-groups",
                    "--no-new-privs",
                ])
                .arg(binary());
            command
        } else {
            Command::new(binary())
        };
        command.args(words).output().unwrap()
    };
    for words in [
        &["trace", "--", "true"][..],
        &["trace", "-p", "1"],
        &["trace", "--count", "--", "true"],
    ] {
        let output = as_user(words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(126) || stderr.contains("execute") {
            skip!(
                NAME,
                "the binary is out of reach of an ordinary user: {stderr}"
            );
        }
        if output.status.success() {
            skip!(NAME, "ordinary users may trace here");
        }
        if stderr.contains("is not mounted") {
            skip!(NAME, "{stderr}");
        }
        refused(&output, 1, &["cannot trace"]);
        // tracefs may be closed to it, or perf, or both.
        let names_it = stderr.contains("CAP_PERFMON") || stderr.contains("tracefs");
        assert!(names_it && stderr.contains("root"), "{stderr}");
    }
}

#[test]
fn with_perf_forbidden_the_capability_is_named() {
    const NAME: &str = "with_perf_forbidden_the_capability_is_named";
    require!(NAME, "setpriv");
    let output = Command::new("setpriv")
        .args([
            "--bounding-set=-perfmon,-sys_admin",
            "--inh-caps=-perfmon,-sys_admin",
        ])
        .arg(binary())
        .args(["trace", "--", "true"])
        .output()
        .unwrap();
    if output.status.success() {
        skip!(NAME, "perf is open to everybody here");
    }
    if String::from_utf8_lossy(&output.stderr).starts_with("setpriv") {
        skip!(NAME, "setpriv does not know perfmon");
    }
    refused(
        &output,
        1,
        &["cannot trace true", "CAP_PERFMON", "perf_event_paranoid"],
    );
}

#[test]
fn without_tracefs_the_mount_is_named() {
    const NAME: &str = "without_tracefs_the_mount_is_named";
    require!(NAME, "unshare");
    // In a mount namespace of its own.
    let script = "umount -l /sys/kernel/tracing && (umount -l /sys/kernel/debug; true) && \
                  exec \"$0\" trace -- true";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(binary())
        .output()
        .unwrap();
    if !String::from_utf8_lossy(&output.stderr).contains("zhaul:") {
        skip!(NAME, "tracefs cannot be unmounted: {output:?}");
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let own = stderr
        .lines()
        .find(|line| line.starts_with("zhaul:"))
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        own.contains("tracefs is not mounted") && own.contains("mount -t tracefs"),
        "{own}"
    );
}

#[test]
fn exact_copies_are_refused_where_they_cannot_be_had() {
    const NAME: &str = "exact_copies_are_refused_where_they_cannot_be_had";
    require!(NAME);
    let output = zhaul(["trace", "--copies", "exact", "--", "true"])
        .output()
        .unwrap();
    if output.status.success() {
        skip!(NAME, "this kernel can count them");
    }
    refused(&output, 1, &["cannot trace true", "("]);
}

#[test]
fn a_report_that_cannot_be_written_leaves_no_half() {
    require!("a_report_that_cannot_be_written_leaves_no_half");
    let files = Files::new();
    let full = zhaul(["trace", "-o", "/dev/full", "--", "true"])
        .output()
        .unwrap();
    refused(
        &full,
        1,
        &["writing the report to /dev/full", "No space left"],
    );
    let nowhere = files.path("no/where");
    let output = zhaul(["trace", "-o"])
        .arg(&nowhere)
        .args(["--", "true"])
        .output()
        .unwrap();
    refused(&output, 1, &["writing the report to", "No such file"]);
    assert_eq!(std::fs::read_dir(files.path("")).unwrap().count(), 0);
}
