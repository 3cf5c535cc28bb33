//! Leases: who breaks them, who notices, and what they are refused for.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{TestFile, pattern, wait_until};
use rustix::fs::MemfdFlags;
use zhaul::{Cause, Lease, LeaseError, Route};

/// Opens for writing without waiting, which breaks the lease all the same.
fn break_lease(file: &TestFile) {
    let error = OpenOptions::new()
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(file.path())
        .unwrap_err();
    assert_eq!(
        error.kind(),
        std::io::ErrorKind::WouldBlock,
        "the editor has to wait"
    );
}

#[test]
fn an_open_for_writing_breaks_it_and_waits_for_the_holder() {
    let file = TestFile::with(b"old");
    let lease = common::lease(file.open());
    assert!(!lease.is_broken());
    let entered = Arc::new(AtomicBool::new(false));
    let editor = {
        let (entered, path) = (Arc::clone(&entered), file.path().to_owned());
        std::thread::spawn(move || {
            let opened = OpenOptions::new().write(true).open(path);
            entered.store(true, Ordering::SeqCst);
            opened.map(drop)
        })
    };
    wait_until("the break is noticed", || lease.is_broken());
    std::thread::sleep(Duration::from_millis(50));
    assert!(
        !entered.load(Ordering::SeqCst),
        "the editor waits while the lease is held"
    );
    lease.release();
    editor.join().unwrap().unwrap();
}

#[test]
fn another_process_and_a_truncation_break_it() {
    // truncate(1) opens the file with O_NONBLOCK; Perl's truncate is truncate(2).
    for script in [
        "echo new > \"$0\"",
        "perl -e 'truncate($ARGV[0], 1) or die' \"$0\"",
    ] {
        let file = TestFile::with(b"old content");
        let lease = common::lease(file.open());
        let mut editor = Command::new("sh")
            .args(["-c", script])
            .arg(file.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the break is noticed", || lease.is_broken());
        assert_eq!(
            std::fs::read(file.path()).unwrap(),
            b"old content",
            "{script}"
        );
        drop(lease);
        assert!(editor.wait().unwrap().success());
        assert_ne!(std::fs::read(file.path()).unwrap(), b"old content");
    }
}

#[test]
fn readers_renames_and_unlinks_leave_it_alone() {
    let file = TestFile::with(b"old");
    let lease = common::lease(file.open());
    drop(file.open());
    let moved = file.path().with_extension("moved");
    std::fs::rename(file.path(), &moved).unwrap();
    std::fs::remove_file(&moved).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(!lease.is_broken());
}

#[test]
fn leases_on_one_file_are_independent() {
    let file = TestFile::with(b"shared");
    let descriptor = file.open();
    let first = common::lease(&descriptor);
    let second = common::lease(&descriptor);
    drop(first);
    break_lease(&file);
    wait_until("the second is broken", || second.is_broken());
}

#[test]
fn what_has_no_meaningful_lease_is_refused() {
    let refusal = |file: &File| Lease::acquire(file).unwrap_err();
    let memfd = rustix::fs::memfd_create("lease", MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(refusal(&memfd.into()), LeaseError::Meaningless);
    assert_eq!(
        refusal(&File::open("/proc/version").unwrap()),
        LeaseError::Meaningless
    );
    assert_eq!(refusal(&File::open("/").unwrap()), LeaseError::NotRegular);
    assert_eq!(
        refusal(&File::open("/dev/null").unwrap()),
        LeaseError::NotRegular
    );
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    assert_eq!(refusal(&reader.into()), LeaseError::NotRegular);
    let file = TestFile::with(b"being written");
    let _writer = OpenOptions::new().write(true).open(file.path()).unwrap();
    assert_eq!(refusal(&file.open()), LeaseError::HasWriter);
    let read_write = OpenOptions::new()
        .read(true)
        .write(true)
        .open(file.path())
        .unwrap();
    assert_eq!(refusal(&read_write), LeaseError::HasWriter);
}

#[test]
fn somebody_elses_file_is_refused_without_the_capability() {
    if rustix::process::geteuid().is_root() {
        zhaul_untested::skip_this("root has CAP_LEASE");
        return;
    }
    let file = File::open("/etc/passwd").unwrap();
    assert_eq!(Lease::acquire(&file).unwrap_err(), LeaseError::NotOwner);
}

#[test]
fn callbacks_run_once_and_late_ones_at_once() {
    let file = TestFile::with(b"old");
    let lease = common::lease(file.open());
    let (sender, receiver) = std::sync::mpsc::channel();
    let late = sender.clone();
    lease.on_break(move || sender.send("early").unwrap());
    break_lease(&file);
    assert_eq!(receiver.recv_timeout(Duration::from_secs(5)), Ok("early"));
    lease.on_break(move || late.send("late").unwrap());
    assert_eq!(receiver.recv_timeout(Duration::ZERO), Ok("late"));
}

#[test]
fn a_callback_that_panics_leaves_the_other_leases_watched() {
    let (first, second) = (TestFile::with(b"old"), TestFile::with(b"old"));
    let (one, other) = (common::lease(first.open()), common::lease(second.open()));
    let (sender, receiver) = std::sync::mpsc::channel();
    one.on_break(|| panic!("the callback's own"));
    one.on_break(move || sender.send(()).unwrap());
    break_lease(&first);
    assert_eq!(receiver.recv_timeout(Duration::from_secs(5)), Ok(()));
    break_lease(&second);
    wait_until("the next break is noticed", || other.is_broken());
}

#[test]
fn many_transfers_under_one_lease_leave_nothing_in_it() {
    let file = TestFile::with(&pattern(1000));
    let source = file.open();
    let lease = common::lease(&source);
    let events = || {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
            .filter(|target| target.to_string_lossy().contains("eventfd"))
            .count()
    };
    let send_slowly = || {
        let (near, far) = UnixStream::pair().unwrap();
        // A throttle waits, and waiting needs a descriptor to be woken by.
        let haul = zhaul::transfer(&source, &near).lease(&lease);
        haul.throttle(std::num::NonZeroU64::new(200_000).unwrap())
            .chunk_bytes(100)
            .run()
            .unwrap();
        drop(far);
    };
    send_slowly();
    let before = events();
    (0..30).for_each(|_| send_slowly());
    let more = events().saturating_sub(before);
    assert!(
        more < 15,
        "{more} more; other tests have a few of their own"
    );
}

#[tokio::test]
async fn a_task_awaits_the_break() {
    let file = TestFile::with(b"old");
    let lease = common::lease(file.open());
    let waiting = tokio::time::timeout(Duration::from_millis(30), lease.broken());
    assert!(waiting.await.is_err(), "not broken yet");
    break_lease(&file);
    tokio::time::timeout(Duration::from_secs(5), lease.broken())
        .await
        .unwrap();
    lease.broken().await;
}

#[test]
fn many_leases_are_all_noticed() {
    let files: Vec<_> = (0..200)
        .map(|n| TestFile::with(format!("{n}").as_bytes()))
        .collect();
    let leases: Vec<_> = files
        .iter()
        .map(|file| common::lease(file.open()))
        .collect();
    std::thread::scope(|scope| {
        for some in files.chunks(50) {
            scope.spawn(move || some.iter().for_each(break_lease));
        }
    });
    for (number, lease) in leases.iter().enumerate() {
        wait_until(&format!("lease {number} is broken"), || lease.is_broken());
    }
}

#[test]
fn a_lease_and_its_end_leave_no_descriptor_behind() {
    let file = TestFile::with(b"old");
    drop(common::lease(file.open()));
    let open = |path: &std::path::Path| {
        let own = std::fs::read_dir("/proc/self/fd").unwrap();
        own.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
            .filter(|target| target == path)
            .count()
    };
    let path = std::fs::canonicalize(file.path()).unwrap();
    for _ in 0..50 {
        drop(common::lease(file.open()));
    }
    wait_until("all are closed", || open(&path) == 0);
}

#[test]
fn a_blocking_transfer_stops_when_the_lease_breaks() {
    let bytes = pattern(8 << 20);
    let file = TestFile::with(&bytes);
    let source = file.open();
    let lease = common::lease(&source);
    let (near, mut far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let error = std::thread::scope(|scope| {
        let sending = scope.spawn(|| zhaul::transfer(&source, &near).lease(&lease).run());
        // The receiver reads nothing: the transfer sits in poll(2) when the editor comes.
        std::thread::sleep(Duration::from_millis(50));
        let began = Instant::now();
        break_lease(&file);
        let error = sending.join().unwrap().unwrap_err();
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "woken, not timed out"
        );
        error
    });
    assert_eq!(error.cause, Cause::LeaseBroken);
    assert_eq!(
        error.summary.route,
        Route::MmapWrite,
        "the peer is local: copied, not in place"
    );
    drop(near);
    let mut received = Vec::new();
    far.read_to_end(&mut received).unwrap();
    assert_eq!(received.len() as u64, error.moved());
    assert!(received == bytes[..received.len()] && !received.is_empty());
}

#[tokio::test]
async fn a_waiting_task_stops_when_the_lease_breaks() {
    let bytes = pattern(8 << 20);
    let file = TestFile::with(&bytes);
    let source = file.open();
    let lease = common::lease(&source);
    let (near, _far) = common::unix_pair_of_tokio();
    let sending = zhaul::transfer(&source, &near).lease(&lease).run_async();
    let breaking = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        break_lease(&file);
    };
    let both = async { tokio::join!(sending, breaking).0 };
    let result = tokio::time::timeout(Duration::from_secs(5), both)
        .await
        .unwrap();
    assert_eq!(result.unwrap_err().cause, Cause::LeaseBroken);
}
