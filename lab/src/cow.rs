//! A region that is written to while its pages are in the sockets' queues: zero-copy sends over
//! devices that take the pages themselves. On loopback the kernel copies them.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zhaul::CowRegion;
use zhaul::cow::How;
use zhaul_sys::msg_zerocopy::{Reaped, Sender};

use crate::data::{assert_same, payload};
use crate::wire::{Device, connection};

crate::tests![
    pages_in_flight_stay_as_they_were_while_the_region_is_written,
    the_region_takes_its_pages_back_after_the_last_completion_only,
];

/// More than the queues of both sockets hold while nobody reads.
const REGION_BYTES: usize = 4 << 20;

fn region(bytes: &[u8]) -> CowRegion {
    let builder = CowRegion::builder(bytes.len()).copy_above(1.0);
    let mut region = builder.build().unwrap();
    region.copy_from_slice(bytes);
    region
}

/// Sends from the pages themselves until the queue is full: how many bytes it took.
fn fill_queue(sender: &mut Sender, bytes: &Bytes) -> usize {
    let mut sent = 0;
    while sent < bytes.len() {
        match sender.send(&[bytes.slice(sent..)], false) {
            Ok(call) => sent += call.bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

/// Reads what was sent, and waits until nothing is in flight.
fn receive(mut far: &TcpStream, sender: &mut Sender, bytes: usize) -> (Vec<u8>, Reaped) {
    let mut received = vec![0; bytes];
    far.read_exact(&mut received).unwrap();
    let mut all = Reaped::default();
    let began = Instant::now();
    while sender.pending() > 0 {
        assert!(began.elapsed() < Duration::from_secs(60));
        let moment = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        let socket = sender.as_fd();
        poll(
            &mut [PollFd::new(&socket, PollFlags::empty())],
            Some(&moment),
        )
        .unwrap();
        let reaped = sender.reap().unwrap();
        all.calls += reaped.calls;
        all.copied_calls += reaped.copied_calls;
    }
    (received, all)
}

fn pages_in_flight_stay_as_they_were_while_the_region_is_written() {
    for device in Device::gathering() {
        let before = payload(REGION_BYTES);
        let mut region = region(&before);
        let (near, far) = connection(device);
        let mut sender = Sender::new(near.as_fd()).unwrap();
        let snapshot = region.snapshot().unwrap();
        assert_eq!(
            (snapshot.how(), snapshot.copied_bytes()),
            (How::CopyOnWrite, 0)
        );
        let sent = fill_queue(&mut sender, &Bytes::from(snapshot));
        assert!(sender.pending() > 0, "{device:?}: nothing is in flight");
        region.fill(b'!');
        // One beside it, of pages that the region had copied.
        let beside = region.snapshot().unwrap();
        region.fill(b'?');
        let (received, reaped) = receive(&far, &mut sender, sent);
        assert_same(&received, &before[..sent]);
        assert_eq!(
            reaped.copied_calls, 0,
            "{device:?}: of {} calls",
            reaped.calls
        );
        let sent = fill_queue(&mut sender, &Bytes::from(beside));
        region.fill(b'.');
        let (received, _) = receive(&far, &mut sender, sent);
        assert_same(&received, &vec![b'!'; sent]);
        assert!(region.iter().all(|&byte| byte == b'.'));
    }
}

fn the_region_takes_its_pages_back_after_the_last_completion_only() {
    for device in Device::gathering() {
        let before = payload(REGION_BYTES);
        let mut region = region(&before);
        let (near, far) = connection(device);
        let mut sender = Sender::new(near.as_fd()).unwrap();
        let snapshot = Bytes::from(region.snapshot().unwrap());
        let sent = fill_queue(&mut sender, &snapshot);
        // The sender has the last references; each access would take the pages back, if it could.
        drop(snapshot);
        region.fill(b'!');
        region.fill(b'?');
        assert_eq!(region.usage().written_bytes, 0, "{device:?}");
        let (received, _) = receive(&far, &mut sender, sent);
        assert_same(&received, &before[..sent]);
        region.fill(b'.');
        assert_eq!(
            region.usage().written_bytes,
            REGION_BYTES as u64,
            "{device:?}"
        );
        let snapshot = region.snapshot().unwrap();
        assert!(snapshot.iter().all(|&byte| byte == b'.'));
    }
}
