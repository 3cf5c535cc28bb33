//! `send(2)` with MSG_ZEROCOPY: what the completion says on each kind of way, and whether it is
//! true.

use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use zhaul_sys::msg_zerocopy::{completion, enable, send_static};

use crate::data::{PAYLOAD_BYTES, assert_same, collect, payload};
use crate::meter::{assert_copies, copied_by, per_byte};
use crate::packets::{HEADERS_BYTES, Seen, watch};
use crate::wire::{Device, connection, loopback};

crate::tests![
    over_a_wire_nothing_is_copied_into_the_socket,
    over_a_wire_pages_stay_borrowed_and_the_completion_says_so,
    a_device_that_cannot_gather_makes_the_completion_say_copied,
    over_loopback_the_pages_are_copied_and_the_completion_says_so,
];

/// Sends the payload from its own pages. True if any completion says that it was copied after all.
fn send_in_place(near: &TcpStream, bytes: &'static [u8]) -> bool {
    let socket = near.as_fd();
    enable(socket).unwrap();
    let (mut sent, mut calls, mut completed, mut copied) = (0, 0, 0, false);
    let mut reap = |completed: &mut u32| {
        while let Some(done) = completion(socket).unwrap() {
            *completed += done.last.wrapping_sub(done.first) + 1;
            copied |= done.copied;
        }
    };
    while sent < bytes.len() {
        let chunk = &bytes[sent..bytes.len().min(sent + CHUNK_BYTES)];
        match send_static(socket, chunk) {
            Ok(taken) => {
                sent += taken;
                calls += 1;
            }
            Err(error) => {
                let full = [Errno::AGAIN, Errno::NOBUFS].map(Errno::raw_os_error);
                assert!(full.contains(&error.raw_os_error().unwrap()), "{error}");
                wait(near, PollFlags::OUT);
            }
        }
        reap(&mut completed);
    }
    let began = Instant::now();
    while completed < calls {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{completed} of {calls} sends were completed"
        );
        wait(near, PollFlags::empty());
        reap(&mut completed);
    }
    assert_eq!(completed, calls, "each call is completed once");
    copied
}

/// Waits for room or for something in the error queue, which poll(2) always reports.
fn wait(near: &TcpStream, flags: PollFlags) {
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    poll(&mut [PollFd::new(near, flags)], Some(&timeout)).unwrap();
}

/// Above the size from which it pays, and several to the socket's buffer.
const CHUNK_BYTES: usize = 64 << 10;

/// Sends the payload over a connection whose packets go out by `interface`: whether a completion
/// said copied, and what was seen meanwhile.
fn send_over((near, far): (TcpStream, TcpStream), interface: &str) -> (bool, Seen) {
    let bytes: &'static [u8] = payload(PAYLOAD_BYTES).leak();
    let received = collect(far);
    let (seen, copied) = watch(interface, || send_in_place(&near, bytes));
    drop(near);
    assert_same(&received.join().unwrap(), bytes);
    (copied, seen)
}

fn over_a_wire_pages_stay_borrowed_and_the_completion_says_so() {
    for device in Device::gathering() {
        let (copied, seen) = send_over(connection(device), device.near());
        assert!(!copied, "{device:?}");
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
    let (near, far) = connection(device);
    let received = collect(far);
    let (copied, _) = copied_by(|| send_in_place(&near, bytes));
    drop(near);
    assert_same(&received.join().unwrap(), bytes);
    assert_copies(copied, PAYLOAD_BYTES, per_byte(0.0, 0.0, 0.0));
    assert_eq!(copied.unsized_buffers, 0);
}

fn a_device_that_cannot_gather_makes_the_completion_say_copied() {
    let (copied, seen) = send_over(connection(Device::Plain), Device::Plain.near());
    assert!(copied);
    assert!(seen.packets.iter().all(|packet| packet.data_len == 0));
}

fn over_loopback_the_pages_are_copied_and_the_completion_says_so() {
    let (copied, seen) = send_over(loopback(), "lo");
    assert!(copied);
    assert!(seen.unborrowed > 0, "skb_copy_ubufs was seen");
}
