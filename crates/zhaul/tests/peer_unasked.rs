//! Where a peer is, is asked for by those who need to know, which only a lease does.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use common::TestFile;
use zhaul::async_io::Attached;
use zhaul::{Stability, transfer};

const INSIDE: &str = "ZHAUL_TEST_INSIDE_STRACE";

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

fn send_by_both_drivers(lease: bool) {
    let file = TestFile::with(b"hello").open();
    let held = lease.then(|| common::lease(&file));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for is_async in [false, true] {
        let (near, mut far) = tcp_pair();
        let _context = runtime.enter();
        let near = Attached::new(near.into()).unwrap();
        let mut haul = transfer(&file, near).stability(Stability::Immutable);
        if let Some(held) = &held {
            haul = haul.lease(held);
        }
        let summary = if is_async {
            runtime.block_on(haul.run_async())
        } else {
            haul.run()
        };
        assert_eq!(summary.unwrap().moved, 5);
        far.read_exact(&mut [0; 5]).unwrap();
    }
}

/// The lines of strace(1) about getpeername(2), of the threads that called it; `None` without strace.
fn questions(test: &str) -> Option<Vec<String>> {
    let traced = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=getpeername"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .ok()?;
    if !traced.status.success() {
        println!("{}", String::from_utf8_lossy(&traced.stderr));
        return None;
    }
    let trace = String::from_utf8_lossy(&traced.stderr);
    let about = trace.lines().filter(|line| line.contains("getpeername("));
    Some(about.map(str::to_owned).collect())
}

#[test]
fn a_transfer_without_a_lease_does_not_ask_where_its_peer_is() {
    if std::env::var_os(INSIDE).is_some() {
        return send_by_both_drivers(false);
    }
    match questions("a_transfer_without_a_lease_does_not_ask_where_its_peer_is") {
        Some(asked) => assert!(asked.is_empty(), "{asked:?}"),
        None => println!(
            "SKIP a_transfer_without_a_lease_does_not_ask_where_its_peer_is: no strace(1) to be had"
        ),
    }
}

#[test]
fn a_transfer_under_a_lease_asks_where_its_peer_is() {
    if std::env::var_os(INSIDE).is_some() {
        return send_by_both_drivers(true);
    }
    match questions("a_transfer_under_a_lease_asks_where_its_peer_is") {
        Some(asked) => assert!(asked.len() >= 2, "once by each driver: {asked:?}"),
        None => {
            println!("SKIP a_transfer_under_a_lease_asks_where_its_peer_is: no strace(1)");
        }
    }
}
