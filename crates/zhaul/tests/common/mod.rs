//! What several test programs need.
#![allow(dead_code, unreachable_pub)]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[cfg(feature = "tokio")]
use tokio::net::UnixStream;
use zhaul::{Lease, LeaseError};

/// Bytes that show when they are shifted, repeated or left out.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x1234_5678_9abc_def0_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// A named file on a disk (`/var/tmp` is no tmpfs on common systems), closed for writing, removed on drop.
pub struct TestFile {
    path: PathBuf,
}

impl TestFile {
    pub fn with(bytes: &[u8]) -> Self {
        let named = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        let (mut file, path) = named.keep().unwrap();
        file.write_all(bytes).unwrap();
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn open(&self) -> File {
        File::open(&self.path).unwrap()
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A lease that is to be had. While another test starts a process, the child has descriptors that
/// are open for writing until it executes its program; the kernel then sees a writer.
pub fn lease(file: impl AsFd) -> Lease {
    let began = Instant::now();
    loop {
        match Lease::acquire(&file) {
            Err(LeaseError::HasWriter) if began.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            result => return result.unwrap(),
        }
    }
}

#[cfg(feature = "tokio")]
pub fn unix_pair_of_tokio() -> (UnixStream, UnixStream) {
    UnixStream::pair().unwrap()
}

/// Waits until something is true, for at most ten seconds.
pub fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(began.elapsed() < Duration::from_secs(10), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
