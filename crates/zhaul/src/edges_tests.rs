use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use bytes::Bytes;
use zhaul_sys::msg_zerocopy::Sender;

use super::*;

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

fn sender(near: &TcpStream) -> Sender {
    Sender::new(near.as_fd()).unwrap()
}

/// Puts a completion into the error queue.
fn complete(near: &mut Sender, far: &mut TcpStream) {
    let sent = near.send(&[Bytes::from_static(b"!")], false).unwrap();
    assert_eq!(sent.bytes, 1);
    far.read_exact(&mut [0]).unwrap();
    while reported_now(near.as_fd(), PollFlags::empty()).is_empty() {
        std::thread::yield_now();
    }
}

const SOON: Option<Duration> = Some(Duration::from_millis(50));
const LATE: Option<Duration> = Some(Duration::from_secs(20));

#[test]
fn what_comes_into_the_error_queue_is_an_event_of_its_own() {
    let (near, mut far) = tcp_pair();
    let mut sender = sender(&near);
    let mut ends = Ends::new([(near.as_fd(), WRITABLE)]);
    let mut wait = |timeout| ends.wait([Some(ERROR)], &[], timeout).unwrap()[0];
    assert_eq!(
        wait(SOON),
        PollFlags::empty(),
        "writable, but that was not asked for"
    );
    complete(&mut sender, &mut far);
    assert_eq!(wait(LATE), ERROR);
    assert_eq!(wait(SOON), PollFlags::empty(), "told once, taken or not");
    complete(&mut sender, &mut far);
    assert_eq!(wait(LATE), ERROR, "and again of the next");
    assert_eq!(sender.reap().unwrap().calls, 2);
    complete(&mut sender, &mut far);
    assert_eq!(wait(LATE), ERROR);
    assert_eq!(sender.reap().unwrap().calls, 1);
}

#[test]
fn a_wait_for_something_else_does_not_swallow_what_came_into_the_error_queue() {
    let (near, mut far) = tcp_pair();
    let mut sender = sender(&near);
    let mut ends = Ends::new([(near.as_fd(), READABLE)]);
    let nothing = ends.wait([Some(ERROR)], &[], SOON).unwrap();
    assert!(nothing[0].is_empty());
    complete(&mut sender, &mut far);
    // A call is to find out whether it is an error; then there is nothing more to say.
    assert_eq!(ends.wait([Some(READABLE)], &[], LATE).unwrap()[0], ERROR);
    assert!(ends.wait([Some(READABLE)], &[], SOON).unwrap()[0].is_empty());
    assert_eq!(ends.wait([Some(ERROR)], &[], LATE).unwrap()[0], ERROR);
}

#[test]
fn bytes_and_ends_are_reported_although_the_error_queue_is_full_of_messages() {
    let (near, mut far) = tcp_pair();
    let mut sender = sender(&near);
    complete(&mut sender, &mut far);
    let mut ends = Ends::new([(near.as_fd(), READABLE)]);
    let mut wait = |timeout| ends.wait([Some(READABLE)], &[], timeout).unwrap()[0];
    assert_eq!(wait(LATE), ERROR);
    // The edge that was there when the watch began.
    assert_eq!(wait(LATE), ERROR);
    assert!(wait(SOON).is_empty());
    far.write_all(b"x").unwrap();
    while !has(wait(LATE), READABLE) {}
    (&near).read_exact(&mut [0]).unwrap();
    drop(far);
    while !has(wait(LATE), READABLE) {}
}

#[test]
fn a_pipe_without_a_reader_is_worth_a_call() {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
    while rustix::io::write(&writer, &[0; 4096]).is_ok() {}
    let mut ends = Ends::new([(writer.as_fd(), WRITABLE)]);
    assert!(ends.wait([Some(WRITABLE)], &[], SOON).unwrap()[0].is_empty());
    drop(reader);
    assert_eq!(ends.wait([Some(WRITABLE)], &[], LATE).unwrap()[0], ERROR);
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn tokio_tells_of_each_message_in_the_error_queue_once() {
    use crate::async_io::Watch;
    let (near, mut far) = tcp_pair();
    let mut sender = sender(&near);
    near.set_nonblocking(true).unwrap();
    let near = tokio::net::TcpStream::from_std(near).unwrap();
    let mut watch = Watch::sink();
    for _ in 0..3 {
        let soon = tokio::time::timeout(Duration::from_millis(50), watch.ready(&near, ERROR));
        assert!(soon.await.is_err(), "nothing has come");
        complete(&mut sender, &mut far);
        let late = tokio::time::timeout(Duration::from_secs(20), watch.ready(&near, ERROR));
        assert_eq!(late.await.expect("it is told"), Ok(ERROR));
    }
    assert_eq!(sender.reap().unwrap().calls, 3);
    let room = tokio::time::timeout(Duration::from_secs(20), watch.ready(&near, WRITABLE));
    assert_eq!(room.await.expect("there is room"), Ok(WRITABLE));
}

/// As when there is no descriptor for an epoll instance: epoll takes no files.
#[test]
fn who_cannot_be_told_of_errors_is_sent_to_look_every_so_often() {
    let file = tempfile::tempfile().unwrap();
    let mut ends = Ends::new([(file.as_fd(), WRITABLE)]);
    let began = std::time::Instant::now();
    assert_eq!(ends.wait([Some(ERROR)], &[], None), Ok([ERROR]));
    assert_eq!(ends.wait([Some(ERROR)], &[], None), Ok([ERROR]));
    assert!(began.elapsed() >= 2 * BLIND_WAIT, "not at once");
}
