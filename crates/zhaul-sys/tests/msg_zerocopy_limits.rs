//! What all senders of a process together may have pending. Limits are the process's, so this is
//! one test in a process of its own.
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use zhaul_sys::msg_zerocopy::{Limits, Sender, pinned, set_limits};

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Sends until it is refused; the error, and how many bytes were taken.
fn fill(sender: &mut Sender) -> (Option<i32>, usize) {
    let mut filled = 0;
    loop {
        match sender.send(&[Bytes::from(vec![7; 40_000])], false) {
            Ok(sent) => filled += sent.bytes,
            Err(error) => return (error.raw_os_error(), filled),
        }
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn at_a_limit_sends_are_refused_and_nothing_is_let_go() {
    // Bytes: what one socket has pending counts for all.
    set_limits(Limits {
        bytes: 100_000,
        ..Limits::default()
    });
    let (near, mut far) = tcp_pair();
    let mut sender = Sender::new(near.as_fd()).unwrap();
    let (errno, filled) = fill(&mut sender);
    assert_eq!(errno, Some(libc::ENOBUFS));
    assert_eq!((pinned().bytes, pinned().sockets), (filled, 1));
    assert!(filled <= 100_000);
    let (other, _other_far) = tcp_pair();
    let mut other = Sender::new(other.as_fd()).unwrap();
    let large = Bytes::from(vec![7; 60_000]);
    let error = other.send(&[large], false).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
    assert_eq!((pinned().refused, other.pending()), (2, 0));

    // Sockets: one that has nothing pending cannot begin.
    set_limits(Limits {
        sockets: 1,
        ..Limits::default()
    });
    let error = other.send(&[Bytes::from_static(b"!")], false).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
    let (errno, more) = fill(&mut sender);
    assert_eq!(errno, Some(libc::EAGAIN), "its own socket may go on");
    sender.reap().unwrap();

    // What is dropped counts until it is completed.
    let pending = sender.pending();
    drop(sender);
    drop(near);
    let now = pinned();
    assert_eq!((now.bytes, now.sockets), (pending, 1));
    assert_eq!((now.orphaned_bytes, now.orphaned_sockets), (pending, 1));
    let error = other.send(&[Bytes::from_static(b"!")], false).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
    far.read_exact(&mut vec![0; filled + more]).unwrap();
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
    wait_until("all is released", || pinned().bytes == 0);
    let now = pinned();
    assert_eq!(
        (now.sockets, now.orphaned_sockets, now.orphaned_bytes),
        (0, 0, 0)
    );
    assert_eq!(
        other
            .send(&[Bytes::from_static(b"!")], false)
            .unwrap()
            .bytes,
        1
    );

    // What is completed is counted whatever the caller does with it.
    let before = pinned();
    set_limits(Limits::default());
    let (near, mut far) = tcp_pair();
    let mut sender = Sender::new(near.as_fd()).unwrap();
    sender.send(&[Bytes::from_static(b"!")], false).unwrap();
    far.read_exact(&mut [0]).unwrap();
    let panics = std::panic::AssertUnwindSafe(|| {
        while sender.pending() > 0 {
            sender.reap_each(|_| panic!("on purpose")).unwrap();
        }
    });
    assert!(std::panic::catch_unwind(panics).is_err());
    let now = pinned();
    assert_eq!(sender.pending(), 0);
    assert_eq!((now.bytes, now.sockets), (before.bytes, before.sockets));
}
