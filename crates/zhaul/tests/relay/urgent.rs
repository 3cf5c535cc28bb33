//! What reads stop at neither wedges a relay nor keeps it busy: urgent data, and descriptors that
//! are sent along. Neither is passed on; the stream around it is.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use zhaul::relay::Way;

use crate::common::pattern;
use crate::stand::{DRIVERS, Kind, Peer, Running, Setup, each};

fn send_urgent(peer: &Peer) -> bool {
    rustix::net::send(peer, b"!", SendFlags::OOB).is_ok()
}

#[test]
fn the_stream_around_urgent_data_arrives() {
    each(|driver, kinds| {
        for bulk in [0, 6 << 20] {
            let running = Running::start(driver, kinds, Setup::default());
            let (mut a, mut b, rest) = running.split();
            let before = pattern(bulk);
            let reader = std::thread::spawn({
                let before = before.clone();
                move || {
                    b.expect(&before);
                    b
                }
            });
            a.write_all(&before).unwrap();
            let mut b = reader.join().unwrap();
            for round in 0..20_u8 {
                a.write_all(&[round; 500]).unwrap();
                if !send_urgent(&a) {
                    zhaul_untested::skip_this(format_args!(
                        "urgent data on {:?}: refused",
                        kinds.0
                    ));
                    return;
                }
                a.write_all(&[round; 700]).unwrap();
                // Without this it would do to be late by one message.
                b.expect(&[round; 1200]);
            }
            // Nothing but the urgent byte, last of all, and then the end.
            a.write_all(b"end").unwrap();
            send_urgent(&a);
            a.end();
            assert_eq!(b.read_all(), b"end");
            b.end();
            let ending = rest.finish();
            assert!(ending.cause.is_clean(), "{}", ending.cause);
        }
    });
}

#[test]
fn descriptors_sent_along_do_not_hold_up_the_stream() {
    for driver in DRIVERS {
        let mut running = Running::start(driver, (Kind::Unix, Kind::Tcp), Setup::default());
        let file = tempfile::tempfile().unwrap();
        for round in 0..20_u8 {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut along = SendAncillaryBuffer::new(&mut space);
            let fds = [file.as_fd()];
            assert!(along.push(SendAncillaryMessage::ScmRights(&fds)));
            let first = [round; 500];
            let bytes = [IoSlice::new(&first)];
            sendmsg(&running.a, &bytes, &mut along, SendFlags::empty()).unwrap();
            running.a.write_all(&[round; 700]).unwrap();
            running.b.expect(&[round; 1200]);
        }
        running.a.end();
        running.b.end();
        assert!(running.finish().cause.is_clean());
    }
}

#[test]
fn urgent_data_alone_keeps_nobody_busy() {
    for driver in DRIVERS {
        for kind in [Kind::Tcp, Kind::Unix] {
            let running = Running::start(driver, (kind, Kind::Tcp), Setup::default());
            let (mut a, mut b, rest) = running.split();
            if !send_urgent(&a) {
                zhaul_untested::skip_this(format_args!("urgent data on {kind:?}: refused"));
                a.end();
                b.end();
                rest.finish();
                continue;
            }
            std::thread::sleep(Duration::from_millis(100));
            let calls = rest.setup.progress.calls(Way::AToB);
            std::thread::sleep(Duration::from_millis(200));
            let more = rest.setup.progress.calls(Way::AToB) - calls;
            assert!(more <= 3, "{driver:?} {kind:?}: {more} calls");
            a.write_all(b"after").unwrap();
            b.expect(b"after");
            a.end();
            b.end();
            assert!(rest.finish().cause.is_clean());
        }
    }
}
