//! Turns of an event loop of one's own.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use zhaul_core::outbound::{OutboundStep, SendError, SendSummary, ZeroCopyPolicy};
use zhaul_core::{InPlaceEnd, Operation, Step, Stop};

use super::zero_copy::{ByReference, ZeroCopySender};
use super::{SendState, gather};
use crate::in_flight::is_in_flight;
use crate::memory::Segment;
use crate::progress::Progress;
use crate::residency::{ResidencyCache, is_resident};

/// What a turn works with.
#[derive(Clone, Copy, Debug, Default)]
pub struct TurnTerms<'a> {
    /// Pages of files that are not known here, nor found in memory, are not touched: the turn ends
    /// with [`Advance::Cold`]. Without a cache a turn may wait for a disk.
    pub residency: Option<&'a ResidencyCache>,
    /// Counts here.
    pub progress: Option<&'a Progress>,
}

/// What a turn came to. Exhaustive: an event loop that forgot one would spin or stall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advance {
    /// All of it is in the socket.
    Done(SendSummary),
    /// The socket takes no more: another turn when it is writable. With [`Ask::await_release`](zhaul_core::Ask::await_release) also when
    /// all is in the socket, and memory is still read: another turn when something comes into its error
    /// queue (EPOLLERR).
    Blocked,
    /// There is more to do: another turn, after the others had theirs.
    Again,
    /// Another turn at this time, or a little later: of a throttle, or because a file or an
    /// acknowledgement is to be looked at again.
    Later(Instant),
    /// What is next has to be read from a disk. A task ([`SendState::to`]) has that done by a pool.
    Cold,
}

impl SendState {
    /// Sends what can be sent now, up to the budget. The socket is in non-blocking mode or not: no
    /// turn waits for it, except in `sendfile(2)` and `splice(2)` on one in blocking mode.
    ///
    /// # Errors
    /// Why it stopped, and how much was sent before. Another turn says the same.
    pub fn turn(&mut self, socket: impl AsFd, terms: TurnTerms<'_>) -> Result<Advance, SendError> {
        self.advance(socket.as_fd(), terms, &mut ByReference::Never)
    }

    /// The same with large pieces of memory sent by reference. Without this all memory is copied.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    pub fn turn_by_reference(
        &mut self,
        socket: impl AsFd,
        terms: TurnTerms<'_>,
        sender: &mut ZeroCopySender,
    ) -> Result<Advance, SendError> {
        let mut by_reference = ByReference::Lent(sender);
        self.machine.set_policy(by_reference.policy());
        let advance = self.advance(socket.as_fd(), terms, &mut by_reference);
        by_reference.learn(self.machine.policy());
        self.machine.set_policy(ZeroCopyPolicy::NEVER);
        advance
    }

    fn advance(
        &mut self,
        socket: BorrowedFd<'_>,
        terms: TurnTerms<'_>,
        by_reference: &mut ByReference<'_>,
    ) -> Result<Advance, SendError> {
        loop {
            self.tick();
            match self.next() {
                OutboundStep::Send(gather) => {
                    if gather.zero_copy {
                        self.send_by_reference(gather, socket, by_reference, |call| call());
                    } else {
                        let sent = gather::send(socket, &self.aggregate, &gather, false);
                        self.machine.complete(gather, sent, None);
                    }
                    self.publish(terms.progress);
                }
                OutboundStep::File { segment } => {
                    if let Some(advance) = self.turn_of_file(segment, socket, terms) {
                        return Ok(advance);
                    }
                }
                OutboundStep::Wait(_) => return Ok(Advance::Blocked),
                OutboundStep::Yield => return Ok(Advance::Again),
                OutboundStep::Pause { until } => return Ok(Advance::Later(self.time(until))),
                OutboundStep::Reap => by_reference.reap(&mut self.machine),
                OutboundStep::AwaitRelease => {
                    let before = self.machine.released();
                    by_reference.reap(&mut self.machine);
                    if self.machine.released() == before {
                        return Ok(Advance::Blocked);
                    }
                }
                OutboundStep::Done(outcome) => return outcome.map(Advance::Done),
            }
        }
    }

    /// `None` once the file is done.
    fn turn_of_file(
        &mut self,
        segment: usize,
        socket: BorrowedFd<'_>,
        terms: TurnTerms<'_>,
    ) -> Option<Advance> {
        if !self.begin_file(segment, InPlaceEnd::Never, None) {
            return None;
        }
        let (Some(part), Some(Segment::File(range))) =
            (&mut self.file, self.aggregate.get(segment))
        else {
            return None;
        };
        let residency = terms.residency.filter(|_| part.is_on_disk());
        let (file, version) = (range.file().as_fd(), part.source.version);
        let held = part.state.held_mut();
        if let Some(began) = self.began {
            held.transfer.tick(began.elapsed());
        }
        if range.held_lease().is_some_and(|lease| lease.is_broken()) {
            held.transfer.stop(Stop::LeaseBroken);
        }
        let again = self.stat_again_at.filter(|_| !held.transfer.is_stopping());
        if let Some(at) = again.filter(|at| Instant::now() < *at) {
            return Some(Advance::Later(at));
        }
        self.stat_again_at = None;
        let step = held.advance((file, socket), terms.progress, |op| {
            match (residency, op.source_range()) {
                (Some(cache), Some((offset, len))) => {
                    let end = offset.saturating_add(len as u64);
                    version.is_some_and(|version| is_resident(file, &version, offset..end, cache))
                }
                _ => true,
            }
        });
        let now = Instant::now;
        match step {
            Step::Submit(_) => Some(Advance::Cold),
            Step::Wait(_) => Some(Advance::Blocked),
            Step::Yield => Some(Advance::Again),
            Step::Pause { until } => Some(Advance::Later(self.time(until))),
            Step::StatAgain { after } => {
                let at = now() + after;
                self.stat_again_at = Some(at);
                Some(Advance::Later(at))
            }
            Step::AwaitRelease => {
                match is_in_flight(socket) {
                    Ok(false) => held.transfer.released(),
                    Ok(true) => return Some(Advance::Later(now() + LOOK_AGAIN)),
                    Err(errno) => held.transfer.fail(Operation::Wait, errno),
                }
                None
            }
            Step::Done(_) => {
                held.publish_end(terms.progress);
                self.end_file();
                None
            }
        }
    }
}

/// How long an acknowledgement is not asked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
