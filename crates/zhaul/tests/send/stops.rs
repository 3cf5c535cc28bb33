//! What ends a sending before its end.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use zhaul::{Aggregate, CancelToken, Cause, FileRange, Progress, Stability};

use crate::common::{TestFile, lease, pattern, wait_until};
use crate::{reading, tcp_pair};

/// More than any socket takes.
const MUCH: usize = 32 << 20;

#[test]
fn a_peer_that_resets_is_a_disconnect_after_so_many_bytes() {
    let (near, mut far) = tcp_pair();
    let sender = std::thread::spawn(move || zhaul::send(pattern(MUCH), &near).run());
    far.read_exact(&mut [0; 1000]).unwrap();
    // With bytes unread, closing is a reset.
    drop(far);
    let error = sender.join().unwrap().unwrap_err();
    assert!(error.is_disconnect() && error.errno().is_some(), "{error}");
    assert!((1000..MUCH as u64).contains(&error.moved()));
    let errno = error.errno().unwrap();
    assert_eq!(
        std::io::Error::from(error).raw_os_error(),
        Some(errno.raw())
    );
}

#[test]
fn a_token_and_a_deadline_end_it_while_it_waits_and_every_byte_is_accounted_for() {
    for by_token in [true, false] {
        let (near, mut far) = tcp_pair();
        let token = CancelToken::new();
        let progress = Arc::new(Progress::new());
        let mut builder = zhaul::send(pattern(MUCH), near).progress(Arc::clone(&progress));
        if by_token {
            builder = builder.cancel(&token);
        } else {
            builder = builder.deadline(Duration::from_millis(50));
        }
        let sender = std::thread::spawn(move || builder.run());
        if by_token {
            wait_until("something is sent", || progress.moved() > 0);
            token.cancel();
        }
        let error = sender.join().unwrap().unwrap_err();
        let expected = if by_token {
            Cause::Cancelled
        } else {
            Cause::DeadlineExceeded
        };
        assert_eq!(error.cause, expected);
        let mut received = Vec::new();
        far.read_to_end(&mut received).unwrap();
        assert_eq!(received.len() as u64, error.moved());
        assert!(received[..] == pattern(MUCH)[..received.len()]);
    }
}

#[test]
fn a_file_cut_while_it_is_sent_is_an_error_and_no_byte_is_made_up() {
    for stability in [Stability::Immutable, Stability::MayChange] {
        let content = pattern(MUCH);
        let file = TestFile::with(&content);
        let mut aggregate = Aggregate::from("head");
        let range = FileRange::whole(file.open()).unwrap().stability(stability);
        aggregate.push(range);
        aggregate.push("tail");
        let (near, mut far) = UnixStream::pair().unwrap();
        let progress = Arc::new(Progress::new());
        let builder = zhaul::send(aggregate, near).progress(Arc::clone(&progress));
        let sender = std::thread::spawn(move || builder.run());
        let mut start = vec![0; 4 + 100_000];
        far.read_exact(&mut start).unwrap();
        let writer = std::fs::File::options().write(true).open(file.path());
        writer.unwrap().set_len(200_000).unwrap();
        let reader = reading(far);
        let error = sender.join().unwrap().unwrap_err();
        assert_eq!(error.cause, Cause::Truncated { size: 200_000 });
        start.extend(reader.join().unwrap());
        assert_eq!(start.len() as u64, error.moved());
        // What was queued in place may show the cut, as is told of Immutable.
        let sure = if stability == Stability::Immutable {
            100_000
        } else {
            start.len() - 4
        };
        assert!(start[4..4 + sure] == content[..sure]);
    }
}

#[test]
fn somebody_who_wants_to_write_to_a_leased_file_ends_it() {
    let file = TestFile::with(&pattern(MUCH));
    let held = lease(file.open());
    let range = FileRange::whole(file.open()).unwrap().lease(Arc::new(held));
    let (near, far) = tcp_pair();
    let progress = Arc::new(Progress::new());
    let builder = zhaul::send(range, near).progress(Arc::clone(&progress));
    let sender = std::thread::spawn(move || builder.run());
    wait_until("something is sent", || progress.moved() > 0);
    let path = file.path().to_owned();
    let editor = std::thread::spawn(move || std::fs::File::options().write(true).open(path));
    let error = sender.join().unwrap().unwrap_err();
    assert_eq!(error.cause, Cause::LeaseBroken);
    assert!(error.moved() > 0 && error.moved() < MUCH as u64);
    drop(error);
    editor.join().unwrap().unwrap();
    drop(far);
}

#[test]
fn a_lease_on_another_file_is_none() {
    let (one, other) = (TestFile::with(b"one"), TestFile::with(b"other"));
    let held = lease(other.open());
    let range = FileRange::whole(one.open()).unwrap().lease(Arc::new(held));
    let (near, _far) = tcp_pair();
    let error = zhaul::send(range, &near).run().unwrap_err();
    let refusal = zhaul::Refusal::LeaseOnAnotherFile;
    assert_eq!(error.cause, Cause::Refused { refusal });
}
