//! On the thread that calls.

use std::os::unix::net::{UnixDatagram, UnixStream};

use zhaul::{Aggregate, Cause, Errno, Progress, Refusal, Route, Stability};

use crate::common::pattern;
use crate::{Built, multipart, reading, shrink, tcp_pair};

#[test]
fn a_header_and_a_buffer_go_out_by_one_call() {
    let (near, far) = tcp_pair();
    let reader = reading(far);
    let body = bytes::Bytes::from(pattern(10_000));
    let summary = zhaul::send(("header", body.clone()), &near).run().unwrap();
    drop(near);
    assert_eq!((summary.calls, summary.moved), (1, 10_006));
    assert!(reader.join().unwrap() == [b"header", &body[..]].concat());
}

#[test]
fn nothing_is_a_success_without_a_call() {
    let (near, _far) = tcp_pair();
    let summary = zhaul::send(Aggregate::new(), &near).run().unwrap();
    assert_eq!((summary.calls, summary.moved), (0, 0));
}

#[test]
fn more_pieces_than_a_call_takes_arrive_in_order() {
    let (near, far) = tcp_pair();
    let reader = reading(far);
    let bytes = pattern(7000);
    let aggregate: Aggregate = bytes.chunks(3).map(<[u8]>::to_vec).collect();
    let summary = zhaul::send(aggregate, &near).run().unwrap();
    drop(near);
    assert_eq!(summary.calls, 3);
    assert!(reader.join().unwrap() == bytes);
}

#[test]
fn files_between_memory_arrive_through_tcp_and_unix_sockets() {
    let built = multipart();
    let (near, far) = tcp_pair();
    let reader = reading(far);
    let progress = Progress::new();
    let summary = zhaul::send(built.aggregate.clone(), &near)
        .progress(&progress)
        .run()
        .unwrap();
    drop(near);
    assert!(reader.join().unwrap() == built.bytes);
    assert_eq!(summary.moved, built.bytes.len() as u64);
    assert_eq!(summary.released, summary.moved);
    let routes: Vec<_> = summary.files.iter().map(|file| file.route).collect();
    assert_eq!(routes, [Route::Sendfile, Route::ReadWrite, Route::Sendfile]);
    assert_eq!(
        (progress.moved(), progress.calls()),
        (summary.moved, summary.calls)
    );
    assert_eq!(progress.in_transit(), 0);

    let (near, far) = UnixStream::pair().unwrap();
    let reader = reading(far);
    zhaul::send(built.aggregate, &near).run().unwrap();
    drop(near);
    assert!(reader.join().unwrap() == built.bytes);
}

#[test]
fn the_smallest_buffer_and_non_blocking_mode_change_nothing_about_the_bytes() {
    for nonblocking in [false, true] {
        let built = multipart();
        let (near, far) = UnixStream::pair().unwrap();
        shrink(&near);
        near.set_nonblocking(nonblocking).unwrap();
        let reader = reading(far);
        zhaul::send(built.aggregate, &near).run().unwrap();
        drop(near);
        assert!(reader.join().unwrap() == built.bytes);
    }
}

#[test]
fn a_datagram_socket_takes_memory_as_one_message_and_nothing_else() {
    let (near, far) = UnixDatagram::pair().unwrap();
    let summary = zhaul::send(("one", "message"), &near).run();
    assert_eq!(summary.unwrap().calls, 1);
    let mut buffer = [0; 64];
    let received = far.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..received], b"onemessage");

    let built = Built::default().file(10, 0..10, Stability::Immutable);
    let error = zhaul::send(built.aggregate, &near).run().unwrap_err();
    let refusal = Refusal::SinkKeepsMessages;
    assert_eq!(error.cause, Cause::Refused { refusal });
}

#[test]
fn what_is_no_socket_is_an_error() {
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    let error = zhaul::send("memory", &writer).run().unwrap_err();
    assert_eq!(
        (error.errno(), error.moved()),
        (Some(Errno::from_raw(88)), 0),
        "ENOTSOCK"
    );
    let built = Built::default().file(10, 0..10, Stability::Immutable);
    let error = zhaul::send(built.aggregate, &writer).run().unwrap_err();
    let refusal = Refusal::SinkIsNoSocket;
    assert_eq!(error.cause, Cause::Refused { refusal });
}

#[test]
fn a_file_that_ends_before_its_range_is_an_error_that_says_how_far_it_came() {
    let built = Built::default().memory(b"head");
    let file = crate::TestFile::with(&pattern(1000));
    let mut aggregate = built.aggregate;
    aggregate.push(zhaul::FileRange::new(file.open(), 0..2000));
    aggregate.push("tail");
    let (near, far) = tcp_pair();
    let reader = reading(far);
    let error = zhaul::send(aggregate, &near).run().unwrap_err();
    drop(near);
    assert_eq!(error.cause, Cause::SourceEnded);
    assert_eq!((error.moved(), error.summary.files.len()), (1004, 1));
    assert_eq!(reader.join().unwrap().len(), 1004);
}
