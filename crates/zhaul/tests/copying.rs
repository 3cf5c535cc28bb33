//! Relays between streams that are no descriptors.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use common::pattern;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::net::{TcpListener, TcpStream};
use zhaul::relay::{BufferPool, RelayCause, RelayProgress, Way};
use zhaul::{CancelToken, Route};

async fn received(mut from: DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).await.unwrap();
    bytes
}

async fn in_time<F: Future>(future: F) -> F::Output {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, future).await.expect("in time")
}

#[tokio::test]
async fn bytes_and_ends_pass_both_ways_and_nothing_is_spliced() {
    let ((client, a), (b, server)) = (duplex(1000), duplex(70_000));
    let progress = RelayProgress::new();
    let relay = zhaul::relay(a, b)
        .preload(Way::AToB, b"first ".to_vec())
        .progress(&progress)
        .run_copying();
    let peers = async {
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_server, mut to_server) = tokio::io::split(server);
        let there = async {
            to_client.write_all(&pattern(3_000_000)).await.unwrap();
            to_client.shutdown().await.unwrap();
        };
        let back = async {
            let mut bytes = Vec::new();
            from_server.read_to_end(&mut bytes).await.unwrap();
            assert!(bytes[..6] == *b"first " && bytes[6..] == pattern(3_000_000));
            // The other way is open still.
            to_server.write_all(&pattern(1_000_000)).await.unwrap();
            to_server.shutdown().await.unwrap();
        };
        let mut answer = Vec::new();
        let (_, (), ()) = tokio::join!(from_client.read_to_end(&mut answer), there, back);
        assert!(answer == pattern(1_000_000));
    };
    let (ending, ()) = tokio::join!(relay, peers);
    assert_eq!(ending.stats.delivered(), 4_000_006);
    assert_eq!(ending.stats.way(Way::AToB).spliced, 0);
    assert_eq!(progress.route(Way::AToB), Route::ReadWrite);
}

/// A read that got less than it asked for registers no waker.
#[tokio::test]
async fn each_of_several_messages_and_the_end_arrive_when_they_are_sent() {
    let ((mut client, a), (b, mut server)) = (duplex(100_000), duplex(100_000));
    let relay = tokio::spawn(zhaul::relay(a, b).one_way().run_copying());
    let mut received = [0; 3];
    for message in [b"one", b"two"] {
        // The relay has nothing to do.
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.write_all(message).await.unwrap();
        let reading = server.read_exact(&mut received);
        in_time(reading).await.unwrap();
        assert_eq!(&received, message);
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    client.shutdown().await.unwrap();
    assert_eq!(in_time(server.read(&mut received)).await.unwrap(), 0);
    let ending = in_time(relay).await.unwrap();
    assert!(ending.cause.is_clean(), "{:?}", ending.cause);
}

#[tokio::test]
async fn an_idle_relay_and_a_cancelled_one_end() {
    let ((_client, a), (b, _server)) = (duplex(1000), duplex(1000));
    let began = Instant::now();
    let limit = Duration::from_millis(50);
    let relay = zhaul::relay(a, b).idle_timeout(limit).run_copying();
    let ending = tokio::time::timeout(Duration::from_secs(20), relay)
        .await
        .unwrap();
    assert!(
        matches!(ending.cause, RelayCause::Idle),
        "{:?}",
        ending.cause
    );
    assert!(began.elapsed() >= limit);

    let ((client, a), (b, server)) = (duplex(1000), duplex(1000));
    let token = CancelToken::new();
    let relay = tokio::spawn(zhaul::relay(a, b).cancel(&token).run_copying());
    tokio::task::yield_now().await;
    token.cancel();
    let ending = tokio::time::timeout(Duration::from_secs(20), relay)
        .await
        .unwrap()
        .unwrap();
    assert!(
        matches!(ending.cause, RelayCause::Cancelled),
        "{:?}",
        ending.cause
    );
    assert_eq!(
        received(client).await.len() + received(server).await.len(),
        0
    );
}

#[tokio::test]
async fn a_descriptor_may_be_relayed_to_a_stream_that_is_none() {
    let ((client, a), (b, server)) = (common::unix_pair_of_tokio(), duplex(5000));
    let relay = tokio::spawn(zhaul::relay(a, b).one_way().run_copying());
    let sending = tokio::spawn(async move {
        let mut client = client;
        client.write_all(&pattern(500_000)).await.unwrap();
    });
    assert!(received(server).await == pattern(500_000));
    sending.await.unwrap();
    assert_eq!(relay.await.unwrap().stats.delivered(), 500_000);
}

/// Keeps what is written to itself. Nothing comes out of it.
struct Keeping {
    flushes: Option<io::ErrorKind>,
    ends: Option<io::ErrorKind>,
}

/// Pending for a kind of `WouldBlock`.
fn outcome(kind: Option<io::ErrorKind>) -> Poll<io::Result<()>> {
    match kind {
        None => Poll::Ready(Ok(())),
        Some(io::ErrorKind::WouldBlock) => Poll::Pending,
        Some(kind) => Poll::Ready(Err(kind.into())),
    }
}

impl AsyncRead for Keeping {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Keeping {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        outcome(self.flushes)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        outcome(self.ends)
    }
}

/// Relays seven bytes and their end into it.
async fn relayed_into(sink: Keeping, idle: Option<Duration>) -> (RelayCause, u64) {
    let (mut client, a) = duplex(1000);
    client.write_all(b"message").await.unwrap();
    drop(client);
    let mut relay = zhaul::relay(a, sink).one_way();
    if let Some(idle) = idle {
        relay = relay.idle_timeout(idle);
    }
    let ending = in_time(relay.run_copying()).await;
    (ending.cause, ending.stats.delivered())
}

#[tokio::test]
async fn what_was_not_flushed_is_not_delivered_and_a_failed_end_is_no_end() {
    let failed = Some(io::ErrorKind::Other);
    let pending = Some(io::ErrorKind::WouldBlock);
    let soon = Some(Duration::from_millis(50));
    let kept = |flushes, ends| Keeping { flushes, ends };
    let (cause, delivered) = relayed_into(kept(failed, None), None).await;
    assert!(matches!(cause, RelayCause::Write { .. }), "{cause:?}");
    assert_eq!(delivered, 0);
    let (cause, delivered) = relayed_into(kept(pending, None), soon).await;
    assert_eq!((cause, delivered), (RelayCause::Idle, 0));
    let (cause, delivered) = relayed_into(kept(None, failed), None).await;
    assert!(matches!(cause, RelayCause::Write { .. }), "{cause:?}");
    assert_eq!(delivered, 7);
    let (cause, _) = relayed_into(kept(None, pending), soon).await;
    assert!(!cause.is_clean(), "{cause:?}");
    // Nobody set a limit: there is one.
    let (cause, _) = relayed_into(kept(None, pending), None).await;
    assert!(
        matches!(cause, RelayCause::Write { errno, .. } if errno == zhaul::Errno::ETIMEDOUT),
        "{cause:?}"
    );
    let (cause, _) = relayed_into(kept(None, None), None).await;
    assert!(cause.is_clean(), "{cause:?}");
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// A stream over a socket that says nothing of it.
type Session = tokio::io::BufStream<TcpStream>;

#[tokio::test]
async fn the_sockets_that_the_caller_names_are_reset() {
    for dropped in [false, true] {
        let (near, mut far) = tcp_pair().await;
        let (mut server, b) = duplex(1000);
        let token = CancelToken::new();
        let relay = zhaul::relay(Session::new(near), b)
            .socket_a(|session| session.get_ref().as_fd())
            .cancel(&token)
            .run_copying();
        let mut relay = Box::pin(relay);
        server.write_all(b"part").await.unwrap();
        let mut part = [0; 4];
        tokio::select! {
            ending = &mut relay => panic!("{ending:?}"),
            read = far.read_exact(&mut part) => assert_eq!(read.unwrap(), 4),
        }
        if dropped {
            drop(relay);
        } else {
            token.cancel();
            assert_eq!(in_time(relay).await.cause, RelayCause::Cancelled);
        }
        let error = in_time(far.read(&mut part)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn buffers_come_from_the_pool_that_was_given_and_go_back() {
    let pool = BufferPool::new(1, 1000);
    let ((mut client, a), (b, mut server)) = (duplex(100), duplex(100));
    let only = pool.take().unwrap();
    let relay = zhaul::relay(a, b).buffers(&pool).run_copying();
    let relay = tokio::spawn(relay);
    client.write_all(b"message").await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut received = [0; 7];
    assert!(
        tokio::time::timeout(Duration::from_millis(50), server.read(&mut received))
            .await
            .is_err(),
        "there is no buffer to take it into"
    );
    drop(only);
    in_time(server.read_exact(&mut received)).await.unwrap();
    // Idle: the buffer is for others.
    let began = Instant::now();
    while pool.held() > 0 {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop((client, server));
    assert!(in_time(relay).await.unwrap().cause.is_clean());
}
