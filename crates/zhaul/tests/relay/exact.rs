//! Every byte arrives, once and in order.

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use zhaul::Route;
use zhaul::relay::{RateLimit, RelayCause, Side, Way};

use crate::common::pattern;
use crate::random::Random;
use crate::stand::{Driver, Kind, Peer, Running, Setup, connection, each, each_driver, fill};

const BULK: usize = 24 << 20;

/// Sends all of it in pieces of random sizes, with pauses, then ends.
fn talk(mut peer: Peer, bytes: &[u8], seed: u64) {
    let mut random = Random(seed);
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = [1, 7, 100, 1448, 20_000, 300_000][random.below(6)];
        let len = (1 + random.below(most)).min(rest.len());
        peer.write_all(&rest[..len]).unwrap();
        rest = &rest[len..];
        if random.below(50) == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    peer.end();
}

#[test]
fn both_ways_at_once_in_pieces_of_any_size() {
    each(|driver, kinds| {
        let running = Running::start(driver, kinds, Setup::default());
        let up = pattern(3_000_000);
        let down: Vec<u8> = pattern(5_000_000).into_iter().rev().collect();
        let (a, b, rest) = running.split();
        let (mut from_a, mut from_b) = (a.try_clone(), b.try_clone());
        let talkers = [(a, up.clone()), (b, down.clone())]
            .map(|(peer, bytes)| std::thread::spawn(move || talk(peer, &bytes, 42)));
        let reader = std::thread::spawn(move || from_b.read_all());
        assert!(from_a.read_all() == down);
        assert!(reader.join().unwrap() == up);
        for talker in talkers {
            talker.join().unwrap();
        }
        let ending = rest.finish();
        assert!(ending.cause.is_clean(), "{}", ending.cause);
        assert_eq!(ending.stats.way(Way::AToB).delivered, up.len() as u64);
        assert_eq!(ending.stats.way(Way::BToA).delivered, down.len() as u64);
    });
}

#[test]
fn bulk_is_spliced_and_the_way_back_is_not() {
    each(|driver, kinds| {
        let running = Running::start(driver, kinds, Setup::default());
        let (mut a, mut b, rest) = running.split();
        // Nobody reads yet, so that there is always more than a buffer takes.
        let bytes = fill(&mut a, &rest.setup.progress);
        a.end();
        assert!(b.read_all() == bytes);
        b.write_all(b"thanks").unwrap();
        b.end();
        a.expect(b"thanks");
        let ending = rest.finish();
        assert_eq!(ending.cause, RelayCause::Closed { first: Side::A });
        let (up, down) = (ending.stats.way(Way::AToB), ending.stats.way(Way::BToA));
        assert!(up.spliced > 0 && up.switches > 0, "{up:?}");
        assert_eq!(up.spliced + up.copied(), bytes.len() as u64);
        assert_eq!((down.route, down.spliced), (Route::ReadWrite, 0));
    });
}

#[test]
fn small_exchanges_are_copied_in_two_calls_each() {
    // Level-triggered, or told of urgent data: one receive and one send for each message.
    for driver in [Driver::Edge, Driver::Level] {
        let mut running = Running::start(driver, (Kind::Tcp, Kind::Tcp), Setup::default());
        for round in 0..100_u32 {
            let message = round.to_be_bytes();
            running.a.write_all(&message).unwrap();
            running.b.expect(&message);
            running.b.write_all(&message).unwrap();
            running.a.expect(&message);
        }
        running.a.end();
        running.b.end();
        let ending = running.finish();
        for way in Way::BOTH {
            let stats = ending.stats.way(way);
            assert_eq!((stats.route, stats.switches), (Route::ReadWrite, 0));
            // The end of the stream, and now and then one more after a report that was too late.
            assert!(stats.calls < 230, "{driver:?}: {stats:?}");
        }
    }
}

#[test]
fn a_direction_becomes_interactive_again_after_its_bulk() {
    each_driver(|driver| {
        let running = Running::start(driver, (Kind::Tcp, Kind::Tcp), Setup::default());
        let bytes = pattern(BULK);
        let (mut a, mut b, rest) = running.split();
        let sender = std::thread::spawn({
            let bytes = bytes.clone();
            move || {
                a.write_all(&bytes).unwrap();
                a.expect(b"got it");
                for _ in 0..50 {
                    a.write_all(b"ping").unwrap();
                    a.expect(b"pong");
                }
            }
        });
        b.expect(&bytes);
        b.write_all(b"got it").unwrap();
        for _ in 0..50 {
            b.expect(b"ping");
            b.write_all(b"pong").unwrap();
        }
        sender.join().unwrap();
        drop(b);
        let ending = rest.finish();
        let up = ending.stats.way(Way::AToB);
        assert_eq!(up.route, Route::ReadWrite, "{up:?}");
        assert!(up.switches >= 2 && up.spliced > 0, "{up:?}");
    });
}

#[test]
fn one_byte_segments_do_not_wedge_a_pipe() {
    each_driver(|driver| {
        // Bulk first, so that the tiny segments meet a pipe; and it stays one.
        let mut setup = Setup::with(|options| options.thresholds.short_splices = u8::MAX);
        setup.resources.pipes = zhaul::PipePool::new(1, 64 << 10);
        let running = Running::start(driver, (Kind::Tcp, Kind::Tcp), setup);
        let bulk = pattern(4 << 20);
        let (a, mut b, rest) = running.split();
        let Peer::Tcp(mut a) = a else { unreachable!() };
        let sender = std::thread::spawn({
            let bulk = bulk.clone();
            move || {
                a.write_all(&bulk).unwrap();
                for byte in 0..=250_u8 {
                    a.write_all(&[byte]).unwrap();
                }
                a.shutdown(Shutdown::Write).unwrap();
                a
            }
        });
        let got = b.read_all();
        assert!(got[..bulk.len()] == bulk);
        assert!(got[bulk.len()..].iter().copied().eq(0..=250_u8));
        b.end();
        drop(sender.join().unwrap());
        assert!(rest.finish().cause.is_clean());
    });
}

#[test]
fn what_is_preloaded_goes_first() {
    each_driver(|driver| {
        let setup = Setup {
            preload: pattern(200_000),
            ..Setup::default()
        };
        let expected = [&setup.preload[..], b"and the rest"].concat();
        let (mut a, near_a) = connection(Kind::Tcp);
        // There before the relay begins.
        a.write_all(b"and the rest").unwrap();
        a.end();
        let b = connection(Kind::Unix);
        let mut running = Running::start_between(driver, (a, near_a), b, setup);
        assert!(running.b.read_all() == expected);
        running.b.end();
        let ending = running.finish();
        assert_eq!(ending.cause, RelayCause::Closed { first: Side::A });
        assert_eq!(ending.stats.way(Way::AToB).delivered, expected.len() as u64);
    });
}

#[test]
fn one_way_only_relays_one_way() {
    each_driver(|driver| {
        let setup = Setup::with(|options| options.one_way = true);
        let a = connection(Kind::Tcp);
        let (b, near_b) = connection(Kind::Unix);
        // Closing it with something unread would be a reset.
        let _open = near_b.try_clone().unwrap();
        let mut running = Running::start_between(driver, a, (b, near_b), setup);
        running.b.write_all(b"never read").unwrap();
        running.a.write_all(b"there").unwrap();
        running.a.end();
        assert_eq!(running.b.read_all(), b"there");
        let ending = running.finish();
        assert_eq!(ending.cause, RelayCause::Closed { first: Side::A });
        assert_eq!(ending.stats.way(Way::BToA).taken, 0);
    });
}

#[test]
fn a_shared_limit_is_kept_and_everything_arrives() {
    each_driver(|driver| {
        let rate = std::num::NonZeroU64::new(2_000_000).unwrap();
        let mut setup = Setup::default();
        let limit = std::sync::Arc::new(RateLimit::new(rate));
        setup.limits = vec![(Way::AToB, limit.clone()), (Way::BToA, limit)];
        let running = Running::start(driver, (Kind::Tcp, Kind::Tcp), setup);
        let began = std::time::Instant::now();
        let (a, b, rest) = running.split();
        let bytes = pattern(300_000);
        let readers = [a.try_clone(), b.try_clone()]
            .map(|mut peer| std::thread::spawn(move || peer.read_all()));
        for mut peer in [a, b] {
            peer.write_all(&bytes).unwrap();
            peer.end();
        }
        for reader in readers {
            assert!(reader.join().unwrap() == bytes);
        }
        // 600,000 bytes at 2,000,000 a second; only the lower bound is certain.
        assert!(began.elapsed() >= Duration::from_millis(250));
        assert!(rest.finish().cause.is_clean());
    });
}
