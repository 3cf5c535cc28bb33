//! Random writes during random snapshots while these are sent, read and dropped: each that arrives is
//! the region at its moment.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread::{JoinHandle, spawn};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use zhaul::{CowRegion, Snapshot};
use zhaul_sys::msg_zerocopy::Sender;

/// xorshift64: the same numbers in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// A region and what should be in it.
struct World {
    random: Random,
    region: CowRegion,
    model: Vec<u8>,
    snapshots: Vec<(Snapshot, Vec<u8>)>,
    in_flight: Vec<JoinHandle<()>>,
}

impl World {
    fn new(seed: u64, len: usize, copy_above: f64) -> Self {
        let builder = CowRegion::builder(len).copy_above(copy_above);
        Self {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            region: builder.build().unwrap(),
            model: vec![0; len],
            snapshots: Vec::new(),
            in_flight: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0..=7 => self.write(),
            8..=10 => {
                let snapshot = self.region.snapshot().unwrap();
                self.snapshots.push((snapshot, self.model.clone()));
            }
            11 | 12 => self.send(),
            13 if self.random.below(8) == 0 => {
                assert!(Command::new("true").status().unwrap().success());
            }
            _ if self.snapshots.is_empty() => {}
            _ => {
                let index = self.random.below(self.snapshots.len());
                let (snapshot, expected) = self.snapshots.swap_remove(index);
                assert!(snapshot[..] == expected[..]);
            }
        }
        if self.in_flight.len() > 4 {
            self.in_flight.remove(0).join().unwrap();
        }
    }

    fn write(&mut self) {
        let at = self.random.below(self.model.len());
        let longest = [16, 5000, 70_000][self.random.below(3)].min(self.model.len() - at);
        let len = 1 + self.random.below(longest);
        let byte = self.random.below(256) as u8;
        self.region[at..at + len].fill(byte);
        self.model[at..at + len].fill(byte);
        assert!(self.region[..] == self.model[..]);
    }

    /// Sends a snapshot that nobody else may have, in pieces, and drops it.
    fn send(&mut self) {
        if self.snapshots.is_empty() {
            return;
        }
        let index = self.random.below(self.snapshots.len());
        let (snapshot, expected) = self.snapshots.swap_remove(index);
        let bytes = Bytes::from(snapshot);
        let sending = match self.random.below(3) {
            0 => {
                let (near, far) = UnixStream::pair().unwrap();
                spawn(move || arrives(far, &expected, move || in_pieces(near, &bytes)))
            }
            1 => {
                let (near, far) = loopback();
                spawn(move || {
                    arrives(far, &expected, move || {
                        zhaul::send(bytes, &near).run().unwrap();
                    });
                })
            }
            _ => {
                let (near, far) = loopback();
                spawn(move || arrives(far, &expected, move || in_place(near, bytes)))
            }
        };
        self.in_flight.push(sending);
    }

    fn finish(mut self) {
        for sending in self.in_flight {
            sending.join().unwrap();
        }
        for (snapshot, expected) in &self.snapshots {
            assert!(snapshot[..] == expected[..]);
        }
        self.snapshots.clear();
        self.region[0] = 1;
        self.model[0] = 1;
        assert!(self.region[..] == self.model[..]);
    }
}

fn loopback() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Receives what another thread sends.
fn arrives(mut far: impl Read, expected: &[u8], send: impl FnOnce() + Send + 'static) {
    let sending = spawn(send);
    let mut received = vec![0; expected.len()];
    far.read_exact(&mut received).unwrap();
    sending.join().unwrap();
    assert!(received == expected);
}

fn in_pieces(mut near: impl Write, bytes: &[u8]) {
    for piece in bytes.chunks(10_000) {
        near.write_all(piece).unwrap();
        std::thread::yield_now();
    }
}

/// By MSG_ZEROCOPY, and leaves what is in flight to whoever owns it then.
fn in_place(near: TcpStream, mut bytes: Bytes) {
    let mut sender = match Sender::new(near.as_fd()) {
        Ok(sender) => sender,
        Err(error) => {
            zhaul_untested::skip("cow_sends, MSG_ZEROCOPY", error);
            return in_pieces(near, &bytes);
        }
    };
    while !bytes.is_empty() {
        match sender.send(&[bytes.slice(..bytes.len().min(100_000))], false) {
            Ok(sent) => drop(bytes.split_to(sent.bytes)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(&near, PollFlags::OUT)], None).unwrap();
                sender.reap().unwrap();
            }
            // Others use up the memory that may be locked, too.
            Err(_) => {
                let piece = bytes.split_to(bytes.len().min(10_000));
                (&near).write_all(&piece).unwrap();
                sender.reap().unwrap();
            }
        }
    }
}

fn run(seed: u64, len: usize, steps: usize, copy_above: f64) {
    println!("seed {seed}, {len} bytes, copying above {copy_above}");
    let mut world = World::new(seed, len, copy_above);
    for _ in 0..steps {
        world.step();
    }
    world.finish();
}

#[test]
fn each_snapshot_arrives_as_the_region_was() {
    for seed in 0..12 {
        run(seed, 1 << 20, 120, 1.0);
    }
}

#[test]
fn each_snapshot_arrives_where_some_are_copied_up_front() {
    for seed in 100..108 {
        run(seed, 300_001, 150, 0.06);
    }
}

#[test]
fn each_snapshot_arrives_where_all_are_copied_up_front() {
    for seed in 200..204 {
        run(seed, 100_000, 150, -1.0);
    }
}
