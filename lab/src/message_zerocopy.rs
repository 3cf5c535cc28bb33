//! `send(2)` with MSG_ZEROCOPY: what the completion says on each kind of way, and whether it is
//! true.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use zhaul::Pool;
use zhaul_sys::msg_zerocopy::Sender;

use crate::data::{PAYLOAD_BYTES, assert_same, collect, payload};
use crate::meter::{assert_copies, copied_by, per_byte};
use crate::packets::{HEADERS_BYTES, Seen, watch};
use crate::wire::{Device, datagram_ends, loopback, roomy_connection};

crate::tests![
    over_a_wire_nothing_is_copied_into_the_socket,
    over_a_wire_pages_stay_borrowed_and_the_completion_says_so,
    a_packet_for_a_device_that_cannot_gather_is_completed_as_copied,
    what_is_cut_for_a_device_that_cannot_gather_is_copied_whatever_the_completion_says,
    over_loopback_the_pages_are_copied_and_the_completion_says_so,
    without_the_flag_each_byte_is_copied_once,
    datagrams_over_a_wire_are_not_copied_with_the_flag_and_once_without,
    recycled_buffers_are_overwritten_at_once_and_what_arrives_over_a_wire_is_unchanged,
];

/// What the completions of many sends said.
#[derive(Clone, Copy, Debug, Default)]
struct Completed {
    calls: u32,
    /// Of these, copied after all.
    copied: u32,
}

impl Completed {
    fn add(&mut self, sender: &mut Sender) {
        let reaped = sender.reap().unwrap();
        self.calls += reaped.calls;
        self.copied += reaped.copied_calls;
    }
}

/// Sends the payload from its own pages, so many bytes to a call.
fn send_in_place(near: &TcpStream, bytes: &'static [u8], call_bytes: usize) -> Completed {
    let mut sender = Sender::new(near.as_fd()).unwrap();
    let bytes = Bytes::from_static(bytes);
    let (mut sent, mut calls, mut completed) = (0, 0, Completed::default());
    while sent < bytes.len() {
        let chunk = bytes.slice(sent..bytes.len().min(sent + call_bytes));
        match sender.send(&[chunk], false) {
            Ok(call) => {
                sent += call.bytes;
                calls += 1;
            }
            Err(error) => {
                let full = [Errno::AGAIN, Errno::NOBUFS].map(Errno::raw_os_error);
                assert!(full.contains(&error.raw_os_error().unwrap()), "{error}");
                wait(near, PollFlags::OUT);
            }
        }
        completed.add(&mut sender);
    }
    let began = Instant::now();
    while sender.pending() > 0 {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{completed:?} of {calls} sends"
        );
        wait(near, PollFlags::empty());
        completed.add(&mut sender);
    }
    assert_eq!(completed.calls, calls, "each call is completed once");
    completed
}

/// Waits for room or for something in the error queue, which poll(2) always reports.
fn wait(near: &impl AsFd, flags: PollFlags) {
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    poll(&mut [PollFd::new(near, flags)], Some(&timeout)).unwrap();
}

/// Above the size from which it pays, and several to the socket's buffer.
const CHUNK_BYTES: usize = 64 << 10;

/// With its headers less than an Ethernet frame holds.
const ONE_PACKET_BYTES: usize = 1000;

/// Sends the payload over a connection whose packets go out by `interface`: what the completions
/// said, and what was seen meanwhile.
fn send_over((near, far): (TcpStream, TcpStream), interface: &str) -> (Completed, Seen) {
    let bytes: &'static [u8] = payload(PAYLOAD_BYTES).leak();
    let received = collect(far);
    let (seen, completed) = watch(interface, || send_in_place(&near, bytes, CHUNK_BYTES));
    drop(near);
    assert_same(&received.join().unwrap(), bytes);
    (completed, seen)
}

fn over_a_wire_pages_stay_borrowed_and_the_completion_says_so() {
    for device in Device::gathering() {
        let (completed, seen) = send_over(roomy_connection(device), device.near());
        assert_eq!(completed.copied, 0, "{device:?}");
        assert_eq!(seen.unborrowed, 0, "{device:?}");
        assert!(seen.copied_out < PAYLOAD_BYTES as u64 / 100, "{device:?}");
        let linear = seen.packets.iter().map(|packet| packet.linear()).max();
        assert_eq!(linear, Some(HEADERS_BYTES), "{device:?}");
    }
}

fn over_a_wire_nothing_is_copied_into_the_socket() {
    Device::gathering()
        .into_iter()
        .for_each(nothing_is_copied_over);
}

fn nothing_is_copied_over(device: Device) {
    let bytes: &'static [u8] = payload(PAYLOAD_BYTES).leak();
    let (near, far) = roomy_connection(device);
    let received = collect(far);
    let (copied, _) = copied_by(|| send_in_place(&near, bytes, CHUNK_BYTES));
    drop(near);
    assert_same(&received.join().unwrap(), bytes);
    assert_copies(copied, PAYLOAD_BYTES, per_byte(0.0, 0.0, 0.0));
    assert_eq!(copied.unsized_buffers, 0);
}

fn without_the_flag_each_byte_is_copied_once() {
    for device in Device::gathering() {
        let bytes = payload(PAYLOAD_BYTES);
        let (mut near, far) = roomy_connection(device);
        let received = collect(far);
        let (copied, ()) = copied_by(|| {
            let mut calls = bytes.chunks(CHUNK_BYTES);
            calls.try_for_each(|chunk| near.write_all(chunk)).unwrap();
        });
        drop(near);
        assert_same(&received.join().unwrap(), &bytes);
        assert_copies(copied, PAYLOAD_BYTES, per_byte(0.0, 1.0, 0.0));
    }
}

fn datagrams_over_a_wire_are_not_copied_with_the_flag_and_once_without() {
    for device in Device::gathering() {
        let bytes: &'static [u8] = payload(DATAGRAMS * DATAGRAM_BYTES).leak();
        let (near, far) = datagram_ends(device);
        for is_by_reference in [true, false] {
            let mut sender = is_by_reference.then(|| Sender::new(near.as_fd()).unwrap());
            let (copied, ()) = copied_by(|| {
                for datagram in bytes.chunks(DATAGRAM_BYTES) {
                    let sent = match &mut sender {
                        Some(sender) => send_datagram(sender, datagram),
                        None => near.send(datagram).unwrap(),
                    };
                    assert_eq!(sent, DATAGRAM_BYTES);
                }
            });
            let mut received = vec![0; DATAGRAM_BYTES];
            for datagram in bytes.chunks(DATAGRAM_BYTES) {
                assert_eq!(far.recv(&mut received).unwrap(), DATAGRAM_BYTES);
                assert_same(&received, datagram);
            }
            let once = if is_by_reference { 0.0 } else { 1.0 };
            assert_copies(copied, bytes.len(), per_byte(0.0, once, 0.0));
            if let Some(mut sender) = sender {
                let mut completed = Completed::default();
                while sender.pending() > 0 {
                    wait(&near, PollFlags::empty());
                    completed.add(&mut sender);
                }
                assert_eq!((completed.calls as usize, completed.copied), (DATAGRAMS, 0));
            }
        }
    }
}

/// Waits for room: the first datagrams stay in the socket until the address is resolved.
fn send_datagram(sender: &mut Sender, datagram: &'static [u8]) -> usize {
    loop {
        match sender.send(&[Bytes::from_static(datagram)], false) {
            Ok(sent) => return sent.bytes,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
                wait(&*sender, PollFlags::OUT);
            }
        }
    }
}

/// One Ethernet frame, and few enough for any receive buffer.
const DATAGRAM_BYTES: usize = 1400;
const DATAGRAMS: usize = 40;

/// Over a device the pages of a packet are read until it has left, and again when it has to be sent
/// again.
fn recycled_buffers_are_overwritten_at_once_and_what_arrives_over_a_wire_is_unchanged() {
    for device in Device::ALL {
        let pool = Pool::new(CHUNK_BYTES, 24).unwrap();
        let (near, far) = roomy_connection(device);
        let received = collect(far);
        let mut sender = Sender::new(near.as_fd()).unwrap();
        let bytes = payload(PAYLOAD_BYTES);
        for chunk in bytes.chunks(CHUNK_BYTES) {
            let mut buffer = loop {
                sender.reap().unwrap();
                // What came back is overwritten at once, all of it.
                let mut free: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
                free.iter_mut().for_each(|buffer| buffer.fill(0xee));
                match free.pop() {
                    Some(buffer) => break buffer,
                    None => wait(&near, PollFlags::empty()),
                }
            };
            buffer[..chunk.len()].copy_from_slice(chunk);
            let mut left = Bytes::from(buffer.freeze(chunk.len()));
            while !left.is_empty() {
                match sender.send(&[left.clone()], false) {
                    Ok(sent) => left = left.slice(sent.bytes..),
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
                        wait(&near, PollFlags::OUT);
                    }
                }
                sender.reap().unwrap();
            }
        }
        drop(sender);
        drop(near);
        assert_same(&received.join().unwrap(), &bytes);
        let began = Instant::now();
        while pool.usage().in_use > 0 {
            assert!(began.elapsed() < Duration::from_secs(60), "{device:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Each call waits for the one before, with which it would share a packet and a completion; so each
/// is one packet, which is made linear in front of the device.
fn a_packet_for_a_device_that_cannot_gather_is_completed_as_copied() {
    let (near, far) = roomy_connection(Device::Plain);
    let bytes: &'static [u8] = payload(32 * ONE_PACKET_BYTES).leak();
    let received = collect(far);
    let (seen, completed) = watch(Device::Plain.near(), || {
        let packets = bytes.chunks(ONE_PACKET_BYTES);
        let sent = packets.map(|packet| send_in_place(&near, packet, ONE_PACKET_BYTES));
        sent.collect::<Vec<_>>()
    });
    drop(near);
    assert_same(&received.join().unwrap(), bytes);
    let copied = |completed: &Completed| (completed.calls, completed.copied) == (1, 1);
    assert!(completed.iter().all(copied), "{completed:?}");
    assert!(seen.packets.iter().all(|packet| packet.data_len == 0));
}

/// What is longer than a packet is cut by the kernel, which copies; but when the last of the pieces
/// is made the pages are given back as if the device had taken them. Only what happens to go out as
/// a single packet says copied, and how much that is depends on the moment.
fn what_is_cut_for_a_device_that_cannot_gather_is_copied_whatever_the_completion_says() {
    let (_, seen) = send_over(roomy_connection(Device::Plain), Device::Plain.near());
    assert!(seen.bytes() >= PAYLOAD_BYTES as u64, "all of it was seen");
    assert!(seen.packets.iter().all(|packet| packet.data_len == 0));
}

fn over_loopback_the_pages_are_copied_and_the_completion_says_so() {
    let (completed, seen) = send_over(loopback(), "lo");
    assert_eq!(completed.copied, completed.calls);
    assert!(seen.unborrowed > 0, "skb_copy_ubufs was seen");
}
