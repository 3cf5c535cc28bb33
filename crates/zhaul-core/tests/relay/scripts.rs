//! Single rules, call by call.

use std::sync::Arc;
use std::time::Duration;

use zhaul_core::Errno;
use zhaul_core::relay::{
    Abort, Call, Readiness, RelayCause, RelayMachine, RelayOptions, RelayStep, Side, Trigger,
    Wants, Way,
};

const UP: Way = Way::AToB;
const DOWN: Way = Way::BToA;
const BUFFER: usize = 1000;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn options(change: impl FnOnce(&mut RelayOptions)) -> RelayOptions {
    let mut options = RelayOptions::default();
    options.thresholds.short_splice_bytes = 100;
    change(&mut options);
    options
}

/// A relay, and what it is told.
struct Script {
    relay: RelayMachine,
}

impl Script {
    fn new(options: RelayOptions) -> Self {
        let mut relay = RelayMachine::new(Arc::new(options), Duration::ZERO);
        relay.begin_turn(Duration::ZERO);
        Self { relay }
    }

    fn readable(mut self, side: Side) -> Self {
        self.relay.note(side, Readiness::READABLE);
        self
    }

    fn turn(&mut self, now: Duration) {
        self.relay.begin_turn(now);
    }

    /// The next step is this call, which returns that.
    #[track_caller]
    fn call(&mut self, call: Call, result: Result<usize, Errno>) {
        assert_eq!(self.relay.next(), RelayStep::Call(call));
        self.relay.complete(call, result);
    }

    #[track_caller]
    fn buffer(&mut self, way: Way) {
        assert_eq!(self.relay.next(), RelayStep::NeedBuffer(way));
        self.relay.buffer(way, Some(BUFFER));
    }

    #[track_caller]
    fn pipe(&mut self, way: Way, found: bool) {
        assert_eq!(self.relay.next(), RelayStep::NeedPipe(way));
        self.relay.pipe(way, found);
    }

    #[track_caller]
    fn waits(&mut self) -> Wants {
        match self.relay.next() {
            RelayStep::Wait(wants) => wants,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn done(&mut self) -> RelayCause {
        match self.relay.next() {
            RelayStep::Done(ending) => ending.cause,
            other => panic!("{other:?}"),
        }
    }

    /// Takes and delivers what fills the buffer, until the direction is bulk.
    fn until_bulk(&mut self) {
        self.buffer(UP);
        for _ in 0..2 {
            self.call(recv(UP), Ok(BUFFER));
            self.call(send(UP, 0, BUFFER), Ok(BUFFER));
        }
    }
}

fn recv(way: Way) -> Call {
    Call::Recv { way, len: BUFFER }
}

fn send(way: Way, start: usize, len: usize) -> Call {
    Call::Send { way, start, len }
}

fn splice_in(way: Way) -> Call {
    Call::SpliceIn { way, len: 1 << 20 }
}

fn splice_out(way: Way, len: usize) -> Call {
    Call::SpliceOut { way, len }
}

#[test]
fn a_message_is_one_receive_and_one_send() {
    let mut script = Script::new(options(|_| {})).readable(Side::A);
    script.buffer(UP);
    script.call(recv(UP), Ok(64));
    script.call(send(UP, 0, 64), Ok(64));
    let wants = script.waits();
    assert!(wants.a.readable && wants.b.readable && !wants.a.writable && !wants.b.writable);
    assert!(!script.relay.holds_buffer(UP));
}

#[test]
fn a_splice_that_was_not_made_is_not_named_for_ever() {
    let without_urgent = options(|options| options.trigger = Trigger::EdgeWithoutUrgent);
    let mut script = Script::new(without_urgent).readable(Side::A);
    script.until_bulk();
    script.pipe(UP, true);
    assert_eq!(script.relay.next(), RelayStep::Call(splice_in(UP)));
    script.relay.not_ready(splice_in(UP));
    assert_eq!(script.relay.next(), RelayStep::Call(recv(UP)));
    script.relay.not_ready(recv(UP));
    assert!(script.waits().a.readable);
}

#[test]
fn what_the_sink_does_not_take_keeps_its_buffer() {
    let mut script = Script::new(options(|_| {})).readable(Side::A);
    script.buffer(UP);
    script.call(recv(UP), Ok(64));
    script.call(send(UP, 0, 64), Ok(24));
    script.call(send(UP, 24, 40), Err(Errno::EAGAIN));
    let wants = script.waits();
    assert!(wants.b.writable && !wants.a.readable, "full: not read on");
    assert!(script.relay.holds_buffer(UP));
    script.relay.note(Side::B, Readiness::WRITABLE);
    script.turn(seconds(1));
    script.call(send(UP, 24, 40), Ok(40));
    script.waits();
    assert!(!script.relay.holds_buffer(UP));
}

#[test]
fn bulk_goes_through_a_pipe_that_is_drained_before_it_is_filled() {
    let mut script = Script::new(options(|_| {})).readable(Side::A);
    script.until_bulk();
    script.pipe(UP, true);
    script.call(splice_in(UP), Ok(500_000));
    script.call(splice_out(UP, 500_000), Ok(300_000));
    script.call(splice_out(UP, 200_000), Err(Errno::EAGAIN));
    let wants = script.waits();
    assert!(wants.b.writable && !wants.a.readable);
    assert!(script.relay.holds_pipe(UP));
    script.relay.note(Side::B, Readiness::WRITABLE);
    script.turn(seconds(1));
    script.call(splice_out(UP, 200_000), Ok(200_000));
    script.call(splice_in(UP), Err(Errno::EAGAIN));
    assert!(script.waits().a.readable);
    assert!(!script.relay.holds_pipe(UP));
    assert_eq!(script.relay.stats().way(UP).spliced, 500_000);
}

#[test]
fn more_than_fits_into_a_pipe_by_its_size_is_no_surprise() {
    let big = options(|options| options.budget_bytes = 8 << 20);
    let mut script = Script::new(big).readable(Side::A);
    script.until_bulk();
    script.pipe(UP, true);
    let len = 8 << 20;
    script.call(Call::SpliceIn { way: UP, len }, Ok(5_000_000));
    script.call(splice_out(UP, 5_000_000), Ok(5_000_000));
}

#[test]
fn without_a_pipe_bulk_is_copied_and_a_pipe_is_asked_for_later() {
    let soon = options(|options| options.thresholds.pipe_retry_bytes = 2 * BUFFER as u64);
    let mut script = Script::new(soon).readable(Side::A);
    script.until_bulk();
    script.pipe(UP, false);
    assert!(script.relay.is_bulk(), "by another route");
    for _ in 0..2 {
        script.call(recv(UP), Ok(BUFFER));
        script.call(send(UP, 0, BUFFER), Ok(BUFFER));
    }
    script.pipe(UP, true);
    script.call(splice_in(UP), Ok(5000));
}

#[test]
fn a_splice_that_is_refused_is_nobodys_fault_and_memory_comes_back() {
    let refusals = [
        (Errno::EINVAL, false),
        (Errno::EXDEV, false),
        (Errno::EBADF, false),
        (Errno::ENOMEM, true),
        (Errno::ENOBUFS, true),
    ];
    for (errno, comes_back) in refusals {
        let mut script = Script::new(options(|options| {
            options.thresholds.pipe_retry_bytes = BUFFER as u64;
        }))
        .readable(Side::A);
        script.until_bulk();
        script.pipe(UP, true);
        script.call(splice_in(UP), Err(errno));
        script.call(recv(UP), Ok(BUFFER));
        script.call(send(UP, 0, BUFFER), Ok(BUFFER));
        let again = matches!(
            script.relay.next(),
            RelayStep::Call(Call::SpliceIn { .. }) | RelayStep::NeedPipe(_)
        );
        assert_eq!(again, comes_back, "{errno}");
    }
}

#[test]
fn a_sink_that_refuses_pipes_gets_what_is_in_it_by_copy() {
    let mut script = Script::new(options(|_| {})).readable(Side::A);
    script.until_bulk();
    script.pipe(UP, true);
    script.call(splice_in(UP), Ok(1500));
    script.call(splice_out(UP, 1500), Err(Errno::EINVAL));
    script.call(Call::ReadPipe { way: UP, len: 1000 }, Ok(1000));
    script.call(send(UP, 0, 1000), Ok(1000));
    script.call(Call::ReadPipe { way: UP, len: 500 }, Ok(500));
    script.call(send(UP, 0, 500), Ok(500));
    // And from now on everything.
    script.call(recv(UP), Ok(BUFFER));
    let stats = *script.relay.stats().way(UP);
    assert_eq!((stats.delivered, stats.spliced), (3500, 0));
}

#[test]
fn a_report_that_splice_does_not_consume_is_consumed_by_a_receive() {
    for (trigger, reported) in [
        (Trigger::Level, Readiness::READABLE),
        (Trigger::EdgeWithoutUrgent, Readiness::READABLE),
        (Trigger::Edge, Readiness::READABLE | Readiness::URGENT),
    ] {
        let mut script =
            Script::new(options(|options| options.trigger = trigger)).readable(Side::A);
        script.until_bulk();
        script.pipe(UP, true);
        script.call(splice_in(UP), Ok(5000));
        script.call(splice_out(UP, 5000), Ok(5000));
        script.relay.note(Side::A, reported);
        script.call(splice_in(UP), Err(Errno::EAGAIN));
        script.call(recv(UP), Ok(10));
        script.call(send(UP, 0, 10), Ok(10));
    }
}

#[test]
fn the_end_that_splice_reports_is_confirmed_by_a_receive() {
    let mut script = Script::new(options(|_| {})).readable(Side::A);
    script.until_bulk();
    script.pipe(UP, true);
    script.call(splice_in(UP), Ok(0));
    script.call(recv(UP), Ok(7));
    script.call(send(UP, 0, 7), Ok(7));
    script.call(splice_in(UP), Ok(0));
    script.call(recv(UP), Ok(0));
    script.call(Call::ShutdownWrite { way: UP }, Ok(0));
    assert!(script.waits().b.readable);
}

#[test]
fn a_fin_waits_for_the_last_byte() {
    let mut script = Script::new(options(|_| {})).readable(Side::A);
    script.relay.note(Side::A, Readiness::ENDED);
    script.buffer(UP);
    script.call(recv(UP), Ok(64));
    script.call(send(UP, 0, 64), Err(Errno::EAGAIN));
    let wants = script.waits();
    assert!(wants.b.writable);
    script.relay.note(Side::B, Readiness::WRITABLE);
    script.turn(seconds(1));
    script.call(send(UP, 0, 64), Ok(64));
    script.call(recv(UP), Ok(0));
    script.call(Call::ShutdownWrite { way: UP }, Ok(0));
    script
        .relay
        .note(Side::B, Readiness::READABLE | Readiness::ENDED);
    script.buffer(DOWN);
    script.call(recv(DOWN), Ok(0));
    script.call(Call::ShutdownWrite { way: DOWN }, Ok(0));
    assert_eq!(script.done(), RelayCause::Closed { first: Side::A });
}

#[test]
fn a_reset_ends_both_ways_and_resets_the_other() {
    let mut script = Script::new(options(|_| {})).readable(Side::A);
    script.buffer(UP);
    script.call(recv(UP), Err(Errno::ECONNRESET));
    script.call(Call::Reset { side: Side::B }, Ok(0));
    assert_eq!(script.done(), RelayCause::Reset { by: Side::A });
}

#[test]
fn what_was_delivered_is_acknowledged_before_the_reset() {
    let mut script = Script::new(options(|_| {})).readable(Side::A);
    script.buffer(UP);
    script.call(recv(UP), Ok(BUFFER));
    script.call(send(UP, 0, BUFFER), Ok(BUFFER));
    script.call(recv(UP), Err(Errno::ECONNRESET));
    let look = Call::Unacknowledged { side: Side::B };
    script.call(look, Ok(BUFFER));
    let at = script.waits().wake_at.expect("it looks again");
    script.turn(at);
    script.call(look, Ok(0));
    script.call(Call::Reset { side: Side::B }, Ok(0));
    assert_eq!(script.done(), RelayCause::Reset { by: Side::A });
}

#[test]
fn the_grace_is_not_exceeded() {
    let grace = options(|options| options.reset_grace = seconds(3));
    let mut script = Script::new(grace).readable(Side::A);
    script.buffer(UP);
    script.call(recv(UP), Ok(64));
    script.call(send(UP, 0, 64), Err(Errno::EAGAIN));
    script
        .relay
        .note(Side::A, Readiness::ERROR | Readiness::ENDED);
    script.turn(seconds(10));
    script.call(Call::TakeError { side: Side::A }, Ok(104));
    let wants = script.waits();
    assert!(wants.b.writable);
    assert_eq!(wants.wake_at, Some(seconds(13)));
    script.turn(seconds(13));
    script.call(Call::Reset { side: Side::B }, Ok(0));
    assert_eq!(script.done(), RelayCause::Reset { by: Side::A });
}

#[test]
fn an_end_behind_an_error_is_no_fin() {
    let mut script = Script::new(options(|_| {}));
    script
        .relay
        .note(Side::A, Readiness::READABLE | Readiness::ERROR);
    script.call(Call::TakeError { side: Side::A }, Ok(104));
    script.buffer(UP);
    script.call(recv(UP), Ok(64));
    script.call(send(UP, 0, 64), Ok(64));
    script.call(recv(UP), Ok(0));
    script.call(Call::Unacknowledged { side: Side::B }, Ok(0));
    script.call(Call::Reset { side: Side::B }, Ok(0));
    assert_eq!(script.done(), RelayCause::Reset { by: Side::A });
}

#[test]
fn an_error_queue_without_an_error_is_nothing() {
    let mut script = Script::new(options(|_| {}));
    script.relay.note(Side::A, Readiness::ERROR);
    script.call(Call::TakeError { side: Side::A }, Ok(0));
    script.buffer(UP);
    script.call(recv(UP), Err(Errno::EAGAIN));
    script.waits();
}

#[test]
fn an_error_that_is_no_reset_keeps_its_number() {
    let mut script = Script::new(options(|_| {})).readable(Side::B);
    script.buffer(DOWN);
    script.call(recv(DOWN), Err(Errno::ETIMEDOUT));
    script.call(Call::Reset { side: Side::A }, Ok(0));
    script.call(Call::Reset { side: Side::B }, Ok(0));
    let (side, errno) = (Side::B, Errno::ETIMEDOUT);
    assert_eq!(script.done(), RelayCause::Read { side, errno });
}

#[test]
fn what_moves_begins_the_idle_time_anew() {
    let idle = options(|options| options.idle = Some(seconds(10)));
    let mut script = Script::new(idle);
    for at in [9, 18, 27] {
        script.relay.note(Side::B, Readiness::READABLE);
        script.turn(seconds(at));
        script.buffer(DOWN);
        script.call(recv(DOWN), Ok(5));
        script.call(send(DOWN, 0, 5), Ok(5));
        assert_eq!(script.waits().wake_at, Some(seconds(at + 10)));
        assert!(!script.relay.is_due(seconds(at + 9)) && script.relay.is_due(seconds(at + 10)));
    }
}

#[test]
fn idle_is_not_who_takes_from_its_queue() {
    let idle = options(|options| options.idle = Some(seconds(10)));
    let mut script = Script::new(idle);
    let (a, b) = (
        Call::Unsent { side: Side::A },
        Call::Unsent { side: Side::B },
    );
    assert_eq!(script.waits().wake_at, Some(seconds(10)));
    let checks = [(10, 5000, true), (20, 4000, true), (30, 4000, false)];
    for (at, queued, goes_on) in checks {
        script.turn(seconds(at));
        script.call(a, Ok(0));
        script.call(b, Ok(queued));
        if goes_on {
            assert_eq!(script.waits().wake_at, Some(seconds(at + 10)));
        }
    }
    script.call(Call::Reset { side: Side::A }, Ok(0));
    script.call(Call::Reset { side: Side::B }, Ok(0));
    assert_eq!(script.done(), RelayCause::Idle);
}

#[test]
fn the_time_for_a_half_closed_relay_takes_the_place_of_the_idle_time() {
    for (closed, limit) in [(Side::A, 3), (Side::B, 50)] {
        let limits = options(|options| {
            options.idle = Some(seconds(10));
            options.fin_timeout = [Some(seconds(3)), Some(seconds(50))];
        });
        let mut script = Script::new(limits).readable(closed);
        script.buffer(closed.outward());
        script.call(recv(closed.outward()), Ok(0));
        script.call(
            Call::ShutdownWrite {
                way: closed.outward(),
            },
            Ok(0),
        );
        assert_eq!(script.waits().wake_at, Some(seconds(limit)));
        script.turn(seconds(limit));
        for side in Side::BOTH {
            script.call(Call::Unsent { side }, Ok(0));
        }
        for side in Side::BOTH {
            script.call(Call::Reset { side }, Ok(0));
        }
        assert_eq!(script.done(), RelayCause::HalfClosed { closed });
    }
}

#[test]
fn an_end_by_fins_resets_where_bytes_are_lost() {
    let fins = options(|options| {
        options.deadline = Some(seconds(5));
        options.abort = Abort::Fin;
    });
    let mut script = Script::new(fins).readable(Side::A);
    script.buffer(UP);
    script.call(recv(UP), Ok(64));
    script.call(send(UP, 0, 64), Err(Errno::EAGAIN));
    script.waits();
    script.turn(seconds(5));
    script.call(Call::ShutdownWrite { way: DOWN }, Ok(0));
    script.call(Call::Reset { side: Side::B }, Ok(0));
    assert_eq!(script.done(), RelayCause::Deadline);
}

#[test]
fn a_turn_ends_when_its_budget_is_used_up() {
    let mut script = Script::new(options(|options| options.budget_bytes = 5000)).readable(Side::A);
    script.until_bulk();
    script.pipe(UP, true);
    let fill = Call::SpliceIn { way: UP, len: 5000 };
    script.call(fill, Ok(5000));
    script.call(splice_out(UP, 5000), Ok(5000));
    assert_eq!(script.relay.next(), RelayStep::Yield);
    script.turn(seconds(1));
    script.pipe(UP, true);
    script.call(fill, Err(Errno::EAGAIN));
    script.waits();
}

#[test]
fn a_budget_may_change_between_turns() {
    let mut script = Script::new(options(|_| {})).readable(Side::A);
    assert!(!script.relay.is_bulk());
    script.until_bulk();
    assert!(script.relay.is_bulk());
    script.relay.set_budget(2 * BUFFER + 7000);
    script.turn(seconds(1));
    script.pipe(UP, true);
    let len = 2 * BUFFER + 7000;
    script.call(Call::SpliceIn { way: UP, len }, Ok(len));
    script.call(splice_out(UP, len), Ok(len));
    assert_eq!(script.relay.next(), RelayStep::Yield);
    script.relay.set_budget(1 << 20);
    script.turn(seconds(2));
    script.pipe(UP, true);
    script.call(splice_in(UP), Err(Errno::EAGAIN));
    assert!(script.relay.is_bulk(), "until it is seen to be small");
    script.waits();
}

#[test]
fn messages_that_fill_the_buffer_are_not_bulk() {
    let mut script = Script::new(options(|_| {})).readable(Side::A);
    for time in 1..5 {
        script.buffer(UP);
        script.call(recv(UP), Ok(BUFFER));
        script.call(send(UP, 0, BUFFER), Ok(BUFFER));
        script.call(recv(UP), Err(Errno::EAGAIN));
        script.waits();
        assert!(!script.relay.is_bulk());
        script.relay.note(Side::A, Readiness::READABLE);
        script.turn(seconds(time));
    }
}

#[test]
fn a_busy_direction_leaves_the_other_its_turn() {
    let mut script = Script::new(options(|options| options.budget_bytes = 1))
        .readable(Side::A)
        .readable(Side::B);
    let mut seen = Vec::new();
    for turn in 0..4 {
        script.turn(seconds(turn));
        loop {
            match script.relay.next() {
                RelayStep::Call(call) => {
                    seen.push(call.way().unwrap());
                    script.relay.complete(call, Ok(BUFFER));
                }
                RelayStep::NeedBuffer(way) => script.relay.buffer(way, Some(BUFFER)),
                RelayStep::NeedPipe(way) => script.relay.pipe(way, false),
                RelayStep::Yield => break,
                other => panic!("{other:?}"),
            }
        }
    }
    let (up, down) = (
        seen.iter().filter(|&&way| way == UP).count(),
        seen.len() / 2,
    );
    assert_eq!(up, down, "{seen:?}");
    assert_ne!(seen[0], seen[4], "who begins changes");
}

#[test]
fn a_limit_is_asked_before_anything_is_taken() {
    let mut script = Script::new(options(|options| options.idle = Some(seconds(10))));
    script.relay.limit(UP, true);
    script.relay.note(Side::A, Readiness::READABLE);
    assert!(matches!(
        script.relay.next(),
        RelayStep::NeedGrant { way: UP, .. }
    ));
    script.relay.grant(UP, 30, seconds(12));
    let wants = script.waits();
    assert!(!wants.a.readable, "paused: readiness is no news");
    // Who waits for its limit is not idle.
    script.turn(seconds(10));
    assert_eq!(script.waits().wake_at, Some(seconds(12)));
    script.turn(seconds(12));
    script.buffer(UP);
    script.call(Call::Recv { way: UP, len: 30 }, Ok(20));
    script.call(send(UP, 0, 20), Ok(20));
    assert_eq!(script.relay.unused_grant(UP), 10);
}

#[test]
fn one_way_never_reads_the_other_side() {
    let mut script = Script::new(options(|options| options.one_way = true)).readable(Side::B);
    let wants = script.waits();
    assert!(wants.a.readable && !wants.b.readable);
    script.relay.note(Side::A, Readiness::READABLE);
    script.turn(seconds(1));
    script.buffer(UP);
    script.call(recv(UP), Ok(0));
    script.call(Call::ShutdownWrite { way: UP }, Ok(0));
    assert_eq!(script.done(), RelayCause::Closed { first: Side::A });
}

#[test]
fn a_graceful_stop_takes_nothing_more_and_waits_for_acknowledgements() {
    let mut script = Script::new(options(|_| {})).readable(Side::A);
    script.buffer(UP);
    script.call(recv(UP), Ok(BUFFER));
    script.call(send(UP, 0, BUFFER), Ok(400));
    script.call(send(UP, 400, BUFFER - 400), Err(Errno::EAGAIN));
    script.relay.note(Side::B, Readiness::WRITABLE);
    script.relay.note(Side::B, Readiness::READABLE);
    script.relay.drain(seconds(9));
    script.turn(seconds(1));
    let shut = |way| Call::ShutdownWrite { way };
    script.call(send(UP, 400, BUFFER - 400), Ok(BUFFER - 400));
    script.call(shut(UP), Ok(0));
    script.call(shut(DOWN), Ok(0));
    let unacknowledged = |side| Call::Unacknowledged { side };
    script.call(unacknowledged(Side::A), Ok(0));
    script.call(unacknowledged(Side::B), Ok(17));
    assert!(script.waits().wake_at.is_some_and(|at| at < seconds(9)));
    script.turn(seconds(2));
    script.call(unacknowledged(Side::B), Ok(0));
    assert_eq!(script.done(), RelayCause::Stopped);
}

#[test]
fn a_graceful_stop_that_takes_too_long_is_cancelled() {
    let mut script = Script::new(options(|_| {})).readable(Side::A);
    script.buffer(UP);
    script.call(recv(UP), Ok(BUFFER));
    script.call(send(UP, 0, BUFFER), Err(Errno::EAGAIN));
    script.relay.drain(seconds(9));
    script.turn(seconds(1));
    script.call(Call::ShutdownWrite { way: DOWN }, Ok(0));
    assert_eq!(script.waits().wake_at, Some(seconds(9)));
    script.turn(seconds(9));
    for side in Side::BOTH {
        script.call(Call::Reset { side }, Ok(0));
    }
    assert_eq!(script.done(), RelayCause::Cancelled);
}
