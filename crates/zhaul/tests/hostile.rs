//! Ends that are not what they seem: urgent data, messages, peers that reset, streams dressed up as
//! files.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use common::{TestFile, pattern, wait_until};
use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::net::SendFlags;
use zhaul::async_io::{Attached, acknowledged};
use zhaul::residency::{Residency, probe};
use zhaul::{Cause, ColdPool, Errno, Progress, Refusal, Route, Stability, transfer};

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Sends "before", an urgent byte and "after urgent", the last while the receiver is at the mark.
fn feed_with_urgent_data(feed: impl AsFd, pause: Duration, end: impl FnOnce()) {
    let send = |bytes: &[u8], flags| {
        assert_eq!(rustix::net::send(&feed, bytes, flags).unwrap(), bytes.len());
    };
    send(b"before", SendFlags::empty());
    std::thread::sleep(pause);
    send(b"!", SendFlags::OOB);
    std::thread::sleep(pause);
    send(b"after urgent", SendFlags::empty());
    std::thread::sleep(pause);
    end();
}

fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec.try_into().unwrap())
}

#[test]
fn urgent_data_neither_ends_nor_stops_a_spliced_stream() {
    for non_blocking in [false, true] {
        for pause in [Duration::ZERO, Duration::from_millis(60)] {
            let (feed, source) = tcp_pair();
            let (sink, mut receiver) = UnixStream::pair().unwrap();
            source.set_nonblocking(non_blocking).unwrap();
            let feeder = std::thread::spawn(move || {
                feed_with_urgent_data(&feed, pause, || feed.shutdown(Shutdown::Write).unwrap());
            });
            let before = thread_time();
            let summary = transfer(&source, &sink).run().unwrap();
            let busy = thread_time() - before;
            feeder.join().unwrap();
            drop(sink);
            let mut received = String::new();
            receiver.read_to_string(&mut received).unwrap();
            assert_eq!(received, "beforeafter urgent", "{non_blocking} {pause:?}");
            assert_eq!((summary.route, summary.moved), (Route::Splice, 18));
            assert!(busy < Duration::from_millis(40), "{busy:?} of spinning");
        }
    }
}

#[tokio::test]
async fn tokio_urgent_data_neither_ends_nor_stops_a_spliced_stream() {
    for pause in [Duration::ZERO, Duration::from_millis(60)] {
        for into_pipe in [false, true] {
            let (feed, source) = tcp_pair();
            source.set_nonblocking(true).unwrap();
            let source = tokio::net::TcpStream::from_std(source).unwrap();
            let (sink, mut receiver): (OwnedFd, File) = if into_pipe {
                let (reader, writer) = rustix::pipe::pipe().unwrap();
                (writer, reader.into())
            } else {
                let (near, far) = UnixStream::pair().unwrap();
                (near.into(), OwnedFd::from(far).into())
            };
            let sink = Attached::new(sink).unwrap();
            let progress = Arc::new(Progress::new());
            let seen = Arc::clone(&progress);
            let feeder = std::thread::spawn(move || {
                // Stays open until all is through: no end of the stream helps past the mark.
                feed_with_urgent_data(&feed, pause, || {
                    wait_until("all is through", || seen.moved() == 18);
                });
            });
            let before = thread_time();
            let sending = transfer(&source, &sink).progress(&progress).run_async();
            let outcome = tokio::time::timeout(Duration::from_secs(5), sending)
                .await
                .expect("the stream goes on past the mark");
            assert_eq!(outcome.unwrap().moved, 18, "{pause:?} {into_pipe}");
            let busy = thread_time() - before;
            assert!(busy < Duration::from_millis(40), "{busy:?} of spinning");
            feeder.join().unwrap();
            drop(sink);
            let mut received = String::new();
            receiver.read_to_string(&mut received).unwrap();
            assert_eq!(received, "beforeafter urgent");
        }
    }
}

#[test]
fn messages_are_refused_instead_of_cut() {
    let refused = Cause::Refused {
        refusal: Refusal::SourceKeepsMessages,
    };
    let (sink, _receiver) = UnixStream::pair().unwrap();
    let (near, far) = UnixDatagram::pair().unwrap();
    near.send(b"a whole message").unwrap();
    let error = transfer(&far, &sink).length(4).run().unwrap_err();
    assert_eq!((error.cause, error.moved()), (refused, 0));
    let mut message = [0; 64];
    assert_eq!(
        far.recv(&mut message).unwrap(),
        15,
        "still there, and whole"
    );
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(transfer(&udp, &sink).run().unwrap_err().cause, refused);
}

#[test]
fn a_place_in_a_sink_that_has_none_is_refused() {
    let file = TestFile::with(b"new");
    let log = TestFile::with(b"a log with old lines");
    let appending = OpenOptions::new().append(true).open(log.path()).unwrap();
    let error = transfer(file.open(), &appending)
        .sink_offset(2)
        .run()
        .unwrap_err();
    let refusal = Refusal::SinkAppends;
    assert_eq!(error.cause, Cause::Refused { refusal });
    assert_eq!(std::fs::read(log.path()).unwrap(), b"a log with old lines");
    let (near, _far) = tcp_pair();
    let error = transfer(file.open(), &near)
        .sink_offset(2)
        .run()
        .unwrap_err();
    let refusal = Refusal::SinkIsStream;
    assert_eq!(error.cause, Cause::Refused { refusal });
}

#[tokio::test]
async fn a_reset_ends_the_wait_for_the_acknowledgement() {
    let (near, far) = tcp_pair();
    near.set_nonblocking(true).unwrap();
    // More than the receiver takes without reading.
    while (&near).write(&[7; 1 << 16]).is_ok() {}
    let waiting = acknowledged(&near);
    let resetting = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        rustix::net::sockopt::set_socket_linger(&far, Some(Duration::ZERO)).unwrap();
        drop(far);
    };
    let both = async { tokio::join!(waiting, resetting).0 };
    let outcome = tokio::time::timeout(Duration::from_secs(5), both).await;
    assert_eq!(outcome.expect("it ends"), Err(Errno::ECONNRESET));
}

#[tokio::test]
async fn a_stream_dressed_up_as_a_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let fifo = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(&path)
        .unwrap();
    let (near, _far) = common::unix_pair_of_tokio();
    let sending = transfer(&fifo, &near).run_async();
    let outcome = tokio::time::timeout(Duration::from_secs(5), sending).await;
    let error = outcome.expect("it does not spin").unwrap_err();
    let refusal = Refusal::SourceNotAttached;
    assert_eq!(error.cause, Cause::Refused { refusal });
    let file = TestFile::with(b"content").open();
    let error = transfer(&file, &fifo).run_async().await.unwrap_err();
    let refusal = Refusal::SinkNotAttached;
    assert_eq!(error.cause, Cause::Refused { refusal });
    // As what it is, it works.
    let fifo = Attached::new(fifo.into()).unwrap();
    assert_eq!(transfer(&file, &fifo).run_async().await.unwrap().moved, 7);
}

#[tokio::test]
async fn the_longest_deadline_is_none() {
    let file = TestFile::with(&pattern(100_000)).open();
    let (near, far) = common::unix_pair_of_tokio();
    let summary = transfer(&file, &near)
        .deadline(Duration::MAX)
        .run_async()
        .await
        .unwrap();
    assert_eq!(summary.moved, 100_000);
    drop(far);
}

/// A pool whose only thread is kept busy until the returned sender speaks or goes.
fn busy_pool() -> (Arc<ColdPool>, std::sync::mpsc::Sender<()>) {
    let pool = ColdPool::new(1, 8);
    let (release, wait) = std::sync::mpsc::channel();
    pool.detach(move || {
        let _ = wait.recv();
    });
    (pool, release)
}

#[tokio::test]
async fn a_copy_that_was_dropped_or_stopped_writes_nothing_later() {
    // Sealed, so that the first call is the copy itself and no look at the version.
    let memfd = rustix::fs::memfd_create("sealed", MemfdFlags::ALLOW_SEALING).unwrap();
    let mut file = File::from(memfd);
    file.write_all(&pattern(100_000)).unwrap();
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK).unwrap();
    for stopped in [false, true] {
        let (pool, release) = busy_pool();
        let sink = tempfile::tempfile_in("/var/tmp").unwrap();
        let haul = transfer(&file, &sink).cold_pool(&pool);
        if stopped {
            let sending = haul.deadline(Duration::from_millis(30)).run_async();
            let error = tokio::time::timeout(Duration::from_secs(5), sending)
                .await
                .expect("what waits for a thread can be taken back")
                .unwrap_err();
            assert_eq!((error.cause, error.moved()), (Cause::DeadlineExceeded, 0));
        } else {
            let waiting = tokio::time::timeout(Duration::from_millis(30), haul.run_async());
            assert!(waiting.await.is_err(), "the pool is busy");
        }
        drop(release);
        // The queue is served in order: whatever the copy left in it has had its turn.
        pool.run(|| ()).await;
        assert_eq!(sink.metadata().unwrap().len(), 0, "{stopped}");
    }
}

#[tokio::test]
async fn a_cold_block_device_is_read_by_the_pool() {
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
    let device = device.trim();
    let block = File::open(device).unwrap();
    rustix::fs::fadvise(&block, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let probed = probe(&block, 0, 1 << 20);
    let pool = ColdPool::new(2, 8);
    let (near, mut far) = common::unix_pair_of_tokio();
    let draining =
        tokio::spawn(async move { tokio::io::copy(&mut far, &mut tokio::io::sink()).await });
    let outcome = transfer(&block, &near)
        .stability(Stability::Immutable)
        .cold_pool(&pool)
        .run_async()
        .await;
    drop((near, block));
    let _ = std::process::Command::new("losetup")
        .args(["--detach", device])
        .status();
    assert_eq!(outcome.unwrap().moved, 8 << 20);
    assert_eq!(draining.await.unwrap().unwrap(), 8 << 20);
    assert_eq!(probed, Residency::Cold, "it tells no size of its own");
    assert!(pool.threads() > 0, "the pool had to read");
}

#[test]
fn urgent_data_alone_does_not_keep_a_thread_busy() {
    let (feed, source) = tcp_pair();
    let (sink, _receiver) = UnixStream::pair().unwrap();
    source.set_nonblocking(true).unwrap();
    let progress = Progress::new();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let before = thread_time();
            let outcome = transfer(&source, &sink).progress(&progress).run();
            outcome.map(|summary| (summary.moved, thread_time() - before))
        });
        rustix::net::send(&feed, b"x!", SendFlags::OOB).unwrap();
        wait_until("the byte before the mark", || progress.moved() == 1);
        std::thread::sleep(Duration::from_millis(100));
        feed.shutdown(Shutdown::Write).unwrap();
        let (moved, busy) = sending.join().unwrap().unwrap();
        assert_eq!(moved, 1);
        assert!(busy < Duration::from_millis(50), "{busy:?} of spinning");
    });
}
