//! Regions of threads to which the kernel refuses a system call.
#![allow(clippy::unwrap_used)]

use zhaul::CowRegion;
use zhaul::cow::{How, WhyCopied};
use zhaul_sys::seccomp::{Refusal, refuse_in_this_thread};

/// Runs `work` on a thread that may not make this system call.
fn without(call: i64, test: &str, work: fn()) {
    let test = test.to_owned();
    let thread = std::thread::spawn(move || {
        // EACCES, as for a pagemap that belongs to somebody else.
        match refuse_in_this_thread(call, Refusal::Errno(13)) {
            Ok(()) => work(),
            Err(error) => zhaul_untested::skip(&test, error),
        }
    });
    thread.join().unwrap();
}

/// Numbers of system calls on the two machines that zhaul runs on.
const fn number(x86_64: i64, aarch64: i64) -> i64 {
    if cfg!(target_arch = "x86_64") {
        x86_64
    } else {
        aarch64
    }
}

const OPENAT: i64 = number(257, 56);
const MEMFD_CREATE: i64 = number(319, 279);
const USERFAULTFD: i64 = number(323, 282);

#[test]
fn without_a_pagemap_everything_is_copied_up_front_and_the_snapshot_says_so() {
    let test = "without_a_pagemap_everything_is_copied_up_front_and_the_snapshot_says_so";
    without(OPENAT, test, || {
        let mut region = CowRegion::new(1 << 17).unwrap();
        for round in 1..4_u8 {
            let snapshot = region.snapshot().unwrap();
            let how = How::CopiedUpFront(WhyCopied::PagemapUnreadable);
            assert_eq!((snapshot.how(), snapshot.copied_bytes()), (how, 1 << 17));
            region.fill(round);
            assert!(snapshot.iter().all(|&byte| byte == round - 1));
        }
    });
}

#[test]
fn without_userfaultfd_nothing_is_missing() {
    let test = "without_userfaultfd_nothing_is_missing";
    without(USERFAULTFD, test, || {
        let mut region = CowRegion::new(1 << 17).unwrap();
        let snapshot = region.snapshot().unwrap();
        assert_eq!(snapshot.how(), How::CopyOnWrite);
        region.fill(1);
        assert!(snapshot.iter().all(|&byte| byte == 0));
    });
}

#[test]
fn without_memfd_there_is_no_region_and_no_panic() {
    let test = "without_memfd_there_is_no_region_and_no_panic";
    without(MEMFD_CREATE, test, || {
        let error = CowRegion::new(1 << 17).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(13));
    });
}
