//! What the caller wants of a relay.

use std::time::Duration;

use super::side::Side;

/// The terms of a relay. One set is shared by all relays of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayOptions {
    /// Only what A sends is relayed; B is written to, never read from.
    pub one_way: bool,
    /// How the driver learns of readiness.
    pub trigger: Trigger,
    /// Ends a relay over which nothing moved for so long. A peer that still takes what its send
    /// queue holds counts as moving; that is looked at when the time is up, so that a peer that
    /// stopped taking is found after twice this time at the latest.
    pub idle: Option<Duration>,
    /// Ends a relay so long after it began.
    pub deadline: Option<Duration>,
    /// Takes the place of `idle` once one side has ended its stream and the other has not, by the
    /// [index](Side::index) of the side that ended.
    pub fin_timeout: [Option<Duration>; 2],
    /// How long what a side sent before it reset its connection may take to be delivered. After
    /// that, or sooner if all is delivered, the other side is reset, too.
    pub reset_grace: Duration,
    /// What a relay that ends early does to connections that are in order.
    pub abort: Abort,
    /// Bytes taken in one direction before other relays get their turn.
    pub budget_bytes: usize,
    /// Bulk is spliced. Without this everything is copied.
    pub splice: bool,
    /// When a direction counts as bulk.
    pub thresholds: FlowThresholds,
}

/// How readiness is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// Again and again while it lasts. The registration must follow
    /// [`Wants`](super::Wants), or what the relay does not want now is reported for ever.
    Level,
    /// Once for each arrival, urgent data included: `EPOLLET` with `EPOLLPRI`. A short receive is
    /// then known to have emptied a TCP socket.
    Edge,
    /// Once for each arrival; nobody tells of urgent data. Every read goes on until EAGAIN.
    EdgeWithoutUrgent,
}

/// How a relay that ran out of time, or was cancelled, leaves connections that are in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Abort {
    /// With a reset: nobody takes what arrived for all there was.
    Reset,
    /// With a FIN, unless bytes for that side are lost.
    Fin,
}

/// When a direction changes between copying and splicing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlowThresholds {
    /// So many receives in a row that filled their buffer make a direction bulk.
    pub full_reads: u8,
    /// A splice of fewer bytes is short.
    pub short_splice_bytes: usize,
    /// So many short splices in a row make it interactive again.
    pub short_splices: u8,
    /// After a pipe was refused, so much is copied before one is asked for again.
    pub pipe_retry_bytes: u64,
}

impl RelayOptions {
    /// The limit for inactivity when `closed` has ended its stream (`None`: neither has).
    pub(super) const fn inactivity(&self, closed: Option<Side>) -> Option<Duration> {
        let after_fin = match closed {
            Some(side) => self.fin_timeout[side.index()],
            None => None,
        };
        match after_fin {
            Some(limit) => Some(limit),
            None => self.idle,
        }
    }
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            one_way: false,
            trigger: Trigger::Edge,
            idle: None,
            deadline: None,
            fin_timeout: [None; 2],
            reset_grace: RESET_GRACE,
            abort: Abort::Reset,
            budget_bytes: BUDGET_BYTES,
            splice: true,
            thresholds: FlowThresholds::default(),
        }
    }
}

impl Default for FlowThresholds {
    fn default() -> Self {
        Self {
            full_reads: 2,
            short_splice_bytes: 16 << 10,
            short_splices: 3,
            pipe_retry_bytes: 1 << 20,
        }
    }
}

const RESET_GRACE: Duration = Duration::from_secs(1);

/// As much as a pipe of 1 MiB takes of full pages.
const BUDGET_BYTES: usize = 1 << 20;
