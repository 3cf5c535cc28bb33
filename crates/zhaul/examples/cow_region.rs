//! Sends a region of memory while it is written to: cow_region [MIB]
#![allow(clippy::print_stdout)]

use std::net::{TcpListener, TcpStream};
use std::{env, error::Error, io::Read, thread};

use bytes::Bytes;
use zhaul::CowRegion;

const PAGE: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let mib = env::args().nth(1).map_or(Ok(64), |mib| mib.parse())?;
    let mut region = CowRegion::new(mib << 20)?;
    for (number, page) in region.chunks_mut(PAGE).enumerate() {
        page.fill(number as u8);
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let mut far = listener.accept()?.0;
    let mut received = vec![0; region.len()];

    let snapshot = region.snapshot()?;
    let copied = snapshot.copied_bytes();
    println!("{mib} MiB: {}, {copied} bytes copied", snapshot.how());
    thread::scope(|scope| {
        let bytes = Bytes::from(snapshot);
        let sending = scope.spawn(move || zhaul::send(bytes, &near).run());
        let receiving = scope.spawn(|| far.read_exact(&mut received));
        // One page in a hundred changes while it is sent.
        for page in region.chunks_mut(PAGE).step_by(100) {
            page.fill(b'!');
        }
        let sent = sending.join().expect("no panic")?;
        println!(
            "{} bytes sent meanwhile by {} calls",
            sent.moved, sent.calls
        );
        receiving.join().expect("no panic")?;
        Ok::<_, Box<dyn Error>>(())
    })?;

    let pages = received.chunks(PAGE).zip(region.chunks(PAGE)).enumerate();
    for (number, (sent, kept)) in pages {
        let written = if number % 100 == 0 {
            b'!'
        } else {
            number as u8
        };
        if sent != [number as u8; PAGE] || kept != [written; PAGE] {
            return Err(format!("page {number} is wrong").into());
        }
    }
    // The first mutable access after the snapshot is gone takes the written pages back.
    region[0] = b'!';
    let written = region.usage().written_bytes;
    println!("{written} bytes copied because they were written");
    Ok(())
}
