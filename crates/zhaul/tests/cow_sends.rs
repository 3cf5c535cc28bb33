//! Random writes during random snapshots while these are sent, read and dropped: each that arrives is
//! the region at its moment.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread::{JoinHandle, spawn};

use bytes::Bytes;
use zhaul::{CowRegion, Snapshot};

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
        if self.random.below(2) == 0 {
            let (near, far) = UnixStream::pair().unwrap();
            self.in_flight
                .push(spawn(move || transmit(near, far, bytes, &expected)));
        } else {
            let (near, far) = loopback();
            self.in_flight
                .push(spawn(move || transmit(near, far, bytes, &expected)));
        }
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

fn transmit<S: Read + Write + Send + 'static>(
    mut near: S,
    mut far: S,
    bytes: Bytes,
    expected: &[u8],
) {
    let sending = spawn(move || {
        for piece in bytes.chunks(10_000) {
            near.write_all(piece).unwrap();
            std::thread::yield_now();
        }
    });
    let mut received = vec![0; expected.len()];
    far.read_exact(&mut received).unwrap();
    sending.join().unwrap();
    assert!(received == expected);
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
