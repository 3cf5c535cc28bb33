//! How a trace begins and ends.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Files, PATIENCE, Report, Trace, fetch, is_root, require, serve, skip, trace_command,
    trace_command_once, zhaul,
};

#[test]
fn a_command_passes_its_exit_code_on() {
    require!("a_command_passes_its_exit_code_on", "sh");
    let code = |script: &str| {
        let run = zhaul(["trace", "--", "sh", "-c", script]).output().unwrap();
        (run.status.code(), String::from_utf8(run.stderr).unwrap())
    };
    let (status, report) = code("exit 7");
    assert_eq!(status, Some(7));
    assert!(report.contains("sh: 1 thread in 1 process"), "{report}");
    assert_eq!(code("kill -9 $$").0, Some(128 + 9));
    assert_eq!(code("true").0, Some(0));
}

#[test]
fn a_command_keeps_its_own_output_and_input() {
    require!("a_command_keeps_its_own_output_and_input", "cat");
    let mut child = zhaul(["trace", "--", "cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    use std::io::Write;
    child.stdin.take().unwrap().write_all(b"hello").unwrap();
    let run = child.wait_with_output().unwrap();
    assert!(run.status.success());
    assert_eq!(run.stdout, b"hello");
    let report = String::from_utf8(run.stderr).unwrap();
    assert!(
        report.contains("pipe → pipe: 2.00 CPU copies per byte (read, write)"),
        "{report}"
    );
}

#[test]
fn a_command_is_seen_from_its_first_call_on() {
    require!("a_command_is_seen_from_its_first_call_on", "cat");
    let files = Files::new();
    let file = files.with("small", 100);
    // Gone in a millisecond, and still all of it is there.
    let (status, report) = trace_command(["cat", file.to_str().unwrap()]);
    assert!(status.success());
    assert_eq!(report.lost(), 0);
    let written = report.call("write");
    assert_eq!(
        (written["calls"].as_u64(), written["bytes"].as_u64()),
        (Some(1), Some(100))
    );
    // The loader's, too.
    assert!(report.call("pread64")["calls"].as_u64() > Some(0));
    assert_eq!(report.0["processes"], 1);
}

#[test]
fn threads_and_children_are_followed() {
    require!("threads_and_children_are_followed", "sh", "dd");
    let files = Files::new();
    let source = files.with("source", 1 << 20);
    let script = format!(
        "for i in 1 2 3; do (dd if={} of=/dev/null bs=64k status=none); done; true",
        source.display()
    );
    // What is counted does not depend on names, which in such short processes are seldom seen.
    let (_, report) = trace_command_once(&["sh", "-c", &script]);
    assert_eq!(report.call("write")["bytes"], 3 << 20);
    assert!(report.0["processes"].as_u64().unwrap() >= 4);
}

#[test]
fn a_process_that_ends_is_reported_and_no_error() {
    require!("a_process_that_ends_is_reported_and_no_error", "sh");
    let files = Files::new();
    let source = files.with("source", 1 << 20);
    let script = format!(
        "read go; cat {} > {}",
        source.display(),
        files.path("sink").display()
    );
    let mut shell = Command::new("sh")
        .args(["-c", &script])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let trace = Trace::attach(shell.id(), &["--json"]);
    drop(shell.stdin.take());
    assert!(shell.wait().unwrap().success());
    let (status, text) = trace.wait();
    assert!(status.success(), "{text}");
    let report = Report::parse(&text);
    assert_eq!(report.lost(), 0);
    assert_eq!(
        report.bytes("file", "file") + report.bytes("opened", "file"),
        1 << 20
    );
}

#[test]
fn it_ends_when_the_time_is_up_and_the_process_goes_on() {
    require!("it_ends_when_the_time_is_up_and_the_process_goes_on");
    let files = Files::new();
    let file = files.with("large", 1 << 20);
    let server = serve(&files.path(""), &[]);
    let trace = Trace::attach(server.pid(), &["--json", "--seconds", "0.5"]);
    fetch(server.port, "/large", &file);
    let (status, text) = trace.wait();
    assert!(status.success(), "{text}");
    assert!(Report::parse(&text).0["seconds"].as_f64().unwrap() >= 0.5);
    // Not harmed in any way.
    fetch(server.port, "/large", &file);
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    require!("ctrl_c_leaves_nothing_behind");
    let files = Files::new();
    files.with("large", 1 << 20);
    let server = serve(&files.path(""), &[]);
    let state = || {
        let tracefs = "/sys/kernel/tracing";
        let files = [
            "set_event",
            "set_event_pid",
            "dynamic_events",
            "kprobe_events",
            "uprobe_events",
        ];
        files.map(|name| fs::read_to_string(format!("{tracefs}/{name}")).unwrap_or_default())
    };
    let before = state();
    for signal in [Signal::INT, Signal::TERM] {
        let trace = Trace::attach(server.pid(), &["--json"]);
        trace.signal(signal);
        let (status, text) = trace.wait();
        assert!(status.success(), "{text}");
        Report::parse(&text);
    }
    assert_eq!(state(), before);
    // Nobody traces it, stopped or not.
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    assert!(status.contains("TracerPid:\t0"), "{status}");
}

#[test]
fn a_signal_for_us_is_passed_to_the_command() {
    require!("a_signal_for_us_is_passed_to_the_command", "sleep");
    let mut trace = zhaul(["trace", "--interval", "0", "--", "sleep", "60"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = trace.id();
    // As soon as the command is there.
    let deadline = Instant::now() + PATIENCE;
    let children = || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let lists = tasks
            .flatten()
            .map(|task| fs::read_to_string(task.path().join("children")));
        lists.flatten().collect::<String>()
    };
    while children().trim().is_empty() {
        assert!(Instant::now() < deadline, "the command was not started");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(100));
    rustix::process::kill_process(rustix::process::Pid::from_child(&trace), Signal::TERM).unwrap();
    let status = trace.wait().unwrap();
    assert_eq!(
        status.code(),
        Some(128 + 15),
        "{status} {:?}",
        status.signal()
    );
}

#[test]
fn counting_names_the_calls_of_a_command() {
    require!("counting_names_the_calls_of_a_command", "dd");
    let files = Files::new();
    let source = files.with("source", 1 << 20);
    let run = zhaul([
        "trace",
        "--count",
        "--json",
        "--",
        "dd",
        "of=/dev/null",
        "bs=64k",
    ])
    .arg(format!("if={}", source.display()))
    .output()
    .unwrap();
    assert!(run.status.success());
    let text = String::from_utf8(run.stderr).unwrap();
    let report: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(report["method"], "exact");
    let calls = |name: &str| {
        let all = report["calls"].as_array().unwrap();
        all.iter().find(|line| line["name"] == name).unwrap()["calls"]
            .as_u64()
            .unwrap()
    };
    // 16 full blocks and the end; and what the loader reads.
    assert!((17..30).contains(&calls("read")), "{report}");
    assert!((16..30).contains(&calls("write")), "{report}");
    assert!(report["mode_switches"].as_u64().unwrap() > 2 * (calls("read") + calls("write")));
}

#[test]
fn counting_is_exact_at_any_rate() {
    require!("counting_is_exact_at_any_rate", "dd");
    const BLOCKS: u64 = 400_000;
    let run = zhaul(["trace", "--count", "--json", "--", "dd", "bs=64"])
        .args(["if=/dev/zero", "of=/dev/null", &format!("count={BLOCKS}")])
        .output()
        .unwrap();
    assert!(run.status.success());
    let text = String::from_utf8(run.stderr).unwrap();
    let report: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(report["method"], "exact");
    for name in ["read", "write"] {
        let all = report["calls"].as_array().unwrap();
        let line = all.iter().find(|line| line["name"] == name).unwrap();
        let calls = line["calls"].as_u64().unwrap();
        // What the loader reads, and what dd says at its end.
        assert!((BLOCKS..BLOCKS + 100).contains(&calls), "{report}");
    }
    let switches = report["mode_switches"].as_u64().unwrap();
    assert!(
        (4 * BLOCKS..4 * BLOCKS + 2000).contains(&switches),
        "{report}"
    );
}

#[test]
fn counters_go_along_with_every_child() {
    require!("counters_go_along_with_every_child", "sh", "dd");
    let script =
        "for i in 1 2 3 4 5 6 7 8; do dd if=/dev/zero of=/dev/null bs=1 count=1000 & done; wait";
    let run = zhaul(["trace", "--count", "--json", "--", "sh", "-c", script])
        .output()
        .unwrap();
    let text = String::from_utf8(run.stderr).unwrap();
    let report: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let all = report["calls"].as_array().unwrap();
    let reads = all.iter().find(|line| line["name"] == "read").unwrap()["calls"]
        .as_u64()
        .unwrap();
    assert!((8000..8400).contains(&reads), "{report}");
    assert_eq!(report["processes"], 9, "{report}");
}

#[test]
fn counting_attaches_to_what_is_there() {
    require!("counting_attaches_to_what_is_there");
    let files = Files::new();
    let file = files.with("large", 4 << 20);
    let server = serve(&files.path(""), &[]);
    let trace = Trace::attach(server.pid(), &["--json", "--count"]);
    for _ in 0..10 {
        fetch(server.port, "/large", &file);
    }
    let (status, text) = trace.stop();
    assert!(status.success(), "{text}");
    let report: Value = serde_json::from_str(text.trim()).unwrap();
    let calls = report["calls"].as_array().unwrap();
    let sendfile = calls
        .iter()
        .find(|line| line["name"] == "sendfile")
        .unwrap();
    assert!(sendfile["calls"].as_u64().unwrap() >= 10, "{report}");
}

#[test]
fn the_limit_of_open_files_of_a_command_is_its_own() {
    const NAME: &str = "the_limit_of_open_files_of_a_command_is_its_own";
    require!(NAME, "sh");
    if !is_root() {
        skip!(NAME, "only root may trace");
    }
    let limit = |words: &[&str]| {
        let run = Command::new(words[0]).args(&words[1..]).output().unwrap();
        String::from_utf8(run.stdout).unwrap().trim().to_owned()
    };
    let binary = crate::support::binary();
    let binary = binary.to_str().unwrap();
    assert_eq!(
        limit(&["sh", "-c", "ulimit -n"]),
        limit(&[binary, "trace", "--", "sh", "-c", "ulimit -n"])
    );
}
