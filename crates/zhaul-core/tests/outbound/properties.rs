//! Whatever the kernel answers, the bytes arrive once and in order, and none is forgotten.

use proptest::prelude::*;

use zhaul_core::outbound::{Outbound, ZeroCopy, ZeroCopyPolicy};
use zhaul_core::{Ask, Cause, Errno, Operation, Stability};

use crate::common::{Mood, pattern};
use crate::{Kernel, Segment};

fn segments() -> impl Strategy<Value = Vec<Segment>> {
    let memory = (0_usize..6000).prop_map(|len| Segment::Memory(pattern(len)));
    let stability = prop_oneof![
        Just(Stability::Immutable),
        Just(Stability::MayChange),
        Just(Stability::Leased),
    ];
    let file = (1_usize..9000, any::<(u16, u16)>(), stability).prop_map(
        |(size, (start, len), stability)| {
            let offset = u64::from(start) % size as u64;
            let len = u64::from(len) % (size as u64 - offset + 1);
            let bytes = pattern(size);
            Segment::File {
                bytes,
                offset,
                len,
                stability,
            }
        },
    );
    proptest::collection::vec(prop_oneof![3 => memory, 1 => file], 0..12)
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Full,
    Short(usize),
    WouldBlock,
    NoMeans,
}

fn answers() -> impl Strategy<Value = Vec<Answer>> {
    let answer = prop_oneof![
        4 => Just(Answer::Full),
        6 => (1_usize..3000).prop_map(Answer::Short),
        2 => (1_usize..4).prop_map(Answer::Short),
        4 => Just(Answer::WouldBlock),
        1 => Just(Answer::NoMeans),
    ];
    proptest::collection::vec(answer, 0..200)
}

/// The kernel is friendly once the answers are used up.
fn kernel(segments: Vec<Segment>, answers: Vec<Answer>, files: Vec<Answer>) -> Kernel {
    let (mut answers, mut files) = (answers.into_iter(), files.into_iter());
    Kernel::new(segments)
        .with_mood(move |gather| match answers.next() {
            None | Some(Answer::Full) => Mood::Full,
            Some(Answer::Short(limit)) => Mood::Short(limit),
            Some(Answer::WouldBlock) => Mood::WouldBlock,
            Some(Answer::NoMeans) if gather.zero_copy => Mood::Fails(Errno::ENOBUFS),
            Some(Answer::NoMeans) => Mood::Full,
        })
        .with_file_mood(move |_, op| match (op.operation(), files.next()) {
            (Operation::Stat | Operation::Map, _) | (_, None | Some(Answer::Full)) => Mood::Full,
            (_, Some(Answer::Short(limit))) => Mood::Short(limit),
            (Operation::Write | Operation::Sendfile, Some(Answer::WouldBlock)) => Mood::WouldBlock,
            (Operation::Sendfile, Some(Answer::NoMeans)) => Mood::Fails(Errno::EINVAL),
            _ => Mood::Full,
        })
}

/// Completions of several calls at a time, the last ones first.
fn complete_in_heaps(kernel: &mut Kernel, heap: u32, copied: bool) {
    let mut waiting = Vec::new();
    kernel.completes = Box::new(move |call| {
        waiting.push(call);
        if waiting.len() < heap as usize {
            return vec![];
        }
        let calls = std::mem::take(&mut waiting);
        calls
            .into_iter()
            .rev()
            .map(|call| (call, call, copied))
            .collect()
    });
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_split_of_results_moves_identical_bytes(
        segments in segments(), answers in answers(), files in answers(),
        min in 1_u64..4000, budget_bytes in 1_usize..20_000, heap in 1_u32..5, copied: bool,
        first_call: u32,
    ) {
        let mut kernel = kernel(segments, answers, files);
        complete_in_heaps(&mut kernel, heap, copied);
        kernel.next_call = first_call;
        let ask = Ask { budget_bytes, await_release: heap == 1, ..Ask::default() };
        let mut outbound = Outbound::new(&ask, ZeroCopyPolicy::new(ZeroCopy::Auto, min));
        let summary = kernel.run(&mut outbound).unwrap();
        prop_assert!(kernel.sink == kernel.all());
        prop_assert_eq!(summary.moved, kernel.sink.len() as u64);
        prop_assert_eq!(summary.taken, summary.moved);
        // Whatever is still in the queue: once all have completed, all is released.
        outbound.completed(first_call, kernel.next_call.wrapping_sub(1), copied);
        prop_assert_eq!(outbound.released(), summary.moved);
        if let Some(last) = kernel.sends.last() {
            let ends_with_memory = kernel.list.0.iter().rev()
                .find(|segment| !segment.bytes().is_empty())
                .is_some_and(|segment| matches!(segment, Segment::Memory(_)));
            prop_assert!(!(last.more && ends_with_memory), "a stray MORE");
        }
    }

    #[test]
    fn a_stop_at_any_step_accounts_for_every_byte(
        segments in segments(), answers in answers(), files in answers(), at in 0_usize..40,
    ) {
        let mut kernel = kernel(segments, answers, files);
        kernel.stop_at = Some(at);
        let mut outbound = Outbound::new(&Ask::default(), ZeroCopyPolicy::NEVER);
        let moved = match kernel.run(&mut outbound) {
            Ok(summary) => summary.moved,
            Err(error) => {
                prop_assert_eq!(error.cause, Cause::Cancelled);
                error.moved()
            }
        };
        let all = kernel.all();
        prop_assert_eq!(moved as usize, kernel.sink.len());
        prop_assert!(kernel.sink[..] == all[..moved as usize]);
    }

    #[test]
    fn a_cut_at_any_moment_is_found_and_no_byte_is_made_up(
        segments in segments(), files in answers(), at in 0_usize..20, size in 0_u64..9000,
    ) {
        let mut calls = 0;
        let mut kernel = kernel(segments, Vec::new(), Vec::new());
        let mut files = files.into_iter();
        kernel = kernel.with_file_mood(move |_, op| {
            calls += 1;
            match (op.operation(), files.next()) {
                (Operation::Stat | Operation::Map, _) => Mood::Full,
                _ if calls == at => Mood::Cut(size),
                (_, Some(Answer::Short(limit))) => Mood::Short(limit),
                _ => Mood::Full,
            }
        });
        let mut outbound = Outbound::new(&Ask::default(), ZeroCopyPolicy::NEVER);
        let moved = kernel.run(&mut outbound).map_or_else(|e| e.moved(), |s| s.moved);
        let moved = moved as usize;
        prop_assert!(kernel.sink[..moved] == kernel.all()[..moved]);
    }
}
