//! Whatever the kernel answers, the bytes arrive once and in order, and none is forgotten.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::{Mood, World, pattern};
use proptest::prelude::*;
use zhaul_core::{
    Ask, Cause, End, Errno, HostFacts, InPlaceEnd, Length, Op, Operation, Plan, Route, SinkFacts,
    SinkKind, SourceFacts, SourceKind, Stability, Stop, Transfer,
};

const REFUSALS: [Errno; 5] = [
    Errno::EINVAL,
    Errno::ENOSYS,
    Errno::EOPNOTSUPP,
    Errno::EXDEV,
    Errno::EPERM,
];

/// One answer of the kernel, to be read by the world.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Full,
    Short(usize),
    WouldBlock,
    Refuses(usize),
}

fn answers() -> impl Strategy<Value = Vec<Answer>> {
    let answer = prop_oneof![
        4 => Just(Answer::Full),
        6 => (1_usize..5_000).prop_map(Answer::Short),
        2 => (1_usize..4).prop_map(Answer::Short),
        4 => Just(Answer::WouldBlock),
        1 => (0..REFUSALS.len()).prop_map(Answer::Refuses),
    ];
    proptest::collection::vec(answer, 0..200)
}

/// Reads answers one by one; the kernel is friendly once they are used up. Reading and writing
/// refuse nothing: they are where fallbacks end.
fn mood(answers: Vec<Answer>) -> impl FnMut(&Op) -> Mood {
    let mut answers = answers.into_iter();
    move |op| {
        if *op == Op::Stat {
            return Mood::Full;
        }
        let plain = matches!(op.operation(), Operation::Read | Operation::Write);
        // A pipe that is not empty gives at once, and files never make anybody wait.
        let prompt = matches!(
            op,
            Op::Map { .. }
                | Op::CopyFileRange { .. }
                | Op::Read {
                    from: End::Pipe,
                    ..
                }
        );
        match answers.next() {
            None | Some(Answer::Full) => Mood::Full,
            Some(Answer::Short(limit)) => Mood::Short(limit),
            Some(Answer::WouldBlock) if prompt => Mood::Full,
            Some(Answer::WouldBlock) => Mood::WouldBlock,
            Some(Answer::Refuses(_)) if plain => Mood::Full,
            Some(Answer::Refuses(which)) => Mood::Fails(REFUSALS[which]),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    source: SourceKind,
    sink: SinkKind,
    ask: Ask,
    len: usize,
    urgent_mark: Option<usize>,
}

fn settings() -> impl Strategy<Value = Setting> {
    use SinkKind as K;
    use SourceKind as S;
    let sources = prop_oneof![
        3 => Just(S::Regular), 1 => Just(S::Pseudo), 1 => Just(S::Pipe),
        3 => Just(S::StreamSocket),
    ];
    let sinks = prop_oneof![
        2 => Just(K::StreamSocket), 1 => Just(K::Pipe), 1 => Just(K::Regular),
        1 => Just(K::Null), 1 => Just(K::Device),
    ];
    let stabilities = prop_oneof![
        Just(Stability::Immutable),
        Just(Stability::MayChange),
        Just(Stability::Leased),
    ];
    let sizes = (1_usize..40_000, 1_usize..9_000, 1_usize..20_000);
    let urgent_mark = proptest::option::of(0_usize..40_000);
    (
        sources,
        sinks,
        stabilities,
        sizes,
        any::<(bool, u16)>(),
        urgent_mark,
    )
        .prop_map(
            |(source, sink, stability, sizes, (exact, offset), urgent_mark)| {
                let (len, chunk_bytes, budget_bytes) = sizes;
                let stream = !SourceFacts::new(source).seekable;
                let offset = if stream {
                    0
                } else {
                    u64::from(offset) % len as u64
                };
                let all = len as u64 - offset;
                let length = if exact {
                    Length::Exact(all - all / 3)
                } else {
                    Length::ToEnd
                };
                let ask = Ask {
                    offset,
                    length,
                    stability,
                    chunk_bytes,
                    budget_bytes,
                    ..Ask::default()
                };
                Setting {
                    source,
                    sink,
                    ask,
                    len,
                    urgent_mark: urgent_mark.filter(|_| source == S::StreamSocket),
                }
            },
        )
}

fn start(setting: &Setting, world: &World, host: &HostFacts) -> Transfer {
    let source = SourceFacts::new(setting.source);
    let source = match setting.source {
        SourceKind::Regular => source.with_version(Some(world.version())),
        _ => source,
    };
    let sink = match setting.sink {
        SinkKind::StreamSocket => SinkFacts::stream_socket(InPlaceEnd::Acknowledged),
        kind => SinkFacts::new(kind),
    };
    let plan = Plan::select(&source, &sink, host, &setting.ask);
    Transfer::new(plan, &source, &sink, host, &setting.ask).unwrap()
}

fn world_for(setting: &Setting, answers: Vec<Answer>) -> World {
    let bytes = pattern(setting.len);
    let mut world = match SourceFacts::new(setting.source).seekable {
        true => World::file(bytes),
        false => World::stream(bytes),
    };
    world.urgent_mark = setting.urgent_mark.filter(|&mark| mark < setting.len);
    world.with_mood(mood(answers))
}

/// Hosts that lack some routes, so that each one gets its turn.
fn hosts() -> impl Strategy<Value = HostFacts> {
    any::<(bool, bool, bool)>().prop_map(|(no_copy, no_sendfile, no_splice)| {
        let mut host = HostFacts::default();
        host.mmap_window_bytes = 8192;
        host.thresholds.mmap_min_bytes = 0;
        for (lacks, route) in [
            (no_copy, Route::CopyFileRange),
            (no_sendfile, Route::Sendfile),
            (no_splice, Route::Splice),
        ] {
            if lacks {
                host = host.without(route);
            }
        }
        host
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_split_of_results_moves_identical_bytes(
        setting in settings(), answers in answers(), host in hosts(),
    ) {
        let mut world = world_for(&setting, answers);
        let expected = world.source.clone();
        let mut transfer = start(&setting, &world, &host);
        let summary = world.run(&mut transfer, None).unwrap();
        let start = setting.ask.offset as usize;
        let end = match setting.ask.length {
            Length::Exact(len) => start + len as usize,
            _ => expected.len(),
        };
        prop_assert!(world.sink == expected[start..end], "{} of {}", world.sink.len(), end - start);
        prop_assert_eq!(summary.moved, (end - start) as u64);
        prop_assert_eq!(summary.stranded, 0);
        prop_assert!(world.pipe.is_empty(), "nothing is left in the pipe");
        for pair in summary.changes.windows(2) {
            prop_assert_eq!(pair[0].to, pair[1].from);
        }
    }

    #[test]
    fn a_stop_at_any_step_accounts_for_every_byte(
        setting in settings(), answers in answers(), host in hosts(), at in 0_usize..60,
    ) {
        let mut world = world_for(&setting, answers);
        let expected = world.source.clone();
        let mut transfer = start(&setting, &world, &host);
        let outcome = world.run(&mut transfer, Some((at, Stop::Cancelled)));
        let summary = match outcome {
            Ok(summary) => summary,
            Err(error) => {
                prop_assert_eq!(error.cause, Cause::Cancelled);
                error.summary
            }
        };
        let start = setting.ask.offset as usize;
        let moved = summary.moved as usize;
        prop_assert_eq!(world.sink.len(), moved, "what the sink has is what was counted");
        prop_assert!(world.sink == expected[start..start + moved]);
        if world.source_is_stream {
            let taken = world.source_position;
            prop_assert_eq!(taken as u64, summary.moved + summary.stranded);
        } else {
            prop_assert_eq!(summary.stranded, 0);
        }
        prop_assert!(transfer.pipe_bytes() as usize == world.pipe.len());
    }

    #[test]
    fn a_file_that_may_change_never_leaks_a_byte_that_was_not_in_it(
        answers in answers(), host in hosts(), cut_at in 0_usize..40, size in 0_u64..30_000,
        sink in prop_oneof![
            Just(SinkKind::StreamSocket), Just(SinkKind::Pipe), Just(SinkKind::Regular),
            Just(SinkKind::Block),
        ],
        chunk_bytes in 1_usize..9_000,
    ) {
        let bytes = pattern(30_000);
        let mut mood = mood(answers);
        let mut calls = 0;
        let mut world = World::file(bytes.clone()).with_mood(move |op| {
            calls += 1;
            if calls == cut_at && *op != Op::Stat { Mood::CutDuring(size) } else { mood(op) }
        });
        let ask = Ask { chunk_bytes, length: Length::Exact(30_000), ..Ask::default() };
        let setting = Setting {
            source: SourceKind::Regular, sink, ask, len: 30_000, urgent_mark: None,
        };
        let mut transfer = start(&setting, &world, &host);
        let _ = world.run(&mut transfer, None);
        prop_assert!(world.sink[..] == bytes[..world.sink.len()]);
    }

    #[test]
    fn metadata_changed_at_any_moment_stops_nothing(
        setting in settings(), answers in answers(), host in hosts(), every in 1_usize..20,
        one_version in any::<bool>(),
    ) {
        let mut mood = mood(answers);
        let mut calls = 0;
        let mut world = world_for(&setting, Vec::new());
        world.mood = Box::new(move |op| {
            calls += 1;
            if calls % every == 0 && *op != Op::Stat { Mood::Touch } else { mood(op) }
        });
        let expected = world.source.clone();
        let ask = Ask { one_version, ..setting.ask };
        let mut transfer = start(&Setting { ask, ..setting }, &world, &host);
        let summary = world.run(&mut transfer, None).unwrap();
        let start = ask.offset as usize;
        prop_assert!(world.sink == expected[start..start + summary.moved as usize]);
        prop_assert_eq!(world.looks, 0);
    }

    #[test]
    fn a_file_never_ends_before_its_size_at_the_start_without_an_error(
        answers in answers(), host in hosts(), cut_at in 0_usize..40, size in 0_u64..30_000,
        sink in prop_oneof![Just(SinkKind::StreamSocket), Just(SinkKind::Regular)],
        stability in prop_oneof![
            Just(Stability::Immutable), Just(Stability::MayChange), Just(Stability::Leased),
        ],
        chunk_bytes in 1_usize..9_000, one_version in any::<bool>(), lies in any::<bool>(),
    ) {
        let mut mood = mood(answers);
        let mut calls = 0;
        let mut world = World::file(pattern(30_000)).with_mood(move |op| {
            calls += 1;
            if calls == cut_at && *op != Op::Stat { Mood::Cut(size) } else { mood(op) }
        });
        world.faults_across_a_cut = true;
        // Or fstat states more than there ever was.
        world.stated_too_much = if lies { 5_000 } else { 0 };
        let ask = Ask { chunk_bytes, stability, one_version, ..Ask::default() };
        let setting = Setting {
            source: SourceKind::Regular, sink, ask, len: 30_000, urgent_mark: None,
        };
        let mut transfer = start(&setting, &world, &host);
        match world.run(&mut transfer, None) {
            Ok(summary) => prop_assert!(summary.moved == 30_000 && !lies),
            Err(error) => {
                let stated = size + world.stated_too_much;
                let truncated = Cause::Truncated { size: stated };
                prop_assert!(
                    error.cause == truncated || lies && error.cause == Cause::SourceEnded,
                    "{:?}", error
                );
                prop_assert!(error.summary.calls < 200_000);
            }
        }
    }

    #[test]
    fn a_cut_at_any_moment_never_counts_a_byte_that_was_not_there(
        answers in answers(), host in hosts(), cut_at in 0_usize..40, size in 0_u64..30_000,
        stability in prop_oneof![Just(Stability::Immutable), Just(Stability::Leased)],
        chunk_bytes in 1_usize..9_000, faults in any::<bool>(),
    ) {
        let bytes = pattern(30_000);
        let mut mood = mood(answers);
        let mut calls = 0;
        let mut world = World::file(bytes.clone()).with_mood(move |op| {
            calls += 1;
            if calls == cut_at && *op != Op::Stat { Mood::Cut(size) } else { mood(op) }
        });
        world.faults_across_a_cut = faults;
        let ask = Ask {
            stability, chunk_bytes, length: Length::Exact(30_000), ..Ask::default()
        };
        let setting = Setting {
            source: SourceKind::Regular, sink: SinkKind::StreamSocket, ask, len: 30_000,
            urgent_mark: None,
        };
        let mut transfer = start(&setting, &world, &host);
        let outcome = world.run(&mut transfer, None);
        let was_cut = world.source.len() < 30_000;
        let summary = match outcome {
            Ok(summary) => {
                prop_assert!(!was_cut, "a cut is never passed over");
                summary
            }
            Err(error) => {
                prop_assert_eq!(error.cause, Cause::Truncated { size });
                error.summary
            }
        };
        let moved = summary.moved as usize;
        prop_assert!(world.sink[..moved] == bytes[..moved], "no zeros among what was counted");
    }
}
