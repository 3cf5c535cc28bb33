//! The report for programs: docs/doctor.md describes this.

use serde_json::Value;

use crate::support::{Doctor, verdict};

const STATUSES: [&str; 4] = ["available", "limited", "missing", "unknown"];
const CAUSES: [&str; 7] = [
    "kernel_lacks",
    "file_system_lacks",
    "device_lacks",
    "not_permitted",
    "configured",
    "not_tried",
    "misbehaves",
];

#[test]
fn the_report_has_every_documented_field() {
    let report = Doctor::on("/").report();
    assert_eq!(report["schema"], 1);
    assert_keys(
        &report,
        &[
            "devices",
            "file_systems",
            "kernel",
            "limits",
            "mechanisms",
            "schema",
            "verdict",
        ],
    );
    assert_keys(
        &report["kernel"],
        &[
            "capabilities",
            "cores",
            "lockdown",
            "machine",
            "release",
            "seccomp_filter",
            "uid",
            "unseen",
            "version",
        ],
    );
    for limit in report["limits"].as_array().unwrap() {
        let keys = [
            "cost",
            "judgement",
            "lifted_by",
            "name",
            "remedy",
            "set_in",
            "text",
            "unit",
            "value",
        ];
        assert_keys(limit, &keys);
        let judgement = limit["judgement"].as_str().unwrap();
        assert!(["fine", "low", "unknown"].contains(&judgement));
        assert_eq!(judgement == "low", limit["remedy"].is_string(), "{limit}");
        assert_eq!(judgement == "low", limit["cost"].is_string(), "{limit}");
    }
    for device in report["devices"].as_array().unwrap() {
        let keys = [
            "driver",
            "flow_steering",
            "gso",
            "header_split",
            "name",
            "physical",
            "reason",
            "scatter_gather",
            "sendfile",
            "speed_mbit",
            "tso",
            "tx_checksum",
            "up",
        ];
        assert_keys(device, &keys);
    }
    assert!(!verdict(&report).is_empty());
}

#[test]
fn every_finding_says_what_was_seen_and_why_it_is_not_available() {
    let report = Doctor::on("/").arg("/dev").report();
    let file_systems = report["file_systems"].as_array().unwrap();
    assert_eq!(file_systems.len(), 2);
    let mut lists = vec![&report["mechanisms"]];
    for file_system in file_systems {
        let keys = [
            "directory",
            "findings",
            "kind",
            "mount_point",
            "not_writable",
            "path",
            "read_from",
        ];
        assert_keys(file_system, &keys);
        lists.push(&file_system["findings"]);
    }
    for list in lists {
        let mut ids = Vec::new();
        for finding in list.as_array().unwrap() {
            check(finding);
            ids.push(finding["id"].as_str().unwrap());
        }
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "an id is there twice: {ids:?}");
    }
}

fn check(finding: &Value) {
    let keys = [
        "call", "cause", "evidence", "facts", "group", "id", "name", "reason", "remedy", "since",
        "status",
    ];
    assert_keys(finding, &keys);
    let status = finding["status"].as_str().unwrap();
    assert!(STATUSES.contains(&status), "{finding}");
    assert!(
        !finding["evidence"].as_str().unwrap().is_empty(),
        "{finding}"
    );
    assert_eq!(
        status == "available",
        finding["reason"].is_null(),
        "{finding}"
    );
    match finding["cause"].as_str() {
        Some(cause) => assert!(CAUSES.contains(&cause), "{finding}"),
        None => assert_eq!(status, "available"),
    }
    if status == "unknown" {
        assert_eq!(finding["cause"], "not_tried", "{finding}");
    }
}

#[track_caller]
fn assert_keys(value: &Value, expected: &[&str]) {
    let keys: Vec<_> = value.as_object().unwrap().keys().collect();
    let mut keys: Vec<&str> = keys.into_iter().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, expected);
}

#[test]
fn every_mechanism_of_the_design_is_there() {
    let report = Doctor::on("/").report();
    let listed = |list: &Value| -> Vec<String> {
        let ids = list.as_array().unwrap().iter();
        ids.map(|finding| finding["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let mechanisms = listed(&report["mechanisms"]);
    for id in [
        "read_write",
        "mmap_write",
        "sendfile",
        "splice",
        "splice_relay",
        "tee",
        "vmsplice",
        "msg_zerocopy",
        "io_uring",
        "io_uring_send_zc",
        "ktls",
        "tcp_zerocopy_receive",
        "io_uring_recv_zc",
        "userfaultfd",
        "memfd",
        "hugepages",
        "rdma",
        "perf_tracepoints",
        "perf_samples",
        "perf_breakpoints",
        "bpf",
    ] {
        assert!(mechanisms.iter().any(|known| known == id), "{id}");
    }
    let files = listed(&report["file_systems"][0]["findings"]);
    for id in [
        "sendfile",
        "copy_file_range",
        "reflink",
        "o_direct",
        "rwf_nowait",
        "rwf_dontcache",
        "cachestat",
        "lease",
    ] {
        assert!(files.iter().any(|known| known == id), "{id}");
    }
}

#[test]
fn the_kernel_is_the_one_that_runs() {
    let report = Doctor::on("/").report();
    let uname = rustix::system::uname();
    assert_eq!(
        report["kernel"]["release"],
        uname.release().to_str().unwrap()
    );
    assert_eq!(
        report["kernel"]["machine"],
        uname.machine().to_str().unwrap()
    );
    let (major, _) = uname.release().to_str().unwrap().split_once('.').unwrap();
    assert_eq!(report["kernel"]["version"][0].to_string(), major);
    assert_eq!(report["kernel"]["uid"], rustix::process::geteuid().as_raw());
}
