//! Aggregates into real sockets: what arrives is what was put together, whatever the sockets do.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod blocking;
mod stops;
#[cfg(feature = "tokio")]
mod task;
mod turns;
mod zero_copy;

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread::JoinHandle;

use zhaul::{Aggregate, FileRange, Segment, Stability};

use common::{TestFile, pattern};

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Reads to the end on a thread of its own.
fn reading(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// The smallest buffer that the kernel gives. On TCP it would be waited for acknowledgements that are
/// held back.
fn shrink(unix: impl AsFd) {
    rustix::net::sockopt::set_socket_send_buffer_size(unix, 1).unwrap();
}

/// An aggregate and its bytes.
#[derive(Default)]
struct Built {
    aggregate: Aggregate,
    bytes: Vec<u8>,
    files: Vec<TestFile>,
}

impl Built {
    fn memory(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.aggregate.push(bytes.to_vec());
        self
    }

    fn file(mut self, len: usize, range: std::ops::Range<usize>, stability: Stability) -> Self {
        let content = pattern(len);
        self.bytes.extend_from_slice(&content[range.clone()]);
        let file = TestFile::with(&content);
        let range = range.start as u64..range.end as u64;
        let range = FileRange::new(file.open(), range).stability(stability);
        self.aggregate.push(Segment::from(range));
        self.files.push(file);
        self
    }
}

/// As an answer with several ranges: parts of files between their headers, and a delimiter behind.
fn multipart() -> Built {
    let mut built = Built::default().memory(b"HTTP/1.1 206 Partial Content\r\n\r\n");
    for (part, stability) in [
        Stability::Immutable,
        Stability::MayChange,
        Stability::Immutable,
    ]
    .into_iter()
    .enumerate()
    {
        let (start, end) = (part * 1000 + 7, 300_000 - part * 777);
        built = built.memory(format!("--part {part}\r\n").as_bytes()).file(
            300_000,
            start..end,
            stability,
        );
    }
    built.memory(b"--end--\r\n")
}
