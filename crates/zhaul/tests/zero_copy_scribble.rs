//! Buffers of a pool that are sent by reference and overwritten as soon as they are recycled, by
//! their next owner and by a thread that does nothing else: every byte that arrives is that of the
//! message it was sent in. On loopback what the receiver's window holds is copied, and what is
//! queued behind it is still the sender's memory.
#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use zhaul::{FBufMut, Pool};
use zhaul_sys::msg_zerocopy::Sender;

const CONNECTIONS: u64 = 4;
const MESSAGES: u64 = 150;
/// Neither whole pages nor a power of two.
const MESSAGE_BYTES: usize = 60_008;
/// Fewer than the connections could have in flight.
const SLOTS: usize = 48;
/// The rest of its messages this connection does not read.
const RESET: (u64, u64) = (3, 40);

/// A word of a message: no other message has it, and no other place in this one.
fn word(connection: u64, message: u64, index: usize) -> [u8; 8] {
    ((connection + 1) << 56 | message << 32 | index as u64).to_le_bytes()
}

fn connect() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // A small window leaves much in the sender's queue.
    set_socket_recv_buffer_size(&listener, 16 << 10).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Waits for room, or for something in the error queue.
fn wait(sender: &Sender, wanted: PollFlags) {
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: 2_000_000,
    };
    poll(&mut [PollFd::new(sender, wanted)], Some(&timeout)).unwrap();
}

fn write(mut buffer: FBufMut, connection: u64, message: u64) -> Bytes {
    for (index, place) in buffer[..MESSAGE_BYTES].chunks_exact_mut(8).enumerate() {
        place.copy_from_slice(&word(connection, message, index));
    }
    buffer.freeze(MESSAGE_BYTES).into()
}

/// Sends all messages, by one sender after another. Ends early if the peer is gone.
fn send_all(near: &TcpStream, pool: &Pool, connection: u64) {
    let mut sender = Sender::new(near.as_fd()).unwrap();
    for message in 0..MESSAGES {
        let buffer = loop {
            sender.reap().unwrap();
            match pool.allocate() {
                Some(buffer) => break buffer,
                None => wait(&sender, PollFlags::empty()),
            }
        };
        let mut left = write(buffer, connection, message);
        while !left.is_empty() {
            match sender.send(&[left.clone()], false) {
                Ok(sent) => left = left.slice(sent.bytes..),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait(&sender, PollFlags::OUT);
                }
                Err(error) => {
                    let gone = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                    assert!(gone.contains(&error.kind()), "{error}");
                    return;
                }
            }
            sender.reap().unwrap();
        }
        if message % 13 == 0 {
            // What is pending goes to the reaper, and comes back.
            drop(sender);
            sender = Sender::new(near.as_fd()).unwrap();
        }
    }
}

fn check_all(mut far: TcpStream, connection: u64) {
    let mut received = vec![0; MESSAGE_BYTES];
    for message in 0..MESSAGES {
        if (connection, message) == RESET {
            return;
        }
        if message % 10 == 0 {
            // Long enough for the queue to fill.
            std::thread::sleep(Duration::from_millis(20));
        }
        far.read_exact(&mut received).unwrap();
        for (index, came) in received.chunks_exact(8).enumerate() {
            let at = (connection, message, index);
            assert_eq!(came, word(connection, message, index), "{at:?}");
        }
    }
}

#[test]
fn recycled_buffers_are_overwritten_at_once_and_what_arrives_is_unchanged() {
    let pool = Pool::new(64 << 10, SLOTS).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (pool, is_over) = (&pool, &is_over);
        scope.spawn(move || {
            while !is_over.load(Relaxed) {
                if let Some(mut buffer) = pool.allocate() {
                    buffer[..].fill(0xee);
                }
                std::thread::yield_now();
            }
        });
        let ends = (0..CONNECTIONS).map(|connection| {
            let (near, far) = connect();
            let sending = scope.spawn(move || send_all(&near, pool, connection));
            let checking = scope.spawn(move || check_all(far, connection));
            [sending, checking]
        });
        let ends: Vec<_> = ends.flatten().collect();
        let results: Vec<_> = ends
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        is_over.store(true, Relaxed);
        assert!(results.iter().all(Result::is_ok));
    });
    let began = Instant::now();
    while pool.usage().in_use > 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "all come back");
        std::thread::sleep(Duration::from_millis(1));
    }
}
