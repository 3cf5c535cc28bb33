//! What stops a transfer before its end, and what is left when it does.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::num::NonZeroU64;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{TestFile, pattern, unix_pair_of_tokio, wait_until};
use zhaul::{CancelToken, Cause, Lease, PipePool, Progress, Route, Stability, Why, transfer};

const LONG: usize = 24 << 20;

fn rate(bytes_per_second: u64) -> NonZeroU64 {
    NonZeroU64::new(bytes_per_second).unwrap()
}

fn non_blocking_pair() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    (near, far)
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

#[test]
fn cancelling_wakes_a_blocked_thread_and_counts_what_went_out() {
    let bytes = pattern(LONG);
    let file = TestFile::with(&bytes);
    for stability in [Stability::Immutable, Stability::MayChange] {
        let (near, mut far) = non_blocking_pair();
        let (token, progress) = (CancelToken::new(), Progress::new());
        let error = std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let haul = transfer(file.open(), &near).stability(stability);
                haul.cancel(&token).progress(&progress).run()
            });
            wait_until("the socket is full", || progress.moved() > 0);
            std::thread::sleep(Duration::from_millis(30));
            token.cancel();
            sending.join().unwrap().unwrap_err()
        });
        assert_eq!(error.cause, Cause::Cancelled);
        assert_eq!(progress.moved(), error.moved());
        drop(near);
        let mut received = Vec::new();
        far.read_to_end(&mut received).unwrap();
        assert_eq!(received.len() as u64, error.moved());
        assert!(received == bytes[..received.len()]);
    }
}

#[test]
fn the_deadline_ends_a_wait() {
    let file = TestFile::with(&pattern(LONG));
    let (near, _far) = non_blocking_pair();
    let began = Instant::now();
    let haul = transfer(file.open(), &near).deadline(Duration::from_millis(100));
    let error = haul.run().unwrap_err();
    assert_eq!(error.cause, Cause::DeadlineExceeded);
    assert!(error.moved() > 0);
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(100) && took < Duration::from_secs(3),
        "{took:?}"
    );
}

#[test]
fn the_deadline_ends_a_wait_for_a_silent_source_in_blocking_mode() {
    let (_silent, near) = UnixStream::pair().unwrap();
    let (out, _far) = UnixStream::pair().unwrap();
    for route in [Route::Splice, Route::ReadWrite] {
        let haul = transfer(&near, &out)
            .only(route)
            .deadline(Duration::from_millis(50));
        let error = haul.run().unwrap_err();
        assert_eq!(
            (error.cause, error.moved()),
            (Cause::DeadlineExceeded, 0),
            "{route}"
        );
    }
}

#[tokio::test]
async fn tokio_deadline_and_cancellation_end_a_wait() {
    let file = TestFile::with(&pattern(LONG)).open();
    let (near, _far) = unix_pair_of_tokio();
    let error = transfer(&file, &near)
        .stability(Stability::Immutable)
        .deadline(Duration::from_millis(50))
        .run_async()
        .await
        .unwrap_err();
    assert_eq!(error.cause, Cause::DeadlineExceeded);
    assert!(error.moved() > 0);
    let token = CancelToken::new();
    let sending = transfer(&file, &near).cancel(&token).run_async();
    let cancelling = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        token.cancel();
    };
    let (outcome, ()) = tokio::join!(sending, cancelling);
    assert_eq!(outcome.unwrap_err().cause, Cause::Cancelled);
}

#[test]
fn the_throttle_holds_the_rate() {
    let file = TestFile::with(&pattern(300_000));
    for stability in [Stability::Immutable, Stability::MayChange] {
        let (near, mut far) = UnixStream::pair().unwrap();
        let reader = std::thread::spawn(move || {
            let mut received = Vec::new();
            far.read_to_end(&mut received).map(|_| received.len())
        });
        let began = Instant::now();
        let haul = transfer(file.open(), &near).stability(stability);
        haul.throttle(rate(1_000_000)).run().unwrap();
        let took = began.elapsed();
        // The last tenth of a second is not waited for.
        assert!(
            took >= Duration::from_millis(190) && took < Duration::from_secs(2),
            "{took:?}"
        );
        drop(near);
        assert_eq!(reader.join().unwrap().unwrap(), 300_000);
    }
}

#[tokio::test]
async fn tokio_throttle_holds_the_rate() {
    let file = TestFile::with(&pattern(300_000)).open();
    let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
    for sink_is_file in [false, true] {
        let (near, far) = unix_pair_of_tokio();
        let drain = tokio::spawn(async move {
            let mut far = far;
            tokio::io::copy(&mut far, &mut tokio::io::sink()).await
        });
        let began = Instant::now();
        let throttle = rate(1_000_000);
        if sink_is_file {
            transfer(&file, &null)
                .throttle(throttle)
                .run_async()
                .await
                .unwrap();
        } else {
            transfer(&file, &near)
                .throttle(throttle)
                .run_async()
                .await
                .unwrap();
        }
        assert!(began.elapsed() >= Duration::from_millis(190));
        drop(near);
        drain.await.unwrap().unwrap();
    }
}

#[test]
fn a_vanished_receiver_is_an_error_and_no_signal() {
    let file = TestFile::with(&pattern(LONG));
    for (stability, only) in [
        (Stability::Immutable, Route::Sendfile),
        (Stability::Immutable, Route::Splice),
        (Stability::Leased, Route::MmapWrite),
        (Stability::MayChange, Route::ReadWrite),
    ] {
        let (near, far) = tcp_pair();
        let closer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(far);
        });
        let source = file.open();
        let haul = transfer(&source, &near).stability(stability).only(only);
        let error = if stability == Stability::Leased {
            let lease = common::lease(&source);
            haul.lease(&lease).run().unwrap_err()
        } else {
            haul.run().unwrap_err()
        };
        assert!(error.is_disconnect(), "{only}: {error}");
        closer.join().unwrap();
    }
}

#[test]
fn what_a_stream_lost_is_reported_and_the_dirty_pipe_is_closed() {
    let pool = PipePool::new(4, 256 << 10);
    let (mut feed, near) = UnixStream::pair().unwrap();
    // A UNIX socket that is full stays full. To TCP, acknowledgements make a little room, too little
    // for poll(2) to tell of, but enough for what is left in the pipe when the transfer is stopped.
    let (out, receiver) = UnixStream::pair().unwrap();
    out.set_nonblocking(true).unwrap();
    feed.set_nonblocking(true).unwrap();
    let (token, progress) = (CancelToken::new(), Progress::new());
    let (fed, error) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let haul = transfer(&near, &out).pipes(&pool).cancel(&token);
            haul.progress(&progress).run()
        });
        // Until everything on the way is full: the receiver reads nothing, and a pipe is held only
        // while it contains bytes.
        let (mut fed, mut moved, mut still_since) = (0, 0, Instant::now());
        while still_since.elapsed() < Duration::from_millis(200) || pool.held() == 0 {
            match feed.write(&[7; 10_000]) {
                Ok(written) => (fed, still_since) = (fed + written as u64, Instant::now()),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
            if progress.moved() != moved {
                (moved, still_since) = (progress.moved(), Instant::now());
            }
        }
        token.cancel();
        (fed, sending.join().unwrap().unwrap_err())
    });
    assert_eq!(error.cause, Cause::Cancelled);
    assert!(error.summary.stranded > 0, "{error}");
    let left_in_source = zhaul_sys::siocoutq::unread(rustix::fd::AsFd::as_fd(&near)).unwrap();
    assert_eq!(
        fed,
        error.moved() + error.summary.stranded + left_in_source as u64
    );
    assert_eq!(pool.alive(), 0, "the dirty pipe is closed, not pooled");
    drop(out);
    let mut received = Vec::new();
    let _ = (&receiver).read_to_end(&mut received);
    assert_eq!(received.len() as u64, error.moved());
}

#[test]
fn a_pipe_is_held_only_while_it_contains_bytes() {
    let pool = PipePool::new(1, 256 << 10);
    let (mut feed, near) = UnixStream::pair().unwrap();
    let (out, mut receiver) = UnixStream::pair().unwrap();
    let (token, progress) = (CancelToken::new(), Progress::new());
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let haul = transfer(&near, &out).pipes(&pool).cancel(&token);
            haul.progress(&progress).run()
        });
        feed.write_all(b"some bytes").unwrap();
        receiver.read_exact(&mut [0; 10]).unwrap();
        wait_until("the transfer waits for more", || {
            progress.moved() == 10 && pool.held() == 0
        });
        assert_eq!(pool.alive(), 1, "idle in the pool");
        token.cancel();
        assert_eq!(sending.join().unwrap().unwrap_err().moved(), 10);
    });
}

#[test]
fn an_exhausted_pool_means_copying_and_is_reported() {
    let pool = PipePool::new(1, 256 << 10);
    let _taken = pool.take().unwrap();
    let (mut feed, near) = UnixStream::pair().unwrap();
    let (out, mut receiver) = UnixStream::pair().unwrap();
    feed.write_all(b"copied").unwrap();
    feed.shutdown(Shutdown::Write).unwrap();
    let progress = Progress::new();
    let summary = transfer(&near, &out)
        .pipes(&pool)
        .progress(&progress)
        .run()
        .unwrap();
    assert_eq!((summary.route, summary.moved), (Route::ReadWrite, 6));
    assert_eq!(summary.changes[0].why, Why::PipePoolExhausted);
    assert_eq!(
        (progress.fallbacks(), progress.route()),
        (1, Some(Route::ReadWrite))
    );
    drop(out);
    let mut received = String::new();
    receiver.read_to_string(&mut received).unwrap();
    assert_eq!(received, "copied");
}

#[test]
fn an_early_end_is_told_from_a_truncation() {
    let (mut feed, near) = UnixStream::pair().unwrap();
    let (out, _receiver) = UnixStream::pair().unwrap();
    feed.write_all(b"short").unwrap();
    drop(feed);
    let error = transfer(&near, &out).length(6).run().unwrap_err();
    assert_eq!((error.cause, error.moved()), (Cause::SourceEnded, 5));
    let file = TestFile::with(b"short");
    for stability in [Stability::Immutable, Stability::MayChange] {
        let error = transfer(file.open(), &out)
            .stability(stability)
            .length(6)
            .run()
            .unwrap_err();
        assert_eq!(
            (error.cause, error.moved()),
            (Cause::SourceEnded, 5),
            "{stability:?}"
        );
    }
}

#[test]
fn a_file_cut_under_way_is_a_truncation_with_the_bytes_moved() {
    let bytes = pattern(LONG);
    for (stability, only) in [
        (Stability::Immutable, Route::Sendfile),
        (Stability::Immutable, Route::Splice),
        (Stability::MayChange, Route::ReadWrite),
    ] {
        let file = TestFile::with(&bytes);
        let (near, mut far) = non_blocking_pair();
        let progress = Progress::new();
        let error = std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let haul = transfer(file.open(), &near).stability(stability).only(only);
                haul.length(LONG as u64).progress(&progress).run()
            });
            wait_until("the socket is full", || progress.moved() > 0);
            OpenOptions::new()
                .write(true)
                .open(file.path())
                .unwrap()
                .set_len(50_001)
                .unwrap();
            // Only now the receiver reads on.
            let reading = scope.spawn(move || {
                let mut received = Vec::new();
                far.read_to_end(&mut received).map(|_| received)
            });
            let outcome = sending.join().unwrap();
            near.shutdown(Shutdown::Both).unwrap();
            let error = outcome.unwrap_err();
            let received = reading.join().unwrap().unwrap();
            assert!(received.len() as u64 >= error.moved(), "{only}");
            if stability == Stability::MayChange {
                assert!(
                    received == bytes[..received.len()],
                    "copies are never zeros"
                );
            }
            error
        });
        assert_eq!(error.cause, Cause::Truncated { size: 50_001 }, "{only}");
    }
}

#[test]
fn an_edit_under_way_stops_an_immutable_transfer() {
    let file = TestFile::with(&pattern(LONG));
    let (near, mut far) = non_blocking_pair();
    let progress = Progress::new();
    let error = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let haul = transfer(file.open(), &near).stability(Stability::Immutable);
            haul.progress(&progress).run()
        });
        wait_until("the socket is full", || progress.moved() > 0);
        std::thread::sleep(Duration::from_millis(20));
        let mut editor = OpenOptions::new().write(true).open(file.path()).unwrap();
        editor.write_all(b"edited in place").unwrap();
        scope.spawn(move || std::io::copy(&mut far, &mut std::io::sink()));
        let outcome = sending.join().unwrap();
        near.shutdown(Shutdown::Both).unwrap();
        outcome.unwrap_err()
    });
    assert_eq!(error.cause, Cause::Changed);
    assert!(
        error.moved() < LONG as u64,
        "at the next chunk border, not at the end"
    );
}

#[test]
fn a_file_renamed_over_goes_on_to_its_end() {
    let bytes = pattern(LONG);
    let file = TestFile::with(&bytes);
    let replacement = TestFile::with(b"the next deployment");
    let (near, mut far) = non_blocking_pair();
    let progress = Progress::new();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let haul = transfer(file.open(), &near).stability(Stability::Immutable);
            haul.progress(&progress).run()
        });
        wait_until("the socket is full", || progress.moved() > 0);
        std::thread::sleep(Duration::from_millis(20));
        std::fs::rename(replacement.path(), file.path()).unwrap();
        let reading = scope.spawn(move || {
            let mut received = Vec::new();
            far.read_to_end(&mut received).map(|_| received)
        });
        let outcome = sending.join().unwrap();
        near.shutdown(Shutdown::Both).unwrap();
        assert_eq!(outcome.unwrap().moved, LONG as u64);
        assert!(
            reading.join().unwrap().unwrap() == bytes,
            "the old content, whole"
        );
    });
}

#[test]
fn a_growing_file_is_sent_to_the_announced_length() {
    let bytes = pattern(LONG);
    let file = TestFile::with(&bytes);
    let (near, mut far) = non_blocking_pair();
    let progress = Progress::new();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let haul = transfer(file.open(), &near).stability(Stability::Immutable);
            haul.length(LONG as u64).progress(&progress).run()
        });
        wait_until("the socket is full", || progress.moved() > 0);
        let mut editor = OpenOptions::new().append(true).open(file.path()).unwrap();
        editor.write_all(b"one more line").unwrap();
        scope.spawn(move || std::io::copy(&mut far, &mut std::io::sink()));
        let outcome = sending.join().unwrap();
        near.shutdown(Shutdown::Both).unwrap();
        let summary = outcome.unwrap();
        assert_eq!((summary.moved, summary.grew), (LONG as u64, true));
    });
}

/// What each stability promises about bytes that are queued when the editor comes.
#[test]
fn queued_bytes_change_with_the_file_only_if_it_was_called_immutable() {
    const SIZE: usize = 50_000;
    for stability in [
        Stability::MayChange,
        Stability::Leased,
        Stability::Immutable,
    ] {
        let file = TestFile::with(&[b'a'; SIZE]);
        let source = file.open();
        let (near, mut far) = UnixStream::pair().unwrap();
        let haul = transfer(&source, &near).stability(stability);
        if stability == Stability::Leased {
            let lease = common::lease(&source);
            haul.lease(&lease).run().unwrap();
        } else {
            haul.run().unwrap();
        }
        // All is queued in the socket, nothing was read yet.
        let mut editor = OpenOptions::new().write(true).open(file.path()).unwrap();
        editor.write_all(&[b'b'; SIZE]).unwrap();
        drop(near);
        let mut received = Vec::new();
        far.read_to_end(&mut received).unwrap();
        let expected = if stability == Stability::Immutable {
            b'b'
        } else {
            b'a'
        };
        assert!(received == [expected; SIZE], "{stability:?}");
    }
}

/// An editor truncates and rewrites the file, which never contains a zero, as fast as it can.
#[test]
fn no_copy_and_no_lease_ever_sends_a_byte_that_was_not_in_the_file() {
    const SIZE: usize = 300_000;
    let file = TestFile::with(&vec![b'a'; SIZE]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut letter = b'b';
            while !done.load(Ordering::SeqCst) {
                // Waits while a lease is held.
                std::fs::write(file.path(), vec![letter; SIZE]).unwrap();
                letter = if letter == b'z' { b'a' } else { letter + 1 };
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        let (mut whole, mut leased) = (0, 0);
        // How often the writer comes between depends on the load: as many rounds as it takes.
        for round in 0..12_000 {
            if round >= 600 && whole > 20 && leased > 20 {
                break;
            }
            let (near, mut far) = UnixStream::pair().unwrap();
            let reading = scope.spawn(move || {
                let mut received = Vec::new();
                far.read_to_end(&mut received).map(|_| received)
            });
            let source = file.open();
            let haul = transfer(&source, &near).length(SIZE as u64);
            let lease = if round % 2 == 0 {
                Lease::acquire(&source).ok()
            } else {
                None
            };
            leased += u32::from(lease.is_some());
            let outcome = match &lease {
                Some(lease) => haul.lease(lease).run(),
                None => haul.run(),
            };
            drop(near);
            let received = reading.join().unwrap().unwrap();
            assert!(!received.contains(&0), "round {round}: {outcome:?}");
            match outcome {
                Ok(summary) => {
                    whole += 1;
                    assert_eq!((summary.moved, received.len()), (SIZE as u64, SIZE));
                    if lease.is_some() {
                        let first = received[0];
                        assert!(
                            received.iter().all(|&byte| byte == first),
                            "one version only"
                        );
                    }
                }
                Err(error) => assert_eq!(received.len() as u64, error.moved(), "{error}"),
            }
        }
        done.store(true, Ordering::SeqCst);
        assert!(
            whole > 20 && leased > 20,
            "{whole} whole, {leased} under a lease"
        );
    });
}
