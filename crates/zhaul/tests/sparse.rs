//! Sparse files stay sparse from file to file.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Barrier;

use common::pattern;
use zhaul::{Haul, Stability, Summary, transfer};

const MIB: u64 = 1 << 20;

/// A file of 64 MiB with a mebibyte of data in the middle of holes, at two places.
fn sparse() -> File {
    let file = tempfile::tempfile_in("/var/tmp").unwrap();
    file.set_len(64 * MIB).unwrap();
    file.write_all_at(&pattern(MIB as usize), 3 * MIB).unwrap();
    file.write_all_at(&pattern(MIB as usize), 40 * MIB).unwrap();
    file
}

fn blocks(file: &File) -> u64 {
    file.metadata().unwrap().blocks() * 512
}

fn bytes(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// By both drivers, with and without a word about the source, into a file that this makes.
fn each(make: impl Fn() -> File, check: impl Fn(&File, &File, Summary)) {
    let run = |haul: Haul<'_, &File, &File>, on_a_task: bool| {
        if !on_a_task {
            return haul.run().unwrap();
        }
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(haul.run_async()).unwrap()
    };
    for stability in [Stability::MayChange, Stability::Immutable] {
        for on_a_task in [false, true] {
            let (from, to) = (sparse(), make());
            if blocks(&from) > 8 * MIB {
                println!("SKIP sparse files: the file system of /var/tmp has none");
                return;
            }
            let haul = transfer(&from, &to).stability(stability);
            let summary = run(haul, on_a_task);
            check(&from, &to, summary);
        }
    }
}

fn in_var_tmp() -> File {
    tempfile::tempfile_in("/var/tmp").unwrap()
}

#[test]
fn a_copy_has_the_bytes_and_the_holes() {
    each(in_var_tmp, |from, to, summary| {
        assert_eq!(summary.moved, 64 * MIB);
        assert!(summary.holes >= 60 * MIB, "{} of holes", summary.holes);
        assert!(bytes(to) == bytes(from), "also at the end");
        assert!(blocks(to) <= 8 * MIB, "{} bytes of blocks", blocks(to));
    });
}

#[test]
fn the_positions_are_where_a_copy_leaves_them() {
    each(in_var_tmp, |mut from, mut to, _| {
        assert_eq!(to.stream_position().unwrap(), 64 * MIB);
        assert_eq!(from.stream_position().unwrap(), 0, "neither used nor moved");
    });
}

#[test]
fn what_the_sink_had_in_place_of_a_hole_is_gone() {
    let full = || {
        let mut file = in_var_tmp();
        file.write_all(&vec![7; 70 * MIB as usize]).unwrap();
        file.rewind().unwrap();
        file
    };
    each(full, |from, to, _| {
        let (copied, original) = (bytes(to), bytes(from));
        assert_eq!(copied.len() as u64, 70 * MIB, "it is not shortened");
        assert!(copied[..original.len()] == original);
        assert!(copied[original.len()..].iter().all(|&byte| byte == 7));
    });
}

#[test]
fn a_range_of_a_sparse_file_lands_at_its_place() {
    let (from, to) = (sparse(), in_var_tmp());
    let haul = transfer(&from, &to)
        .range(2 * MIB + 100..41 * MIB - 100)
        .sink_offset(5);
    let moved = haul.run().unwrap().moved;
    assert_eq!(moved, 39 * MIB - 200);
    let (mut expected, start) = (vec![0; 5], 2 * MIB as usize + 100);
    expected.extend_from_slice(&bytes(&from)[start..start + moved as usize]);
    assert!(bytes(&to) == expected);
}

#[test]
fn a_file_in_memory_stays_sparse_too() {
    let memfd =
        || File::from(rustix::fs::memfd_create("sparse", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    let (from, mut to) = (memfd(), memfd());
    from.set_len(32 * MIB).unwrap();
    from.write_all_at(b"at the end", 32 * MIB - 10).unwrap();
    assert_eq!(transfer(&from, &to).run().unwrap().moved, 32 * MIB);
    assert!(blocks(&to) <= 4 * MIB);
    let mut end = String::new();
    to.seek(SeekFrom::End(-10)).unwrap();
    to.read_to_string(&mut end).unwrap();
    assert_eq!(end, "at the end");
}

/// Both at once, in `rounds` files: a transfer out of or into the file, and another writer to it a
/// little later, each round at another moment of the transfer.
fn race(
    rounds: u32,
    make: impl Fn() -> File,
    transfer: impl Fn(&File),
    write: impl Fn(&File) + Sync,
    check: impl Fn(&File),
) {
    for round in 0..rounds {
        let (file, barrier) = (make(), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..round % 300 * 10 {
                    std::hint::spin_loop();
                }
                write(&file);
            });
            barrier.wait();
            transfer(&file);
        });
        check(&file);
    }
}

const START: u64 = 64 << 10;

/// One hole.
fn empty(len: u64) -> File {
    let file = in_var_tmp();
    file.set_len(len).unwrap();
    file
}

#[test]
fn what_is_appended_meanwhile_does_not_become_a_hole() {
    let to = in_var_tmp();
    race(
        6000,
        || empty(START),
        |from| {
            to.set_len(0).unwrap();
            transfer(from, &to).sink_offset(0).run().unwrap();
        },
        |from| from.write_all_at(&[9; 6], START).unwrap(),
        |_| {
            let copied = bytes(&to);
            assert!(matches!(copied.len() as u64 - START, 0 | 6));
            let appended = &copied[START as usize..];
            assert!(appended.iter().all(|&byte| byte == 9), "{appended:?}");
        },
    );
}

#[test]
fn a_hole_cuts_nothing_that_others_write_behind_it() {
    let from = empty(START);
    race(
        3000,
        in_var_tmp,
        |to| drop(transfer(&from, to).sink_offset(0).run().unwrap()),
        |to| to.write_all_at(b"theirs", START).unwrap(),
        |to| {
            let copied = bytes(to);
            assert_eq!(copied.len() as u64, START + 6);
            let (hole, theirs) = copied.split_at(START as usize);
            assert!(theirs == b"theirs" && hole.iter().all(|&byte| byte == 0));
        },
    );
}
