//! A terabyte through a window: bounded address space and memory.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use common::{TestFile, pattern};
use zhaul::{Route, transfer};

fn status_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// KiB of address space in which a file is mapped.
fn mapped_kib(path: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let of_file = maps
        .lines()
        .filter(|line| line.ends_with(path.to_str().unwrap()));
    of_file
        .map(|line| {
            let (start, rest) = line.split_once('-').unwrap();
            let end = rest.split(' ').next().unwrap();
            let at = |digits| u64::from_str_radix(digits, 16).unwrap();
            (at(end) - at(start)) >> 10
        })
        .sum()
}

#[test]
fn a_terabyte_file_is_mapped_by_windows() {
    const TERABYTE: u64 = 1 << 40;
    let file = TestFile::with(b"");
    let mut writer = OpenOptions::new().write(true).open(file.path()).unwrap();
    if let Err(error) = writer.set_len(TERABYTE) {
        zhaul_untested::skip_this(format_args!("no sparse file of this size: {error}"));
        return;
    }
    let tail = pattern(100_000);
    writer
        .seek(SeekFrom::Start(TERABYTE - tail.len() as u64))
        .unwrap();
    writer.write_all(&tail).unwrap();
    drop(writer);

    let before_memory = status_kib("VmRSS:");
    let mut peak_space = 0;
    for (offset, length) in [
        (0, 64 << 20),
        (TERABYTE / 2 + 4_321, 40 << 20),
        (TERABYTE - (40 << 20), 40 << 20),
    ] {
        let (near, mut far) = UnixStream::pair().unwrap();
        let path = file.path().to_path_buf();
        let reader = std::thread::spawn(move || {
            let (mut received, mut last) = (0_u64, Vec::new());
            let mut mapped = 0;
            let mut buffer = vec![0; 1 << 16];
            loop {
                match far.read(&mut buffer).unwrap() {
                    0 => return (received, last, mapped),
                    read => {
                        mapped = mapped.max(mapped_kib(&path));
                        received += read as u64;
                        last.extend_from_slice(&buffer[..read]);
                        let excess = last.len().saturating_sub(100_000);
                        last.drain(..excess);
                    }
                }
            }
        });
        let source = file.open();
        let lease = common::lease(&source);
        let haul = transfer(&source, &near).lease(&lease);
        let haul = haul.only(Route::MmapWrite).offset(offset).length(length);
        let summary = haul.run().unwrap();
        drop(near);
        assert_eq!(summary.moved, length);
        let (received, last, mapped) = reader.join().unwrap();
        peak_space = peak_space.max(mapped);
        assert_eq!(received, length);
        if offset + length == TERABYTE {
            assert!(last == tail, "the last bytes of the terabyte");
        } else {
            assert!(last.iter().all(|&byte| byte == 0));
        }
    }
    let peak_memory = status_kib("VmHWM:").saturating_sub(before_memory);
    assert!(peak_space > 0, "the file was seen mapped while it was sent");
    assert!(peak_space <= 16 << 10, "{peak_space} KiB of address space");
    assert!(peak_memory < 24 << 10, "{peak_memory} KiB of memory");
}
