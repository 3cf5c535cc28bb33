//! Two sockets, their peers and a kernel that tells the truth in as unhelpful a way as it may.

use std::time::Duration;

use zhaul_core::Errno;
use zhaul_core::relay::{
    Call, Readiness, RelayEnding, RelayMachine, RelayStep, Side, Trigger, Wants, Way,
};

/// The byte at a position of what a side sends.
pub(crate) fn byte_at(side: Side, position: usize) -> u8 {
    let salt = if side == Side::A { 17 } else { 91 };
    (position.wrapping_mul(31) ^ (position >> 7).wrapping_mul(salt)) as u8
}

/// One socket and the peer behind it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Socket {
    /// How much the peer has sent.
    pub(crate) sent: usize,
    /// How much of that was taken.
    pub(crate) taken: usize,
    /// Where splice stops and a receive ends.
    pub(crate) marks: Vec<usize>,
    pub(crate) fin: bool,
    pub(crate) reset: bool,
    /// The error that the next call that asks for it gets.
    pub(crate) error: Option<Errno>,
    /// Room in the send queue.
    pub(crate) room: usize,
    /// What the peer was given.
    pub(crate) got: Vec<u8>,
    pub(crate) told_fin: bool,
    pub(crate) told_reset: bool,
    /// What arrived since the last report.
    pub(crate) event: bool,
    pub(crate) unacknowledged: usize,
}

impl Socket {
    fn queued(&self) -> usize {
        self.sent - self.taken
    }

    fn mark_ahead(&self) -> Option<usize> {
        self.marks
            .iter()
            .copied()
            .filter(|&mark| mark >= self.taken && mark < self.sent)
            .min()
    }

    fn readiness(&self, trigger: Trigger) -> Readiness {
        let mut now = Readiness::empty();
        if self.queued() > 0 || self.fin || self.reset {
            now |= Readiness::READABLE;
        }
        if self.room > 0 || self.reset {
            now |= Readiness::WRITABLE;
        }
        if self.fin || self.reset {
            now |= Readiness::ENDED;
        }
        if self.error.is_some() {
            now |= Readiness::ERROR;
        }
        if trigger == Trigger::Edge && self.mark_ahead().is_some() {
            now |= Readiness::URGENT;
        }
        now
    }
}

/// How unhelpful the kernel is about the next call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mood {
    /// As much as there is.
    Full,
    /// So much at most, of what may be split.
    Short(usize),
    /// EAGAIN, and an event for it later.
    Again,
    /// EINVAL to a splice.
    Refuses,
}

pub(crate) struct World {
    pub(crate) sockets: [Socket; 2],
    pub(crate) pipes: [Vec<u8>; 2],
    pub(crate) buffers: [Vec<u8>; 2],
    pub(crate) buffer_bytes: usize,
    pub(crate) pipe_slots_bytes: usize,
    pub(crate) refuse_pipes: bool,
    pub(crate) refuse_buffers: bool,
    pub(crate) trigger: Trigger,
    pub(crate) now: Duration,
    pub(crate) mood: Box<dyn FnMut() -> Mood>,
    pub(crate) calls: usize,
    pub(crate) log: Vec<String>,
    /// Bytes granted at a time, if there is a limit.
    pub(crate) grant: Option<(usize, Duration)>,
    /// The relay was told to end with a FIN, whatever is missing.
    pub(crate) cut: bool,
}

/// How a turn ended.
#[derive(Debug)]
pub(crate) enum TurnEnd {
    Wait(Wants),
    Yield,
    Done(RelayEnding),
}

impl World {
    pub(crate) fn new(trigger: Trigger, mood: Box<dyn FnMut() -> Mood>) -> Self {
        Self {
            sockets: [Socket::default(), Socket::default()],
            pipes: [Vec::new(), Vec::new()],
            buffers: [Vec::new(), Vec::new()],
            buffer_bytes: 64,
            pipe_slots_bytes: 1 << 20,
            refuse_pipes: false,
            refuse_buffers: false,
            trigger,
            now: Duration::ZERO,
            mood,
            calls: 0,
            log: Vec::new(),
            grant: None,
            cut: false,
        }
    }

    pub(crate) fn socket(&mut self, side: Side) -> &mut Socket {
        &mut self.sockets[side.index()]
    }

    pub(crate) fn send(&mut self, side: Side, bytes: usize) {
        let socket = self.socket(side);
        if !socket.fin && !socket.reset && !socket.told_reset {
            socket.sent += bytes;
            socket.event = true;
        }
    }

    pub(crate) fn urgent(&mut self, side: Side) {
        let socket = self.socket(side);
        if !socket.fin && !socket.reset && !socket.told_reset {
            socket.marks.push(socket.sent);
            socket.sent += 1;
            socket.event = true;
        }
    }

    pub(crate) fn fin(&mut self, side: Side) {
        let socket = self.socket(side);
        if !socket.reset && !socket.told_reset {
            socket.fin = true;
            socket.event = true;
        }
    }

    pub(crate) fn reset(&mut self, side: Side) {
        let socket = self.socket(side);
        if !socket.reset && !socket.told_reset {
            socket.reset = true;
            socket.error = Some(if socket.fin {
                Errno::EPIPE
            } else {
                Errno::ECONNRESET
            });
            socket.event = true;
        }
    }

    pub(crate) fn room(&mut self, side: Side, bytes: usize) {
        let socket = self.socket(side);
        socket.room = socket.room.saturating_add(bytes);
        socket.event = true;
    }

    /// Reports what epoll would.
    pub(crate) fn report(&mut self, relay: &mut RelayMachine, wants: &Wants) {
        for side in Side::BOTH {
            let trigger = self.trigger;
            let socket = self.socket(side);
            let readiness = socket.readiness(trigger);
            let edge = std::mem::take(&mut socket.event);
            if trigger == Trigger::Level {
                let interest = wants.of(side);
                let readable = Readiness::READABLE | Readiness::ENDED;
                let wanted = interest.readable && readiness.intersects(readable)
                    || interest.writable && readiness.intersects(Readiness::WRITABLE)
                    || edge && readiness.intersects(Readiness::ERROR);
                if wanted {
                    relay.note(side, readiness);
                }
            } else if edge {
                relay.note(side, readiness);
            }
        }
    }

    /// One turn; panics if it does not end.
    pub(crate) fn turn(&mut self, relay: &mut RelayMachine) -> TurnEnd {
        relay.begin_turn(self.now);
        for _ in 0..400 {
            let step = relay.next();
            self.log.push(format!("{step:?}"));
            match step {
                RelayStep::Call(call) => {
                    self.calls += 1;
                    let result = self.perform(call);
                    self.log.push(format!("    {result:?}"));
                    relay.complete(call, result);
                }
                RelayStep::NeedBuffer(way) => {
                    let bytes = (!self.refuse_buffers).then_some(self.buffer_bytes);
                    relay.buffer(way, bytes);
                }
                RelayStep::NeedPipe(way) => {
                    assert!(self.pipes[way.index()].is_empty(), "a second pipe");
                    relay.pipe(way, !self.refuse_pipes);
                }
                RelayStep::NeedGrant { way, wanted } => {
                    let (bytes, wait) = self.grant.expect("asked although there is no limit");
                    relay.grant(way, bytes.min(wanted), self.now + wait);
                }
                RelayStep::Wait(wants) => {
                    self.check_holdings(relay);
                    return TurnEnd::Wait(wants);
                }
                RelayStep::Yield => {
                    self.check_holdings(relay);
                    return TurnEnd::Yield;
                }
                RelayStep::Done(ending) => return TurnEnd::Done(ending),
            }
        }
        panic!(
            "a turn without end:\n{}",
            self.log[self.log.len() - 40..].join("\n")
        );
    }

    /// Between turns a pipe or buffer is held if and only if it contains something.
    fn check_holdings(&self, relay: &RelayMachine) {
        for way in Way::BOTH {
            let in_pipe = self.pipes[way.index()].len();
            assert_eq!(relay.pipe_bytes(way), in_pipe as u64);
            assert_eq!(relay.holds_pipe(way), in_pipe > 0);
            let in_transit = relay.stats().way(way).in_transit();
            assert_eq!(relay.holds_buffer(way), in_transit > in_pipe as u64);
        }
    }

    fn perform(&mut self, call: Call) -> Result<usize, Errno> {
        match call {
            Call::Recv { way, len } => {
                assert!(len > 0 && len <= self.buffer_bytes);
                let bytes = self.take(way.source(), len, false)?;
                let taken = bytes.len();
                self.buffers[way.index()] = bytes;
                Ok(taken)
            }
            Call::SpliceIn { way, len } => {
                assert!(self.pipes[way.index()].is_empty(), "filled only when empty");
                let bytes = self.take(way.source(), len.min(self.pipe_slots_bytes), true)?;
                let taken = bytes.len();
                self.pipes[way.index()] = bytes;
                Ok(taken)
            }
            Call::Send { way, start, len } => {
                let bytes = self.buffers[way.index()][start..start + len].to_vec();
                self.give(way.sink(), &bytes)
            }
            Call::SpliceOut { way, len } => {
                if matches!((self.mood)(), Mood::Refuses) {
                    return Err(Errno::EINVAL);
                }
                let bytes = self.pipes[way.index()][..len].to_vec();
                let given = self.give(way.sink(), &bytes)?;
                self.pipes[way.index()].drain(..given);
                Ok(given)
            }
            Call::ReadPipe { way, len } => {
                self.buffers[way.index()] = self.pipes[way.index()].drain(..len).collect();
                Ok(len)
            }
            Call::ShutdownWrite { way } => {
                let sent = self.socket(way.source()).sent;
                let sink = &mut self.sockets[way.sink().index()];
                assert!(!sink.told_fin && !sink.told_reset, "said once");
                sink.told_fin = true;
                assert!(
                    sink.got.len() == sent || self.cut,
                    "a FIN only after everything"
                );
                Ok(0)
            }
            Call::TakeError { side } => {
                Ok(self.socket(side).error.take().map_or(0, Errno::raw) as usize)
            }
            Call::Unsent { side } | Call::Unacknowledged { side } => {
                Ok(self.socket(side).unacknowledged)
            }
            Call::Reset { side } => {
                let socket = self.socket(side);
                assert!(!socket.told_reset, "reset once");
                socket.told_reset = true;
                Ok(0)
            }
        }
    }

    fn take(&mut self, side: Side, len: usize, splice: bool) -> Result<Vec<u8>, Errno> {
        let mood = (self.mood)();
        let socket = self.socket(side);
        let stop = socket
            .mark_ahead()
            .filter(|&mark| splice || mark > socket.taken);
        let there = stop.map_or(socket.queued(), |mark| mark - socket.taken);
        if splice && matches!(mood, Mood::Refuses) {
            return Err(Errno::EINVAL);
        }
        if matches!(mood, Mood::Again) && !socket.fin && !socket.reset {
            socket.event = true;
            return Err(Errno::EAGAIN);
        }
        if there == 0 {
            if socket.queued() > 0 && !socket.fin {
                return Err(Errno::EAGAIN);
            }
            if socket.fin {
                return Ok(Vec::new());
            }
            if let Some(error) = socket.error.take() {
                return Err(error);
            }
            return if socket.reset {
                Ok(Vec::new())
            } else {
                Err(Errno::EAGAIN)
            };
        }
        let mut n = there.min(len);
        if let (true, Mood::Short(most)) = (splice, mood) {
            n = n.min(most.max(1));
        }
        let from = socket.taken;
        socket.taken += n;
        Ok((from..from + n)
            .map(|position| byte_at(side, position))
            .collect())
    }

    fn give(&mut self, side: Side, bytes: &[u8]) -> Result<usize, Errno> {
        let mood = (self.mood)();
        let socket = self.socket(side);
        assert!(!bytes.is_empty());
        assert!(
            !socket.told_fin && !socket.told_reset,
            "nothing after the end"
        );
        if socket.reset {
            return Err(socket.error.take().unwrap_or(Errno::EPIPE));
        }
        if matches!(mood, Mood::Again) {
            socket.event = true;
            return Err(Errno::EAGAIN);
        }
        if socket.room == 0 {
            return Err(Errno::EAGAIN);
        }
        let mut n = bytes.len().min(socket.room);
        if let Mood::Short(most) = mood {
            n = n.min(most.max(1));
        }
        socket.room -= n;
        socket.got.extend_from_slice(&bytes[..n]);
        Ok(n)
    }
}
