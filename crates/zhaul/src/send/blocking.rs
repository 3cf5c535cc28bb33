//! Sends an aggregate on the thread that calls.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use zhaul_core::outbound::{OutboundStep, SendError, SendSummary};
use zhaul_core::{InPlaceEnd, Operation};

use super::zero_copy::ByReference;
use super::{SendBuilder, SendState, gather};
use crate::blocking::{Control, Waited, Waits, drive_ends, wanted_of_sink};
use crate::edges::{ERROR, WRITABLE};
use crate::memory::Segment;
use crate::nonblocking::Impatient;
use crate::peer;
use crate::pipe_pool::PipePool;

impl<K: AsFd> SendBuilder<'_, K> {
    /// Sends it on this thread and returns when all is in the socket, which may be in either mode; it
    /// waits as [`Haul::run`](crate::Haul::run) does, and at the same price.
    ///
    /// # Errors
    /// Why it stopped, and how much was sent before.
    pub fn run(mut self) -> Result<SendSummary, SendError> {
        let socket = self.socket.as_fd();
        self.examine(socket)?;
        let in_place_end = if self.asks_for_peer() {
            peer::in_place_end(socket)
        } else {
            InPlaceEnd::Never
        };
        let state = &mut self.state;
        let ask = *state.machine.ask();
        let control = Control {
            lease: None,
            cancel: self.cancel.as_ref(),
            progress: self.progress.as_deref(),
            began: state.start_clock(),
        };
        let is_leased = |segment: &Segment| match segment {
            Segment::File(range) => range.held_lease().is_some(),
            Segment::Memory(_) => false,
        };
        let may_wait =
            !control.can_stop(ask.deadline) && !state.aggregate.segments().any(is_leased);
        let socket = if may_wait {
            Impatient::Given(socket)
        } else {
            Impatient::sink(socket)
        };
        let socket = socket.as_fd();
        let drive = Drive {
            state,
            socket,
            waits: Waits::new([(socket, WRITABLE)], control, ask.deadline),
            by_reference: &mut self.by_reference,
            may_wait,
            in_place_end,
            pipes: self.pipes.as_ref(),
        };
        drive.run()
    }
}

struct Drive<'a, 'b> {
    state: &'a mut SendState,
    socket: BorrowedFd<'a>,
    waits: Waits<'a, 1>,
    by_reference: &'a mut ByReference<'b>,
    /// Calls on a socket in blocking mode may wait.
    may_wait: bool,
    in_place_end: InPlaceEnd,
    pipes: Option<&'a PipePool>,
}

impl Drive<'_, '_> {
    fn run(mut self) -> Result<SendSummary, SendError> {
        self.state.machine.set_policy(self.by_reference.policy());
        let outcome = self.drive();
        self.by_reference.learn(self.state.machine.policy());
        if outcome.is_ok() {
            self.by_reference.sent_all();
        }
        outcome
    }

    fn drive(&mut self) -> Result<SendSummary, SendError> {
        loop {
            self.state.tick();
            if let Some(stop) = self.waits.control.stop_now() {
                self.state.machine.stop(stop);
            }
            match self.state.next() {
                OutboundStep::Send(gather) if gather.zero_copy => {
                    let (socket, by_reference) = (self.socket, &mut *self.by_reference);
                    let attempt = |call: &mut dyn FnMut() -> io::Result<()>| call();
                    self.state
                        .send_by_reference(gather, socket, by_reference, attempt);
                    self.state.publish(self.waits.control.progress);
                }
                OutboundStep::Send(gather) => {
                    let aggregate = &self.state.aggregate;
                    let sent = gather::send(self.socket, aggregate, &gather, self.may_wait);
                    self.state.machine.complete(gather, sent, None);
                    self.state.publish(self.waits.control.progress);
                }
                OutboundStep::File { segment } => self.file(segment),
                OutboundStep::Wait(interest) => {
                    let waited = self.waits.wait_for([wanted_of_sink(interest)], None);
                    self.settle(waited);
                }
                OutboundStep::Pause { until } => {
                    let pause = until.saturating_sub(self.waits.control.elapsed());
                    let waited = self.waits.wait_for([None], Some(pause));
                    self.settle(waited);
                }
                OutboundStep::Reap => self.by_reference.reap(&mut self.state.machine),
                OutboundStep::AwaitRelease => {
                    let waited = self.waits.wait_for([Some(ERROR)], None);
                    self.settle(waited);
                    self.by_reference.reap(&mut self.state.machine);
                }
                // A thread of its own has nobody to yield to.
                OutboundStep::Yield => {}
                OutboundStep::Done(outcome) => return outcome,
            }
        }
    }

    fn settle(&mut self, waited: Waited) {
        match waited {
            Waited::Ready | Waited::Nothing => {}
            Waited::Stopped(stop) => self.state.machine.stop(stop),
            Waited::Failed(errno) => self.state.machine.fail(Operation::Wait, errno),
        }
    }

    fn file(&mut self, segment: usize) {
        let state = &mut *self.state;
        if !state.begin_file(segment, self.in_place_end, self.pipes) {
            return;
        }
        if let Some(left) = state.take_stat_pause()
            && let Waited::Stopped(stop) = self.waits.wait_for([None], Some(left))
        {
            state.stop(stop);
        }
        if let (Some(part), Some(Segment::File(range))) =
            (&mut state.file, state.aggregate.get(segment))
        {
            let held = part.state.held_mut();
            if self.may_wait {
                held.buffers.let_calls_wait();
            }
            let control = Control {
                lease: range.held_lease().map(|lease| &**lease),
                ..self.waits.control
            };
            // The machine asks the transfer how it ended.
            let _ = drive_ends((range.file().as_fd(), self.socket), held, None, control);
        }
        state.end_file();
    }
}
