//! How often the CPU copies each byte, by route: the table of the literature, counted exactly by
//! execution breakpoints on the kernel's copy routines.
//!
//! Each claim is about the thread that moves the bytes: the other end's copy is its own.

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};

use zhaul::{Lease, Route, Stability, Summary};

use crate::data::{PAYLOAD_BYTES, TestFile, assert_same, collect, feed, payload};
use crate::meter::{PerByte, assert_copies, copied_by, per_byte};
use crate::wire::{Device, connection, loopback};

crate::tests![
    file_to_tcp_by_read_write_copies_twice,
    file_to_tcp_by_mmap_write_copies_once,
    file_to_tcp_by_sendfile_copies_nothing,
    file_to_tcp_by_splice_copies_nothing,
    pipe_to_tcp_by_splice_copies_nothing,
    pipe_to_tcp_by_read_write_copies_twice,
    tcp_to_tcp_by_splice_copies_nothing,
    tcp_to_tcp_by_read_write_copies_twice,
    file_to_file_by_copy_file_range_copies_once_within_the_kernel,
    file_to_file_by_read_write_copies_twice,
    tcp_to_file_by_splice_copies_once_within_the_kernel,
    tcp_to_file_by_read_write_copies_twice,
    over_a_wire_sendfile_copies_nothing_and_read_write_twice,
];

const TWICE: PerByte = per_byte(1.0, 1.0, 0.0);
const ONCE_FROM_USER: PerByte = per_byte(0.0, 1.0, 0.0);
const ONCE_WITHIN: PerByte = per_byte(0.0, 0.0, 1.0);
const NEVER: PerByte = per_byte(0.0, 0.0, 0.0);

/// Moves the payload by one route under the meter. The sink is closed afterwards, so that whoever
/// reads it sees the end.
fn haul(source: impl AsFd, sink: impl AsFd, route: Route, expected: PerByte) {
    let transfer = zhaul::transfer(source, sink)
        .stability(Stability::Immutable)
        .only(route);
    let (copied, summary) = copied_by(|| transfer.run().unwrap());
    check_whole(&summary, route);
    assert_copies(copied, PAYLOAD_BYTES, expected);
}

#[track_caller]
fn check_whole(summary: &Summary, route: Route) {
    assert_eq!(summary.moved as usize, PAYLOAD_BYTES);
    assert!(summary.route == route && summary.changes.is_empty());
}

fn file_to_tcp(route: Route, expected: PerByte) {
    file_to(loopback(), route, expected);
}

fn file_to((near, far): (TcpStream, TcpStream), route: Route, expected: PerByte) {
    let bytes = payload(PAYLOAD_BYTES);
    let file = TestFile::with("source", &bytes);
    let received = collect(far);
    haul(file.open(), &near, route, expected);
    drop(near);
    assert_same(&received.join().unwrap(), &bytes);
}

fn file_to_tcp_by_read_write_copies_twice() {
    file_to_tcp(Route::ReadWrite, TWICE);
}

fn file_to_tcp_by_sendfile_copies_nothing() {
    file_to_tcp(Route::Sendfile, NEVER);
}

fn file_to_tcp_by_splice_copies_nothing() {
    file_to_tcp(Route::Splice, NEVER);
}

fn file_to_tcp_by_mmap_write_copies_once() {
    let bytes = payload(PAYLOAD_BYTES);
    let file = TestFile::with("source", &bytes);
    let source = file.open();
    // The route is open only where the file cannot shrink.
    let lease = Lease::acquire(&source).unwrap();
    let (near, far) = loopback();
    let received = collect(far);
    let transfer = zhaul::transfer(&source, &near)
        .lease(&lease)
        .only(Route::MmapWrite);
    let (copied, summary) = copied_by(|| transfer.run().unwrap());
    drop(near);
    check_whole(&summary, Route::MmapWrite);
    assert_same(&received.join().unwrap(), &bytes);
    assert_copies(copied, PAYLOAD_BYTES, ONCE_FROM_USER);
}

fn stream_to_tcp(source: &OwnedFd, bytes: &[u8], route: Route, expected: PerByte) {
    let (near, far) = loopback();
    let received = collect(far);
    haul(source, &near, route, expected);
    drop(near);
    assert_same(&received.join().unwrap(), bytes);
}

fn pipe_to_tcp(route: Route, expected: PerByte) {
    let bytes = payload(PAYLOAD_BYTES);
    let (reader, writer) = std::io::pipe().unwrap();
    let feeding = feed(writer, &bytes);
    stream_to_tcp(&reader.into(), &bytes, route, expected);
    feeding.join().unwrap();
}

fn pipe_to_tcp_by_splice_copies_nothing() {
    pipe_to_tcp(Route::Splice, NEVER);
}

fn pipe_to_tcp_by_read_write_copies_twice() {
    pipe_to_tcp(Route::ReadWrite, TWICE);
}

fn tcp_to_tcp(route: Route, expected: PerByte) {
    let bytes = payload(PAYLOAD_BYTES);
    let (from, source) = loopback();
    let feeding = feed(from, &bytes);
    stream_to_tcp(&source.into(), &bytes, route, expected);
    feeding.join().unwrap();
}

fn tcp_to_tcp_by_splice_copies_nothing() {
    tcp_to_tcp(Route::Splice, NEVER);
}

fn tcp_to_tcp_by_read_write_copies_twice() {
    tcp_to_tcp(Route::ReadWrite, TWICE);
}

fn to_file(source: impl AsFd, bytes: &[u8], route: Route, expected: PerByte) {
    let sink = TestFile::with("sink", b"");
    haul(source, sink.open_to_write(), route, expected);
    assert_same(&std::fs::read(sink.path()).unwrap(), bytes);
}

fn file_to_file(route: Route, expected: PerByte) {
    let bytes = payload(PAYLOAD_BYTES);
    let source: File = TestFile::with("source", &bytes).open();
    to_file(source, &bytes, route, expected);
}

fn file_to_file_by_copy_file_range_copies_once_within_the_kernel() {
    file_to_file(Route::CopyFileRange, ONCE_WITHIN);
}

fn file_to_file_by_read_write_copies_twice() {
    file_to_file(Route::ReadWrite, TWICE);
}

fn tcp_to_file(route: Route, expected: PerByte) {
    let bytes = payload(PAYLOAD_BYTES);
    let (from, source) = loopback();
    let feeding = feed(from, &bytes);
    to_file(&source, &bytes, route, expected);
    feeding.join().unwrap();
}

fn tcp_to_file_by_splice_copies_once_within_the_kernel() {
    tcp_to_file(Route::Splice, ONCE_WITHIN);
}

fn tcp_to_file_by_read_write_copies_twice() {
    tcp_to_file(Route::ReadWrite, TWICE);
}

fn over_a_wire_sendfile_copies_nothing_and_read_write_twice() {
    for device in Device::ALL {
        file_to(connection(device), Route::Sendfile, NEVER);
        file_to(connection(device), Route::ReadWrite, TWICE);
    }
}
