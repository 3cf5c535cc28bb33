//! As an ordinary user: what needs a privilege is said to, and the rest is there.

use crate::support::{Doctor, NOBODY, can_be_nobody, is_root, limit, mechanism, skip};

/// A report by a user without any capability.
fn report() -> Option<serde_json::Value> {
    let doctor = Doctor::on("/");
    if !is_root() {
        return Some(doctor.report());
    }
    can_be_nobody().then(|| doctor.under(NOBODY).report())
}

#[test]
fn what_needs_no_privilege_works_without_one() {
    let Some(report) = report() else {
        skip!(
            "what_needs_no_privilege_works_without_one",
            "it takes setpriv"
        );
    };
    for id in [
        "read_write",
        "sendfile",
        "splice",
        "splice_relay",
        "tee",
        "memfd",
    ] {
        assert_eq!(mechanism(&report, id)["status"], "available", "{id}");
    }
    assert_ne!(report["kernel"]["uid"], 0);
}

#[test]
fn what_is_not_permitted_is_not_called_lacking() {
    const NAME: &str = "what_is_not_permitted_is_not_called_lacking";
    let Some(report) = report() else {
        skip!(NAME, "it takes setpriv");
    };
    let setting = std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled");
    if report["kernel"]["capabilities"] != serde_json::json!([]) {
        skip!(NAME, "this user has capabilities");
    }
    let bpf = mechanism(&report, "bpf");
    if setting.is_ok() {
        assert_eq!(
            (&bpf["status"], &bpf["cause"]),
            (&"missing".into(), &"not_permitted".into())
        );
        assert!(bpf["remedy"].as_str().unwrap().contains("CAP_BPF"), "{bpf}");
    }
    let userfaultfd = mechanism(&report, "userfaultfd");
    let setting = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd");
    if setting.is_ok_and(|text| text.trim() == "0") && userfaultfd["status"] != "missing" {
        let handles = &userfaultfd["facts"]["handles_system_calls"];
        assert_eq!(
            userfaultfd["status"] == "limited",
            *handles == false,
            "{userfaultfd}"
        );
    }
}

#[test]
fn limits_bind_an_ordinary_user_and_not_root() {
    const NAME: &str = "limits_bind_an_ordinary_user_and_not_root";
    let Some(ordinary) = report() else {
        skip!(NAME, "it takes setpriv");
    };
    if ordinary["kernel"]["capabilities"] == serde_json::json!([]) {
        assert!(limit(&ordinary, "memlock")["lifted_by"].is_null());
    }
    let own = Doctor::on("/").report();
    let held = own["kernel"]["capabilities"].as_array().unwrap();
    let lifted =
        held.contains(&"CAP_IPC_LOCK".into()) && !limit(&own, "memlock")["value"].is_null();
    assert_eq!(
        limit(&own, "memlock")["lifted_by"] == "CAP_IPC_LOCK",
        lifted
    );
}

#[test]
fn what_this_process_can_do_the_report_calls_available() {
    use std::os::fd::AsFd;
    use zhaul_sys::{io_uring, msg_zerocopy, userfaultfd};
    let report = Doctor::on("/").report();
    let status = |id| mechanism(&report, id)["status"].as_str().unwrap();
    let memory = userfaultfd::Userfault::open(false);
    let can_protect = |faults: &userfaultfd::Userfault| {
        faults.features() & userfaultfd::FEATURE_WRITE_PROTECT != 0
    };
    if memory.is_ok_and(|faults| can_protect(&faults)) {
        assert_eq!(status("userfaultfd"), "available");
    } else if userfaultfd::Userfault::open(true).is_ok_and(|faults| can_protect(&faults)) {
        assert_ne!(status("userfaultfd"), "missing");
    } else {
        assert_ne!(status("userfaultfd"), "available");
    }
    let ring = io_uring::Ring::new();
    assert_eq!(ring.is_ok(), status("io_uring") == "available");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let can_send = msg_zerocopy::Sender::new(listener.as_fd()).is_ok();
    assert_eq!(can_send, status("msg_zerocopy") == "limited");
    let sealed = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::ALLOW_SEALING);
    assert_eq!(sealed.is_ok(), status("memfd") == "available");
}
