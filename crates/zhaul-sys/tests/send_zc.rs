//! `send_zc::Batch` on sockets of this kernel: who owns what until when. A corked socket keeps what it
//! was given until it is uncorked, which is when loopback copies it.
#![cfg(all(feature = "io-uring", not(miri)))]
#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zhaul_sys::arena::{Arena, SharedSlot};
use zhaul_sys::msg_zerocopy::pinned;
use zhaul_sys::send_zc::{Batch, NotQueued, Unavailable};

const LEN: u32 = 50_000;
/// What is in flight is counted for the process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn pair() -> (UdpSocket, UdpSocket) {
    let [near, far] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    near.connect(far.local_addr().unwrap()).unwrap();
    let patience = Some(Duration::from_secs(60));
    far.set_read_timeout(patience).unwrap();
    (near, far)
}

/// `None` where this process may not.
fn batch(near: &UdpSocket, arena: &Arena, most: u32) -> Option<Batch> {
    match Batch::new(near.as_fd(), arena, most) {
        Ok(batch) => Some(batch),
        Err(error) => {
            zhaul_untested::skip_this(error);
            None
        }
    }
}

fn set(socket: &UdpSocket, option: libc::c_int, value: libc::c_int) {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    let fd = socket.as_raw_fd();
    // SAFETY: reads one int, which lives on this stack.
    let result =
        unsafe { libc::setsockopt(fd, libc::SOL_UDP, option, (&raw const value).cast(), len) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// From now on a datagram is kept until it is uncorked. With UDP_SEGMENT by reference, else copied.
fn cork(socket: &UdpSocket) {
    set(socket, libc::UDP_SEGMENT, 60_000);
    set(socket, libc::UDP_CORK, 1);
}

fn filled(arena: &Arena, byte: u8) -> SharedSlot {
    let mut slot = arena.take().unwrap();
    slot.fill(byte);
    slot.share()
}

/// Writes to every slot that nobody owns.
fn scribble(arena: &Arena) {
    let slots: Vec<_> = std::iter::from_fn(|| arena.take()).collect();
    for mut slot in slots {
        slot.fill(0xee);
    }
}

fn receive(far: &UdpSocket) -> Vec<u8> {
    let mut room = vec![0; 65_536];
    let came = far.recv(&mut room).unwrap();
    room.truncate(came);
    room
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_slot_is_held_until_the_notification_and_not_until_the_result() {
    let _one = ONE_AT_A_TIME.lock();
    let arena = Arena::new(LEN as usize, 4, false).unwrap();
    let (near, far) = pair();
    let Some(mut batch) = batch(&near, &arena, 2) else {
        return;
    };
    cork(&near);
    batch.push(filled(&arena, 7), 0..LEN).unwrap();
    assert_eq!(batch.submit().unwrap(), 1);
    // The result is there since the call returned.
    assert!(batch.wait(Duration::from_secs(60)).unwrap());
    assert_eq!(batch.reap(drop), 0);
    assert_eq!((batch.in_flight(), batch.pending()), (1, LEN as usize));
    assert_eq!(arena.in_use(), 1);
    scribble(&arena);
    set(&near, libc::UDP_CORK, 0);
    assert!(receive(&far) == [7; LEN as usize]);
    let mut released = Vec::new();
    until("it is released", || {
        batch.reap(|send| released.push(send)) > 0
    });
    assert!(released[0].sent.is_ok());
    assert!(released[0].copied, "loopback copies");
    assert_eq!((batch.in_flight(), pinned().bytes), (0, 0));
}

#[test]
fn dropped_with_a_send_in_flight_the_slot_is_kept_until_the_kernel_is_done() {
    let _one = ONE_AT_A_TIME.lock();
    let arena = Arena::new(LEN as usize, 4, false).unwrap();
    let (near, far) = pair();
    let Some(mut batch) = batch(&near, &arena, 4) else {
        return;
    };
    cork(&near);
    batch.push(filled(&arena, 9), 0..LEN).unwrap();
    batch.submit().unwrap();
    // The kernel was never shown this one.
    batch.push(filled(&arena, 1), 0..LEN).unwrap();
    drop(batch);
    assert_eq!(arena.in_use(), 1);
    let seen = pinned();
    assert_eq!(
        (seen.orphaned_sockets, seen.orphaned_bytes),
        (1, LEN as usize)
    );
    scribble(&arena);
    set(&near, libc::UDP_CORK, 0);
    assert!(receive(&far) == [9; LEN as usize]);
    until("the slot comes back", || arena.in_use() == 0);
    assert_eq!((pinned().bytes, pinned().orphaned_sockets), (0, 0));
    let mut room = [PollFd::new(&far, PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    assert_eq!(
        poll(&mut room, Some(&at_once)),
        Ok(0),
        "nothing else is sent"
    );
}

#[test]
fn what_fails_is_reported_and_released_and_the_next_ones_are_sent() {
    let _one = ONE_AT_A_TIME.lock();
    let arena = Arena::new(65_536, 3, false).unwrap();
    let (near, far) = pair();
    let Some(mut batch) = batch(&near, &arena, 3) else {
        return;
    };
    // With the header of IPv4 the second is too long.
    for (byte, len) in [(1, 20_000), (2, 65_527), (3, 30_000)] {
        batch.push(filled(&arena, byte), 0..len).unwrap();
    }
    assert_eq!(batch.submit().unwrap(), 3);
    let mut errors = Vec::new();
    until("all are released", || {
        batch.reap(|send| {
            let error = send.sent.err().and_then(|error| error.raw_os_error());
            errors.push((send.slot[0], error));
            assert!(
                send.copied == error.is_none(),
                "loopback copies what is sent"
            );
        });
        batch.in_flight() == 0
    });
    errors.sort_unstable();
    assert_eq!(errors, [(1, None), (2, Some(libc::EMSGSIZE)), (3, None)]);
    assert_eq!((arena.in_use(), pinned().bytes), (0, 0));
    assert!(receive(&far) == [1; 20_000]);
    assert!(receive(&far) == [3; 30_000]);
}

#[test]
fn what_cannot_be_queued_comes_back() {
    let _one = ONE_AT_A_TIME.lock();
    let arena = Arena::new(100_000, 3, false).unwrap();
    let other = Arena::new(1, 1, false).unwrap();
    let (near, _far) = pair();
    let Some(mut batch) = batch(&near, &arena, 1) else {
        return;
    };
    let refused = |result: Result<(), (NotQueued, SharedSlot)>| result.unwrap_err().0;
    assert_eq!(
        refused(batch.push(filled(&other, 1), 0..1)),
        NotQueued::Foreign
    );
    let past = u32::try_from(arena.slot_bytes()).unwrap();
    #[allow(clippy::reversed_empty_ranges)]
    for range in [
        0..0,
        0..65_528,
        5..4,
        past - 1..past + 1,
        u32::MAX - 1..u32::MAX,
    ] {
        let result = batch.push(filled(&arena, 1), range);
        assert_eq!(refused(result), NotQueued::Size);
    }
    batch.push(filled(&arena, 1), 0..1).unwrap();
    assert_eq!(
        refused(batch.push(filled(&arena, 1), 0..1)),
        NotQueued::Full
    );
    assert_eq!(arena.in_use(), 1);
    drop(batch);
    assert_eq!((arena.in_use(), pinned().bytes), (0, 0));
}

#[test]
fn only_connected_udp_will_do() {
    let arena = Arena::new(1, 1, false).unwrap();
    let unconnected = UdpSocket::bind("127.0.0.1:0").unwrap();
    let error = Batch::new(unconnected.as_fd(), &arena, 1).unwrap_err();
    assert!(
        matches!(&error, Unavailable::Socket(error) if error.kind() == ErrorKind::NotConnected),
        "{error}"
    );
    let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let error = Batch::new(stream.as_fd(), &arena, 1).unwrap_err();
    assert!(matches!(error, Unavailable::Socket(_)), "{error}");
    let (near, _far) = pair();
    for most in [0, u32::MAX] {
        let error = Batch::new(near.as_fd(), &arena, most).unwrap_err();
        assert!(matches!(error, Unavailable::Ring(_)), "{error}");
    }
}
