//! Memory that goes by reference: completions in any order, copies after all, means that run out.

use zhaul_core::outbound::{Outbound, ZeroCopy, ZeroCopyPolicy};
use zhaul_core::{Ask, Errno, Operation, Stability, Why};

use crate::common::{Mood, pattern};
use crate::{Kernel, Segment};

const MIN: u64 = 1000;

fn adaptive() -> Outbound {
    Outbound::new(&Ask::default(), ZeroCopyPolicy::new(ZeroCopy::Auto, MIN))
}

fn large(pieces: usize) -> Vec<Segment> {
    vec![Segment::memory(&pattern(5000)); pieces]
}

#[test]
fn small_memory_is_copied_and_large_memory_goes_by_reference() {
    let mut segments = vec![Segment::memory(b"head")];
    segments.extend(large(1));
    segments.push(Segment::memory(b"tail"));
    let mut kernel = Kernel::new(segments);
    let summary = kernel.run(&mut adaptive()).unwrap();
    assert!(kernel.sink == kernel.all());
    let how: Vec<_> = kernel
        .sends
        .iter()
        .map(|gather| (gather.zero_copy, gather.more))
        .collect();
    assert_eq!(how, [(false, true), (true, true), (false, false)]);
    assert_eq!((summary.by_reference, summary.copied_after_all), (5000, 0));
    assert!(summary.changes.is_empty());
}

#[test]
fn several_are_in_flight_and_complete_in_any_order() {
    let mut kernel = Kernel::new(large(4));
    // Nothing completes before the last was sent; then the later ones first.
    kernel.completes = Box::new(|call| match call {
        3 => vec![(2, 3, false), (0, 1, false)],
        _ => vec![],
    });
    let mut outbound = adaptive();
    let summary = kernel.run(&mut outbound).unwrap();
    assert!(kernel.sink == kernel.all());
    assert_eq!((summary.moved, summary.released), (20_000, 20_000));
}

#[test]
fn what_is_released_never_overtakes_what_the_kernel_may_read() {
    let mut kernel = Kernel::new(large(3));
    kernel.completes = Box::new(|_| vec![]);
    let ask = Ask {
        await_release: false,
        ..Ask::default()
    };
    let mut outbound = Outbound::new(&ask, ZeroCopyPolicy::new(ZeroCopy::Auto, MIN));
    let summary = kernel.run(&mut outbound).unwrap();
    assert_eq!((summary.moved, summary.released), (15_000, 0));
    outbound.completed(1, 2, false);
    assert_eq!(outbound.released(), 0, "the first is still read");
    outbound.completed(0, 0, false);
    assert_eq!(outbound.released(), 15_000);
}

#[test]
fn a_partial_send_has_a_number_of_its_own() {
    let mut kernel = Kernel::new(large(1)).with_mood(|_| Mood::Short(1500));
    kernel.next_call = u32::MAX - 1;
    let summary = kernel.run(&mut adaptive()).unwrap();
    assert!(kernel.sink == kernel.all());
    // Three of 1,500 by reference, numbered across the wrap; the last 500 are too few.
    assert_eq!((summary.by_reference, summary.calls), (4500, 4));
    assert_eq!(kernel.next_call, 1);
}

#[test]
fn where_the_kernel_copies_after_all_it_is_not_asked_for_a_while() {
    let mut kernel = Kernel::new(large(1));
    kernel.completes = Box::new(|call| vec![(call, call, true)]);
    let mut outbound = adaptive();
    let summary = kernel.run(&mut outbound).unwrap();
    assert_eq!(
        (summary.by_reference, summary.copied_after_all),
        (5000, 5000)
    );
    assert_eq!(summary.changes[0].why, Why::CopiedAfterAll);
    // The next aggregate on this socket.
    let mut next = Outbound::new(&Ask::default(), outbound.policy());
    let mut kernel = Kernel::new(large(3));
    let summary = kernel.run(&mut next).unwrap();
    assert_eq!((summary.by_reference, summary.calls), (0, 1));
    assert!(!next.policy().wants(1 << 20));
    // Some megabytes later it is.
    let mut later = Outbound::new(&Ask::default(), next.policy());
    Kernel::new(vec![Segment::memory(&pattern(9 << 20))])
        .run(&mut later)
        .unwrap();
    assert!(later.policy().wants(MIN));
}

#[test]
fn who_wants_it_always_is_told_and_asks_again() {
    let mut kernel = Kernel::new(large(2));
    kernel.completes = Box::new(|call| vec![(call, call, true)]);
    let always = ZeroCopyPolicy::new(ZeroCopy::Always, MIN);
    let mut outbound = Outbound::new(&Ask::default(), always);
    let summary = kernel.run(&mut outbound).unwrap();
    assert_eq!(
        (summary.by_reference, summary.copied_after_all),
        (10_000, 10_000)
    );
    assert!(summary.changes.is_empty());
    assert!(outbound.policy().wants(1));
}

#[test]
fn without_means_what_is_done_is_reaped_and_the_piece_is_copied() {
    for (errno, reaps) in [
        (Errno::ENOBUFS, 1),
        (Errno::EOPNOTSUPP, 0),
        (Errno::EFAULT, 0),
    ] {
        let mut kernel = Kernel::new(large(2)).with_mood(move |gather| {
            if gather.zero_copy {
                Mood::Fails(errno)
            } else {
                Mood::Full
            }
        });
        let summary = kernel.run(&mut adaptive()).unwrap();
        assert!(kernel.sink == kernel.all());
        assert_eq!(kernel.reaps, reaps, "{errno}");
        assert_eq!(summary.by_reference, 0);
        let operation = Operation::SendZeroCopy;
        assert_eq!(summary.changes[0].why, Why::Refused { operation, errno });
        assert_eq!(summary.changes.len(), 1, "told once");
    }
}

#[test]
fn an_error_that_a_copy_would_not_mend_is_one() {
    let mut kernel = Kernel::new(large(1)).with_mood(|_| Mood::Fails(Errno::EPIPE));
    let error = kernel.run(&mut adaptive()).unwrap_err();
    assert_eq!((error.errno(), error.moved()), (Some(Errno::EPIPE), 0));
    assert!(error.is_disconnect());
}

#[test]
fn a_stop_does_not_wait_for_what_is_in_flight() {
    let mut segments = large(1);
    segments.push(Segment::file(pattern(10), Stability::MayChange));
    let mut kernel = Kernel::new(segments);
    kernel.completes = Box::new(|_| vec![]);
    kernel.stop_at = Some(2);
    let mut outbound = adaptive();
    let error = kernel.run(&mut outbound).unwrap_err();
    assert_eq!((error.summary.released, error.moved() >= 5000), (0, true));
    outbound.completed(0, 0, false);
    assert_eq!(outbound.released(), error.moved());
}
