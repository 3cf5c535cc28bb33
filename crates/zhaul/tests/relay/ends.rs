//! A FIN is passed on as a FIN, a reset as a reset.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use zhaul::relay::{RelayCause, Side, Way};

use crate::common::{pattern, wait_until};
use crate::stand::{DRIVERS, Kind, Running, Setup, each, each_driver, fill};

const PAIR: (Kind, Kind) = (Kind::Tcp, Kind::Tcp);

#[test]
fn a_fin_is_passed_on_and_the_other_direction_goes_on() {
    each(|driver, kinds| {
        for first in Side::BOTH {
            let running = Running::start(driver, kinds, Setup::default());
            let (a, b, rest) = running.split();
            let (mut early, mut late) = if first == Side::A { (a, b) } else { (b, a) };
            early.write_all(b"last words").unwrap();
            early.end();
            assert_eq!(
                late.read_all(),
                b"last words",
                "ends while the other is open"
            );
            for round in 0..20_u8 {
                late.write_all(&[round; 999]).unwrap();
                early.expect(&[round; 999]);
            }
            let bulk = pattern(3 << 20);
            let reader = std::thread::spawn(move || early.read_all());
            late.write_all(&bulk).unwrap();
            late.end();
            assert!(reader.join().unwrap() == bulk);
            assert_eq!(rest.finish().cause, RelayCause::Closed { first });
        }
    });
}

#[test]
fn a_reset_is_passed_on_after_what_was_sent_before_it() {
    each_driver(|driver| {
        for by in Side::BOTH {
            let running = Running::start(driver, PAIR, Setup::default());
            let (a, b, rest) = running.split();
            let (mut gone, mut left) = if by == Side::A { (a, b) } else { (b, a) };
            let said = pattern(500_000);
            gone.write_all(&said).unwrap();
            // Otherwise the reset takes back what has not left yet.
            wait_until("it is sent", || unsent(&gone) == 0);
            gone.reset();
            let (got, error) = left.read_until_error();
            assert!(got == said, "{} of {}", got.len(), said.len());
            assert_eq!(error, Some(ErrorKind::ConnectionReset));
            assert_eq!(rest.finish().cause, RelayCause::Reset { by });
        }
    });
}

fn unsent(peer: &crate::stand::Peer) -> usize {
    use std::os::fd::AsFd;
    zhaul_sys::siocoutq::unacknowledged(peer.as_fd()).unwrap()
}

#[test]
fn a_reset_while_nothing_moves_is_passed_on_at_once() {
    each_driver(|driver| {
        for by in Side::BOTH {
            // Even if nobody wants to wait for anything.
            let setup = Setup::with(|options| options.reset_grace = Duration::from_secs(3600));
            let running = Running::start(driver, PAIR, setup);
            let (mut a, mut b, rest) = running.split();
            a.write_all(b"hello").unwrap();
            b.expect(b"hello");
            let (gone, mut left) = if by == Side::A { (a, b) } else { (b, a) };
            gone.reset();
            let (got, error) = left.read_until_error();
            assert_eq!((got.len(), error), (0, Some(ErrorKind::ConnectionReset)));
            assert_eq!(rest.finish().cause, RelayCause::Reset { by });
        }
    });
}

#[test]
fn a_side_that_does_not_read_is_reset_after_the_grace() {
    each_driver(|driver| {
        let setup = Setup::with(|options| options.reset_grace = Duration::from_millis(100));
        let running = Running::start(driver, PAIR, setup);
        let (mut a, mut b, rest) = running.split();
        let sent = fill(&mut a, &rest.setup.progress);
        a.reset();
        assert_eq!(rest.finish().cause, RelayCause::Reset { by: Side::A });
        let (got, error) = b.read_until_error();
        assert!(got.len() < sent.len() && got == sent[..got.len()]);
        assert_eq!(error, Some(ErrorKind::ConnectionReset));
    });
}

#[test]
fn a_unix_socket_closed_with_something_unread_resets_the_other_side() {
    for driver in DRIVERS {
        let running = Running::start(driver, (Kind::Unix, Kind::Tcp), Setup::default());
        let (a, mut b, rest) = running.split();
        b.write_all(b"nobody reads this").unwrap();
        let progress = rest.setup.progress.clone();
        wait_until("it is delivered", || progress.delivered(Way::BToA) > 0);
        drop(a);
        assert_eq!(b.read_until_error().1, Some(ErrorKind::ConnectionReset));
        assert_eq!(rest.finish().cause, RelayCause::Reset { by: Side::A });
    }
}

#[test]
fn a_client_that_closed_and_is_sent_more_resets_the_server() {
    each(|driver, kinds| {
        if kinds.1 == Kind::Unix {
            // Nothing can be reset there.
            return;
        }
        let running = Running::start(driver, kinds, Setup::default());
        let (mut a, mut b, rest) = running.split();
        a.write_all(b"request").unwrap();
        drop(a);
        assert_eq!(b.read_all(), b"request");
        let mut failed = None;
        for _ in 0..1000 {
            if let Err(error) = b.write_all(&[7; 10_000]) {
                failed = Some(error.kind());
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let failed = failed.expect("the server hears of it");
        let known = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(known.contains(&failed), "{failed}");
        assert_eq!(rest.finish().cause, RelayCause::Reset { by: Side::A });
    });
}
