//! Receiving by mapped pages: whatever is mapped, copied, cut, reset or marked urgent, the bytes are
//! those that were sent, in order.
#![allow(clippy::unwrap_used)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::pipe::{SpliceFlags, splice};
use zhaul::receive::{Copying, Filling, ReceiveError, ReceivedBytes, ZeroCopyReceiver};
use zhaul::{Errno, Operation, Pool};
use zhaul_sys::setsockopt::{IntOption, set};

const PAGE: usize = 4096;

/// A connection whose segments hold so much, or what the kernel chooses.
fn pair(segment: Option<usize>) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    if let Some(payload) = segment {
        let bytes = i32::try_from(payload + 12).unwrap();
        set(listener.as_fd(), IntOption::TcpMaxSegment, bytes).unwrap();
    }
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    near.set_nodelay(true).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Sends pages that a pipe had.
fn send_pages(near: &TcpStream, bytes: &[u8]) {
    let (reader, mut writer) = io::pipe().unwrap();
    for part in bytes.chunks(8 * PAGE) {
        writer.write_all(part).unwrap();
        let mut left = part.len();
        while left > 0 {
            left -= splice(&reader, None, near, None, left, SpliceFlags::empty()).unwrap();
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

fn mapping(socket: TcpStream) -> ZeroCopyReceiver<TcpStream> {
    ZeroCopyReceiver::new(socket)
        .map_local_peer(true)
        .copy_up_to(0)
}

fn taken(view: &ReceivedBytes<'_>) -> Vec<u8> {
    let mut bytes = vec![0; view.len()];
    assert_eq!(view.copy_to(&mut bytes), view.len());
    bytes
}

fn all<S: AsFd>(receiver: &mut ZeroCopyReceiver<S>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(view) = receiver.receive().unwrap() {
        assert!(!view.is_empty());
        bytes.extend(taken(&view));
    }
    assert_eq!(receiver.figures().received(), bytes.len() as u64);
    bytes
}

fn sending(near: TcpStream, bytes: Vec<u8>) -> JoinHandle<()> {
    std::thread::spawn(move || send_pages(&near, &bytes))
}

/// False where nothing can be mapped, which is said.
fn maps<S>(receiver: &ZeroCopyReceiver<S>, test: &str) -> bool {
    let unsupported = receiver.figures().because.iter();
    let unsupported = unsupported.filter(|(why, _)| matches!(why, Copying::Unsupported(_)));
    for (why, _) in unsupported.clone() {
        zhaul_untested::skip(test, why);
    }
    unsupported.count() == 0
}

#[test]
fn whole_pages_are_mapped_and_all_bytes_arrive() {
    let (near, far) = pair(Some(PAGE));
    let bytes = pattern(3_000_001);
    let sender = sending(near, bytes.clone());
    let mut receiver = mapping(far);
    assert_eq!(all(&mut receiver), bytes);
    sender.join().unwrap();
    let figures = receiver.figures();
    if maps(&receiver, "whole_pages_are_mapped_and_all_bytes_arrive") {
        assert!(figures.mapped > 0, "{figures}");
    }
    let by_reason: u64 = figures.because.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(by_reason, figures.copied, "{figures}");
}

#[test]
fn segments_of_any_size_arrive_whole() {
    for payload in [100, 1448, PAGE - 1, PAGE + 1, 2 * PAGE] {
        let (near, far) = pair(Some(payload));
        let bytes = pattern(300_007);
        let sender = sending(near, bytes.clone());
        assert_eq!(all(&mut mapping(far)), bytes, "{payload}");
        sender.join().unwrap();
    }
}

#[test]
fn a_peer_on_this_machine_is_copied_unless_asked_and_then_gives_no_slice() {
    let (near, far) = pair(Some(PAGE));
    send_pages(&near, &pattern(16 * PAGE));
    drop(near);
    let mut receiver = ZeroCopyReceiver::new(far.try_clone().unwrap()).copy_up_to(0);
    let view = receiver.receive_at_most(8 * PAGE).unwrap().unwrap();
    assert_eq!(
        (view.mapped_len(), view.copying()),
        (0, Some(Copying::LocalPeer))
    );
    assert_eq!(view.slices().unwrap().concat(), taken(&view));
    let mut receiver = mapping(far);
    let view = receiver.receive().unwrap().unwrap();
    if view.mapped_len() > 0 {
        assert!(view.slices().is_none(), "its sender may write to it");
        assert_eq!(view.bytes(), taken(&view));
    } else {
        zhaul_untested::skip_this("nothing was mapped");
    }
}

#[test]
fn no_more_is_taken_than_was_asked_for() {
    let (near, mut far) = pair(Some(PAGE));
    let bytes = pattern(64 * PAGE);
    let sender = sending(near, bytes.clone());
    let mut receiver = mapping(far.try_clone().unwrap());
    let mut got = Vec::new();
    for at_most in [1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE + 5, 10 * PAGE] {
        let view = receiver.receive_at_most(at_most).unwrap().unwrap();
        assert!(view.len() <= at_most, "{} of {at_most}", view.len());
        got.extend(taken(&view));
    }
    assert!(receiver.receive_at_most(0).unwrap().unwrap().is_empty());
    far.read_to_end(&mut got).unwrap();
    assert_eq!(got, bytes);
    sender.join().unwrap();
}

#[test]
fn an_urgent_mark_neither_ends_the_stream_nor_stops_it() {
    let (near, far) = pair(Some(PAGE));
    send_pages(&near, &pattern(2 * PAGE));
    rustix::net::send(&near, b"!", rustix::net::SendFlags::OOB).unwrap();
    send_pages(&near, b"after the mark");
    near.shutdown(Shutdown::Write).unwrap();
    let mut expected = pattern(2 * PAGE);
    expected.extend(b"after the mark");
    assert_eq!(all(&mut mapping(far)), expected);
}

#[test]
fn a_reset_is_an_error_and_not_an_end_and_takes_no_view_away() {
    let (near, far) = pair(Some(PAGE));
    send_pages(&near, &pattern(4 * PAGE));
    let mut receiver = mapping(far.try_clone().unwrap());
    let view = receiver.receive_at_most(2 * PAGE).unwrap().unwrap();
    rustix::net::sockopt::set_socket_linger(&near, Some(Duration::ZERO)).unwrap();
    drop(near);
    let mut events = [rustix::event::PollFd::new(
        &far,
        rustix::event::PollFlags::HUP,
    )];
    rustix::event::poll(&mut events, None).unwrap();
    assert_eq!(taken(&view), pattern(4 * PAGE)[..view.len()]);
    let error = loop {
        match receiver.receive() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a reset is no end"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.operation, Operation::Read);
    assert_eq!(
        io::Error::from(error).kind(),
        io::ErrorKind::ConnectionReset
    );
}

#[test]
fn a_view_is_written_on_out_of_its_pages() {
    let (near, far) = pair(Some(PAGE));
    let bytes = pattern(50 * PAGE + 17);
    let sender = sending(near, bytes.clone());
    let mut file = tempfile::tempfile().unwrap();
    let mut receiver = mapping(far);
    while let Some(view) = receiver.receive().unwrap() {
        view.write_to(&file).unwrap();
    }
    sender.join().unwrap();
    let mut written = Vec::new();
    io::Seek::rewind(&mut file).unwrap();
    file.read_to_end(&mut written).unwrap();
    assert_eq!(written, bytes);
}

#[test]
fn who_maps_nothing_is_not_asked_for_a_while() {
    let (mut near, far) = pair(None);
    let sender = std::thread::spawn(move || {
        let bytes = pattern(8 << 20);
        near.write_all(&bytes).unwrap();
        bytes
    });
    let mut receiver = mapping(far);
    let bytes = all(&mut receiver);
    assert_eq!(bytes, sender.join().unwrap());
    let figures = receiver.figures();
    if maps(&receiver, "who_maps_nothing_is_not_asked_for_a_while") && figures.mapped == 0 {
        let why = |(why, _): &(Copying, u64)| *why;
        let reasons: Vec<Copying> = figures.because.iter().map(why).collect();
        assert!(reasons.contains(&Copying::AskedInVain), "{figures}");
        assert!(reasons.contains(&Copying::NotPages), "{figures}");
    }
}

#[test]
fn what_is_no_tcp_socket_is_copied() {
    let (mut near, far) = UnixStream::pair().unwrap();
    near.write_all(b"by another way").unwrap();
    drop(near);
    let mut receiver = ZeroCopyReceiver::new(far);
    let view = receiver.receive().unwrap().unwrap();
    assert_eq!(view.bytes(), &b"by another way"[..]);
    assert_eq!(view.copying(), Some(Copying::Unsupported(Errno::ENODEV)));
    assert!(receiver.receive().unwrap().is_none());
    assert!(receiver.receive().unwrap().is_none());
}

#[test]
fn a_timeout_of_the_socket_is_an_error_with_the_bytes_before() {
    let (mut near, far) = pair(None);
    near.write_all(b"x").unwrap();
    far.set_read_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    far.set_nonblocking(true).unwrap();
    let mut receiver = ZeroCopyReceiver::new(far);
    assert_eq!(receiver.receive().unwrap().unwrap().len(), 1);
    let error: ReceiveError = receiver.receive().unwrap_err();
    assert_eq!(
        (error.operation, error.errno),
        (Operation::Wait, Errno::EAGAIN)
    );
    assert_eq!(error.received, 1);
}

#[test]
fn a_pool_buffer_is_filled_to_its_limit_or_to_the_end() {
    let (mut near, far) = pair(None);
    let bytes = pattern(3 * PAGE);
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || {
        near.write_all(&sent[..10]).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        near.write_all(&sent[10..]).unwrap();
    });
    let pool = Pool::new(2 * PAGE, 2).unwrap();
    let mut first = Filling::new(pool.allocate().unwrap()).limit(PAGE + 1);
    assert!(first.receive(&far).unwrap());
    let first = first.freeze();
    assert_eq!(*first, bytes[..=PAGE]);
    far.set_nonblocking(true).unwrap();
    let mut second = Filling::new(pool.allocate().unwrap());
    assert!(!second.receive(&far).unwrap(), "the stream ends");
    assert_eq!(*second.freeze(), bytes[PAGE + 1..]);
    sender.join().unwrap();
    drop(first);
    assert_eq!(pool.usage().in_use, 0);
}

#[test]
fn a_limit_below_what_was_received_takes_no_more() {
    let (mut near, far) = pair(None);
    near.write_all(&[7; 200]).unwrap();
    let pool = Pool::new(PAGE, 1).unwrap();
    let mut filling = Filling::new(pool.allocate().unwrap()).limit(100);
    assert!(filling.receive(&far).unwrap());
    let mut filling = filling.limit(50);
    assert!(filling.receive(&far).unwrap());
    assert_eq!(*filling.freeze(), [7; 100]);
}

#[test]
fn what_came_before_a_reset_stays_in_the_buffer() {
    let (mut near, far) = pair(None);
    far.set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    near.write_all(b"before").unwrap();
    let pool = Pool::new(PAGE, 1).unwrap();
    let mut filling = Filling::new(pool.allocate().unwrap());
    while filling.len() < 6 {
        assert_eq!(filling.receive(&far).unwrap_err().errno, Errno::EAGAIN);
    }
    rustix::net::sockopt::set_socket_linger(&near, Some(Duration::ZERO)).unwrap();
    drop(near);
    far.set_read_timeout(None).unwrap();
    let error = filling.receive(&far).unwrap_err();
    assert_eq!((error.operation, error.received), (Operation::Read, 6));
    assert_eq!(*filling.freeze(), *b"before");
}

#[cfg(feature = "tokio")]
mod on_tokio {
    use super::*;

    #[tokio::test]
    async fn a_task_receives_the_same() {
        let (near, far) = pair(Some(PAGE));
        let bytes = pattern(2_000_003);
        let sender = sending(near, bytes.clone());
        far.set_nonblocking(true).unwrap();
        let far = tokio::net::TcpStream::from_std(far).unwrap();
        let mut receiver = ZeroCopyReceiver::new(far)
            .map_local_peer(true)
            .copy_up_to(0);
        let mut got = Vec::new();
        while let Some(view) = receiver.receive_async().await.unwrap() {
            got.extend(taken(&view));
        }
        sender.join().unwrap();
        assert_eq!(got, bytes);
    }

    #[tokio::test]
    async fn a_task_fills_a_buffer_and_may_be_interrupted() {
        let (mut near, far) = pair(None);
        far.set_nonblocking(true).unwrap();
        let far = tokio::net::TcpStream::from_std(far).unwrap();
        let pool = Pool::new(PAGE, 1).unwrap();
        let mut filling = Filling::new(pool.allocate().unwrap());
        near.write_all(b"first ").unwrap();
        while filling.len() < 6 {
            let moment = Duration::from_millis(1);
            let early = tokio::time::timeout(moment, filling.receive_async(&far)).await;
            assert!(early.is_err());
        }
        near.write_all(b"second").unwrap();
        drop(near);
        assert!(!filling.receive_async(&far).await.unwrap());
        assert_eq!(*filling.freeze(), *b"first second");
    }

    #[tokio::test]
    async fn a_dropped_future_loses_nothing() {
        let (mut near, far) = pair(None);
        far.set_nonblocking(true).unwrap();
        let far = tokio::net::TcpStream::from_std(far).unwrap();
        let mut receiver = ZeroCopyReceiver::new(far);
        let moment = Duration::from_millis(5);
        let early = tokio::time::timeout(moment, receiver.receive_async()).await;
        assert!(early.is_err(), "nothing was sent");
        near.write_all(b"later").unwrap();
        let view = receiver.receive_at_most_async(3).await.unwrap().unwrap();
        assert_eq!(taken(&view), b"lat");
        let view = receiver.receive_async().await.unwrap().unwrap();
        assert_eq!(taken(&view), b"er");
        near.shutdown(Shutdown::Write).unwrap();
        assert!(receiver.receive_async().await.unwrap().is_none());
    }
}
