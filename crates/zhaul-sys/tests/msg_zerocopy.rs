//! `msg_zerocopy::Sender` on sockets of this kernel: who owns what until when.
#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use zhaul_sys::msg_zerocopy::Sender;

/// With little room: what is pending counts against the RLIMIT_MEMLOCK of the user, 8 MiB for all tests
/// that run at once.
fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    set_socket_recv_buffer_size(&listener, 100_000).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    set_socket_send_buffer_size(&near, 200_000).unwrap();
    (near, listener.accept().unwrap().0)
}

fn udp_pair() -> (UdpSocket, UdpSocket) {
    let pair = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    pair[0].connect(pair[1].local_addr().unwrap()).unwrap();
    let [near, far] = pair;
    (near, far)
}

/// Memory that counts how many of its kind are still owned.
struct Counted {
    bytes: Vec<u8>,
    owned: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.owned.fetch_sub(1, SeqCst);
    }
}

fn counted(owned: &Arc<AtomicUsize>, bytes: Vec<u8>) -> Bytes {
    owned.fetch_add(1, SeqCst);
    let owned = Arc::clone(owned);
    Bytes::from_owner(Counted { bytes, owned })
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| ((at * 31 + seed) % 251) as u8).collect()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits for something in the error queue, or for room.
fn wait(sender: &Sender, wanted: PollFlags) {
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: 10_000_000,
    };
    poll(&mut [PollFd::new(sender, wanted)], Some(&timeout)).unwrap();
}

/// Sends all of it, and waits for room.
fn send_all(sender: &mut Sender, mut bytes: Bytes) -> u32 {
    let mut calls = 0;
    while !bytes.is_empty() {
        match sender.send(&[bytes.clone()], false) {
            Ok(sent) => {
                calls += 1;
                bytes = bytes.slice(sent.bytes..);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait(sender, PollFlags::OUT),
            Err(error) => panic!("{error}"),
        }
        sender.reap().unwrap();
    }
    calls
}

/// Fills the socket until it takes no more; how many bytes that were.
fn fill(sender: &mut Sender, owned: &Arc<AtomicUsize>) -> usize {
    let mut filled = 0;
    let began = Instant::now();
    loop {
        match sender.send(&[counted(owned, pattern(50_000, 0))], false) {
            Ok(sent) => filled += sent.bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return filled,
            // Other tests pin memory of the same user.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                assert!(began.elapsed() < Duration::from_secs(60), "{error}");
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn pieces_arrive_in_order_and_every_owner_is_released_by_a_completion() {
    let (near, mut far) = tcp_pair();
    let mut sender = Sender::new(near.as_fd()).unwrap();
    let owned = Arc::new(AtomicUsize::new(0));
    let pieces = [7_000, 0, 1, 9_000].map(|len| counted(&owned, pattern(len, len)));
    let expected = pieces.concat();
    let sent = sender.send(&pieces, false).unwrap();
    drop(pieces);
    assert_eq!((sent.bytes, sent.call), (expected.len(), 0));
    assert_eq!(
        sender
            .send(&[Bytes::from_static(b"!")], false)
            .unwrap()
            .call,
        1
    );
    let mut received = vec![0; expected.len()];
    far.read_exact(&mut received).unwrap();
    assert!(received == expected);
    far.read_exact(&mut [0]).unwrap();
    let mut copied = 0;
    wait_until("both are completed", || {
        copied += sender.reap().unwrap().copied_calls;
        sender.pending() == 0
    });
    assert_eq!(copied, 2, "loopback copies");
    assert_eq!(owned.load(SeqCst), 0);
}

#[test]
fn what_the_peer_has_not_read_stays_owned() {
    let (near, mut far) = tcp_pair();
    let mut sender = Sender::new(near.as_fd()).unwrap();
    let owned = Arc::new(AtomicUsize::new(0));
    let filled = fill(&mut sender, &owned);
    sender.reap().unwrap();
    let queued = sender.pending();
    assert!(queued > 0, "more than the window of the receiver");
    assert!(owned.load(SeqCst) >= queued / 50_000);
    let mut received = vec![0; filled];
    far.read_exact(&mut received).unwrap();
    wait_until("all is completed", || {
        sender.reap().unwrap();
        sender.pending() == 0
    });
    assert_eq!(owned.load(SeqCst), 0);
}

#[test]
fn a_reset_completes_every_call() {
    for resets_itself in [false, true] {
        let (near, far) = tcp_pair();
        let mut sender = Sender::new(near.as_fd()).unwrap();
        let owned = Arc::new(AtomicUsize::new(0));
        fill(&mut sender, &owned);
        if resets_itself {
            rustix::net::connect_unspec(&near).unwrap();
        } else {
            // With something unread this is a reset.
            drop(far);
        }
        wait_until("all is completed", || {
            sender.reap().unwrap();
            sender.pending() == 0
        });
        assert_eq!(owned.load(SeqCst), 0);
    }
}

#[test]
fn numbers_go_on_over_connections_of_one_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    let mut sender = Sender::new(near.as_fd()).unwrap();
    let owned = Arc::new(AtomicUsize::new(0));
    fill(&mut sender, &owned);
    rustix::net::connect_unspec(&near).unwrap();
    drop(far);
    rustix::net::connect(&near, &listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    send_all(&mut sender, counted(&owned, pattern(20_000, 1)));
    far.read_exact(&mut [0; 20_000]).unwrap();
    wait_until("all is completed", || {
        sender.reap().unwrap();
        sender.pending() == 0
    });
}

#[test]
fn a_dropped_sender_leaves_what_is_pending_to_the_reaper() {
    let (near, mut far) = tcp_pair();
    let owned = Arc::new(AtomicUsize::new(0));
    let mut sender = Sender::new(near.as_fd()).unwrap();
    let filled = fill(&mut sender, &owned);
    drop(sender);
    drop(near);
    std::thread::sleep(Duration::from_millis(50));
    assert!(owned.load(SeqCst) > 0, "the peer has not read");
    let mut received = Vec::new();
    far.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), filled, "and then comes the end");
    wait_until("all is released", || owned.load(SeqCst) == 0);
}

#[test]
fn the_next_sender_of_a_socket_takes_over_what_is_pending() {
    let (near, mut far) = tcp_pair();
    let owned = Arc::new(AtomicUsize::new(0));
    let mut sender = Sender::new(near.as_fd()).unwrap();
    let mut filled = fill(&mut sender, &owned);
    sender.reap().unwrap();
    drop(sender);
    for _ in 0..3 {
        let mut sender = Sender::new(near.as_fd()).unwrap();
        assert!(sender.pending() > 0);
        far.read_exact(&mut vec![0; filled]).unwrap();
        filled = fill(&mut sender, &owned);
    }
    let mut sender = Sender::new(near.as_fd()).unwrap();
    far.read_exact(&mut vec![0; filled]).unwrap();
    wait_until("all is completed", || {
        sender.reap().unwrap();
        sender.pending() == 0
    });
    assert_eq!(owned.load(SeqCst), 0);
    // Nothing is pending: the numbers go on all the same.
    let last = sender
        .send(&[Bytes::from_static(b"!")], false)
        .unwrap()
        .call;
    far.read_exact(&mut [0]).unwrap();
    wait_until("it is completed", || {
        sender.reap().unwrap();
        sender.pending() == 0
    });
    drop(sender);
    let mut sender = Sender::new(near.as_fd()).unwrap();
    assert_eq!(
        sender
            .send(&[Bytes::from_static(b"!")], false)
            .unwrap()
            .call,
        last + 1
    );
    far.read_exact(&mut [0]).unwrap();
    wait_until("it is completed", || {
        sender.reap().unwrap();
        sender.pending() == 0
    });
}

#[test]
fn a_peer_that_never_reads_holds_an_abandoned_sender_no_longer_than_the_patience() {
    let (near, far) = tcp_pair();
    let owned = Arc::new(AtomicUsize::new(0));
    let mut sender = Sender::new(near.as_fd()).unwrap();
    fill(&mut sender, &owned);
    sender.abandon(Duration::from_millis(300));
    assert!(owned.load(SeqCst) > 0);
    wait_until("all is released", || owned.load(SeqCst) == 0);
    let mut far = far;
    let error = far.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_datagram_is_one_call_and_one_message() {
    let (near, far) = udp_pair();
    let mut sender = Sender::new(near.as_fd()).unwrap();
    let owned = Arc::new(AtomicUsize::new(0));
    for call in 0..5 {
        let pieces = [3_000, 5_000].map(|len| counted(&owned, pattern(len, len)));
        let expected = pieces.concat();
        let sent = sender.send(&pieces, true).unwrap();
        assert_eq!((sent.bytes, sent.call), (8_000, call));
        let mut received = vec![0; 10_000];
        let len = far.recv(&mut received).unwrap();
        assert!(received[..len] == expected);
    }
    wait_until("all is completed", || {
        sender.reap().unwrap();
        sender.pending() == 0
    });
    assert_eq!(owned.load(SeqCst), 0);
}

/// The kernel numbers a datagram before it finds that its segments are too many, drops it, and
/// completes it. Who did not know would take the completion of each call for that of the next.
#[test]
fn a_datagram_that_fails_behind_its_number_is_passed_over() {
    let (near, far) = udp_pair();
    let mut sender = Sender::new(near.as_fd()).unwrap();
    let owned = Arc::new(AtomicUsize::new(0));
    cut_into_segments(&near, 10);
    let error = sender
        .send(&[counted(&owned, pattern(9_000, 1))], false)
        .unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert_eq!((sender.pending(), owned.load(SeqCst)), (0, 0));
    cut_into_segments(&near, 0);
    let sent = sender
        .send(&[counted(&owned, pattern(9_000, 2))], false)
        .unwrap();
    assert_eq!(sent.call, 1);
    assert_eq!(far.recv(&mut [0; 10_000]).unwrap(), 9_000);
    wait_until("it is completed", || {
        sender.reap().unwrap();
        sender.pending() == 0
    });
    assert_eq!(owned.load(SeqCst), 0);
}

/// `setsockopt(2)` UDP_SEGMENT.
fn cut_into_segments(socket: &UdpSocket, bytes: libc::c_int) {
    // SAFETY: the descriptor is borrowed for the call; the option reads one int, which lives on
    // this stack.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_datagram_too_long_and_an_empty_one_are_refused() {
    let (near, _far) = udp_pair();
    let mut sender = Sender::new(near.as_fd()).unwrap();
    let long = Bytes::from(vec![0; 65_528]);
    let error = sender.send(&[long], false).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    let error = sender.send(&[Bytes::new()], false).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn a_socket_has_one_sender_and_only_if_nobody_else_enabled_it() {
    let (near, _far) = tcp_pair();
    let sender = Sender::new(near.as_fd()).unwrap();
    let also = near.try_clone().unwrap();
    let error = Sender::new(also.as_fd()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    drop(sender);
    Sender::new(also.as_fd()).unwrap();

    // What is accepted inherits it from the socket that listens.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _of_listener = Sender::new(listener.as_fd()).unwrap();
    let _near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let error = Sender::new(accepted.as_fd()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
}

#[test]
fn what_is_neither_tcp_nor_udp_is_refused() {
    let (near, _far) = UnixStream::pair().unwrap();
    let error = Sender::new(near.as_fd()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
    let file = std::fs::File::open("/dev/null").unwrap();
    let error = Sender::new(file.as_fd()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
}

/// Panics when it is dropped, once it is told to.
struct Panics(Arc<AtomicBool>);

impl AsRef<[u8]> for Panics {
    fn as_ref(&self) -> &[u8] {
        &[7; 10_000]
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        assert!(!self.0.load(SeqCst), "on purpose");
    }
}

#[test]
fn an_owner_whose_drop_panics_does_not_end_the_reaper() {
    let owned = Arc::new(AtomicUsize::new(0));
    for panics in [true, false] {
        let (near, mut far) = tcp_pair();
        let mut sender = Sender::new(near.as_fd()).unwrap();
        let is_armed = Arc::new(AtomicBool::new(false));
        if panics {
            let panics = || Bytes::from_owner(Panics(Arc::clone(&is_armed)));
            while sender.send(&[panics()], false).is_ok() {}
        } else {
            fill(&mut sender, &owned);
        }
        sender.reap().unwrap();
        assert!(sender.pending() > 20_000);
        is_armed.store(true, SeqCst);
        drop(sender);
        drop(near);
        far.read_to_end(&mut Vec::new()).unwrap();
    }
    wait_until("all is released", || owned.load(SeqCst) == 0);
}

/// A sender with a call that is completed and calls that are not.
fn half_completed(first: Bytes, owned: &Arc<AtomicUsize>) -> (Sender, TcpStream, TcpStream) {
    let (near, mut far) = tcp_pair();
    let mut sender = Sender::new(near.as_fd()).unwrap();
    let sent = sender.send(&[first], false).unwrap();
    far.read_exact(&mut vec![0; sent.bytes]).unwrap();
    wait(&sender, PollFlags::empty());
    fill(&mut sender, owned);
    (sender, near, far)
}

#[test]
fn a_panic_of_a_completed_owner_releases_nothing_that_is_pending() {
    let owned = Arc::new(AtomicUsize::new(0));
    let is_armed = Arc::new(AtomicBool::new(true));
    let first = Bytes::from_owner(Panics(is_armed));
    let (sender, near, mut far) = half_completed(first, &owned);
    let drops = std::panic::AssertUnwindSafe(|| drop(sender));
    assert!(std::panic::catch_unwind(drops).is_err());
    assert!(owned.load(SeqCst) > 0, "the peer has not read");
    drop(near);
    far.read_to_end(&mut Vec::new()).unwrap();
    wait_until("all is released", || owned.load(SeqCst) == 0);
}
