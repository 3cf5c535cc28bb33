//! On a tokio task.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UnixStream};

use zhaul::send::{Advance, SendState, TurnTerms};
use zhaul::{CancelToken, Cause, FileRange, Progress, Refusal, Stability, Stop};

use crate::common::{TestFile, pattern};
use crate::{Built, multipart, shrink};

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, accepted) = tokio::join!(near, listener.accept());
    (near.unwrap(), accepted.unwrap().0)
}

async fn read_all(mut from: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes).await;
    bytes
}

#[tokio::test]
async fn a_header_and_a_buffer_go_out_by_one_call() {
    let (near, far) = tcp_pair().await;
    let body = bytes::Bytes::from(pattern(10_000));
    let summary = zhaul::send(("header", body.clone()), &near).await.unwrap();
    drop(near);
    assert_eq!((summary.calls, summary.moved), (1, 10_006));
    assert!(read_all(far).await == [b"header", &body[..]].concat());
}

#[tokio::test]
async fn files_between_memory_arrive_by_a_future_that_can_be_spawned() {
    let built = multipart();
    let (near, far) = UnixStream::pair().unwrap();
    shrink(&near);
    let progress = Arc::new(Progress::new());
    let sending = zhaul::send(built.aggregate, near).progress(Arc::clone(&progress));
    let (sent, received) = tokio::join!(tokio::spawn(sending.run_async()), read_all(far));
    let summary = sent.unwrap().unwrap();
    assert!(received == built.bytes);
    assert_eq!(
        (progress.moved(), progress.calls()),
        (summary.moved, summary.calls)
    );
}

#[tokio::test]
async fn descriptors_of_the_standard_library_are_attached() {
    let built = multipart();
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let far = UnixStream::from_std(far).unwrap();
    let sending = async {
        zhaul::send(built.aggregate, &near).await.unwrap();
        near.shutdown(std::net::Shutdown::Both).unwrap();
    };
    let ((), received) = tokio::join!(sending, read_all(far));
    assert!(received == built.bytes);
}

#[tokio::test]
async fn what_is_interrupted_anywhere_goes_on_where_it_stands() {
    let built = multipart();
    let (near, far) = UnixStream::pair().unwrap();
    shrink(&near);
    let mut sending = zhaul::send(built.aggregate, near).start().unwrap();
    let mut received = vec![];
    let mut buffer = vec![0; 9_001];
    let mut interruptions = 0;
    loop {
        // Whatever can be done is done, then it waits, and the stop comes first.
        let soon = async { tokio::task::yield_now().await };
        match sending.run_until(soon).await.unwrap() {
            Some(summary) => {
                assert_eq!(summary.moved, built.bytes.len() as u64);
                break;
            }
            None => interruptions += 1,
        }
        // It may have been waiting for something else.
        if let Ok(read) = far.try_read(&mut buffer) {
            received.extend_from_slice(&buffer[..read]);
        }
    }
    drop(sending);
    received.extend(read_all(far).await);
    assert!(received == built.bytes);
    assert!(interruptions > 10, "{interruptions}");
}

#[tokio::test]
async fn an_answer_begun_in_turns_is_sent_on_by_a_task() {
    let built = multipart();
    let (near, far) = UnixStream::pair().unwrap();
    shrink(&near);
    let progress = Progress::new();
    let mut state = SendState::new(built.aggregate);
    let terms = TurnTerms {
        progress: Some(&progress),
        ..TurnTerms::default()
    };
    assert_eq!(state.turn(&near, terms).unwrap(), Advance::Blocked);
    let sending = async {
        let sent = state.to(&near).progress(&progress).await;
        drop(near);
        sent.unwrap()
    };
    let (summary, received) = tokio::join!(sending, read_all(far));
    assert!(received == built.bytes);
    assert_eq!(
        (progress.moved(), progress.calls()),
        (summary.moved, summary.calls)
    );
}

#[tokio::test]
async fn a_token_and_a_deadline_end_it_while_it_waits() {
    for file in [false, true] {
        let built = if file {
            Built::default().file(8 << 20, 0..8 << 20, Stability::MayChange)
        } else {
            Built::default().memory(&pattern(8 << 20))
        };
        for by_token in [true, false] {
            let (near, far) = UnixStream::pair().unwrap();
            let token = CancelToken::new();
            let progress = Progress::new();
            let mut builder = zhaul::send(built.aggregate.clone(), &near).progress(&progress);
            if by_token {
                builder = builder.cancel(&token);
            } else {
                builder = builder.deadline(Duration::from_millis(30));
            }
            let cancelling = async {
                while progress.moved() == 0 {
                    tokio::task::yield_now().await;
                }
                token.cancel();
            };
            let (sent, ()) = tokio::join!(builder.run_async(), cancelling);
            let error = sent.unwrap_err();
            let expected = if by_token {
                Cause::Cancelled
            } else {
                Cause::DeadlineExceeded
            };
            assert_eq!(error.cause, expected);
            drop(near);
            let received = read_all(far).await;
            assert_eq!(received.len() as u64, error.moved());
            assert!(received[..] == built.bytes[..received.len()]);
            assert_eq!(progress.in_transit(), 0);
        }
    }
}

#[tokio::test]
async fn a_future_that_is_dropped_leaves_a_prefix() {
    let built = multipart();
    let (near, far) = UnixStream::pair().unwrap();
    shrink(&near);
    let progress = Progress::new();
    let sending = zhaul::send(built.aggregate, &near).progress(&progress);
    let dropped = tokio::time::timeout(Duration::from_millis(20), sending.run_async()).await;
    assert!(dropped.is_err(), "nobody reads");
    drop(near);
    let received = read_all(far).await;
    assert_eq!(received.len() as u64, progress.moved());
    assert!(received[..] == built.bytes[..received.len()]);
    assert_eq!((progress.in_transit(), progress.stranded()), (0, 0));
}

#[tokio::test]
async fn a_rate_lets_all_bytes_through() {
    let built = multipart();
    let (near, far) = tcp_pair().await;
    let rate = NonZeroU64::new(20_000_000).unwrap();
    let sending = async {
        zhaul::send(built.aggregate, &near)
            .throttle(rate)
            .await
            .unwrap();
        drop(near);
    };
    let ((), received) = tokio::join!(sending, read_all(far));
    assert!(received == built.bytes);
}

#[tokio::test]
async fn cold_files_are_read_by_the_pool() {
    let content = pattern(3 << 20);
    let file = TestFile::with(&content);
    let opened = file.open();
    rustix::fs::fsync(&opened).unwrap();
    rustix::fs::fadvise(&opened, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let range = FileRange::whole(opened)
        .unwrap()
        .stability(Stability::Immutable);
    let (near, far) = tcp_pair().await;
    let sending = async {
        zhaul::send(range, &near).await.unwrap();
        drop(near);
    };
    let ((), received) = tokio::join!(sending, read_all(far));
    assert!(received == content);
}

#[tokio::test]
async fn a_socket_that_is_passed_as_a_file_is_refused() {
    let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
    let file = std::fs::File::from(std::os::fd::OwnedFd::from(near));
    let error = zhaul::send("bytes", file).await.unwrap_err();
    let refusal = Refusal::SinkNotAttached;
    assert_eq!(error.cause, Cause::Refused { refusal });
}

#[tokio::test]
async fn a_stop_ends_a_sending_that_waits_with_memory_and_what_is_left_is_told() {
    let (near, mut far) = UnixStream::pair().unwrap();
    shrink(&near);
    let bytes = pattern(1 << 20);
    let mut sending = zhaul::send(bytes.clone(), near).start().unwrap();
    let waits = sending.run_until(async { tokio::task::yield_now().await });
    assert!(waits.await.unwrap().is_none(), "the socket is full");
    sending.stop(Stop::LeaseBroken);
    let error = sending.run().await.unwrap_err();
    assert_eq!(error.cause, Cause::LeaseBroken);
    let moved = error.moved();
    assert!(moved > 0 && moved == sending.moved());
    let rest = sending.into_state().into_rest();
    assert_eq!(rest.len(), bytes.len() as u64 - moved);
    let mut received = vec![0; moved as usize];
    far.read_exact(&mut received).await.unwrap();
    assert!(received == bytes[..moved as usize]);
}
