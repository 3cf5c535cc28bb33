//! While nothing moves nothing runs: neither calls nor turns are made, and nothing is held.

use std::io::Write;
use std::time::Duration;

use zhaul::relay::{Side, Way};

use crate::common::{pattern, wait_until};
use crate::stand::{DRIVERS, Kind, Rest, Running, Setup, each, fill};

/// A few may be late.
const FEW: u64 = 8;

/// For a while, no more than a few calls and turns.
fn check_quiet(rest: &Rest, when: &str) {
    let progress = &rest.setup.progress;
    let count = || {
        let calls: u64 = Way::BOTH.iter().map(|&way| progress.calls(way)).sum();
        (calls, progress.turns())
    };
    std::thread::sleep(Duration::from_millis(50));
    let (calls, turns) = count();
    std::thread::sleep(Duration::from_millis(120));
    let (calls_then, turns_then) = count();
    assert!(
        calls_then - calls <= FEW,
        "{when}: {} calls",
        calls_then - calls
    );
    assert!(
        turns_then - turns <= FEW,
        "{when}: {} turns",
        turns_then - turns
    );
}

fn check_empty_handed(rest: &Rest, when: &str) {
    assert_eq!(rest.setup.resources.pipes.held(), 0, "{when}");
    assert_eq!(rest.setup.resources.buffers.held(), 0, "{when}");
}

#[test]
fn an_idle_relay_runs_nothing_and_holds_nothing() {
    each(|driver, kinds| {
        let running = Running::start(driver, kinds, Setup::default());
        let (mut a, mut b, rest) = running.split();
        check_quiet(&rest, "fresh");
        check_empty_handed(&rest, "fresh");
        a.write_all(&pattern(3000)).unwrap();
        b.expect(&pattern(3000));
        check_quiet(&rest, "after a message");
        check_empty_handed(&rest, "after a message");
        let bulk = pattern(8 << 20);
        let reader = std::thread::spawn({
            let bulk = bulk.clone();
            move || {
                b.expect(&bulk);
                b
            }
        });
        a.write_all(&bulk).unwrap();
        let b = reader.join().unwrap();
        check_quiet(&rest, "after bulk");
        check_empty_handed(&rest, "after bulk");
        drop((a, b));
        rest.finish();
    });
}

#[test]
fn a_half_closed_relay_runs_nothing() {
    each(|driver, kinds| {
        for first in Side::BOTH {
            let running = Running::start(driver, kinds, Setup::default());
            let (a, b, rest) = running.split();
            let (early, mut late) = if first == Side::A { (a, b) } else { (b, a) };
            early.end();
            assert!(late.read_all().is_empty());
            check_quiet(&rest, "half closed");
            check_empty_handed(&rest, "half closed");
            late.end();
            rest.finish();
            drop(early);
        }
    });
}

#[test]
fn a_peer_that_does_not_read_keeps_nobody_busy() {
    each(|driver, kinds| {
        let running = Running::start(driver, kinds, Setup::default());
        let (mut a, mut b, rest) = running.split();
        let sent = fill(&mut a, &rest.setup.progress);
        check_quiet(&rest, "full");
        // One that has ended its own stream is reported as hung up once ours has ended, too.
        b.end();
        assert!(a.read_all().is_empty());
        check_quiet(&rest, "full, and half closed");
        a.end();
        check_quiet(&rest, "full, and both have ended");
        assert!(b.read_all() == sent);
        assert!(rest.finish().cause.is_clean());
    });
}

#[test]
fn a_peer_that_is_gone_keeps_nobody_busy() {
    // What it sent is delivered to one that does not read, for as long as it takes.
    for driver in DRIVERS {
        println!("{driver:?}");
        let setup = Setup::with(|options| options.reset_grace = Duration::from_millis(900));
        let running = Running::start(driver, (Kind::Tcp, Kind::Tcp), setup);
        let (mut a, b, rest) = running.split();
        fill(&mut a, &rest.setup.progress);
        a.reset();
        check_quiet(&rest, "reset");
        wait_until("the grace is over", || {
            rest.setup.resources.pipes.held() == 0
        });
        rest.finish();
        drop(b);
    }
}
