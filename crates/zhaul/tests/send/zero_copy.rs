//! Memory by reference. On loopback the kernel copies when it delivers, and says so.

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

#[cfg(feature = "tokio")]
use zhaul::Pool;
use zhaul::send::{Advance, SendState, TurnTerms, ZeroCopySender};
use zhaul::{Aggregate, Ask, Errno, Operation, Why, ZeroCopy};

use crate::common::pattern;
#[cfg(feature = "tokio")]
use crate::common::wait_until;
use crate::{reading, tcp_pair};

/// Without the option nothing goes by reference.
fn is_supported(test: &str, socket: &TcpStream) -> bool {
    match ZeroCopySender::new(socket, ZeroCopy::Always) {
        Ok(_) => true,
        Err(error) => {
            zhaul_untested::skip(test, error);
            false
        }
    }
}

fn mixed() -> (Aggregate, Vec<u8>) {
    let (large, more) = (pattern(3_000_000), pattern(200_000));
    let mut aggregate = Aggregate::from("head");
    aggregate.push(large.clone());
    aggregate.push("between");
    aggregate.push(more.clone());
    let bytes = [b"head", &large[..], b"between", &more].concat();
    (aggregate, bytes)
}

#[test]
fn large_pieces_go_by_reference_and_all_is_released_in_the_end() {
    let (near, far) = tcp_pair();
    if !is_supported(
        "large_pieces_go_by_reference_and_all_is_released_in_the_end",
        &near,
    ) {
        return;
    }
    let reader = reading(far);
    let (aggregate, bytes) = mixed();
    let builder = zhaul::send(aggregate, &near).zero_copy(ZeroCopy::Always);
    let summary = builder.run().unwrap();
    drop(near);
    assert!(reader.join().unwrap() == bytes);
    assert_eq!(
        (summary.moved, summary.released),
        (bytes.len() as u64, summary.moved)
    );
    assert!(summary.by_reference >= 3_000_000);
    assert_eq!(
        summary.copied_after_all, summary.by_reference,
        "this is loopback"
    );
}

#[test]
fn a_connection_where_the_kernel_copies_is_not_asked_again_at_once() {
    let (near, far) = tcp_pair();
    if !is_supported(
        "a_connection_where_the_kernel_copies_is_not_asked_again_at_once",
        &near,
    ) {
        return;
    }
    let reader = reading(far);
    let mut sender = ZeroCopySender::new(&near, ZeroCopy::Auto).unwrap();
    let piece = pattern(100_000);
    let mut send = || {
        let builder = zhaul::send(piece.clone(), &near).zero_copy_sender(&mut sender);
        builder.run().unwrap()
    };
    let (first, second) = (send(), send());
    assert_eq!(
        (first.by_reference, first.copied_after_all),
        (100_000, 100_000)
    );
    assert_eq!(first.changes[0].why, Why::CopiedAfterAll);
    assert_eq!((second.by_reference, second.calls), (0, 1));
    drop((near, sender));
    assert!(reader.join().unwrap() == piece.repeat(2));
}

#[test]
fn where_it_cannot_be_memory_is_copied_and_the_reason_told() {
    let (near, far) = UnixStream::pair().unwrap();
    let reader = reading(far);
    let (aggregate, bytes) = mixed();
    let builder = zhaul::send(aggregate, &near).zero_copy(ZeroCopy::Auto);
    let summary = builder.run().unwrap();
    drop(near);
    assert!(reader.join().unwrap() == bytes);
    let refused = |errno| Why::Refused {
        operation: Operation::SendZeroCopy,
        errno,
    };
    assert_eq!(summary.changes[0].why, refused(Errno::EOPNOTSUPP));
    assert_eq!((summary.changes.len(), summary.by_reference), (1, 0));

    let (near, far) = tcp_pair();
    let reader = reading(far);
    if let Ok(_somebody_else) = ZeroCopySender::new(&near, ZeroCopy::Auto) {
        let builder = zhaul::send("x".repeat(50_000), &near).zero_copy(ZeroCopy::Auto);
        let summary = builder.run().unwrap();
        assert_eq!(summary.changes[0].why, refused(Errno::EBUSY));
    }
    drop(near);
    let _ = reader.join().unwrap();
}

#[test]
fn turns_send_by_reference_and_wait_for_the_release() {
    let (near, mut far) = tcp_pair();
    if !is_supported("turns_send_by_reference_and_wait_for_the_release", &near) {
        return;
    }
    near.set_nonblocking(true).unwrap();
    let mut sender = ZeroCopySender::new(&near, ZeroCopy::Always).unwrap();
    let (aggregate, bytes) = mixed();
    let mut state = SendState::with(aggregate, &Ask::default());
    let mut received = Vec::new();
    let mut buffer = vec![0; 50_000];
    let summary = loop {
        let turn = state.turn_by_reference(&near, TurnTerms::default(), &mut sender);
        match turn.unwrap() {
            Advance::Done(summary) => break summary,
            Advance::Again => {}
            Advance::Blocked if received.len() < bytes.len() => {
                let read = far.read(&mut buffer).unwrap();
                received.extend_from_slice(&buffer[..read]);
            }
            Advance::Blocked => std::thread::yield_now(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        (summary.released, sender.pending()),
        (bytes.len() as u64, 0)
    );
    let mut rest = vec![0; bytes.len() - received.len()];
    far.read_exact(&mut rest).unwrap();
    received.extend(rest);
    assert!(received == bytes);
}

/// The bytes would go to the other connection.
#[test]
fn a_sender_of_another_connection_is_not_used() {
    let ((near, far), (other, _other_far)) = (tcp_pair(), tcp_pair());
    if !is_supported("a_sender_of_another_connection_is_not_used", &near) {
        return;
    }
    let mut sender = ZeroCopySender::new(&other, ZeroCopy::Always).unwrap();
    let reader = reading(far);
    let (aggregate, bytes) = mixed();
    let builder = zhaul::send(aggregate, &near).zero_copy_sender(&mut sender);
    let summary = builder.run().unwrap();
    drop(near);
    assert!(reader.join().unwrap() == bytes);
    assert_eq!((summary.by_reference, sender.pending()), (0, 0));
    assert!(!summary.changes.is_empty());
}

/// Whoever gives up sending has the memory kept until the kernel has let go of it.
#[cfg(feature = "tokio")]
#[tokio::test]
async fn memory_of_a_future_that_was_dropped_is_not_used_again_before_it_is_released() {
    const BYTES: usize = 16 << 20;
    let (near, far) = tcp_pair();
    let name = "memory_of_a_future_that_was_dropped_is_not_used_again_before_it_is_released";
    if !is_supported(name, &near) {
        return;
    }
    let pool = Pool::new(BYTES, 1).unwrap();
    let mut buffer = pool.allocate().unwrap();
    let content = pattern(BYTES);
    buffer.copy_from_slice(&content);
    let builder = zhaul::send(buffer.freeze(BYTES), &near).zero_copy(ZeroCopy::Always);
    let soon = std::time::Duration::from_millis(50);
    let dropped = tokio::time::timeout(soon, builder.run_async()).await;
    assert!(dropped.is_err(), "nobody reads");
    assert!(pool.allocate().is_none(), "the kernel may still read it");
    drop(near);
    let received = reading(far).join().unwrap();
    assert!(!received.is_empty() && received[..] == content[..received.len()]);
    wait_until("the slot is free again", || pool.allocate().is_some());
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn tasks_send_by_reference_past_slow_readers() {
    use tokio::io::AsyncReadExt;

    let (near, far) = tcp_pair();
    if !is_supported("tasks_send_by_reference_past_slow_readers", &near) {
        return;
    }
    far.set_nonblocking(true).unwrap();
    let mut far = tokio::net::TcpStream::from_std(far).unwrap();
    let (aggregate, bytes) = mixed();
    let sending = async {
        let builder = zhaul::send(aggregate, &near).zero_copy(ZeroCopy::Always);
        let summary = builder.await.unwrap();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        summary
    };
    let receiving = async {
        let (mut received, mut buffer) = (Vec::new(), vec![0; 30_000]);
        loop {
            match far.read(&mut buffer).await.unwrap() {
                0 => return received,
                read => received.extend_from_slice(&buffer[..read]),
            }
            tokio::task::yield_now().await;
        }
    };
    let (summary, received) = tokio::join!(sending, receiving);
    assert!(received == bytes);
    assert_eq!(
        (summary.released, summary.taken),
        (summary.moved, summary.moved)
    );
    assert_eq!(summary.copied_after_all, summary.by_reference);
}
