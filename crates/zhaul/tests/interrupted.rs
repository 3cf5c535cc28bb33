//! Futures that are dropped half-way: nothing is lost, or it is told.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs::File;
use std::future::Future;
use std::io::Seek;
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::time::Duration;

use common::{TestFile, pattern};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use zhaul::{Progress, Route, Stability, transfer};

const LONG: usize = 12 << 20;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// Polls the future so many times and drops it.
async fn interrupt<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        tokio::select! {
            biased;
            value = &mut future => return Some(value),
            () = tokio::task::yield_now() => {}
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    None
}

/// Waits until the sink has been full for a while.
async fn stalled(progress: &Progress) {
    let state = || (progress.moved(), progress.in_transit());
    let (mut before, mut quiet) = (state(), 0);
    while quiet < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = state();
        quiet = if now == before && now.1 > 0 {
            quiet + 1
        } else {
            0
        };
        before = now;
    }
}

/// A receiver that reads by fits and starts, so that there is always something in transit.
async fn receive(mut far: TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    let mut buffer = vec![0; 100_000];
    loop {
        match far.read(&mut buffer).await.unwrap() {
            0 => return received,
            read => received.extend_from_slice(&buffer[..read]),
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
}

#[tokio::test]
async fn a_transfer_between_sockets_survives_the_futures_that_drive_it() {
    let bytes = pattern(LONG);
    for only in [Route::Splice, Route::ReadWrite] {
        let ((mut feed, source), (sink, far)) = (pair().await, pair().await);
        let sent = bytes.clone();
        let feeder = tokio::spawn(async move { feed.write_all(&sent).await });
        let receiver = tokio::spawn(receive(far));
        let progress = Progress::new();
        let haul = transfer(&source, &sink).only(only).progress(&progress);
        let mut running = haul.start().await.unwrap();
        let (mut interruptions, mut in_transit) = (0, 0);
        let summary = loop {
            if let Some(outcome) = interrupt(running.run(), 2).await {
                break outcome.unwrap();
            }
            interruptions += 1;
            in_transit += u64::from(running.in_transit() > 0);
            assert_eq!(running.in_transit(), progress.in_transit());
        };
        assert!(
            interruptions > 20 && in_transit > 0,
            "{interruptions} {in_transit}"
        );
        assert_eq!((summary.moved, summary.stranded), (LONG as u64, 0));
        assert_eq!((progress.in_transit(), progress.stranded()), (0, 0));
        assert_eq!(running.run().await.unwrap(), summary, "and again");
        drop(running);
        drop(sink);
        feeder.await.unwrap().unwrap();
        assert!(receiver.await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn run_until_returns_when_the_stop_does_and_goes_on_later() {
    let ((mut feed, source), (sink, mut far)) = (pair().await, pair().await);
    let mut running = transfer(&source, &sink).start().await.unwrap();
    let soon = || tokio::time::sleep(Duration::from_millis(20));
    assert_eq!(running.run_until(soon()).await.unwrap(), None);
    feed.write_all(b"first, ").await.unwrap();
    while running.moved() < 7 {
        assert_eq!(running.run_until(soon()).await.unwrap(), None);
    }
    feed.write_all(b"second").await.unwrap();
    drop(feed);
    let never = std::future::pending();
    let summary = running.run_until(never).await.unwrap().unwrap();
    assert_eq!(summary.moved, 13);
    drop(running);
    drop(sink);
    let mut received = String::new();
    far.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "first, second");
}

#[tokio::test]
async fn delivering_takes_nothing_more_and_leaves_both_ends_to_others() {
    let bytes = pattern(LONG);
    let ((mut feed, mut source), (sink, far)) = (pair().await, pair().await);
    let sent = bytes.clone();
    let feeder = tokio::spawn(async move { feed.write_all(&sent).await });
    let mut running = transfer(&source, &sink).start().await.unwrap();
    while running.in_transit() == 0 {
        let soon = tokio::time::sleep(Duration::from_millis(20));
        assert_eq!(running.run_until(soon).await.unwrap(), None);
    }
    let receiver = tokio::spawn(receive(far));
    running.deliver().await.unwrap();
    assert_eq!(running.in_transit(), 0);
    let moved = running.moved();
    drop(running);
    // The rest by other means.
    let mut sink = sink;
    let rest = tokio::io::copy(&mut source, &mut sink).await.unwrap();
    assert_eq!(moved + rest, LONG as u64);
    drop(sink);
    feeder.await.unwrap().unwrap();
    assert!(receiver.await.unwrap() == bytes);
}

#[tokio::test]
async fn what_a_dropped_future_loses_is_told_to_the_byte() {
    let (mut feed, source) = pair().await;
    // What is full stays full, whereas acknowledgements make a little room in a TCP socket.
    let (sink, mut far) = UnixStream::pair().unwrap();
    let feeder = tokio::spawn(async move { feed.write_all(&pattern(LONG)).await });
    let progress = Progress::new();
    let sending = transfer(&source, &sink).progress(&progress).run_async();
    tokio::select! {
        outcome = sending => panic!("nobody reads: {outcome:?}"),
        () = stalled(&progress) => {}
    }
    assert_eq!(progress.in_transit(), 0);
    assert!(progress.stranded() > 0, "the sink was full");
    let receiver = tokio::spawn(async move {
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.map(|_| received.len())
    });
    let rest = transfer(&source, &sink).progress(&progress).run_async();
    assert_eq!(rest.await.unwrap().stranded, 0);
    feeder.await.unwrap().unwrap();
    drop(sink);
    assert_eq!(progress.moved() + progress.stranded(), LONG as u64);
    assert_eq!(receiver.await.unwrap().unwrap() as u64, progress.moved());
}

/// A file can be read again, so nothing is stranded; but nothing is under way any more either.
#[tokio::test]
async fn nothing_of_a_file_is_in_transit_once_its_transfer_was_dropped() {
    let file = TestFile::with(&pattern(8 << 20));
    let (sink, _far) = UnixStream::pair().unwrap();
    for route in [Route::Splice, Route::ReadWrite] {
        let progress = Progress::new();
        let sending = transfer(file.open(), &sink).stability(Stability::Immutable);
        let sending = sending.only(route).progress(&progress);
        tokio::select! {
            outcome = sending.run_async() => panic!("nobody reads: {outcome:?}"),
            () = stalled(&progress) => {}
        }
        assert_eq!((progress.in_transit(), progress.stranded()), (0, 0));
    }

    let target = tempfile::tempfile_in("/var/tmp").unwrap();
    let mut is_covered = false;
    for polls in 1..40 {
        let progress = Progress::new();
        let copying = transfer(file.open(), &target).only(Route::ReadWrite);
        let copying = copying.chunk_bytes(64 << 10).progress(&progress);
        if polls % 2 == 0 {
            interrupt(copying.run_async(), polls).await;
        } else {
            let mut running = copying.start().await.unwrap();
            interrupt(running.run(), polls).await;
            is_covered |= progress.in_transit() > 0;
            drop(running);
        }
        assert_eq!(progress.in_transit(), 0, "{polls} polls");
    }
    assert!(is_covered, "it was never interrupted with bytes under way");
}

/// What the sink has room for when the future is dropped is not lost.
#[tokio::test]
async fn a_dropped_transfer_offers_the_sink_what_is_in_transit() {
    let (feed, source) = UnixStream::pair().unwrap();
    let (sink, mut far) = UnixStream::pair().unwrap();
    let progress = Progress::new();
    let mut running = transfer(&source, &sink)
        .only(Route::ReadWrite)
        .progress(&progress)
        .start()
        .await
        .unwrap();
    let mut sent = 0;
    // Until something is in transit because the sink is full.
    while running.in_transit() == 0 {
        if let Ok(n) = feed.try_write(&[7; 50_000]) {
            sent += n as u64;
        }
        let soon = tokio::time::sleep(Duration::from_millis(5));
        assert_eq!(running.run_until(soon).await.unwrap(), None);
    }
    let in_transit = running.in_transit();
    let mut received = vec![0; running.moved() as usize];
    far.read_exact(&mut received).await.unwrap();
    drop(running);
    assert_eq!((progress.stranded(), progress.in_transit()), (0, 0));
    received.resize(in_transit as usize, 0);
    far.read_exact(&mut received).await.unwrap();
    assert!(progress.moved() <= sent);
}

#[tokio::test]
async fn a_copy_from_file_to_file_survives_the_futures_that_drive_it() {
    let bytes = pattern(LONG);
    let source = TestFile::with(&bytes);
    for stability in [Stability::Immutable, Stability::MayChange] {
        let target = TestFile::with(b"");
        let sink = File::options().write(true).open(target.path()).unwrap();
        let mut running = transfer(source.open(), &sink)
            .stability(stability)
            .chunk_bytes(64 << 10)
            .start()
            .await
            .unwrap();
        let mut interruptions = 0;
        let summary = loop {
            if let Some(outcome) = interrupt(running.run(), 1).await {
                break outcome.unwrap();
            }
            interruptions += 1;
        };
        assert!(interruptions > 5, "{interruptions}");
        assert_eq!(summary.moved, LONG as u64);
        assert!(std::fs::read(target.path()).unwrap() == bytes);
    }
}

#[tokio::test]
async fn the_position_is_behind_the_call_that_a_thread_had_begun() {
    let bytes = pattern(LONG);
    let named = TestFile::with(&bytes);
    for stability in [Stability::Immutable, Stability::MayChange] {
        for drives_twice in [false, true] {
            let (mut from, to) = (named.open(), tempfile::tempfile_in("/var/tmp").unwrap());
            // Each time a little later in a call, and for long enough in the end.
            let mut wait = Duration::from_micros(10);
            loop {
                let haul = transfer(&from, &to)
                    .from_position()
                    .chunk_bytes(LONG / 4)
                    .stability(stability);
                let outcome = if drives_twice {
                    let mut running = haul.start().await.unwrap();
                    let first = tokio::time::timeout(wait, running.run()).await;
                    match first {
                        Ok(outcome) => Ok(outcome),
                        Err(_) => interrupt(running.run(), 1).await.ok_or(()),
                    }
                } else {
                    tokio::time::timeout(wait, haul).await.map_err(drop)
                };
                let (position, moved) = (from.stream_position().unwrap(), to.metadata().unwrap());
                assert_eq!(position, moved.len(), "after {wait:?}");
                if let Ok(outcome) = outcome {
                    outcome.unwrap();
                    break;
                }
                wait = wait * 5 / 4;
            }
            let mut copied = vec![0; LONG];
            to.read_exact_at(&mut copied, 0).unwrap();
            assert!(copied == bytes, "{stability:?}");
        }
    }
}
