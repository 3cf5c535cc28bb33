//! A graceful stop delivers what was taken; a dropped relay lets nobody take a part for the whole.

use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use zhaul::async_io::Attached;
use zhaul::relay::{RelayCause, Way};

use crate::stand::{Kind, Peer, Running, Setup, connection, each, each_driver, fill};

const PAIR: (Kind, Kind) = (Kind::Tcp, Kind::Tcp);

#[test]
fn a_graceful_stop_delivers_what_was_taken_and_ends_both_streams() {
    each(|driver, kinds| {
        let running = Running::start(driver, kinds, Setup::default());
        let (mut a, mut b, rest) = running.split();
        b.write_all(b"greeting").unwrap();
        a.expect(b"greeting");
        let sent = fill(&mut a, &rest.setup.progress);
        let taken = rest.setup.progress.taken(Way::AToB);
        assert!(taken > 0 && taken <= sent.len() as u64);
        assert!(rest.setup.progress.in_transit(Way::AToB) > 0);
        rest.setup.drain.cancel();
        // Longer than it would take to go on with what A has sent.
        std::thread::sleep(Duration::from_millis(100));
        let received = b.read_all();
        assert_eq!(received.len() as u64, taken);
        assert!(received == sent[..received.len()]);
        let ending = rest.finish();
        assert_eq!(ending.cause, RelayCause::Stopped);
        assert_eq!(ending.stats.way(Way::AToB).in_transit(), 0);
    });
}

#[test]
fn a_graceful_stop_of_an_idle_relay_is_a_fin_for_both() {
    each(|driver, kinds| {
        let running = Running::start(driver, kinds, Setup::default());
        let (mut a, mut b, rest) = running.split();
        a.write_all(b"question").unwrap();
        b.expect(b"question");
        rest.setup.drain.cancel();
        assert_eq!((a.read_all().len(), b.read_all().len()), (0, 0));
        assert_eq!(rest.finish().cause, RelayCause::Stopped);
    });
}

#[test]
fn a_graceful_stop_delivers_the_preload_of_a_relay_that_has_not_begun() {
    each_driver(|driver| {
        let setup = Setup {
            preload: b"said before".to_vec(),
            ..Setup::default()
        };
        setup.drain.cancel();
        let (a, mut b, rest) = Running::start(driver, PAIR, setup).split();
        assert_eq!(b.read_all(), b"said before");
        assert_eq!(rest.finish().cause, RelayCause::Stopped);
        drop(a);
    });
}

#[test]
fn what_is_not_delivered_in_time_is_cut() {
    each_driver(|driver| {
        let setup = Setup {
            drain_within: Duration::from_millis(100),
            ..Setup::default()
        };
        let (mut a, mut b, rest) = Running::start(driver, PAIR, setup).split();
        fill(&mut a, &rest.setup.progress);
        rest.setup.drain.cancel();
        let ending = rest.finish();
        assert_eq!(ending.cause, RelayCause::Cancelled);
        assert!(ending.stats.way(Way::AToB).in_transit() > 0);
        let (_, error) = b.read_until_error();
        assert_eq!(
            error,
            Some(ErrorKind::ConnectionReset),
            "no part for the whole"
        );
    });
}

#[test]
fn streams_that_end_by_themselves_meanwhile_are_closed_and_not_stopped() {
    each_driver(|driver| {
        let (mut a, mut b, rest) = Running::start(driver, PAIR, Setup::default()).split();
        a.write_all(b"all").unwrap();
        a.end();
        assert_eq!(b.read_all(), b"all");
        b.end();
        assert_eq!(a.read_all(), b"");
        rest.setup.drain.cancel();
        assert!(rest.finish().cause.is_clean());
    });
}

fn attach([a, b]: [OwnedFd; 2]) -> [Attached; 2] {
    [a, b].map(|fd| Attached::new(fd).unwrap())
}

fn is_reset(peer: &mut Peer) -> bool {
    let (bytes, error) = peer.read_until_error();
    bytes.is_empty() && error == Some(ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn a_relay_dropped_before_its_first_poll_is_a_reset_and_no_fin() {
    let (mut a, near_a) = connection(Kind::Tcp);
    let (mut b, near_b) = connection(Kind::Tcp);
    let [near_a, near_b] = attach([near_a, near_b]);
    let future = zhaul::relay(near_a, near_b)
        .preload(Way::AToB, b"read from A already")
        .run_async();
    drop(future);
    assert!(is_reset(&mut a) && is_reset(&mut b));
}
