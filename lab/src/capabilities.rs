//! What the guest has and a development kernel lacks: tried, and as `zhaul doctor` reports it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::Command;

use serde_json::Value;
use zhaul_sys::tcp_ulp::{Aes128Gcm, Direction, attach_tls, set_keys};

use crate::rxe;
use crate::wire::{self, loopback};

crate::tests![
    what_the_kernel_encrypts_it_decrypts_at_the_other_end,
    a_soft_roce_device_can_be_made,
    the_doctor_finds_what_the_guest_has,
    the_doctor_finds_that_zero_copy_sends_work_across_a_wire,
];

const KEYS: Aes128Gcm = Aes128Gcm {
    iv: [1; 8],
    key: [2; 16],
    salt: [3; 4],
    sequence: [0; 8],
};

fn what_the_kernel_encrypts_it_decrypts_at_the_other_end() {
    let (mut near, mut far) = loopback();
    attach_tls(near.as_fd()).unwrap();
    attach_tls(far.as_fd()).unwrap();
    set_keys(near.as_fd(), Direction::Send, &KEYS).unwrap();
    set_keys(far.as_fd(), Direction::Receive, &KEYS).unwrap();
    let message = b"nobody reads this on the way";
    near.write_all(message).unwrap();
    let mut received = [0; 28];
    far.read_exact(&mut received).unwrap();
    assert_eq!(&received, message);
}

fn a_soft_roce_device_can_be_made() {
    make_rxe();
    let devices: Vec<_> = fs::read_dir("/sys/class/infiniband")
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(devices.iter().any(|name| name == RXE), "{devices:?}");
}

/// Makes the device, unless another test has.
fn make_rxe() {
    let made = wire::within("near", || rxe::add(RXE, wire::Device::Gather.near()));
    if let Err(error) = made {
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{error}");
    }
}

fn the_doctor_finds_what_the_guest_has() {
    make_rxe();
    let report = patient_doctor();
    for id in AVAILABLE {
        let mechanism = mechanism(&report, id);
        assert_eq!(mechanism["status"], "available", "{mechanism:#}");
    }
    // It tries no transfer by RDMA, and says so.
    let rdma = mechanism(&report, "rdma");
    let devices = rdma["facts"]["devices"].to_string();
    assert!(devices.contains(RXE), "{rdma:#}");
}

/// The doctor gives each probe some seconds, which are too few in an emulated CPU while the host is
/// busy; then it is asked again, twice at most.
fn patient_doctor() -> Value {
    let ran_out = |report: &Value| {
        AVAILABLE.iter().any(|id| {
            let reason = &mechanism(report, id)["reason"];
            reason
                .as_str()
                .is_some_and(|reason| reason.starts_with("no answer"))
        })
    };
    let mut report = doctor(&[]);
    for _ in 0..2 {
        if ran_out(&report) {
            report = doctor(&[]);
        }
    }
    report
}

fn the_doctor_finds_that_zero_copy_sends_work_across_a_wire() {
    let listener = wire::within("far", || TcpListener::bind("10.77.1.2:0").unwrap());
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        std::io::copy(&mut connection, &mut std::io::sink())
    });
    let report = wire::within("near", || doctor(&["--peer", &address]));
    let mechanism = mechanism(&report, "msg_zerocopy_to_peer");
    assert_eq!(mechanism["status"], "available", "{mechanism:#}");
}

/// What `zhaul doctor` reports.
fn doctor(options: &[&str]) -> Value {
    let output = Command::new(std::env::var_os("ZHAUL_BIN").unwrap())
        .args(["doctor", "--json"])
        .args(options)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn mechanism<'a>(report: &'a Value, id: &str) -> &'a Value {
    let mechanisms = report["mechanisms"].as_array().unwrap();
    let found = mechanisms.iter().find(|mechanism| mechanism["id"] == id);
    found.unwrap_or_else(|| panic!("no mechanism {id} in the report"))
}

/// The RDMA device of these tests.
const RXE: &str = "rxe_lab";

/// What may be missing elsewhere and is not here.
const AVAILABLE: &[&str] = &[
    "sendfile",
    "splice",
    "ktls",
    "io_uring",
    "userfaultfd",
    "tcp_zerocopy_receive",
    "perf_tracepoints",
    "perf_samples",
    "perf_breakpoints",
    "bpf",
];
