//! One answer of the kernel, and what becomes of it.

use std::cell::RefCell;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use zhaul_core::outbound::{MAX_GATHERED_SEGMENTS, Outbound, OutboundStep, ZeroCopyPolicy};
use zhaul_core::{Ask, Cause, Errno, Op, Operation, Refusal, Route, SourceFacts, SourceKind, Step};
use zhaul_core::{HostFacts, InPlaceEnd, SinkFacts, Stability};

use crate::common::{Mood, World, pattern};
use crate::kernel::List;
use crate::{Kernel, Segment};

fn outbound(ask: &Ask) -> Outbound {
    Outbound::new(ask, ZeroCopyPolicy::NEVER)
}

fn plain() -> Outbound {
    outbound(&Ask::default())
}

#[test]
fn memory_goes_out_by_one_call_without_more() {
    let mut kernel = Kernel::new(vec![Segment::memory(b"head"), Segment::memory(b"body")]);
    let summary = kernel.run(&mut plain()).unwrap();
    assert_eq!(kernel.sink, b"headbody");
    assert_eq!((summary.calls, summary.moved, summary.released), (1, 8, 8));
    assert!(!kernel.sends[0].more, "nothing follows");
}

#[test]
fn nothing_is_sent_of_nothing() {
    for segments in [vec![], vec![Segment::memory(b""), Segment::memory(b"")]] {
        let mut kernel = Kernel::new(segments);
        let summary = kernel.run(&mut plain()).unwrap();
        assert_eq!((summary.calls, summary.moved), (0, 0));
    }
}

#[test]
fn empty_segments_are_no_promise_of_more() {
    let file = Segment::File {
        bytes: pattern(10),
        offset: 5,
        len: 0,
        stability: Stability::Immutable,
    };
    let segments = vec![Segment::memory(b""), Segment::memory(b"all"), file];
    let mut kernel = Kernel::new(segments);
    kernel.run(&mut plain()).unwrap();
    assert_eq!(kernel.sink, b"all");
    assert!(!kernel.sends[0].more);
}

#[test]
fn more_pieces_than_a_call_takes_go_out_by_several_with_more_but_the_last() {
    let pieces = 2 * MAX_GATHERED_SEGMENTS + 1;
    let segments = pattern(pieces).chunks(1).map(Segment::memory).collect();
    let mut kernel = Kernel::new(segments);
    let summary = kernel.run(&mut plain()).unwrap();
    assert!(kernel.sink == kernel.all());
    assert_eq!(summary.calls, 3);
    let more: Vec<_> = kernel.sends.iter().map(|gather| gather.more).collect();
    assert_eq!(more, [true, true, false]);
}

#[test]
fn a_head_before_a_file_is_sent_with_more_and_the_file_by_reference() {
    let file = Segment::file(pattern(300_000), Stability::Immutable);
    let mut kernel = Kernel::new(vec![Segment::memory(b"head"), file]);
    let summary = kernel.run(&mut plain()).unwrap();
    assert!(kernel.sink == kernel.all());
    assert!(kernel.sends[0].more);
    assert_eq!(summary.files[0].route, Route::Sendfile);
    assert_eq!(summary.moved, 300_004);
    assert_eq!(summary.calls, 1 + summary.files[0].calls);
}

#[test]
fn the_end_of_a_copied_file_is_held_back_only_if_something_follows() {
    for (tail, expected) in [(&b""[..], false), (b"tail", true)] {
        let last = Rc::new(RefCell::new(None));
        let seen = Rc::clone(&last);
        let file = Segment::file(pattern(100_000), Stability::MayChange);
        let segments = vec![Segment::memory(b"head"), file, Segment::memory(tail)];
        let mut kernel = Kernel::new(segments).with_file_mood(move |_, op| {
            if let Op::Write { more, .. } = op {
                *seen.borrow_mut() = Some(*more);
            }
            Mood::Full
        });
        kernel.run(&mut plain()).unwrap();
        assert!(kernel.sink == kernel.all());
        assert_eq!(*last.borrow(), Some(expected));
    }
}

#[test]
fn what_follows_behind_the_aggregate_is_announced_with_its_last_bytes() {
    let ask = Ask {
        more_follows: true,
        ..Ask::default()
    };
    let mut kernel = Kernel::new(vec![Segment::memory(b"last")]);
    kernel.run(&mut outbound(&ask)).unwrap();
    assert!(kernel.sends[0].more);
}

#[test]
fn a_full_socket_is_waited_for_at_every_byte() {
    let segments = vec![
        Segment::memory(b"one"),
        Segment::file(pattern(30), Stability::MayChange),
        Segment::memory(b"two"),
        Segment::memory(b"three"),
    ];
    let mut turn = 0;
    let mut every_other = move || {
        turn += 1;
        if turn % 2 == 0 {
            Mood::Short(1)
        } else {
            Mood::WouldBlock
        }
    };
    let mut files = every_other;
    let mut kernel = Kernel::new(segments)
        .with_mood(move |_| every_other())
        .with_file_mood(move |_, op| match op.operation() {
            Operation::Write => files(),
            _ => Mood::Full,
        });
    let summary = kernel.run(&mut plain()).unwrap();
    assert!(kernel.sink == kernel.all());
    assert_eq!(summary.moved, 41);
    assert_eq!(kernel.waits, 11, "one before each byte of memory");
}

#[test]
fn an_error_says_how_far_it_came_and_keeps_its_number() {
    let mut calls = 0;
    let segments = vec![Segment::memory(&pattern(1000))];
    let mut kernel = Kernel::new(segments).with_mood(move |_| {
        calls += 1;
        match calls {
            1 => Mood::Short(300),
            _ => Mood::Fails(Errno::ECONNRESET),
        }
    });
    let error = kernel.run(&mut plain()).unwrap_err();
    assert_eq!(
        (error.moved(), error.errno()),
        (300, Some(Errno::ECONNRESET))
    );
    assert!(error.is_disconnect());
    let io = std::io::Error::from(error);
    assert_eq!(io.raw_os_error(), Some(104));
}

#[test]
fn a_call_that_takes_nothing_is_no_endless_loop() {
    let mut kernel = Kernel::new(vec![Segment::memory(b"x")]).with_mood(|_| Mood::Nothing);
    let error = kernel.run(&mut plain()).unwrap_err();
    assert_eq!(error.cause, Cause::SinkStalled);
}

#[test]
fn a_file_that_was_cut_ends_it_with_what_was_moved() {
    for stability in [Stability::MayChange, Stability::Immutable] {
        let file = Segment::file(pattern(300_000), stability);
        let segments = vec![Segment::memory(b"head"), file, Segment::memory(b"tail")];
        let mut calls = 0;
        let mut kernel = Kernel::new(segments).with_file_mood(move |_, op| {
            calls += 1;
            match op.operation() {
                Operation::Sendfile | Operation::Read if calls > 1 => Mood::Cut(100_000),
                Operation::Sendfile | Operation::Read => Mood::Short(50_000),
                _ => Mood::Full,
            }
        });
        let error = kernel.run(&mut plain()).unwrap_err();
        assert_eq!(error.cause, Cause::Truncated { size: 100_000 });
        assert_eq!(error.moved(), kernel.sink.len() as u64);
        assert!(kernel.sink[..] == kernel.all()[..kernel.sink.len()]);
        assert_eq!(
            error.summary.files.len(),
            1,
            "the account of the file that failed"
        );
    }
}

#[test]
fn a_route_that_is_refused_falls_back_within_the_aggregate() {
    let file = Segment::file(pattern(200_000), Stability::Immutable);
    let segments = vec![Segment::memory(b"head"), file, Segment::memory(b"tail")];
    let mut kernel = Kernel::new(segments).with_file_mood(|_, op| match op.operation() {
        Operation::Sendfile | Operation::Splice => Mood::Fails(Errno::EINVAL),
        _ => Mood::Full,
    });
    let summary = kernel.run(&mut plain()).unwrap();
    assert!(kernel.sink == kernel.all());
    assert_eq!(summary.files[0].route, Route::ReadWrite);
    assert!(!summary.files[0].changes.is_empty());
}

#[test]
fn a_stream_is_no_file() {
    let list = Kernel::new(vec![Segment::file(pattern(9), Stability::MayChange)]).list;
    let mut outbound = plain();
    let begun = outbound.begin_file(
        &list,
        &SourceFacts::new(SourceKind::Pipe),
        &SinkFacts::stream_socket(InPlaceEnd::Never),
        &HostFacts::default(),
        &Ask::default(),
    );
    assert!(begun.is_none());
    let mut kernel = Kernel::new(list.0);
    let error = kernel.run(&mut outbound).unwrap_err();
    let refusal = Refusal::SourceIsStream;
    assert_eq!(error.cause, Cause::Refused { refusal });
}

#[test]
fn others_get_their_turn_after_the_budget_of_memory_and_files_together() {
    let file = Segment::file(pattern(50_000), Stability::Immutable);
    let memory = Segment::memory(&pattern(50_000));
    let segments = vec![memory.clone(), file, memory];
    let ask = Ask {
        budget_bytes: 30_000,
        ..Ask::default()
    };
    let mut kernel = Kernel::new(segments);
    kernel.run(&mut outbound(&ask)).unwrap();
    assert!(kernel.sink == kernel.all());
    assert!(kernel.sends.iter().all(|gather| gather.len <= 30_000));
    // A send is cut at the budget: 50,000 take two, and so do the last.
    assert!(kernel.yields >= 2, "{}", kernel.yields);
}

#[test]
fn a_rate_is_kept_over_memory_and_files_and_nothing_is_held_back() {
    let file = Segment::file(pattern(50_000), Stability::Immutable);
    let memory = Segment::memory(&pattern(50_000));
    let segments = vec![memory.clone(), file, memory];
    let ask = Ask {
        throttle: NonZeroU64::new(10_000),
        ..Ask::default()
    };
    let mut kernel = Kernel::new(segments);
    kernel.run(&mut outbound(&ask)).unwrap();
    assert!(kernel.sink == kernel.all());
    assert!(kernel.sends.iter().all(|gather| !gather.more));
    let least = Duration::from_millis(14_800);
    assert!(
        (least..Duration::from_secs(15)).contains(&kernel.now),
        "{:?}",
        kernel.now
    );
}

#[test]
fn a_stop_and_a_deadline_end_it_where_it_stands() {
    let mut kernel = Kernel::new(vec![Segment::memory(b"abc")]).with_mood(|_| Mood::Short(1));
    kernel.stop_at = Some(2);
    let error = kernel.run(&mut plain()).unwrap_err();
    assert_eq!((error.cause, error.moved()), (Cause::Cancelled, 2));
    assert_eq!(kernel.sink, b"ab");

    let ask = Ask {
        deadline: Some(Duration::from_secs(1)),
        ..Ask::default()
    };
    let mut late = outbound(&ask);
    late.tick(Duration::from_millis(999));
    assert!(!late.is_over());
    late.tick(Duration::from_secs(1));
    let error = Kernel::new(vec![Segment::memory(b"abc")])
        .run(&mut late)
        .unwrap_err();
    assert_eq!(error.cause, Cause::DeadlineExceeded);
}

/// The first step of a file that was examined just now, behind a header of which the first attempt to
/// send goes as the script says.
fn first_step_of_a_fresh_file(ask: &Ask, script: impl FnOnce(&mut Outbound, &List)) -> Step {
    let file = Segment::file(pattern(300_000), Stability::Immutable);
    let list = List(vec![Segment::memory(b"head"), file]);
    let mut outbound = outbound(ask);
    script(&mut outbound, &list);
    loop {
        match outbound.next(&list) {
            OutboundStep::Send(gather) => outbound.complete(gather, Ok(gather.len), None),
            OutboundStep::Pause { until } => outbound.tick(until),
            OutboundStep::File { .. } => break,
            OutboundStep::Wait(_) | OutboundStep::Yield => {}
            step => panic!("{step:?}"),
        }
    }
    let source = SourceFacts::regular(World::file(pattern(300_000)).version());
    let terms = Ask {
        stability: Stability::Immutable,
        version_is_fresh: true,
        ..Ask::default()
    };
    let sink = SinkFacts::stream_socket(InPlaceEnd::Acknowledged);
    let begun = outbound.begin_file(&list, &source, &sink, &HostFacts::default(), &terms);
    begun.unwrap().next()
}

#[test]
fn a_fresh_version_is_compared_again_once_something_was_waited_for() {
    let at_once = first_step_of_a_fresh_file(&Ask::default(), |_, _| {});
    assert!(matches!(at_once, Step::Submit(Op::Sendfile { .. })));
    let full = |outbound: &mut Outbound, list: &List| {
        let OutboundStep::Send(gather) = outbound.next(list) else {
            panic!("the header is first");
        };
        outbound.complete(gather, Err(Errno::EAGAIN), None);
    };
    let yields = Ask {
        budget_bytes: 2,
        ..Ask::default()
    };
    let pauses = Ask {
        throttle: NonZeroU64::new(1),
        ..Ask::default()
    };
    for (case, step) in [
        ("waited", first_step_of_a_fresh_file(&Ask::default(), full)),
        ("yielded", first_step_of_a_fresh_file(&yields, |_, _| {})),
        ("paused", first_step_of_a_fresh_file(&pauses, |_, _| {})),
        (
            "told",
            first_step_of_a_fresh_file(&Ask::default(), |outbound, _| outbound.time_passed()),
        ),
    ] {
        assert_eq!(step, Step::Submit(Op::Stat), "{case}");
    }
}
