//! Every free buffer is overwritten all the time, while what was sent from buffers is checked by its
//! receivers and by those who still hold a reference.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use zhaul::{Aggregate, FBuf, Pool, Segment};

const SENDERS: u64 = 3;
const MESSAGES: u64 = 400;
const SLOTS: usize = 12;

/// What message `number` of a sender is made of.
fn content(sender: u64, number: u64) -> impl Iterator<Item = u8> {
    let mut random = fastrand::Rng::with_seed(sender << 32 | number);
    let len = random.usize(1..20_000);
    std::iter::repeat_with(move || random.u8(..)).take(len)
}

fn buffer_with(pool: &Pool, sender: u64, number: u64) -> FBuf {
    let mut buffer = pool.allocate_within(Duration::MAX).unwrap();
    let mut len = 0;
    for (place, byte) in buffer.iter_mut().zip(content(sender, number)) {
        *place = byte;
        len += 1;
    }
    buffer.freeze(len)
}

/// Sends a message in random pieces, each of which is dropped when it is written, and hands another
/// reference to somebody who reads it later.
fn send(
    pool: &Pool,
    mut socket: impl Write,
    sender: u64,
    later: &mpsc::SyncSender<(u64, u64, FBuf)>,
) {
    let mut random = fastrand::Rng::with_seed(sender);
    for number in 0..MESSAGES {
        let buffer = buffer_with(pool, sender, number);
        if random.bool() {
            // Whoever is too slow does without.
            let _ = later.try_send((sender, number, buffer.clone()));
        }
        let mut aggregate = Aggregate::from(buffer);
        while !aggregate.is_empty() {
            let part = aggregate.split_to(random.u64(1..=aggregate.len()));
            for segment in part {
                let Segment::Memory(memory) = segment else {
                    unreachable!("there are no files");
                };
                socket.write_all(&memory).unwrap();
            }
        }
    }
}

fn receive(mut socket: impl Read, sender: u64) {
    let mut received = Vec::new();
    for number in 0..MESSAGES {
        let expected: Vec<_> = content(sender, number).collect();
        received.resize(expected.len(), 0);
        socket.read_exact(&mut received).unwrap();
        assert!(received == expected, "message {number} of sender {sender}");
    }
}

fn scribble(pool: &Pool, end: &AtomicBool) -> usize {
    let mut overwritten = 0;
    while !end.load(Ordering::Relaxed) {
        // At most half, or senders would wait for ever.
        let free: Vec<_> = std::iter::from_fn(|| pool.allocate())
            .take(SLOTS / 2)
            .collect();
        overwritten += free.len();
        for mut buffer in free {
            buffer.fill(0xee);
        }
        thread::yield_now();
    }
    overwritten
}

#[test]
fn nobody_sees_what_a_later_owner_writes() {
    let pool = Pool::new(20_000, SLOTS).unwrap();
    let end = AtomicBool::new(false);
    let (later, references) = mpsc::sync_channel(2);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let scribbler = scope.spawn(|| scribble(&pool, &end));
        let mut receivers = Vec::new();
        for sender in 0..SENDERS {
            let (pool, later) = (&pool, later.clone());
            if sender == 0 {
                let (near, far) = UnixStream::pair().unwrap();
                scope.spawn(move || send(pool, near, sender, &later));
                receivers.push(scope.spawn(move || receive(far, sender)));
            } else {
                let near = TcpStream::connect(address).unwrap();
                let (far, _) = listener.accept().unwrap();
                scope.spawn(move || send(pool, near, sender, &later));
                receivers.push(scope.spawn(move || receive(far, sender)));
            }
        }
        drop(later);
        let mut read_later = 0;
        for (sender, number, buffer) in references {
            assert!(buffer.iter().copied().eq(content(sender, number)));
            read_later += 1;
        }
        assert!(read_later > 0);
        for receiver in receivers {
            receiver.join().unwrap();
        }
        end.store(true, Ordering::Relaxed);
        assert!(scribbler.join().unwrap() > 0);
    });
    assert_eq!(pool.usage().in_use, 0);
}
