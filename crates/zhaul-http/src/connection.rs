//! One connection: what the worker and its sweeper know of it, and the buffer of what it said.

use std::cell::{Cell, OnceCell, RefCell};
use std::os::fd::AsFd;

use tokio::task::AbortHandle;
use zhaul::{InPlaceEnd, SinkFacts, Stability};

use zhaul_service::Peer;

use crate::accept::{Admission, LargeAnswer};
use crate::clock::Clock;
use crate::config::Limits;
use crate::lookup::Loaded;
use crate::stream::Stream;

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
}

/// Why the sweeper ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// It rested, or took its time with a header or a body: nothing is lost by closing.
    Quiet,
    /// It takes an answer more slowly than is allowed.
    Slow,
}

/// Where a client stood when a window began.
#[derive(Clone, Copy, Debug, Default)]
struct RateWindow {
    began_ms: u64,
    /// Bytes acknowledged until then, once that was looked at.
    taken: Option<u64>,
}

/// The window over which the rate of taking is averaged.
const RATE_WINDOW_MS: u64 = 10_000;
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
    /// Requests answered.
    pub(crate) served: Cell<u64>,
    /// File bytes that transfers have sent.
    pub(crate) transferred: zhaul::Progress,
    /// Bytes sent outside of transfers.
    sent_directly: Cell<u64>,
    remote: OnceCell<String>,
    sink: OnceCell<SinkFacts>,
    phase: Cell<Phase>,
    since_ms: Cell<u64>,
    window: Cell<RateWindow>,
    /// Bytes thrown away since its last answer.
    pub(crate) discarded: Cell<u64>,
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
    pub(crate) fn new(stream: Stream, peer: Peer, admission: Admission) -> Self {
        Self {
            stream,
            peer,
            task: RefCell::default(),
            input: RefCell::default(),
            served: Cell::new(0),
            transferred: zhaul::Progress::new(),
            sent_directly: Cell::new(0),
            remote: OnceCell::new(),
            sink: OnceCell::new(),
            phase: Cell::new(Phase::Idle),
            since_ms: Cell::new(Clock::now_ms()),
            window: Cell::default(),
            discarded: Cell::new(0),
            admission,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Enters `phase` now; its time limit starts anew.
    pub(crate) fn enter(&self, phase: Phase) {
        let now = Clock::now_ms();
        self.phase.set(phase);
        self.since_ms.set(now);
        if matches!(phase, Phase::Sending | Phase::Lingering) {
            self.window.set(RateWindow {
                began_ms: now,
                taken: None,
            });
        }
    }

    /// Whether a task attends to it.
    pub(crate) fn has_task(&self) -> bool {
        self.task.borrow().is_some()
    }

    /// Time since the current phase began.
    pub(crate) fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.since_ms.get())
    }

    /// Counts bytes that were sent outside of a transfer.
    pub(crate) fn add_sent(&self, bytes: usize) {
        self.sent_directly
            .set(self.sent_directly.get() + bytes as u64);
    }

    /// Bytes that the kernel has taken for the client, in all answers.
    pub(crate) fn sent(&self) -> u64 {
        self.sent_directly.get() + self.transferred.moved()
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

    /// Whether a time limit has run out at `now_ms`.
    pub(crate) fn overdue(&self, now_ms: u64, limits: &Limits) -> Option<Overdue> {
        let age = self.age_ms(now_ms);
        let quiet = |limit_ms: u128| (u128::from(age) > limit_ms).then_some(Overdue::Quiet);
        match self.phase.get() {
            Phase::Idle => quiet(limits.idle_timeout.as_millis()),
            Phase::Header => quiet(limits.header_timeout.as_millis()),
            Phase::Lingering if self.unacknowledged() == 0 => quiet(LINGER_MS.into()),
            Phase::Lingering => {
                // A client cannot know that it was told to leave before it has taken its answer.
                self.since_ms.set(now_ms);
                self.takes_too_slowly(now_ms, limits.min_send_rate)
            }
            Phase::Working => None,
            Phase::Sending => self.takes_too_slowly(now_ms, limits.min_send_rate),
        }
    }

    /// Bytes that are sent and not yet acknowledged.
    fn unacknowledged(&self) -> usize {
        zhaul_sys::siocoutq::unacknowledged(self.stream.as_fd()).unwrap_or(0)
    }

    fn takes_too_slowly(&self, now_ms: u64, min_rate: u64) -> Option<Overdue> {
        let window = self.window.get();
        let elapsed_ms = now_ms.saturating_sub(window.began_ms);
        if min_rate == 0 || elapsed_ms < RATE_WINDOW_MS {
            return None;
        }
        // What counts is what the client has acknowledged: the kernel asks for more only when a
        // third of its buffer, which can be megabytes, is free again.
        let queued = self.unacknowledged();
        if queued == 0 {
            // It has taken all that it was offered; what it waits for is our disk.
            self.window.set(RateWindow {
                began_ms: now_ms,
                taken: None,
            });
            return None;
        }
        let taken = self.sent().saturating_sub(queued as u64);
        self.window.set(RateWindow {
            began_ms: now_ms,
            taken: Some(taken),
        });
        // The first window of an answer only finds out where the client stands.
        let before = window.taken?;
        let rate = u128::from(taken.saturating_sub(before)) * 1000 / u128::from(elapsed_ms);
        (rate < u128::from(min_rate)).then_some(Overdue::Slow)
    }

    /// Says that a large answer is under way here, until the result is dropped.
    pub(crate) fn carry_large_answer(&self) -> LargeAnswer<'_> {
        self.admission.carry_large_answer()
    }
}
