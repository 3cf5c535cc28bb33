//! Copies per byte from samples, for loops whose copies are known.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use zhaul_measure::meter::{Meter, Wanted};
use zhaul_measure::perf::{CopyTime, Samples};
use zhaul_sys::mmap::Mapping;

const FILE_BYTES: usize = 16 << 20;
const CHUNK: usize = 256 << 10;
const ROUNDS: usize = 40;

/// An emulated processor may not come far.
const ENOUGH: Duration = Duration::from_secs(20);

/// A cached file, and a connection whose other end is read by a thread.
struct Scene {
    file: File,
    mapping: Mapping,
    socket: TcpStream,
    buffer: Vec<u8>,
    meter: Meter,
}

impl Scene {
    fn set(test: &str) -> Option<Self> {
        let meter = Meter::of_this_thread(Wanted {
            profile: true,
            ..Wanted::default()
        });
        if let Some(missing) = meter.missing().first() {
            zhaul_untested::skip(test, missing);
            return None;
        }
        let mut file = tempfile::tempfile().unwrap();
        for _ in 0..FILE_BYTES / CHUNK {
            file.write_all(&[7; CHUNK]).unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut receiver, _) = listener.accept().unwrap();
        std::thread::spawn(move || {
            let mut buffer = vec![0; CHUNK];
            while receiver.read(&mut buffer).is_ok_and(|read| read > 0) {}
        });
        Some(Self {
            mapping: Mapping::map(file.as_fd(), 0, FILE_BYTES).unwrap(),
            file,
            socket,
            buffer: vec![0; CHUNK],
            meter,
        })
    }

    /// Each loop over the file, all in turn, so that whatever else the machine does meets all of
    /// them; and how many bytes each moved.
    fn sample<const N: usize>(&mut self, loops: [fn(&mut Self, usize); N]) -> ([Samples; N], u64) {
        let mut sums = std::array::from_fn(|_| Samples::default());
        let began = Instant::now();
        let mut rounds = 0;
        for round in 0..=ROUNDS {
            if began.elapsed() > ENOUGH {
                break;
            }
            rounds = round;
            for (each, sum) in loops.iter().zip(&mut sums) {
                self.meter.start().unwrap();
                for offset in (0..FILE_BYTES).step_by(CHUNK) {
                    each(self, offset);
                }
                let samples = self.meter.stop().unwrap().profile.unwrap();
                // The first round is for what happens only once.
                if round > 0 {
                    sum.add(samples);
                }
            }
        }
        (sums, (rounds * FILE_BYTES) as u64)
    }

    fn read_write(&mut self, offset: usize) {
        rustix::io::pread(&self.file, &mut self.buffer, offset as u64).unwrap();
        self.socket.write_all(&self.buffer).unwrap();
    }

    fn mmap_write(&mut self, offset: usize) {
        let mut sent = 0;
        while sent < CHUNK {
            let part = offset + sent..offset + CHUNK;
            sent += self.mapping.write_to(self.socket.as_fd(), part).unwrap();
        }
    }

    fn sendfile(&mut self, offset: usize) {
        let (mut from, end) = (offset as u64, (offset + CHUNK) as u64);
        while from < end {
            let left = usize::try_from(end - from).unwrap();
            rustix::fs::sendfile(&self.socket, &self.file, Some(&mut from), left).unwrap();
        }
    }
}

/// Wide bounds: the figures are from samples, and the machine may be busy.
#[test]
fn known_loops_are_estimated_near_their_copies() {
    let Some(mut scene) = Scene::set("known_loops_are_estimated_near_their_copies") else {
        return;
    };
    let loops = [
        Scene::read_write,
        Scene::mmap_write,
        Scene::read_write,
        Scene::mmap_write,
        Scene::sendfile,
    ];
    let ([calibration, cold, twice, once, never], bytes) = scene.sample(loops);
    let Some(time) = CopyTime::of_read_write(&calibration, bytes) else {
        zhaul_untested::skip(
            "known_loops_are_estimated_near_their_copies",
            "too few samples",
        );
        return;
    };
    let time = time.with_cold_write(&cold, bytes);
    let [twice, once, never] = [twice, once, never].map(|samples| {
        let found = time.copies_per_byte(&samples, bytes);
        eprintln!("{:.2} +- {:.2}", found.copies_per_byte, found.error);
        found.copies_per_byte
    });
    assert!((1.0..4.0).contains(&twice), "{twice}");
    assert!((0.5..2.0).contains(&once), "{once}");
    assert!(never < 0.2, "{never}");
}
