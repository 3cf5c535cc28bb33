//! Files sent in place under a lease, across a wire: what the library's own tests can only do with
//! a stand-in for the network.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use zhaul::{Cause, InPlaceEnd, Lease, Progress, Route, Stability};

use crate::data::{TestFile, assert_same, payload};
use crate::wire::{Device, connection, loopback, within};

crate::tests![
    pages_end_at_the_acknowledgement_across_a_wire_only,
    acknowledged_bytes_are_out_of_an_editors_reach,
    on_loopback_an_editor_reaches_acknowledged_bytes,
    an_editor_waits_until_everything_in_flight_is_acknowledged,
];

fn pages_end_at_the_acknowledgement_across_a_wire_only() {
    for device in Device::ALL {
        let (near, far) = connection(device);
        for (space, socket) in [("near", &near), ("far", &far)] {
            let end = within(space, || zhaul::peer::in_place_end(socket));
            assert_eq!(end, InPlaceEnd::Acknowledged, "{device:?} {space}");
        }
    }
    assert_eq!(zhaul::peer::in_place_end(loopback().0), InPlaceEnd::Never);
}

/// Small enough for the receiver's buffer: acknowledged without being read.
const SMALL_BYTES: usize = 24_000;

fn overwrite(file: &TestFile, len: usize) {
    file.open_to_write().write_all(&vec![b'!'; len]).unwrap();
}

fn acknowledged_bytes_are_out_of_an_editors_reach() {
    for device in Device::ALL {
        let bytes = payload(SMALL_BYTES);
        let file = TestFile::with("leased", &bytes);
        let (near, mut far) = connection(device);
        let source = file.open();
        let lease = Lease::acquire(&source).unwrap();
        let summary = within("near", || {
            zhaul::transfer(&source, &near).lease(&lease).run().unwrap()
        });
        assert_eq!(summary.route, Route::Sendfile);
        // Done means acknowledged, so the editor may come, though nothing was read yet.
        drop(lease);
        overwrite(&file, SMALL_BYTES);
        drop(near);
        let mut received = Vec::new();
        far.read_to_end(&mut received).unwrap();
        assert_same(&received, &bytes);
    }
}

/// Shows that the test before can fail: the same without a wire puts the edit into the answer.
fn on_loopback_an_editor_reaches_acknowledged_bytes() {
    let bytes = payload(SMALL_BYTES);
    let file = TestFile::with("edited", &bytes);
    let (near, mut far) = loopback();
    let source = file.open();
    let sendfile = zhaul::transfer(&source, &near)
        .stability(Stability::Immutable)
        .only(Route::Sendfile);
    sendfile.run().unwrap();
    while zhaul_sys::siocoutq::unacknowledged(std::os::fd::AsFd::as_fd(&near)).unwrap() > 0 {
        std::thread::yield_now();
    }
    overwrite(&file, SMALL_BYTES);
    drop(near);
    let mut received = Vec::new();
    far.read_to_end(&mut received).unwrap();
    assert!(received != bytes, "the kernel has learnt to copy on write");
}

fn an_editor_waits_until_everything_in_flight_is_acknowledged() {
    for device in Device::ALL {
        let bytes = payload(16 << 20);
        let file = TestFile::with("leased", &bytes);
        let (near, far) = connection(device);
        near.set_nonblocking(true).unwrap();
        editor_waits(&file, &bytes, near, far);
    }
}

fn editor_waits(file: &TestFile, bytes: &[u8], near: TcpStream, mut far: TcpStream) {
    let source = file.open();
    let lease = Arc::new(Lease::acquire(&source).unwrap());
    let (entered, progress) = (AtomicBool::new(false), Progress::new());
    let received = std::thread::scope(|scope| {
        let (held, source, near, progress) = (Arc::clone(&lease), &source, &near, &progress);
        let sending = scope.spawn(move || {
            within("near", || {
                let transfer = zhaul::transfer(source, near).lease(&held);
                transfer.progress(progress).run()
            })
        });
        // The receiver reads nothing, so more is queued than it can acknowledge.
        wait_until(|| progress.moved() > 0);
        settle(progress);
        let editor = scope.spawn(|| {
            overwrite(file, bytes.len());
            entered.store(true, Ordering::SeqCst);
        });
        wait_until(|| lease.is_broken());
        std::thread::sleep(Duration::from_millis(300));
        assert!(!sending.is_finished() && !entered.load(Ordering::SeqCst));
        let moved = progress.moved();
        let mut received = vec![0; usize::try_from(moved).unwrap()];
        far.read_exact(&mut received).unwrap();
        let error = sending.join().unwrap().unwrap_err();
        assert_eq!(error.cause, Cause::LeaseBroken);
        assert_eq!(error.summary.route, Route::Sendfile);
        assert!(!error.in_flight);
        assert_eq!(
            error.moved(),
            moved,
            "nothing is queued for an editor's file"
        );
        assert!(!entered.load(Ordering::SeqCst), "the lease is still held");
        drop(lease);
        editor.join().unwrap();
        received
    });
    assert_same(&received, &bytes[..received.len()]);
    assert!(received.len() < bytes.len(), "all was sent before the edit");
    drop(near);
    assert_eq!(far.read(&mut [0]).unwrap(), 0, "and nothing after it");
}

/// Waits until no more is queued, because both ends' buffers are full.
fn settle(progress: &Progress) {
    let (mut before, mut quiet) = (0, 0);
    wait_until(|| {
        std::thread::sleep(Duration::from_millis(200));
        let now = progress.moved();
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
        // On a busy host a sender may go without its turn for a while.
        quiet == 5
    });
}

fn wait_until(mut is_true: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(began.elapsed() < Duration::from_secs(30), "waited 30 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}
