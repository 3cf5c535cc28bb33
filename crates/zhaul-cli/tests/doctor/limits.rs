//! The limits are those that the kernel has, and low ones are called low.

use crate::support::{Doctor, has_program, limit, skip, verdict};

#[test]
fn settings_are_those_of_proc() {
    let report = Doctor::on("/").report();
    for (name, path, position) in [
        ("pipe-max-size", "/proc/sys/fs/pipe-max-size", 0),
        ("optmem_max", "/proc/sys/net/core/optmem_max", 0),
        ("tcp_wmem", "/proc/sys/net/ipv4/tcp_wmem", 2),
        ("tcp_rmem", "/proc/sys/net/ipv4/tcp_rmem", 2),
        ("somaxconn", "/proc/sys/net/core/somaxconn", 0),
        ("lease-break-time", "/proc/sys/fs/lease-break-time", 0),
    ] {
        let told = limit(&report, name);
        let Ok(text) = std::fs::read_to_string(path) else {
            assert_eq!(told["judgement"], "unknown", "{told}");
            continue;
        };
        let value: u64 = text
            .split_whitespace()
            .nth(position)
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(told["value"], value, "{told}");
    }
}

#[test]
fn a_low_limit_is_in_the_verdict_with_its_cost_and_remedy() {
    const NAME: &str = "a_low_limit_is_in_the_verdict_with_its_cost_and_remedy";
    if !has_program("prlimit") {
        skip!(NAME, "no prlimit");
    }
    let report = Doctor::on("/")
        .under(["prlimit", "--nofile=256:300"])
        .report();
    let told = limit(&report, "nofile");
    assert_eq!(
        (&told["value"], &told["judgement"]),
        (&256.into(), &"low".into())
    );
    assert!(
        told["remedy"].as_str().unwrap().contains("ulimit -n 300"),
        "{told}"
    );
    assert!(
        verdict(&report).contains("Low limits: nofile"),
        "{}",
        verdict(&report)
    );
    let report = Doctor::on("/")
        .under(["prlimit", "--nofile=256:256"])
        .report();
    let remedy = limit(&report, "nofile")["remedy"].as_str().unwrap();
    assert!(
        !remedy.contains("ulimit"),
        "it cannot be raised from within: {remedy}"
    );
}

#[test]
fn out_of_descriptors_is_unknown_and_no_crash() {
    const NAME: &str = "out_of_descriptors_is_unknown_and_no_crash";
    if !has_program("prlimit") {
        skip!(NAME, "no prlimit");
    }
    for descriptors in 4..16 {
        let run = Doctor::on("/")
            .arg("--json")
            .under(["prlimit".to_owned(), format!("--nofile={descriptors}")])
            .run();
        assert!(
            !run.stderr.contains("panicked"),
            "{descriptors}: {}",
            run.stderr
        );
        if run.status.code() == Some(0) {
            let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
            for finding in report["mechanisms"].as_array().unwrap() {
                let text = finding.to_string();
                assert!(
                    !text.contains("EMFILE") || finding["status"] == "unknown",
                    "{descriptors}: {text}"
                );
            }
        } else {
            // Too few even to start.
            assert!(
                matches!(run.status.code(), Some(1 | 127)),
                "{:?} {}",
                run.status,
                run.stderr
            );
        }
    }
}

#[test]
fn a_limit_of_file_sizes_does_not_end_it() {
    const NAME: &str = "a_limit_of_file_sizes_does_not_end_it";
    if !has_program("prlimit") {
        skip!(NAME, "no prlimit");
    }
    for bytes in ["0", "4096"] {
        let limit = format!("--fsize={bytes}");
        let report = Doctor::on("/").under(["prlimit", &limit]).report();
        assert!(!verdict(&report).is_empty(), "{bytes}");
    }
}

#[test]
fn what_could_not_be_tried_gives_no_verdict() {
    const NAME: &str = "what_could_not_be_tried_gives_no_verdict";
    if !has_program("prlimit") {
        skip!(NAME, "no prlimit");
    }
    // Enough to start, too few for a pair of sockets.
    let report = Doctor::on("/").under(["prlimit", "--nofile=5"]).report();
    let verdict = verdict(&report);
    assert!(verdict.contains("is unknown"), "{verdict}");
    assert!(!verdict.contains("copying."), "{verdict}");
    assert!(!verdict.contains("takes copies"), "{verdict}");
}

#[test]
fn where_little_memory_may_be_locked_the_remedy_is_to_lock_more() {
    const NAME: &str = "where_little_memory_may_be_locked_the_remedy_is_to_lock_more";
    if !has_program("prlimit") || !has_program("setpriv") {
        skip!(NAME, "no prlimit or setpriv");
    }
    let mut words = vec!["prlimit", "--memlock=0"];
    if rustix::process::geteuid().is_root() {
        words.extend(["setpriv", "--bounding-set=-all", "--inh-caps=-all"]);
    }
    let report = Doctor::on("/").under(words).report();
    let remedies: Vec<_> = report["mechanisms"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["status"] == "unknown")
        .filter_map(|finding| finding["remedy"].as_str())
        .collect();
    assert!(!remedies.contains(&"free some memory"), "{remedies:?}");
    assert!(
        remedies
            .iter()
            .any(|remedy| remedy.contains("locked memory")),
        "{report}"
    );
}
