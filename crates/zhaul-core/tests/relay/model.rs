//! Whatever peers and kernel do, in any order: what is delivered is a prefix of what was sent, a
//! clean end means all of it, and nothing is left behind, waits for nothing, or spins.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use zhaul_core::relay::{
    Abort, Readiness, RelayCause, RelayEnding, RelayMachine, RelayOptions, Side, Trigger, Way,
};

use crate::world::{Mood, TurnEnd, World, byte_at};

#[derive(Clone, Copy, Debug)]
enum Act {
    Send(Side, usize),
    Urgent(Side),
    Room(Side, usize),
    Fin(Side),
    Reset(Side),
    Pipes(bool),
    Buffers(bool),
    Spurious(Side),
    Cancel,
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    options: RelayOptions,
    buffer_bytes: usize,
    pipe_slots_bytes: usize,
    limited: Option<usize>,
    preload: usize,
}

fn sides() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::A), Just(Side::B)]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let size = prop_oneof![3 => 1_usize..5, 3 => 1_usize..300, 2 => 1_usize..20_000];
    let act = prop_oneof![
        12 => (sides(), size.clone()).prop_map(|(side, n)| Act::Send(side, n)),
        10 => (sides(), size).prop_map(|(side, n)| Act::Room(side, n)),
        2 => sides().prop_map(Act::Urgent),
        1 => sides().prop_map(Act::Fin),
        1 => sides().prop_map(Act::Reset),
        2 => any::<bool>().prop_map(Act::Pipes),
        2 => any::<bool>().prop_map(Act::Buffers),
        2 => sides().prop_map(Act::Spurious),
    ];
    (
        proptest::collection::vec(act, 0..60),
        0_usize..12,
        0_usize..60,
    )
        .prop_map(|(mut acts, cancels, at)| {
            if cancels == 0 {
                acts.insert(at.min(acts.len()), Act::Cancel);
            }
            acts
        })
}

fn moods() -> impl Strategy<Value = Vec<Mood>> {
    let mood = prop_oneof![
        6 => Just(Mood::Full),
        4 => (1_usize..3).prop_map(Mood::Short),
        4 => (1_usize..2_000).prop_map(Mood::Short),
        3 => Just(Mood::Again),
        1 => Just(Mood::Refuses),
    ];
    proptest::collection::vec(mood, 0..300)
}

fn settings() -> impl Strategy<Value = Setting> {
    let triggers = prop_oneof![
        Just(Trigger::Edge),
        Just(Trigger::Level),
        Just(Trigger::EdgeWithoutUrgent),
    ];
    let sizes = (1_usize..400, 1_usize..3_000, 1_usize..5_000);
    let thresholds = (1_u8..4, 1_usize..200, 1_u8..4, 0_u64..2_000);
    let flags = any::<(bool, bool, bool)>();
    let limited = proptest::option::weighted(0.2, 1_usize..500);
    (triggers, sizes, thresholds, flags, limited, 0_usize..40).prop_map(
        |(
            trigger,
            (buffer_bytes, pipe_slots_bytes, budget_bytes),
            thresholds,
            flags,
            limited,
            preload,
        )| {
            let (rarely, one_way, fins) = flags;
            let mut options = RelayOptions::default();
            options.trigger = trigger;
            options.budget_bytes = budget_bytes;
            options.one_way = rarely && one_way;
            options.abort = if fins { Abort::Fin } else { Abort::Reset };
            (
                options.thresholds.full_reads,
                options.thresholds.short_splice_bytes,
                options.thresholds.short_splices,
                options.thresholds.pipe_retry_bytes,
            ) = thresholds;
            Setting {
                options,
                buffer_bytes,
                pipe_slots_bytes,
                limited,
                preload: if preload < 5 {
                    preload.min(buffer_bytes)
                } else {
                    0
                },
            }
        },
    )
}

struct Run {
    world: World,
    relay: RelayMachine,
    cancelled: bool,
    wants: zhaul_core::relay::Wants,
}

impl Run {
    fn new(setting: &Setting, moods: Vec<Mood>) -> Self {
        let mut moods = moods.into_iter();
        let mood = Box::new(move || moods.next().unwrap_or(Mood::Full));
        let mut world = World::new(setting.options.trigger, mood);
        world.buffer_bytes = setting.buffer_bytes;
        world.pipe_slots_bytes = setting.pipe_slots_bytes;
        let mut relay = RelayMachine::new(Arc::new(setting.options), Duration::ZERO);
        if let Some(bytes) = setting.limited {
            world.grant = Some((bytes, Duration::ZERO));
            relay.limit(Way::AToB, true);
        }
        if setting.preload > 0 {
            let socket = world.socket(Side::A);
            (socket.sent, socket.taken) = (setting.preload, setting.preload);
            world.buffers[0] = (0..setting.preload)
                .map(|at| byte_at(Side::A, at))
                .collect();
            relay.preload(Way::AToB, setting.buffer_bytes, setting.preload);
        }
        Self {
            world,
            relay,
            cancelled: false,
            wants: Default::default(),
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Send(side, bytes) => self.world.send(side, bytes),
            Act::Urgent(side) => self.world.urgent(side),
            Act::Room(side, bytes) => self.world.room(side, bytes),
            Act::Fin(side) => self.world.fin(side),
            Act::Reset(side) => self.world.reset(side),
            Act::Pipes(refuse) => self.world.refuse_pipes = refuse,
            Act::Buffers(refuse) => self.world.refuse_buffers = refuse,
            Act::Spurious(side) => self.world.socket(side).event = true,
            Act::Cancel => {
                self.world.cut = self.relay.options().abort == Abort::Fin;
                self.relay.cancel();
                self.cancelled = true;
            }
        }
    }

    /// Turns until nothing happens any more.
    fn settle(&mut self) -> Option<RelayEnding> {
        for _ in 0..100_000 {
            self.world.report(&mut self.relay, &self.wants);
            let moved = self.relay.stats();
            match self.world.turn(&mut self.relay) {
                TurnEnd::Done(ending) => return Some(ending),
                TurnEnd::Yield => {
                    let calls = |stats: zhaul_core::relay::Stats| {
                        Way::BOTH.map(|way| (stats.way(way).taken, stats.way(way).delivered))
                    };
                    assert_ne!(
                        calls(moved),
                        calls(self.relay.stats()),
                        "yields for nothing"
                    );
                }
                TurnEnd::Wait(wants) => {
                    self.wants = wants;
                    if !self.something_comes() {
                        self.check_quiet();
                        return None;
                    }
                }
            }
        }
        panic!("never settles");
    }

    fn something_comes(&self) -> bool {
        let level = self.world.trigger == Trigger::Level;
        Side::BOTH.into_iter().any(|side| {
            let socket = &self.world.sockets[side.index()];
            let interest = self.wants.of(side);
            let readable = socket.sent > socket.taken || socket.fin || socket.reset;
            let writable = socket.room > 0 || socket.reset;
            socket.event
                || level && (interest.readable && readable || interest.writable && writable)
        })
    }

    /// A turn that nothing calls for calls nothing, and what is waited for is not there.
    fn check_quiet(&mut self) {
        for side in Side::BOTH {
            let socket = &self.world.sockets[side.index()];
            let interest = self.wants.of(side);
            let readable = socket.sent > socket.taken || socket.fin || socket.reset;
            assert!(
                !(interest.readable && readable),
                "{side} is readable, and nobody knows"
            );
            let writable = socket.room > 0 || socket.reset;
            assert!(
                !(interest.writable && writable),
                "{side} is writable, and nobody knows"
            );
        }
        let calls = self.world.calls;
        assert!(matches!(self.world.turn(&mut self.relay), TurnEnd::Wait(_)));
        assert_eq!(self.world.calls, calls, "busy while nothing happens");
    }

    /// From now on everybody is friendly and has said everything.
    fn finish(&mut self) -> RelayEnding {
        self.world.mood = Box::new(|| Mood::Full);
        self.world.refuse_pipes = false;
        self.world.refuse_buffers = false;
        for side in Side::BOTH {
            self.world.room(side, usize::MAX / 2);
            self.world.fin(side);
        }
        self.settle().unwrap_or_else(|| {
            let log = &self.world.log;
            panic!("stuck:\n{}", log[log.len().saturating_sub(30)..].join("\n"))
        })
    }
}

fn check_end(run: &Run, setting: &Setting, ending: RelayEnding) {
    let sockets = &run.world.sockets;
    for way in Way::BOTH {
        let (source, sink) = (&sockets[way.source().index()], &sockets[way.sink().index()]);
        let got = &sink.got;
        assert!(got.len() <= source.sent);
        let is_prefix = got
            .iter()
            .enumerate()
            .all(|(at, &byte)| byte == byte_at(way.source(), at));
        assert!(is_prefix, "{way}: what was delivered is a prefix");
        let stats = ending.stats.way(way);
        assert_eq!(stats.delivered, got.len() as u64);
        assert_eq!(stats.taken, source.taken as u64);
        assert!(stats.spliced <= stats.delivered);
        if ending.cause.is_clean() {
            assert!(run.world.pipes[way.index()].is_empty());
        }
    }
    let anybody_reset = sockets.iter().any(|socket| socket.reset);
    let [a, b] = sockets;
    match ending.cause {
        RelayCause::Closed { .. } if setting.options.one_way => {
            assert!(a.fin && b.told_fin && b.got.len() == a.sent);
        }
        RelayCause::Closed { first } => {
            for (from, to) in [(a, b), (b, a)] {
                assert!(from.fin && to.told_fin && !to.told_reset);
                assert_eq!(to.got.len(), from.sent);
            }
            assert!(sockets[first.index()].fin);
        }
        RelayCause::Reset { by } => {
            let (gone, left) = (&sockets[by.index()], &sockets[by.other().index()]);
            assert!(gone.reset, "blamed without a reason");
            assert!(left.told_reset, "a reset is passed on");
            assert!(!gone.told_reset);
            let not_relayed = setting.options.one_way && by == Side::B;
            if !(left.reset || run.cancelled || not_relayed) {
                assert_eq!(
                    left.got.len(),
                    gone.sent,
                    "what was sent before it is delivered"
                );
            }
        }
        RelayCause::Cancelled => {
            assert!(run.cancelled);
            for (from, to) in [(a, b), (b, a)] {
                let whole = from.fin && to.got.len() == from.sent;
                let only_fin = to.told_fin && !to.told_reset;
                assert!(whole || !only_fin || setting.options.abort == Abort::Fin);
            }
        }
        other => panic!("{other} in a world without it (reset: {anybody_reset})"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_order_of_events_delivers_a_prefix_and_ends(
        setting in settings(), acts in acts(), moods in moods(), per_turn in 1_usize..4,
    ) {
        let mut run = Run::new(&setting, moods);
        let mut ending = None;
        for some in acts.chunks(per_turn) {
            for &act in some {
                run.act(act);
            }
            ending = run.settle();
            if ending.is_some() {
                break;
            }
        }
        let ending = match ending {
            Some(ending) => ending,
            None => run.finish(),
        };
        check_end(&run, &setting, ending);
    }

    #[test]
    fn a_report_too_many_changes_nothing(
        setting in settings(), sizes in proptest::collection::vec((sides(), 1_usize..3_000), 1..30),
    ) {
        let mut run = Run::new(&setting, Vec::new());
        run.world.room(Side::A, usize::MAX / 2);
        run.world.room(Side::B, usize::MAX / 2);
        for (side, bytes) in sizes {
            run.world.send(side, bytes);
            let everything = Readiness::READABLE | Readiness::WRITABLE | Readiness::URGENT;
            run.relay.note(side.other(), everything);
            prop_assert!(run.settle().is_none());
            let to = &run.world.sockets[side.other().index()];
            if !(setting.options.one_way && side == Side::B) {
                prop_assert_eq!(to.got.len(), run.world.sockets[side.index()].sent);
            }
        }
        let ending = run.finish();
        check_end(&run, &setting, ending);
    }
}
