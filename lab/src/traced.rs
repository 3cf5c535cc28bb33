//! The copies of every route once more, as `zhaul trace` finds them from outside.
//!
//! The process that it traces is this program, called with `--move ROUTE`: it moves its standard
//! input to its standard output by one route of the library.

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use serde_json::Value;
use zhaul::{Lease, Route, Stability};

use crate::data::{PAYLOAD_BYTES, TestFile, assert_same, collect, feed, payload};
use crate::meter;
use crate::wire::{Device, connection, loopback};

crate::tests![
    it_finds_the_copies_of_every_route_from_a_file_to_tcp,
    it_finds_the_copies_from_a_pipe_to_tcp,
    it_finds_the_copies_of_a_relay,
    it_finds_the_copies_from_file_to_file_and_from_tcp_to_a_file,
    it_finds_none_for_sendfile_across_a_wire,
];

/// What is done for `--move ROUTE`.
pub(crate) fn move_standard_input(route: &str) {
    let route = Route::BY_COST
        .into_iter()
        .find(|known| known.name() == route);
    let route = route.expect("a route's name");
    let (source, sink) = (std::io::stdin(), std::io::stdout());
    // Only a file that cannot shrink is sent out of a mapping.
    let lease = (route == Route::MmapWrite).then(|| Lease::acquire(&source).unwrap());
    let transfer = zhaul::transfer(&source, &sink).only(route);
    let transfer = match &lease {
        Some(lease) => transfer.lease(lease),
        None => transfer.stability(Stability::Immutable),
    };
    assert_eq!(transfer.run().unwrap().moved as usize, PAYLOAD_BYTES);
}

/// Traces a process that moves the payload, and checks the copies of its flow.
#[track_caller]
fn trace(source: impl Into<OwnedFd>, sink: impl Into<OwnedFd>, route: Route, copies_per_byte: f64) {
    // The tracer needs the breakpoints.
    meter::close();
    let report = TestFile::with("report", b"");
    let status = Command::new(std::env::var_os("ZHAUL_BIN").unwrap())
        .args(["trace", "--json", "--output"])
        .arg(report.path())
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .args(["--move", route.name()])
        .stdin(Stdio::from(source.into()))
        .stdout(Stdio::from(sink.into()))
        .status()
        .unwrap();
    assert!(status.success(), "zhaul trace: {status}");
    let report: Value = serde_json::from_slice(&std::fs::read(report.path()).unwrap()).unwrap();
    assert_eq!(report["lost"], 0, "{report:#}");
    let flow = report["flows"]
        .as_array()
        .unwrap()
        .iter()
        .find(|flow| flow["bytes"] == PAYLOAD_BYTES);
    let flow = flow.unwrap_or_else(|| panic!("no flow of all bytes: {report:#}"));
    assert_eq!(flow["method"], "exact", "{flow:#}");
    let found = flow["copies_per_byte"].as_f64().unwrap();
    assert!(
        (found - copies_per_byte).abs() <= 0.01,
        "{found} copies per byte by {route}, expected {copies_per_byte}: {flow:#}"
    );
}

fn file_to((near, far): (TcpStream, TcpStream), route: Route, copies_per_byte: f64) {
    let bytes = payload(PAYLOAD_BYTES);
    let file = TestFile::with("source", &bytes);
    let received = collect(far);
    trace(file.open(), near, route, copies_per_byte);
    assert_same(&received.join().unwrap(), &bytes);
}

fn it_finds_the_copies_of_every_route_from_a_file_to_tcp() {
    file_to(loopback(), Route::ReadWrite, 2.0);
    file_to(loopback(), Route::MmapWrite, 1.0);
    file_to(loopback(), Route::Sendfile, 0.0);
    file_to(loopback(), Route::Splice, 0.0);
}

fn stream_to_tcp(source: impl Into<OwnedFd>, route: Route, copies_per_byte: f64) {
    let (near, far) = loopback();
    let received = collect(far);
    trace(source, near, route, copies_per_byte);
    assert_same(&received.join().unwrap(), &payload(PAYLOAD_BYTES));
}

fn it_finds_the_copies_from_a_pipe_to_tcp() {
    for (route, copies_per_byte) in [(Route::Splice, 0.0), (Route::ReadWrite, 2.0)] {
        let (reader, writer) = std::io::pipe().unwrap();
        let feeding = feed(writer, &payload(PAYLOAD_BYTES));
        stream_to_tcp(reader, route, copies_per_byte);
        feeding.join().unwrap();
    }
}

fn it_finds_the_copies_of_a_relay() {
    for (route, copies_per_byte) in [(Route::Splice, 0.0), (Route::ReadWrite, 2.0)] {
        let (from, source) = loopback();
        let feeding = feed(from, &payload(PAYLOAD_BYTES));
        stream_to_tcp(source, route, copies_per_byte);
        feeding.join().unwrap();
    }
}

fn it_finds_the_copies_from_file_to_file_and_from_tcp_to_a_file() {
    let bytes = payload(PAYLOAD_BYTES);
    let to_file = |source: OwnedFd, route, copies_per_byte| {
        let sink = TestFile::with("sink", b"");
        trace(source, sink.open_to_write(), route, copies_per_byte);
        assert_same(&std::fs::read(sink.path()).unwrap(), &bytes);
    };
    let source = TestFile::with("source", &bytes);
    let open = || OwnedFd::from(File::open(source.path()).unwrap());
    to_file(open(), Route::CopyFileRange, 1.0);
    to_file(open(), Route::ReadWrite, 2.0);
    let (from, source) = loopback();
    let feeding = feed(from, &bytes);
    to_file(source.into(), Route::Splice, 1.0);
    feeding.join().unwrap();
}

fn it_finds_none_for_sendfile_across_a_wire() {
    file_to(connection(Device::Gather), Route::Sendfile, 0.0);
}
