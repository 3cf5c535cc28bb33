//! One connection: what the worker and its sweeper know of it, and the buffer of what it said.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::task::AbortHandle;
use zhaul::{InPlaceEnd, SinkFacts, Stability};
use zhaul_service::Peer;

use crate::files::lookup::Loaded;
use crate::host::clock::Clock;
use crate::host::config::Limits;
use crate::log::record::Came;
use crate::run::allowance::Allowance;
use crate::run::door::{Admission, LargeAnswer};
use crate::wire::pace::Pace;
use crate::wire::stream::Stream;

/// What a connection is busy with; each phase has its own time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Between requests.
    Idle,
    /// A request has begun and its header is not complete.
    Header,
    /// An answer is under way. The server itself may be what it waits for (a cold disk).
    Working,
    /// Bytes of an answer are offered to the client.
    Sending,
    /// Everything is said; the client's last bytes are read off so that it is not cut short.
    Lingering,
    /// Everything is said and the sending side is shut down; the client has yet to acknowledge it.
    /// No task attends to it.
    Departing,
}

/// Why the sweeper ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// It rested, or took its time with a body: nothing is lost by closing.
    Quiet,
    /// It took its time with a header, which it is told.
    Header,
    /// It takes an answer more slowly than is allowed.
    Slow,
    /// It has taken all that there was, and the rest does not come from our disk.
    Starved,
}

/// Where a client stood when a window began.
#[derive(Clone, Copy, Debug)]
struct RateWindow {
    began_ms: u64,
    /// Bytes acknowledged until then.
    taken: u64,
}

/// How long a client may take to close its side once it has acknowledged its last answer.
pub(crate) const LINGER_MS: u64 = 2_000;

/// A connection as the worker keeps it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: Stream,
    pub(crate) peer: Peer,
    /// The task that attends to it, while an answer has to wait for something.
    pub(crate) task: RefCell<Option<AbortHandle>>,
    pub(crate) input: RefCell<Input>,
    /// What it sent was received in this round and is yet to be answered.
    pub(crate) has_asked: Cell<bool>,
    /// Requests answered.
    pub(crate) served: Cell<u64>,
    /// What it is given before others have their turn.
    allowance: Allowance,
    /// How fast it is given bytes, if that is limited.
    pub(crate) pace: Option<Pace>,
    /// What was sent, in all answers.
    pub(crate) progress: zhaul::Progress,
    remote: OnceCell<String>,
    sink: OnceCell<SinkFacts>,
    phase: Cell<Phase>,
    since_ms: Cell<u64>,
    /// Bytes were given to the socket since it was last found empty.
    may_hold_bytes: Cell<bool>,
    /// Bytes that the client had acknowledged at the last sweep.
    taken: Cell<u64>,
    /// The window over which the rate of taking is averaged; `None` while there is nothing to take.
    window: Cell<Option<RateWindow>>,
    /// Bytes thrown away since its last answer.
    pub(crate) discarded: Cell<u64>,
    /// Since when nothing was sent though the client had taken all, and what was sent until then.
    starving: Cell<(u64, u64)>,
    admission: Admission,
}

/// What a connection sent and nobody has answered yet.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pub(crate) bytes: Vec<u8>,
    /// The bytes were parsed and do not hold a whole request.
    pub(crate) wants_more: bool,
    /// What was looked up for the request at the front of `bytes`.
    pub(crate) loaded: Vec<Loaded>,
    /// When that request was there, if it is logged and had to wait for a look-up.
    pub(crate) came: Option<Came>,
}

impl Input {
    /// Keeps what of `bytes` was not used.
    pub(crate) fn keep(&mut self, mut bytes: Vec<u8>, used: usize) {
        if used < bytes.len() {
            bytes.drain(..used);
            self.bytes = bytes;
        }
    }
}

impl Connection {
    pub(crate) fn new(
        stream: Stream,
        rate: Option<NonZeroU64>,
        peer: Peer,
        admission: Admission,
    ) -> Self {
        Self {
            stream,
            peer,
            task: RefCell::default(),
            input: RefCell::default(),
            has_asked: Cell::new(false),
            served: Cell::new(0),
            allowance: Allowance::default(),
            pace: rate.map(Pace::new),
            progress: zhaul::Progress::new(),
            remote: OnceCell::new(),
            sink: OnceCell::new(),
            phase: Cell::new(Phase::Idle),
            since_ms: Cell::new(Clock::now_ms()),
            may_hold_bytes: Cell::new(false),
            taken: Cell::new(0),
            window: Cell::default(),
            discarded: Cell::new(0),
            starving: Cell::default(),
            admission,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Enters `phase` now; its time limit starts anew.
    pub(crate) fn enter(&self, phase: Phase) {
        let before = self.phase.replace(phase);
        self.since_ms.set(Clock::now_ms());
        // A task does not say when it sends.
        if phase == Phase::Sending || before == Phase::Sending {
            self.may_hold_bytes.set(true);
        }
    }

    /// Others have had their turn, and it has its own.
    pub(crate) fn begin_turn(&self) {
        self.allowance.refill(self.sent());
    }

    /// Whether one more request may be answered in this turn.
    pub(crate) fn may_answer_another(&self) -> bool {
        self.allowance.take_request(self.sent())
    }

    /// Lets others have their turn.
    pub(crate) async fn yield_turn(&self) {
        tokio::task::yield_now().await;
        self.begin_turn();
    }

    /// Says that nothing more will be said, and lets the client take what was.
    pub(crate) fn depart(&self) {
        self.stream.shutdown_send();
        self.task.replace(None);
        self.input.take();
        self.enter(Phase::Departing);
    }

    /// Whether nothing is going on, as far as is known.
    pub(crate) fn rests(&self) -> bool {
        self.phase.get() == Phase::Idle && !self.has_task() && !self.has_asked.get()
    }

    /// Whether all was said to it, and it only has to close its side.
    pub(crate) fn lingers(&self) -> bool {
        self.phase.get() == Phase::Lingering && !self.has_task()
    }

    /// What its address is counted as.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.admission.address()
    }

    /// It is refused, and its address not to blame for the place it takes until it is closed.
    pub(crate) fn forfeit(&self) {
        self.admission.forfeit();
    }

    /// Whether all it was told is that it is refused.
    pub(crate) fn is_refused(&self) -> bool {
        self.admission.is_forfeited()
    }

    /// Whether a task attends to it.
    pub(crate) fn has_task(&self) -> bool {
        self.task.borrow().is_some()
    }

    /// Time since the current phase began.
    pub(crate) fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.since_ms.get())
    }

    /// Something was sent just now.
    pub(crate) fn note_sent(&self) {
        self.may_hold_bytes.set(true);
    }

    /// Bytes that the kernel has taken for the client, in all answers.
    pub(crate) fn sent(&self) -> u64 {
        self.progress.moved()
    }

    /// The client's address as it is logged.
    pub(crate) fn remote(&self) -> &str {
        self.remote.get_or_init(|| self.peer.to_string())
    }

    /// What a planner has to know about the socket. Whether the peer is across a wire takes
    /// several system calls and matters only under a lease, so it is asked once, then.
    pub(crate) fn sink_facts(&self, stability: Stability) -> SinkFacts {
        if stability != Stability::Leased {
            return SinkFacts::stream_socket(InPlaceEnd::Never);
        }
        let ask = || SinkFacts::stream_socket(zhaul::peer::in_place_end(&self.stream));
        *self.sink.get_or_init(ask)
    }

    /// Bytes of answers that the client has yet to acknowledge. What is wholly in the socket's buffer
    /// is under way like what is yet to be put there: it takes the same memory.
    ///
    /// Costs a system call as long as there is something, and once more when there is no more.
    fn unacknowledged(&self) -> u64 {
        if !self.may_hold_bytes.get() {
            return 0;
        }
        let queued = zhaul_sys::siocoutq::unacknowledged(self.stream.as_fd()).unwrap_or(0);
        if queued == 0 && self.phase.get() != Phase::Sending {
            self.may_hold_bytes.set(false);
        }
        queued as u64
    }

    /// Whether the client has yet to acknowledge something, and still can.
    pub(crate) fn is_undelivered(&self) -> bool {
        // Of a connection that was reset, the count stays what it was.
        self.unacknowledged() > 0 && self.stream.has_peer()
    }

    /// Whether a time limit has run out at `now_ms`, where what is left of an answer must be taken at
    /// the minimum rate over each `window`.
    pub(crate) fn overdue(
        &self,
        now_ms: u64,
        limits: &Limits,
        window: Duration,
        storage: Option<Duration>,
    ) -> Option<Overdue> {
        let unacknowledged = self.unacknowledged();
        if self.takes_too_slowly(now_ms, limits.min_send_rate, window, unacknowledged) {
            return Some(Overdue::Slow);
        }
        let taken = self.sent().saturating_sub(unacknowledged);
        let takes = self.taken.replace(taken) != taken;
        let is_told_all = matches!(
            self.phase.get(),
            Phase::Idle | Phase::Lingering | Phase::Departing
        );
        if unacknowledged > 0 && takes && is_told_all {
            // As long as it takes more of the answer it neither rests nor knows that it was told to
            // leave.
            self.since_ms.set(now_ms);
        }
        let age = u128::from(self.age_ms(now_ms));
        let over = |limit_ms: u128, why| (age > limit_ms).then_some(why);
        match self.phase.get() {
            Phase::Idle => over(limits.idle_timeout.as_millis(), Overdue::Quiet),
            Phase::Header => over(limits.header_timeout.as_millis(), Overdue::Header),
            Phase::Lingering => over(LINGER_MS.into(), Overdue::Quiet),
            Phase::Departing if !self.is_undelivered() => Some(Overdue::Quiet),
            // Without a minimum rate, too, whoever takes nothing at all is not waited for for ever.
            Phase::Departing => over(limits.idle_timeout.as_millis(), Overdue::Slow),
            Phase::Sending if unacknowledged == 0 => {
                let starved = storage.is_some_and(|limit| self.is_starved(now_ms, limit));
                starved.then_some(Overdue::Starved)
            }
            Phase::Working | Phase::Sending => None,
        }
    }

    /// Whether nothing was found to send for so long.
    fn is_starved(&self, now_ms: u64, limit: Duration) -> bool {
        let sent = self.sent();
        let (since_ms, sent_then) = self.starving.get();
        if sent != sent_then || since_ms < self.since_ms.get() {
            self.starving.set((now_ms, sent));
            return false;
        }
        u128::from(now_ms - since_ms) > limit.as_millis()
    }

    /// What counts is what the client has acknowledged: the kernel asks for more only when a third of
    /// its buffer, which can be megabytes, is free again.
    fn takes_too_slowly(
        &self,
        now_ms: u64,
        min_rate: u64,
        window: Duration,
        unacknowledged: u64,
    ) -> bool {
        if min_rate == 0 || unacknowledged == 0 {
            // It has taken all that it was offered; what it waits for is our disk.
            self.window.set(None);
            return false;
        }
        let taken = self.sent().saturating_sub(unacknowledged);
        let next = Some(RateWindow {
            began_ms: now_ms,
            taken,
        });
        let Some(began) = self.window.get() else {
            self.window.set(next);
            return false;
        };
        let elapsed_ms = now_ms.saturating_sub(began.began_ms);
        if u128::from(elapsed_ms) < window.as_millis().max(1) {
            return false;
        }
        self.window.set(next);
        let rate = u128::from(taken.saturating_sub(began.taken)) * 1000 / u128::from(elapsed_ms);
        rate < u128::from(min_rate)
    }

    /// Says that a large answer is under way here, until the result is dropped.
    pub(crate) fn carry_large_answer(&self) -> LargeAnswer<'_> {
        self.admission.carry_large_answer()
    }
}
