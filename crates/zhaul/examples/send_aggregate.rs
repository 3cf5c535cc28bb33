//! Sends a header and a buffer of a pool, then a header and a file, and says what was copied.
//!
//! `cargo run -p zhaul --example send_aggregate`

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use zhaul::{FileRange, Pool, Route, SendSummary, Stability, ZeroCopy};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let content: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    let (mut peer, _) = listener.accept()?;
    let receiver = std::thread::spawn(move || {
        let mut received = Vec::new();
        peer.read_to_end(&mut received).map(|_| received)
    });

    // This header and this buffer.
    let pool = Pool::new(1 << 20, 4)?;
    let mut buffer = pool.allocate().ok_or("no slot is free")?;
    buffer[..content.len()].copy_from_slice(&content);
    let header = format!("{} bytes from memory\n", content.len());
    let from_memory = zhaul::send((header.clone(), buffer.freeze(content.len())), &socket)
        .zero_copy(ZeroCopy::Auto) // which the kernel copies on loopback all the same, and says so
        .run()?;

    // The same with a file, which nobody edits while it is sent.
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(&content)?;
    let range = FileRange::whole(file.reopen()?)?.stability(Stability::Immutable);
    let second = format!("{} bytes from a file\n", range.len());
    let from_file = zhaul::send((second.clone(), range), &socket).run()?;

    drop(socket);
    let received = receiver.join().map_err(|_| "the receiver panicked")??;
    let expected = [header.as_bytes(), &content, second.as_bytes(), &content].concat();
    assert!(received == expected, "what arrives is what was sent");
    report("header and buffer", &from_memory);
    report("header and file", &from_file);
    Ok(())
}

#[allow(clippy::print_stdout)]
fn report(what: &str, sent: &SendSummary) {
    let in_place = sent
        .files
        .iter()
        .filter(|file| file.route == Route::Sendfile);
    let in_place: u64 = in_place.map(|file| file.moved).sum();
    let copied = sent.moved - in_place - (sent.by_reference - sent.copied_after_all);
    println!(
        "{what}: {} bytes by {} calls, {copied} of them copied",
        sent.moved, sent.calls
    );
}
