//! Datagrams in batches, whose buffers are overwritten as soon as they come back: every byte that
//! arrives is that of the datagram it was sent in.
#![cfg(feature = "io-uring")]
#![allow(clippy::unwrap_used)]

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

use zhaul::zero_copy::{BatchSender, Sender, Unavailable};
use zhaul::{FBufMut, Pool};
use zhaul_sys::seccomp::{Refusal, refuse_in_this_thread};

const ROUNDS: u32 = 200;
/// Together they fit into the receive buffer that a socket has without a word.
const BATCH: u32 = 8;
/// Neither whole pages nor a power of two.
const BYTES: usize = 8_008;

fn pair() -> (UdpSocket, UdpSocket) {
    let [near, far] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    near.connect(far.local_addr().unwrap()).unwrap();
    let patience = Some(Duration::from_secs(60));
    far.set_read_timeout(patience).unwrap();
    (near, far)
}

/// A word of a datagram: no other has it, and no other place in this one.
fn word(number: u32, index: usize) -> [u8; 8] {
    (u64::from(number) << 32 | index as u64).to_le_bytes()
}

fn write(buffer: &mut FBufMut, number: u32) {
    for (index, place) in buffer[4..][..BYTES].chunks_exact_mut(8).enumerate() {
        place.copy_from_slice(&word(number, index));
    }
}

fn check(far: &UdpSocket, number: u32) {
    let mut room = [0; BYTES + 1];
    assert_eq!(far.recv(&mut room).unwrap(), BYTES);
    for (index, came) in room[..BYTES].chunks_exact(8).enumerate() {
        assert_eq!(came, word(number, index), "{number}, word {index}");
    }
}

#[test]
fn released_buffers_are_overwritten_at_once_and_what_arrives_is_unchanged() {
    let pool = Pool::new(BYTES + 4, 2 * BATCH as usize).unwrap();
    let (near, far) = pair();
    let mut sender = match BatchSender::new(near.as_fd(), &pool, BATCH) {
        Ok(sender) => sender,
        Err(error) => return zhaul_untested::skip_this(error),
    };
    for round in 0..ROUNDS {
        let numbers = round * BATCH..(round + 1) * BATCH;
        for number in numbers.clone() {
            let mut buffer = pool.allocate().unwrap();
            write(&mut buffer, number);
            sender.push(buffer.freeze(BYTES + 4).slice(4..)).unwrap();
        }
        assert_eq!(sender.submit().unwrap(), BATCH as usize);
        while sender.in_flight() > 0 {
            sender.wait(Duration::from_secs(60)).unwrap();
            sender.reap(|released| {
                released.sent.unwrap();
                assert_eq!(released.buffer.len(), BYTES);
                released.buffer.try_mut().unwrap().fill(0xee);
            });
        }
        numbers.for_each(|number| check(&far, number));
    }
    assert_eq!((pool.usage().in_use, sender.pending()), (0, 0));
}

#[test]
fn without_io_uring_it_says_so_and_the_plain_sender_does() {
    std::thread::spawn(|| {
        let refusal = Refusal::Errno(rustix::io::Errno::NOSYS.raw_os_error() as u16);
        if let Err(error) = refuse_in_this_thread(IO_URING_SETUP, refusal) {
            zhaul_untested::skip(
                "without_io_uring_it_says_so_and_the_plain_sender_does",
                error,
            );
            return;
        }
        let pool = Pool::new(BYTES + 4, 1).unwrap();
        let (near, far) = pair();
        let error = BatchSender::new(near.as_fd(), &pool, 1).unwrap_err();
        let Unavailable::Ring(errno) = error else {
            panic!("{error}");
        };
        assert_eq!(
            errno.raw_os_error(),
            Some(rustix::io::Errno::NOSYS.raw_os_error())
        );
        let mut buffer = pool.allocate().unwrap();
        write(&mut buffer, 5);
        let buffer = buffer.freeze(BYTES + 4).slice(4..);
        let mut sender = Sender::new(near.as_fd()).unwrap();
        sender.send(&[buffer.into()], false).unwrap();
        check(&far, 5);
    })
    .join()
    .unwrap();
}

/// The same on all architectures.
const IO_URING_SETUP: i64 = 425;
