//! Bytes to move, files that hold them, and threads at the other ends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// Enough that a few stray bytes stay far below one percent, little for an emulated CPU.
pub(crate) const PAYLOAD_BYTES: usize = 4 << 20;

/// Bytes that differ at any two places that pages, segments or chunks could confuse: a block of
/// prime length, over and over.
pub(crate) fn payload(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let block: Vec<u8> = (0..BLOCK_BYTES)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 24) as u8
        })
        .collect();
    let mut bytes = block.repeat(len.div_ceil(BLOCK_BYTES));
    bytes.truncate(len);
    bytes
}

const BLOCK_BYTES: usize = 16_381;

/// A file on the guest's own disk (ext4), in the page cache, removed in the end.
pub(crate) struct TestFile {
    path: PathBuf,
}

impl TestFile {
    pub(crate) fn with(name: &str, bytes: &[u8]) -> Self {
        let path = Path::new("/run/disk").join(name);
        std::fs::write(&path, bytes).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn open(&self) -> File {
        File::open(&self.path).unwrap()
    }

    pub(crate) fn open_to_write(&self) -> File {
        OpenOptions::new().write(true).open(&self.path).unwrap()
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Reads all there is on a thread of its own.
pub(crate) fn collect(source: impl Into<OwnedFd>) -> JoinHandle<Vec<u8>> {
    let mut source = File::from(source.into());
    std::thread::spawn(move || {
        let mut bytes = Vec::with_capacity(PAYLOAD_BYTES);
        source.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Writes the payload on a thread of its own, and closes.
pub(crate) fn feed(sink: impl Into<OwnedFd>, bytes: &[u8]) -> JoinHandle<()> {
    let (mut sink, bytes) = (File::from(sink.into()), bytes.to_vec());
    std::thread::spawn(move || sink.write_all(&bytes).unwrap())
}

/// Compares without printing megabytes.
#[track_caller]
pub(crate) fn assert_same(received: &[u8], expected: &[u8]) {
    assert_eq!(received.len(), expected.len(), "bytes received");
    if received != expected {
        let at = received.iter().zip(expected).position(|(a, b)| a != b);
        panic!("the bytes differ, first at {at:?}");
    }
}
