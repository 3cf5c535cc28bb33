//! What can be asked of a transfer, by both drivers.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs::File;
use std::future::IntoFuture as _;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::UdpSocket;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use common::{TestFile, pattern};
use zhaul::relay::{RelayProgress, Way};
use zhaul::{
    CancelToken, Cause, End, Errno, Haul, Progress, Refusal, Route, Stability, Summary,
    TransferError, transfer,
};

const DRIVERS: [Driver; 2] = [Driver::Blocking, Driver::Tokio];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Driver {
    Blocking,
    Tokio,
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap()
}

impl Driver {
    /// From file to file, whose ends are the same for both drivers.
    fn run(self, haul: Haul<'_, &File, &File>) -> Result<Summary, TransferError> {
        match self {
            Self::Blocking => haul.run(),
            Self::Tokio => runtime().block_on(haul.run_async()),
        }
    }
}

fn refusal(outcome: Result<Summary, TransferError>) -> (Refusal, u64) {
    let error = outcome.unwrap_err();
    let Cause::Refused { refusal } = error.cause else {
        panic!("not refused: {error}")
    };
    (refusal, error.moved())
}

#[test]
fn a_chunk_and_a_budget_of_nothing_are_refused() {
    let (from, to) = (TestFile::with(b"abc").open(), tempfile::tempfile().unwrap());
    for driver in DRIVERS {
        let haul = transfer(&from, &to).chunk_bytes(0);
        assert_eq!(refusal(driver.run(haul)), (Refusal::ChunkIsZero, 0));
        let haul = transfer(&from, &to).budget_bytes(0);
        assert_eq!(refusal(driver.run(haul)), (Refusal::BudgetIsZero, 0));
    }
}

#[test]
fn an_offset_in_a_stream_is_refused_and_nothing_is_taken() {
    let (mut near, far) = UnixStream::pair().unwrap();
    near.write_all(b"0123456789").unwrap();
    let sink = tempfile::tempfile().unwrap();
    let haul = transfer(&far, &sink).offset(4).length(6);
    assert!(haul.plan().is_err());
    assert_eq!(refusal(haul.run()), (Refusal::SourceIsStream, 0));
    assert_eq!(transfer(&far, &sink).length(10).run().unwrap().moved, 10);
}

#[test]
fn datagram_sockets_are_refused_on_both_sides() {
    let file = TestFile::with(&pattern(3000)).open();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(udp.local_addr().unwrap()).unwrap();
    let (near, far) = UnixDatagram::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let to_udp = transfer(&file, &udp).run();
    assert_eq!(refusal(to_udp), (Refusal::SinkKeepsMessages, 0));
    let error = transfer(&file, &near).run().unwrap_err();
    assert_eq!(error.end(), Some(End::Sink));
    assert!(far.recv(&mut [0; 8]).is_err(), "no datagram went out");
    let sink = tempfile::tempfile().unwrap();
    let from_udp = transfer(&udp, &sink).run();
    assert_eq!(refusal(from_udp), (Refusal::SourceKeepsMessages, 0));
}

#[test]
fn the_position_counts_where_it_is_asked_for() {
    let bytes = pattern(200_000);
    let named = TestFile::with(&bytes);
    for driver in DRIVERS {
        let (mut from, mut to) = (named.open(), tempfile::tempfile().unwrap());
        from.seek(SeekFrom::Start(1000)).unwrap();
        let haul = transfer(&from, &to).from_position().length(50_000);
        assert_eq!(driver.run(haul).unwrap().moved, 50_000, "{driver:?}");
        assert_eq!(from.stream_position().unwrap(), 51_000, "{driver:?}");
        let rest = transfer(&from, &to).from_position();
        assert_eq!(driver.run(rest).unwrap().moved, 149_000);
        to.rewind().unwrap();
        let mut copied = Vec::new();
        to.read_to_end(&mut copied).unwrap();
        assert!(copied == bytes[1000..], "{driver:?}");
        // Whoever does not ask for it neither uses nor moves it.
        from.seek(SeekFrom::Start(7)).unwrap();
        driver.run(transfer(&from, &to)).unwrap();
        assert_eq!(from.stream_position().unwrap(), 7);
    }
}

#[test]
fn the_position_is_behind_what_was_moved_after_an_error_and_a_dropped_future() {
    let named = TestFile::with(&pattern(8 << 20));
    let mut from = named.open();
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    drop(far);
    let error = transfer(&from, &near).from_position().run().unwrap_err();
    assert_eq!(from.stream_position().unwrap(), error.moved());

    from.rewind().unwrap();
    let (near, mut far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let progress = Progress::new();
    runtime().block_on(async {
        let near = tokio::net::UnixStream::from_std(near).unwrap();
        let haul = transfer(&from, &near).from_position().progress(&progress);
        let outcome = tokio::time::timeout(Duration::from_millis(30), haul).await;
        assert!(outcome.is_err(), "nobody reads");
    });
    let position = from.stream_position().unwrap();
    assert!(position > 0 && position == progress.moved());
    let mut received = Vec::new();
    far.read_to_end(&mut received).unwrap();
    assert!(received == pattern(8 << 20)[..position as usize]);
}

#[test]
fn standard_input_may_be_a_stream_or_a_file() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"from a pipe").unwrap();
    drop(writer);
    let sink = tempfile::tempfile().unwrap();
    let summary = transfer(&reader, &sink).from_position().run().unwrap();
    assert_eq!(summary.moved, 11);
}

#[test]
fn one_version_is_checked_after_each_read() {
    let from = TestFile::with(&pattern(200_000)).open();
    let to = tempfile::tempfile().unwrap();
    let calls = |wanted| {
        let haul = transfer(&from, &to).only(Route::ReadWrite).length(131_072);
        haul.one_version(wanted).run().unwrap().calls
    };
    assert_eq!(calls(true) - calls(false), 2, "an fstat for each 64 KiB");
}

#[test]
fn a_default_transfer_makes_the_calls_of_a_plain_loop() {
    let file = TestFile::with(&pattern(1 << 20)).open();
    let (near, mut far) = UnixStream::pair().unwrap();
    let receiving = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        far.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let summary = transfer(&file, &near).run().unwrap();
    drop(near);
    assert!(receiving.join().unwrap() == pattern(1 << 20));
    assert_eq!(
        summary.route,
        Route::ReadWrite,
        "nobody vouched for the file"
    );
    assert_eq!(
        summary.calls, 33,
        "a read and a write for each 64 KiB, and the end"
    );
}

#[test]
fn a_plan_tells_what_a_run_would_refuse() {
    let (near, _far) = UnixStream::pair().unwrap();
    let directory = File::open("/").unwrap();
    let error = transfer(&directory, &near).plan().unwrap_err();
    assert_eq!(
        (error.errno(), error.end()),
        (Some(Errno::EISDIR), Some(End::Source))
    );
    let file = TestFile::with(b"read only").open();
    let error = transfer(&file, &file).plan().unwrap_err();
    assert_eq!(
        (error.errno(), error.end()),
        (Some(Errno::EBADF), Some(End::Sink))
    );
    let leased = transfer(&file, &near).stability(Stability::Leased);
    assert!(leased.plan().is_ok(), "the lease may come later");
    assert_eq!(refusal(leased.run()), (Refusal::NoLease, 0));
}

#[test]
fn with_owned_ends_and_handles_a_transfer_can_be_spawned() {
    let bytes = pattern(3_000_000);
    let file = TestFile::with(&bytes).open();
    let (progress, cancel) = (Arc::new(Progress::new()), CancelToken::new());
    let received = runtime().block_on(async {
        let (near, mut far) = common::unix_pair_of_tokio();
        let haul = transfer(file, near)
            .progress(Arc::clone(&progress))
            .cancel(cancel.clone());
        let task = tokio::spawn(haul.into_future());
        let mut received = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut far, &mut received)
            .await
            .unwrap();
        assert_eq!(task.await.unwrap().unwrap().moved, 3_000_000);
        received
    });
    assert!(received == bytes);
    assert_eq!(progress.moved(), 3_000_000);
}

#[test]
fn with_owned_ends_and_handles_a_relay_can_be_spawned() {
    let progress = Arc::new(RelayProgress::new());
    runtime().block_on(async {
        let (client, a) = common::unix_pair_of_tokio();
        let (b, server) = common::unix_pair_of_tokio();
        let relay = zhaul::relay(a, b)
            .progress(Arc::clone(&progress))
            .cancel(CancelToken::new())
            .preload(Way::AToB, b"before ".to_vec());
        let task = tokio::spawn(relay.into_future());
        client.try_write(b"after").unwrap();
        drop(client);
        let mut received = String::new();
        let mut server = server;
        tokio::io::AsyncReadExt::read_to_string(&mut server, &mut received)
            .await
            .unwrap();
        assert_eq!(received, "before after");
        drop(server);
        task.await.unwrap();
    });
    assert_eq!(progress.delivered(Way::AToB), 12);
}
