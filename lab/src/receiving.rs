//! Receiving as mapped pages from a device that splits headers from payload.
//!
//! e1000e does so where packets are larger than 1500 bytes: headers go into a small buffer, payload
//! into pages. Packets of a page of payload then fill those, and that is what can be mapped.

use std::io::Write;
use std::net::Shutdown;
use std::process::Command;

use zhaul::receive::{Copying, Figures, ZeroCopyReceiver};

use crate::data::{PAYLOAD_BYTES, assert_same, payload};
use crate::meter::{assert_copies, copied_by, per_byte};
use crate::wire::{Device, roomy_connection, within};

crate::tests![
    pages_of_a_device_that_splits_headers_are_mapped_and_are_a_slice,
    what_comes_in_packets_of_less_than_a_page_is_copied,
];

/// A page of payload, the headers of IP and TCP, and the timestamp option.
const PAGE_MTU: &str = "4148";

fn pages_of_a_device_that_splits_headers_are_mapped_and_are_a_slice() {
    let figures = receive(PAGE_MTU);
    assert!(figures.mapped > PAYLOAD_BYTES as u64 / 10 * 9, "{figures}");
}

fn what_comes_in_packets_of_less_than_a_page_is_copied() {
    let figures = receive("1500");
    assert_eq!(figures.mapped, 0, "{figures}");
    let mut reasons = figures.because.iter();
    assert!(
        reasons.any(|(why, _)| *why == Copying::NotPages),
        "{figures}"
    );
}

/// Receives the payload over e1000e and compares its bytes; the receiver's figures are held against
/// what the kernel copied.
fn receive(mtu: &str) -> Figures {
    let _packets = Packets::of(mtu);
    let (mut near, far) = roomy_connection(Device::Gather);
    let bytes = payload(PAYLOAD_BYTES);
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || {
        near.write_all(&sent).unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        near
    });
    // Where the peer is is asked in the name space of the socket.
    let mut receiver = within("far", || ZeroCopyReceiver::new(far)).copy_up_to(0);
    let (mut got, mut in_place) = (Vec::with_capacity(PAYLOAD_BYTES), 0);
    let (copied, ()) = copied_by(|| {
        while let Some(view) = receiver.receive().unwrap() {
            let slices = view.slices().expect("a device's pages are nobody else's");
            in_place += slices[0].len() as u64;
            slices.iter().for_each(|slice| got.extend_from_slice(slice));
        }
    });
    drop(sender.join().unwrap());
    assert_same(&got, &bytes);
    let figures = receiver.figures();
    println!("({figures}; {} datagrams reassembled)", reassembled());
    assert_eq!(in_place, figures.mapped);
    assert_eq!(figures.received(), PAYLOAD_BYTES as u64);
    let share = figures.copied as f64 / PAYLOAD_BYTES as f64;
    assert_copies(copied, PAYLOAD_BYTES, per_byte(share, 0.0, 0.0));
    figures.clone()
}

/// The size of the packets of e1000e, as it was before when this is dropped.
struct Packets;

impl Packets {
    /// The device gets no large segments to cut: QEMU 7.2 cuts them into fragments of IP instead of
    /// segments of TCP, and of what the kernel reassembles nothing can be mapped.
    fn of(mtu: &str) -> Self {
        set_link(mtu, "1");
        Self
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        set_link("1500", "65535");
    }
}

fn set_link(mtu: &str, gso_max_segs: &str) {
    for (space, device) in [("near", "near-gather"), ("far", "far-gather")] {
        let set = ["link", "set", "dev", device, "mtu", mtu];
        let status = within(space, || {
            let mut ip = Command::new("ip");
            ip.args(set).args(["gso_max_segs", gso_max_segs]).status()
        });
        assert!(status.unwrap().success(), "ip {set:?}");
    }
}

/// Datagrams that the far end had to put together from fragments, since the guest is up.
fn reassembled() -> u64 {
    let counters = within("far", || {
        std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap()
    });
    let mut ip = counters.lines().filter(|line| line.starts_with("Ip: "));
    let (names, values) = (ip.next().unwrap(), ip.next().unwrap());
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(name, _)| *name == "ReasmOKs").unwrap();
    value.parse().unwrap()
}
