//! Files that their owner has examined already, to a socket: bytes, system calls, changes of the
//! file, cold pages.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use common::{TestFile, pattern, unix_pair_of_tokio, wait_until};
use tokio::io::{AsyncReadExt, Interest, Ready};
use tokio::net::UnixStream;
use zhaul::async_io::{AsyncEnd, SharedFile, is_resident, warm};
use zhaul::residency::{Residency, ResidencyCache, probe};
use zhaul::{
    CancelToken, Cause, ColdPool, Haul, InPlaceEnd, Lease, Progress, Refusal, Route, SinkFacts,
    SourceFacts, Stability, Version, endpoint,
};

struct Sending {
    file: Arc<OwnedFd>,
    version: Version,
    cache: ResidencyCache,
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
            cache: ResidencyCache::new(),
            cold: ColdPool::new(4, 64),
            progress: Progress::new(),
        }
    }

    /// As a server sends a range of a file in its cache.
    fn to<K>(&self, sink: K, range: Range<u64>) -> Haul<'_, SharedFile<Arc<OwnedFd>>, K> {
        zhaul::transfer(SharedFile(Arc::clone(&self.file)), sink)
            .source_facts(SourceFacts::regular(self.version))
            .sink_facts(SinkFacts::stream_socket(InPlaceEnd::Never))
            .stability(Stability::Immutable)
            .await_release(false)
            .range(range)
            .residency(&self.cache)
            .cold_pool(&self.cold)
            .progress(&self.progress)
    }

    fn lease_for(&self, stability: Stability) -> Option<Lease> {
        (stability == Stability::Leased).then(|| common::lease(&self.file))
    }
}

/// The same under a lease, if there is one.
fn under<'a, S, K>(lease: Option<&'a Lease>, haul: Haul<'a, S, K>) -> Haul<'a, S, K> {
    match lease {
        Some(lease) => haul.lease(lease),
        None => haul,
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
        let lease = sending.lease_for(stability);
        let range = 1234..4_321_000;
        let summary = under(
            lease.as_ref(),
            sending.to(&near, range.clone()).stability(stability),
        )
        .run_async()
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
        let sent = under(lease, sending.to(&near, 0..3).stability(Stability::Leased)).run_async();
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

/// That this thread read nothing of a file's bytes. A look that finds a page missing may begin to read
/// that one page, without waiting for it, and a block of the file system's own may be read.
fn assert_left_alone(before: Option<u64>, what: &str) {
    match (before, read_from_disk_by_this_thread()) {
        (Some(before), Some(after)) => {
            let read = after - before;
            assert!(read <= 64 * 1024, "{read} bytes read, {what}");
        }
        _ => zhaul_untested::skip_this("no per-thread I/O accounting"),
    }
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
        let lease = sending.lease_for(stability);
        let all = 0..bytes.len() as u64;
        under(lease.as_ref(), sending.to(&near, all).stability(stability))
            .run_async()
            .await
            .unwrap();
        assert_left_alone(before, &format!("{stability:?}"));
        drop(near);
        assert!(receiver.await.unwrap() == bytes, "{stability:?}");
        assert!(sending.cold.threads() > 0, "the pool had to read");
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
    let before = read_from_disk_by_this_thread();
    let all = 0..LEN as u64;
    sending
        .to(&near, all)
        .chunk_bytes(24 << 20)
        .run_async()
        .await
        .unwrap();
    assert_left_alone(before, "a chunk of 24 MiB");
    drop(near);
    assert_eq!(receiver.await.unwrap().len(), LEN);
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
            let all = 0..12 << 20;
            sending
                .to(&near, all)
                .cold_pool(&pool)
                .run_async()
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
    assert_left_alone(before, "four streams");
}

#[tokio::test]
async fn resident_files_stay_on_the_callers_thread() {
    let bytes = pattern(9_000_000);
    let file = TestFile::with(&bytes);
    let sending = Sending::of(&file);
    let (near, far) = unix_pair_of_tokio();
    let receiver = tokio::spawn(receive(far));
    for range in [0..9_000_000, 10..20, 5_000_000..8_000_000] {
        sending.to(&near, range).run_async().await.unwrap();
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
    let sent = sending.to(&near, 0..8 * MIB).run_async();
    let second_chunk = async {
        while probe(&sending.file, MIB, MIB) != Residency::Resident {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        outcome = sent => panic!("nobody reads: {outcome:?}"),
        () = second_chunk => {}
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("the second chunk was not read"),
    }
    // More than that would have been asked for by now.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(sending.progress.moved() < MIB);
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
    let sent = sending
        .to(&near, 0..100_000)
        .cold_pool(&blocked)
        .run_async();
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
        let summary = sending
            .to(&near, 0..50_000)
            .stability(stability)
            .version_is_fresh(version_is_fresh)
            .run_async()
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
    let error = sending.to(&near, 0..100_000).run_async().await.unwrap_err();
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
        let lease = sending.lease_for(stability);
        let beyond = 500..100_500;
        let sent = under(
            lease.as_ref(),
            sending.to(&near, beyond).stability(stability),
        )
        .run_async();
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
    let all = 0..8 << 20;
    let sent = sending.to(&near, all.clone()).cancel(&token).run_async();
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

    let sent = sending.to(&near, all).run_async();
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
    let (cache, cold, version) = (&sending.cache, &sending.cold, &sending.version);
    if !drop_from_cache(&sending.file) {
        zhaul_untested::skip_this("pages cannot be dropped here");
        return;
    }
    let range = 0..3_000_000;
    let file: BorrowedFd<'_> = AsFd::as_fd(&*sending.file);
    assert!(!is_resident(file, version, range.clone(), cache));
    assert_eq!(
        warm(&sending.file, version, range.clone(), cache, cold).await,
        Ok(true)
    );
    assert!(is_resident(file, version, range.clone(), cache));
    assert_eq!(
        warm(&sending.file, version, range, cache, cold).await,
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
    let future = sending.to(&near, 0..10).run_async();
    is_send(&future);
    let size = size_of_val(&future);
    assert!(size <= 3328, "{size} bytes in every connection's task");
}

/// A sink that never makes anybody wait.
struct NeverFull(File);

impl AsyncEnd for NeverFull {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn try_io<R>(&self, _: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        call()
    }

    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        unreachable!("never waits for {interest:?}")
    }
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
        let null = NeverFull(File::options().write(true).open("/dev/null").unwrap());
        let all = 0..16 << 20;
        let sent = sending.to(&null, all).run_async();
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
            let sent = sending.to(&near, 0..2 << 20).run_async();
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
