//! Relays between streams that are no descriptors.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::time::{Duration, Instant};

use common::pattern;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use zhaul::relay::{RelayCause, RelayProgress, Way};
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
