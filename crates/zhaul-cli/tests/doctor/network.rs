//! What it says of the network is what other programs say.

use std::io::Read;
use std::net::TcpListener;

use crate::support::{Doctor, by, can_unshare, mechanism, skip};

#[test]
fn the_devices_are_those_of_the_namespace() {
    let report = Doctor::on("/").report();
    let names = |list: Vec<String>| {
        let mut list = list;
        list.sort();
        list
    };
    let devices = report["devices"].as_array().unwrap();
    let told = devices
        .iter()
        .map(|device| device["name"].as_str().unwrap().to_owned());
    let text = std::fs::read_to_string("/proc/net/dev").unwrap();
    let there = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    let there = there.map(|(name, _)| name.trim().to_owned());
    assert_eq!(names(told.collect()), names(there.collect()));
    let lo = by(&report["devices"], "name", "lo");
    assert_eq!(
        (&lo["physical"], &lo["sendfile"]),
        (&false.into(), &"passes_on".into())
    );
}

#[test]
fn without_loopback_what_needs_tcp_is_unknown_and_the_rest_is_tried() {
    const NAME: &str = "without_loopback_what_needs_tcp_is_unknown_and_the_rest_is_tried";
    if !can_unshare(&[]) {
        skip!(NAME, "it takes root and unshare");
    }
    let report = Doctor::on("/").under(["unshare", "--net"]).report();
    for id in ["msg_zerocopy", "ktls", "tcp_zerocopy_receive"] {
        let finding = mechanism(&report, id);
        assert_eq!(finding["status"], "unknown", "{finding}");
        assert!(
            finding["remedy"].as_str().unwrap().contains("lo up"),
            "{finding}"
        );
    }
    let sendfile = mechanism(&report, "sendfile");
    assert_eq!(sendfile["status"], "available");
    assert!(
        sendfile["evidence"]
            .as_str()
            .unwrap()
            .contains("UNIX socket"),
        "{sendfile}"
    );
    let lo = by(&report["devices"], "name", "lo");
    assert_eq!(lo["up"], false);
}

#[test]
fn a_device_without_scatter_gather_is_said_to_copy() {
    const NAME: &str = "a_device_without_scatter_gather_is_said_to_copy";
    const SCRIPT: &str = "
        ip link set lo up
        ip link add with0 type veth peer name without0 || exit 77
        ethtool -K without0 sg off >/dev/null || exit 77
        ip link set with0 up
        exec \"$@\"
    ";
    if !can_unshare(&["ip", "ethtool"]) {
        skip!(NAME, "it takes root, ip and ethtool");
    }
    let run = Doctor::on("/")
        .arg("--json")
        .after(&["--net"], SCRIPT)
        .run();
    if run.status.code() == Some(77) {
        skip!(NAME, "no veth: {}", run.stderr);
    }
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let with = by(&report["devices"], "name", "with0");
    assert_eq!(
        (&with["scatter_gather"], &with["driver"]),
        (&true.into(), &"veth".into())
    );
    assert_eq!(with["sendfile"], "passes_on");
    let without = by(&report["devices"], "name", "without0");
    assert_eq!(
        (&without["scatter_gather"], &without["tso"]),
        (&false.into(), &false.into())
    );
    assert_eq!(without["sendfile"], "copies_once");
}

#[test]
fn loopback_is_not_called_zero_copy() {
    let report = Doctor::on("/").report();
    for id in ["msg_zerocopy", "io_uring_send_zc"] {
        let finding = mechanism(&report, id);
        assert_ne!(finding["status"], "available", "{finding}");
        if finding["status"] == "limited" {
            assert_eq!(
                finding["facts"]["avoided_copy_on_loopback"], false,
                "{finding}"
            );
        }
    }
}

#[test]
fn a_peer_is_sent_16_kib_and_one_that_is_not_there_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = listener.local_addr().unwrap().to_string();
    let reader = std::thread::spawn(move || {
        let mut received = Vec::new();
        let (mut socket, _) = listener.accept().unwrap();
        socket.read_to_end(&mut received).unwrap();
        received.len()
    });
    let report = Doctor::on("/").arg("--peer").arg(&peer).report();
    assert_eq!(reader.join().unwrap(), 16 << 10);
    let finding = mechanism(&report, "msg_zerocopy_to_peer");
    assert_eq!(finding["facts"]["avoided_copy_to_peer"], false, "{finding}");
    assert_eq!(finding["status"], "limited");
    assert_eq!(
        by(&report["mechanisms"], "id", "msg_zerocopy")["status"],
        "limited"
    );

    // The listener is gone.
    let report = Doctor::on("/").arg("--peer").arg(&peer).report();
    let finding = mechanism(&report, "msg_zerocopy_to_peer");
    assert_eq!(
        (&finding["status"], &finding["cause"]),
        (&"unknown".into(), &"not_tried".into())
    );
}
