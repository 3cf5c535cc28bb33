//! Receives one stream three ways, compares the bytes, and prints what was copied: as mapped pages,
//! into buffers of a pool, and into a file.
//!
//! cargo run --release -p zhaul --example receive
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};

use zhaul::receive::{Filling, ZeroCopyReceiver};
use zhaul::{Pool, transfer};

fn main() -> Result<(), Box<dyn Error>> {
    let bytes: Vec<u8> = (0..8 << 20).map(|i: u32| (i % 251) as u8).collect();

    // Between processes of one machine a view may change under its reader, so that is asked for.
    let mut receiver = ZeroCopyReceiver::new(sender_of(&bytes)?).map_local_peer(true);
    let mut at = 0;
    while let Some(view) = receiver.receive()? {
        assert!(*view.bytes() == bytes[at..at + view.len()]);
        at += view.len();
    }
    assert_eq!(at, bytes.len());
    println!("receiver: {}", receiver.figures());

    let (socket, pool) = (sender_of(&bytes)?, Pool::new(1 << 20, 8)?);
    let mut blocks = Vec::new();
    while let Some(buffer) = pool.allocate() {
        let mut filling = Filling::new(buffer);
        filling.receive(&socket)?;
        blocks.push(filling.freeze());
    }
    assert!(blocks.iter().flat_map(|block| block.iter()).eq(&bytes));
    println!("pool: {} blocks, each byte copied once", blocks.len());

    let (socket, file) = (sender_of(&bytes)?, tempfile::NamedTempFile::new()?);
    let upload = transfer(&socket, file.as_file()).sink_offset(0);
    let summary = upload.length(bytes.len() as u64).reserve(true).run()?;
    assert!(std::fs::read(file.path())? == bytes);
    let (moved, route) = (summary.moved, summary.route);
    println!(
        "file: {moved} bytes by {route}, {} reserved",
        summary.reserved
    );
    Ok(())
}

/// A connection on which another thread sends pages of a pipe.
fn sender_of(bytes: &[u8]) -> io::Result<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let sender = TcpStream::connect(listener.local_addr()?)?;
    let ((reader, mut writer), bytes) = (io::pipe()?, bytes.to_vec());
    std::thread::spawn(move || writer.write_all(&bytes));
    std::thread::spawn(move || transfer(reader, sender).run());
    Ok(listener.accept()?.0)
}
