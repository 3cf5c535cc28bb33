//! What a buffer of a pool costs beside one of the heap: `cargo run --release -p zhaul --example pool`.
//!
//! Nanoseconds, the median of rounds that take turns.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use zhaul::{Aggregate, Pool};

const BYTES: usize = 64 << 10;
const ROUNDS: usize = 31;
const CALLS: u32 = 2000;

type Contender<'a> = (&'a str, Box<dyn FnMut() + 'a>);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::new(BYTES, 64)?;
    let held = pool.allocate().expect("64 are free").freeze(BYTES);
    let bytes = Bytes::from(vec![1; BYTES]);
    let allocate = || pool.allocate().expect("63 are free");
    let mut contenders: Vec<Contender<'_>> = vec![
        (
            "FBuf: allocate, freeze, drop",
            Box::new(|| drop(black_box(allocate().freeze(BYTES)))),
        ),
        (
            "FBuf: allocate, fill 64 KiB, freeze, drop",
            Box::new(|| {
                let mut buffer = allocate();
                buffer.fill(black_box(1));
                drop(black_box(buffer.freeze(BYTES)));
            }),
        ),
        (
            "Vec: allocate, fill 64 KiB, drop",
            Box::new(|| drop(black_box(vec![black_box(1u8); BYTES]))),
        ),
        (
            "Vec: allocate 64 KiB zeroed, drop",
            Box::new(|| drop(black_box(vec![0u8; BYTES]))),
        ),
        (
            "FBuf: clone, drop",
            Box::new(|| drop(black_box(held.clone()))),
        ),
        (
            "FBuf: slice, drop",
            Box::new(|| drop(black_box(held.slice(1..100)))),
        ),
        (
            "Bytes: clone, drop",
            Box::new(|| drop(black_box(bytes.clone()))),
        ),
        (
            "Aggregate of header and FBuf, drop",
            Box::new(|| {
                let mut answer = Aggregate::from(held.clone());
                answer.prepend("HTTP/1.1 200 OK\r\n\r\n");
                drop(black_box(answer));
            }),
        ),
        ("Aggregate: slice of it, drop", {
            let mut answer = Aggregate::from(held.clone());
            answer.prepend("HTTP/1.1 200 OK\r\n\r\n");
            Box::new(move || drop(black_box(answer.slice(10..1000))))
        }),
    ];
    let mut samples = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for ((_, call), samples) in contenders.iter_mut().zip(&mut samples) {
            let began = Instant::now();
            for _ in 0..CALLS {
                call();
            }
            samples.push(began.elapsed().as_nanos() as f64 / f64::from(CALLS));
        }
    }
    for ((name, _), samples) in contenders.iter().zip(&mut samples) {
        samples.sort_by(f64::total_cmp);
        println!("{name:45} {:10.1}", samples[ROUNDS / 2]);
    }
    Ok(())
}
