//! Whether packets handed to a device hold the payload or refer to it.
//!
//! That a packet's payload lies in page fragments proves nothing by itself: `write(2)` copies into
//! pages that TCP then sends as fragments, too. Zero-copy is both together: fragments, and no copy,
//! which [`crate::copies`] counts over the same devices.

use zhaul::{Route, Stability};

use crate::data::{PAYLOAD_BYTES, TestFile, assert_same, collect, payload};
use crate::packets::{HEADERS_BYTES, Seen, watch};
use crate::wire::{Device, roomy_connection};

crate::tests![
    sendfile_hands_the_device_headers_and_fragments,
    read_write_hands_the_device_fragments_as_well,
    a_device_that_cannot_gather_gets_whole_packets,
];

/// Sends the payload over the device and returns what was handed to it.
fn packets_over(device: Device, route: Route) -> Seen {
    let (seen, ()) = watch(device.near(), || send_over(device, route));
    assert!(seen.bytes() >= PAYLOAD_BYTES as u64, "all of it was seen");
    seen
}

fn send_over(device: Device, route: Route) {
    let bytes = payload(PAYLOAD_BYTES);
    let file = TestFile::with("source", &bytes);
    let (near, far) = roomy_connection(device);
    let received = collect(far);
    let transfer = zhaul::transfer(file.open(), &near)
        .stability(Stability::Immutable)
        .only(route);
    transfer.run().unwrap();
    drop(near);
    assert_same(&received.join().unwrap(), &bytes);
}

/// Each packet's linear part is no longer than its headers, and nothing was copied out of packets
/// but headers.
fn assert_gathered(seen: &Seen, device: Device) {
    let longest = seen.packets.iter().map(|packet| packet.linear()).max();
    assert_eq!(longest, Some(HEADERS_BYTES), "{device:?}");
    assert!(
        seen.copied_out < PAYLOAD_BYTES as u64 / 100 && seen.unborrowed == 0,
        "{device:?}: {} bytes and {} packets were copied",
        seen.copied_out,
        seen.unborrowed
    );
}

fn sendfile_hands_the_device_headers_and_fragments() {
    for device in Device::gathering() {
        assert_gathered(&packets_over(device, Route::Sendfile), device);
    }
}

fn read_write_hands_the_device_fragments_as_well() {
    for device in Device::gathering() {
        assert_gathered(&packets_over(device, Route::ReadWrite), device);
    }
}

/// The folklore's "sendfile without gather copies once": TCP still queues pages by reference, and
/// the copy is made where large segments are cut into packets, in front of the device.
fn a_device_that_cannot_gather_gets_whole_packets() {
    assert!(!Device::Plain.gathers());
    let seen = packets_over(Device::Plain, Route::Sendfile);
    assert!(seen.packets.iter().all(|packet| packet.data_len == 0));
}
