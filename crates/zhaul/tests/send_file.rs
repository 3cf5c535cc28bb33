//! The lean path to a socket: bytes, system calls, changes of the file, cold pages.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use common::{TestFile, pattern, unix_pair_of_tokio, wait_until};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use zhaul::residency::{Memo, Residency, probe};
use zhaul::tokio::{SendOptions, is_resident, send_file, warm};
use zhaul::{
    CancelToken, Cause, ColdPool, Lease, Progress, Refusal, Route, Stability, Version, endpoint,
};

struct Sending {
    file: Arc<OwnedFd>,
    version: Version,
    memo: Memo,
    cold: Arc<ColdPool>,
    progress: Progress,
}

impl Sending {
    fn of(file: &TestFile) -> Self {
        let file: OwnedFd = File::open(file.path()).unwrap().into();
        let version = endpoint::version(&file).unwrap();
        Self {
            file: Arc::new(file),
            version,
            memo: Memo::new(),
            cold: ColdPool::new(4, 64),
            progress: Progress::new(),
        }
    }

    fn lease_for(&self, stability: Stability) -> Option<Lease> {
        (stability == Stability::Leased).then(|| common::lease(&self.file))
    }
}

async fn receive(mut socket: UnixStream) -> Vec<u8> {
    let mut received = Vec::new();
    // A reset by the sender ends it as well.
    let _ = socket.read_to_end(&mut received).await;
    received
}

#[tokio::test]
async fn every_stability_delivers_the_range() {
    let bytes = pattern(5_000_000);
    let file = TestFile::with(&bytes);
    for (stability, route) in [
        (Stability::Immutable, Route::Sendfile),
        (Stability::MayChange, Route::ReadWrite),
        (Stability::Leased, Route::MmapWrite),
    ] {
        let sending = Sending::of(&file);
        let (near, far) = unix_pair_of_tokio();
        let receiver = tokio::spawn(receive(far));
        let mut options = SendOptions::new(&sending.memo, &sending.cold);
        options.stability = stability;
        let lease = sending.lease_for(stability);
        options.lease = lease.as_ref();
        let range = 1234..4_321_000;
        let summary = send_file(
            &near,
            &sending.file,
            sending.version,
            range.clone(),
            &options,
            &sending.progress,
        )
        .await
        .unwrap();
        drop(near);
        let received = receiver.await.unwrap();
        assert!(received == bytes[1234..4_321_000], "{stability:?}");
        assert_eq!(summary.moved, range.end - range.start);
        assert_eq!(
            (summary.route, summary.changes.len()),
            (route, 0),
            "{stability:?}"
        );
        assert_eq!(sending.progress.moved(), summary.moved);
        assert_eq!(sending.progress.calls(), summary.calls);
    }
}

#[tokio::test]
async fn a_leased_file_needs_its_own_lease() {
    let (file, other) = (TestFile::with(b"one"), TestFile::with(b"other"));
    let sending = Sending::of(&file);
    let lease_on_other = common::lease(other.open());
    let (near, _far) = unix_pair_of_tokio();
    for (lease, expected) in [
        (None, Refusal::NoLease),
        (Some(&lease_on_other), Refusal::LeaseOnAnotherFile),
    ] {
        let mut options = SendOptions::new(&sending.memo, &sending.cold);
        options.stability = Stability::Leased;
        options.lease = lease;
        let version = sending.version;
        let sent = send_file(
            &near,
            &sending.file,
            version,
            0..3,
            &options,
            &sending.progress,
        );
        let refused = Cause::Refused { refusal: expected };
        assert_eq!(sent.await.unwrap_err().cause, refused);
        let source = file.open();
        let haul = zhaul::transfer(&source, &near).stability(Stability::Leased);
        let haul = match lease {
            Some(lease) => haul.lease(lease),
            None => haul,
        };
        assert_eq!(haul.run().unwrap_err().cause, refused);
    }
}

/// Drops the file from the page cache; false where that does nothing (tmpfs).
fn drop_from_cache(file: &OwnedFd) -> bool {
    rustix::fs::fsync(file).unwrap();
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    probe(file, 0, 4096) == Residency::Cold
}

/// Bytes that this thread had read from a device.
fn read_from_disk_by_this_thread() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    let line = io.lines().find(|line| line.starts_with("read_bytes:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::test]
async fn cold_pages_are_never_read_on_the_callers_thread() {
    let bytes = pattern(9_000_000);
    let file = TestFile::with(&bytes);
    for stability in [
        Stability::Immutable,
        Stability::MayChange,
        Stability::Leased,
    ] {
        let sending = Sending::of(&file);
        if !drop_from_cache(&sending.file) {
            zhaul_untested::skip_this("pages cannot be dropped here");
            return;
        }
        let (near, far) = unix_pair_of_tokio();
        let receiver = tokio::spawn(receive(far));
        let before = read_from_disk_by_this_thread();
        let mut options = SendOptions::new(&sending.memo, &sending.cold);
        options.stability = stability;
        let lease = sending.lease_for(stability);
        options.lease = lease.as_ref();
        let all = 0..bytes.len() as u64;
        send_file(
            &near,
            &sending.file,
            sending.version,
            all,
            &options,
            &sending.progress,
        )
        .await
        .unwrap();
        let after = read_from_disk_by_this_thread();
        drop(near);
        assert!(receiver.await.unwrap() == bytes, "{stability:?}");
        assert!(sending.cold.threads() > 0, "the pool had to read");
        match (before, after) {
            (Some(before), Some(after)) => assert_eq!(after - before, 0, "{stability:?}"),
            _ => zhaul_untested::skip_this("no per-thread I/O accounting"),
        }
    }
}

#[tokio::test]
async fn a_chunk_larger_than_one_reading_is_not_submitted_half_cold() {
    const LEN: usize = 48 << 20;
    let file = TestFile::with(&vec![7; LEN]);
    let sending = Sending::of(&file);
    if !drop_from_cache(&sending.file) {
        zhaul_untested::skip_this("pages cannot be dropped here");
        return;
    }
    let (near, far) = unix_pair_of_tokio();
    let receiver = tokio::spawn(receive(far));
    let mut options = SendOptions::new(&sending.memo, &sending.cold);
    options.chunk_bytes = 24 << 20;
    let before = read_from_disk_by_this_thread();
    let (version, all) = (sending.version, 0..LEN as u64);
    send_file(
        &near,
        &sending.file,
        version,
        all,
        &options,
        &sending.progress,
    )
    .await
    .unwrap();
    let after = read_from_disk_by_this_thread();
    drop(near);
    assert_eq!(receiver.await.unwrap().len(), LEN);
    match (before, after) {
        (Some(before), Some(after)) => assert_eq!(after - before, 0),
        _ => zhaul_untested::skip_this("no per-thread I/O accounting"),
    }
}

#[tokio::test]
async fn many_cold_streams_at_once_leave_the_callers_thread_alone() {
    let files: Vec<_> = (0..4).map(|_| TestFile::with(&pattern(12 << 20))).collect();
    let sendings: Vec<_> = files.iter().map(Sending::of).collect();
    if !sendings
        .iter()
        .all(|sending| drop_from_cache(&sending.file))
    {
        zhaul_untested::skip_this("pages cannot be dropped here");
        return;
    }
    let pool = ColdPool::new(4, 64);
    let mut streams = tokio::task::JoinSet::new();
    let before = read_from_disk_by_this_thread();
    for sending in sendings {
        let pool = Arc::clone(&pool);
        let (near, far) = unix_pair_of_tokio();
        streams.spawn(async move {
            let options = SendOptions::new(&sending.memo, &pool);
            let all = 0..12 << 20;
            send_file(
                &near,
                &sending.file,
                sending.version,
                all,
                &options,
                &sending.progress,
            )
            .await
            .unwrap();
        });
        streams.spawn(async move {
            assert_eq!(receive(far).await.len(), 12 << 20);
        });
    }
    while let Some(ended) = streams.join_next().await {
        ended.unwrap();
    }
    let after = read_from_disk_by_this_thread();
    match (before, after) {
        (Some(before), Some(after)) => assert_eq!(after - before, 0),
        _ => zhaul_untested::skip_this("no per-thread I/O accounting"),
    }
}

#[tokio::test]
async fn resident_files_stay_on_the_callers_thread() {
    let bytes = pattern(9_000_000);
    let file = TestFile::with(&bytes);
    let sending = Sending::of(&file);
    let (near, far) = unix_pair_of_tokio();
    let receiver = tokio::spawn(receive(far));
    let options = SendOptions::new(&sending.memo, &sending.cold);
    for range in [0..9_000_000, 10..20, 5_000_000..8_000_000] {
        send_file(
            &near,
            &sending.file,
            sending.version,
            range,
            &options,
            &sending.progress,
        )
        .await
        .unwrap();
    }
    drop(near);
    assert_eq!(receiver.await.unwrap().len(), 9_000_000 + 10 + 3_000_000);
    assert_eq!(
        sending.cold.threads(),
        0,
        "no job was ever given to the pool"
    );
}

#[tokio::test]
async fn the_next_cold_chunk_is_read_while_this_one_is_sent() {
    const MIB: u64 = 1 << 20;
    let file = TestFile::with(&pattern(8 << 20));
    let sending = Sending::of(&file);
    if !drop_from_cache(&sending.file) {
        zhaul_untested::skip_this("pages cannot be dropped here");
        return;
    }
    // Nobody reads: the first chunk does not fit into the socket.
    let (near, _far) = unix_pair_of_tokio();
    let options = SendOptions::new(&sending.memo, &sending.cold);
    let sent = send_file(
        &near,
        &sending.file,
        sending.version,
        0..8 * MIB,
        &options,
        &sending.progress,
    );
    let outcome = tokio::time::timeout(Duration::from_millis(300), sent).await;
    assert!(outcome.is_err() && (1..MIB).contains(&sending.progress.moved()));
    assert_eq!(
        probe(&sending.file, MIB, MIB),
        Residency::Resident,
        "the second chunk waits"
    );
    assert_eq!(
        probe(&sending.file, 5 * MIB, MIB),
        Residency::Cold,
        "and no more than that"
    );
}

#[tokio::test]
async fn a_hot_transfer_goes_on_while_cold_ones_fill_the_pool() {
    let hot = TestFile::with(&pattern(100_000));
    let sending = Sending::of(&hot);
    let blocked = ColdPool::new(1, 1);
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let occupied = blocked.submit(move || wait.recv()).await;
    let (near, far) = unix_pair_of_tokio();
    let receiver = tokio::spawn(receive(far));
    let options = SendOptions::new(&sending.memo, &blocked);
    let sent = send_file(
        &near,
        &sending.file,
        sending.version,
        0..100_000,
        &options,
        &sending.progress,
    );
    let summary = tokio::time::timeout(Duration::from_secs(5), sent)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(summary.moved, 100_000);
    release.send(()).unwrap();
    occupied.join().await.unwrap();
    drop(near);
    assert_eq!(receiver.await.unwrap().len(), 100_000);
}

#[tokio::test]
async fn versions_cost_one_call_a_chunk_and_none_for_copies() {
    let file = TestFile::with(&pattern(100_000));
    let sending = Sending::of(&file);
    let calls = async |stability, version_is_fresh| {
        let (near, far) = unix_pair_of_tokio();
        let receiver = tokio::spawn(receive(far));
        // The reactor has to learn first that a new socket is writable.
        near.writable().await.unwrap();
        let mut options = SendOptions::new(&sending.memo, &sending.cold);
        (options.stability, options.version_is_fresh) = (stability, version_is_fresh);
        let summary = send_file(
            &near,
            &sending.file,
            sending.version,
            0..50_000,
            &options,
            &sending.progress,
        )
        .await
        .unwrap();
        drop(near);
        assert_eq!(receiver.await.unwrap().len(), 50_000);
        summary.calls
    };
    assert_eq!(
        calls(Stability::Immutable, true).await,
        2,
        "sendfile, fstat"
    );
    assert_eq!(
        calls(Stability::Immutable, false).await,
        3,
        "fstat, sendfile, fstat"
    );
    assert_eq!(calls(Stability::MayChange, false).await, 2, "pread, send");
}

#[tokio::test]
async fn a_file_changed_since_its_version_was_read_is_noticed_before_a_byte_goes_out() {
    let file = TestFile::with(&pattern(100_000));
    let sending = Sending::of(&file);
    std::thread::sleep(Duration::from_millis(20));
    std::fs::write(file.path(), pattern(100_000)).unwrap();
    let (near, _far) = unix_pair_of_tokio();
    let options = SendOptions::new(&sending.memo, &sending.cold);
    let error = send_file(
        &near,
        &sending.file,
        sending.version,
        0..100_000,
        &options,
        &sending.progress,
    )
    .await
    .unwrap_err();
    assert_eq!((error.cause, error.moved()), (Cause::Changed, 0));
}

#[tokio::test]
async fn a_range_beyond_the_end_is_an_early_end() {
    let file = TestFile::with(&pattern(1_000));
    let sending = Sending::of(&file);
    let (near, _far) = unix_pair_of_tokio();
    for stability in [
        Stability::Immutable,
        Stability::MayChange,
        Stability::Leased,
    ] {
        let mut options = SendOptions::new(&sending.memo, &sending.cold);
        options.stability = stability;
        let lease = sending.lease_for(stability);
        options.lease = lease.as_ref();
        let beyond = 500..100_500;
        let sent = send_file(
            &near,
            &sending.file,
            sending.version,
            beyond,
            &options,
            &sending.progress,
        );
        let error = sent.await.unwrap_err();
        assert_eq!(
            (error.cause, error.moved()),
            (Cause::SourceEnded, 500),
            "{stability:?}"
        );
    }
}

#[tokio::test]
async fn cancelling_and_dropping_stop_it() {
    let file = TestFile::with(&pattern(8 << 20));
    let sending = Sending::of(&file);
    let (near, _far) = unix_pair_of_tokio();
    let token = CancelToken::new();
    let mut options = SendOptions::new(&sending.memo, &sending.cold);
    options.cancel = Some(&token);
    let all = 0..8 << 20;
    let sent = send_file(
        &near,
        &sending.file,
        sending.version,
        all.clone(),
        &options,
        &sending.progress,
    );
    let cancelling = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        token.cancel();
    };
    let (outcome, ()) = tokio::join!(sent, cancelling);
    let error = outcome.unwrap_err();
    assert_eq!(
        (error.cause, error.moved()),
        (Cause::Cancelled, sending.progress.moved())
    );

    options.cancel = None;
    let sent = send_file(
        &near,
        &sending.file,
        sending.version,
        all,
        &options,
        &sending.progress,
    );
    assert!(
        tokio::time::timeout(Duration::from_millis(20), sent)
            .await
            .is_err()
    );
    assert_eq!(
        Arc::strong_count(&sending.file),
        1,
        "nothing keeps the file open"
    );
}

#[tokio::test]
async fn warming_reads_what_is_cold_and_remembers_it() {
    let file = TestFile::with(&pattern(3_000_000));
    let sending = Sending::of(&file);
    let (memo, cold, version) = (&sending.memo, &sending.cold, &sending.version);
    if !drop_from_cache(&sending.file) {
        zhaul_untested::skip_this("pages cannot be dropped here");
        return;
    }
    let range = 0..3_000_000;
    let file: std::os::fd::BorrowedFd<'_> = std::os::fd::AsFd::as_fd(&*sending.file);
    assert!(!is_resident(file, version, range.clone(), memo));
    assert_eq!(
        warm(&sending.file, version, range.clone(), memo, cold).await,
        Ok(true)
    );
    assert!(is_resident(file, version, range.clone(), memo));
    assert_eq!(
        warm(&sending.file, version, range, memo, cold).await,
        Ok(false)
    );
}

#[tokio::test]
async fn a_disk_error_is_reported_as_such() {
    let image = TestFile::with(&pattern(8 << 20));
    let losetup = std::process::Command::new("losetup")
        .args(["--find", "--show", "--read-only"])
        .arg(image.path())
        .output();
    let device = match losetup {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).unwrap(),
        _ => {
            zhaul_untested::skip_this("no loop device to be had");
            return;
        }
    };
    // The device keeps its size, but half of it can no longer be read.
    let shorten = std::fs::OpenOptions::new()
        .write(true)
        .open(image.path())
        .unwrap();
    shorten.set_len(4 << 20).unwrap();
    let block = File::open(device.trim()).unwrap();
    let (near, far) = unix_pair_of_tokio();
    let receiver = tokio::spawn(receive(far));
    let haul = zhaul::transfer(&block, &near)
        .stability(Stability::Immutable)
        .length(8 << 20);
    let outcome = haul.run_async().await;
    drop((near, block));
    let _ = std::process::Command::new("losetup")
        .args(["--detach", device.trim()])
        .status();
    let error = outcome.unwrap_err();
    assert_eq!(error.errno(), Some(zhaul::Errno::EIO), "{error}");
    assert_eq!(error.moved(), 4 << 20);
    assert!(receiver.await.unwrap() == pattern(4 << 20));
}

#[test]
fn the_future_is_small_and_can_be_sent() {
    fn is_send<T: Send>(_: &T) {}
    let file = TestFile::with(&pattern(10));
    let sending = Sending::of(&file);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _context = runtime.enter();
    let (near, _far) = unix_pair_of_tokio();
    let options = SendOptions::new(&sending.memo, &sending.cold);
    let future = send_file(
        &near,
        &sending.file,
        sending.version,
        0..10,
        &options,
        &sending.progress,
    );
    is_send(&future);
    let size = size_of_val(&future);
    assert!(size <= 3072, "{size} bytes in every connection's task");
}

#[test]
fn many_streams_of_one_thread_share_it_fairly() {
    let file = TestFile::with(&pattern(16 << 20));
    let sending = Sending::of(&file);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // Sinks that never block would hold the thread without a budget.
    let turns = std::cell::Cell::new(0);
    runtime.block_on(async {
        let null = File::options().write(true).open("/dev/null").unwrap();
        let options = SendOptions::new(&sending.memo, &sending.cold);
        let all = 0..16 << 20;
        let sent = send_file(
            &null,
            &sending.file,
            sending.version,
            all,
            &options,
            &sending.progress,
        );
        let other = async {
            while sending.progress.moved() < 16 << 20 {
                turns.set(turns.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(async { sent.await.unwrap() }, other);
    });
    assert!(
        turns.get() >= 15,
        "16 chunks, a turn after each: {}",
        turns.get()
    );
}

#[test]
fn a_thousand_aborted_sends_leave_nothing_open() {
    let file = TestFile::with(&pattern(2 << 20));
    let sending = Sending::of(&file);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    runtime.block_on(async {
        let abort = async || {
            let (near, far) = unix_pair_of_tokio();
            let options = SendOptions::new(&sending.memo, &sending.cold);
            let sent = send_file(
                &near,
                &sending.file,
                sending.version,
                0..2 << 20,
                &options,
                &sending.progress,
            );
            tokio::select! {
                _ = sent => {}
                () = tokio::task::yield_now() => {}
            }
            drop(far);
        };
        for _ in 0..1000 {
            abort().await;
        }
    });
    assert_eq!(Arc::strong_count(&sending.file), 1);
    // Other tests of this program open descriptors meanwhile, but not a thousand.
    wait_until("descriptors are closed", || open() < 300);
}
