//! Sends an aggregate on a tokio task.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest as Ready;
use tokio::time::Instant;

use zhaul_core::outbound::{Gather, OutboundStep, SendError, SendSummary};
use zhaul_core::{Cause, Errno, InPlaceEnd, Operation, Refusal, Stop};

use super::zero_copy::ByReference;
use super::{SendBuilder, SendState, gather};
use crate::async_io::{
    AsyncEnd, AtDrop, Control, Drive, Goal, Kept, MAX_READ_BYTES, ReadAhead, Registered,
    SharedFile, Watch, unless_stopped,
};
use crate::blocking::wanted_of_sink;
use crate::cold::ColdPool;
use crate::edges::ERROR;
use crate::errno::errno_of;
use crate::handle::Handle;
use crate::haul::{in_place_end_of, shared_cache};
use crate::memory::{Aggregate, Segment};
use crate::pipe_pool::PipePool;
use crate::residency::ResidencyCache;

/// What sending on tokio needs besides.
impl<'a, K> SendBuilder<'a, K> {
    /// Has cold pages of files read by this pool instead of [`ColdPool::shared`].
    pub fn cold_pool(mut self, pool: &Arc<ColdPool>) -> Self {
        self.cold = Some(Arc::clone(pool));
        self
    }

    /// Remembers here which files were found in memory, instead of in the residency cache of the
    /// process.
    pub fn residency(mut self, cache: impl Into<Handle<'a, ResidencyCache>>) -> Self {
        self.residency = Some(cache.into());
        self
    }
}

impl<'a, K: AsyncEnd + Sync> SendBuilder<'a, K> {
    /// Sends it on this task; see [`crate::async_io`]. Awaiting the builder does the same.
    ///
    /// Dropping the future stops it. How much was sent then tells [`Progress`](crate::Progress);
    /// to interrupt it and go on, [`start`](Self::start) it.
    ///
    /// # Errors
    /// Why it stopped, and how much was sent before.
    ///
    /// # Panics
    /// With a deadline or a throttle, on a runtime without timers.
    pub async fn run_async(self) -> Result<SendSummary, SendError> {
        self.start()?.run().await
    }

    /// Begins a sending that can be interrupted and driven on.
    ///
    /// # Errors
    /// If the socket cannot be examined or is none.
    ///
    /// # Panics
    /// With a deadline or a throttle, on a runtime without timers.
    pub fn start(mut self) -> Result<Sending<'a, K>, SendError> {
        if self.socket.is_file() {
            let refusal = Refusal::SinkNotAttached;
            return Err(SendError::before_start(Cause::Refused { refusal }));
        }
        let mut ask = *self.state.machine.ask();
        // No more than is made resident at once.
        ask.chunk_bytes = ask.chunk_bytes.min(MAX_READ_BYTES);
        self.state.machine.set_ask(&ask);
        self.examine(self.socket.fd())?;
        if ask.deadline.is_some() || ask.throttle.is_some() {
            // Now, and not when the first is due.
            drop(tokio::time::sleep(Duration::ZERO));
            let now = || Instant::now().into_std();
            self.state.began.get_or_insert_with(now);
        }
        let asks_for_peer = self.asks_for_peer();
        let socket = Registered::of(self.socket).map_err(|(_, error)| {
            let (operation, errno) = (Operation::ExamineSink, errno_of(&error));
            SendError::before_start(Cause::Io { operation, errno })
        })?;
        let builder = SendBuilder {
            state: self.state,
            socket,
            cancel: self.cancel,
            progress: self.progress,
            pipes: self.pipes,
            by_reference: self.by_reference,
            cold: self.cold,
            residency: self.residency,
        };
        Ok(Sending {
            builder,
            in_place_end: (!asks_for_peer).then_some(InPlaceEnd::Never),
        })
    }
}

/// A sending under way, as [`SendBuilder::start`] returns it. Dropping any of the futures below loses
/// nothing, and the next one goes on.
#[must_use = "nothing is sent before run() or run_until()"]
pub struct Sending<'a, K: AsyncEnd + Sync> {
    builder: SendBuilder<'a, Registered<K>>,
    /// Where pages queued in the socket end, once it is known.
    in_place_end: Option<InPlaceEnd>,
}

impl<K: AsyncEnd + Sync> Sending<'_, K> {
    /// Sends what is left. After that the outcome is returned again.
    ///
    /// # Errors
    /// Why it stopped, and how much was sent before.
    pub async fn run(&mut self) -> Result<SendSummary, SendError> {
        let builder = &mut self.builder;
        let ask = *builder.state.machine.ask();
        let control = Control {
            lease: None,
            cancel: builder.cancel.as_ref(),
            progress: builder.progress.as_deref(),
            began: builder.state.began.map(Instant::from_std),
            deadline: ask.deadline,
        };
        let task = Task {
            state: &mut builder.state,
            socket: &builder.socket,
            control,
            in_place_end: &mut self.in_place_end,
            pipes: builder.pipes.as_ref(),
            by_reference: &mut builder.by_reference,
            cold: builder.cold.as_ref().unwrap_or_else(|| ColdPool::shared()),
            residency: builder
                .residency
                .as_deref()
                .unwrap_or_else(|| shared_cache()),
        };
        task.run().await
    }

    /// Sends until it is done or this future is: `None` if that came first.
    ///
    /// # Errors
    /// Why it stopped, and how much was sent before.
    pub async fn run_until(
        &mut self,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<SendSummary>, SendError> {
        tokio::select! {
            biased;
            outcome = self.run() => outcome.map(Some),
            () = stop => Ok(None),
        }
    }

    /// Stops it: what there is to be said of that [`run`](Self::run) says.
    pub fn stop(&mut self, stop: Stop) {
        self.builder.state.stop(stop);
    }

    /// Bytes that the socket took.
    pub fn moved(&self) -> u64 {
        self.builder.state.moved()
    }

    /// What is left, for an event loop's turns.
    pub fn into_state(mut self) -> SendState {
        self.publish_end();
        std::mem::replace(&mut self.builder.state, SendState::new(Aggregate::new()))
    }

    /// Nobody counts any more what is between a file and the socket.
    fn publish_end(&mut self) {
        if let Some(part) = &mut self.builder.state.file {
            let progress = self.builder.progress.as_deref();
            part.state.held_mut().publish_end(progress);
        }
    }
}

impl<K: AsyncEnd + Sync> Drop for Sending<'_, K> {
    fn drop(&mut self) {
        self.publish_end();
    }
}

impl<K: AsyncEnd + Sync> fmt::Debug for Sending<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("state", &self.builder.state)
            .finish_non_exhaustive()
    }
}

/// `zhaul::send(…).await` is `zhaul::send(…).run_async().await` in a box.
impl<'a, K> IntoFuture for SendBuilder<'a, K>
where
    K: AsyncEnd + Send + Sync + 'a,
{
    type Output = Result<SendSummary, SendError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run_async())
    }
}

/// One future's work on a sending.
struct Task<'a, 'b, K: AsyncEnd> {
    state: &'a mut SendState,
    socket: &'a K,
    control: Control<'a>,
    in_place_end: &'a mut Option<InPlaceEnd>,
    pipes: Option<&'a PipePool>,
    by_reference: &'a mut ByReference<'b>,
    cold: &'a ColdPool,
    residency: &'a ResidencyCache,
}

impl<K: AsyncEnd> Task<'_, '_, K> {
    async fn run(mut self) -> Result<SendSummary, SendError> {
        self.state.machine.set_policy(self.by_reference.policy());
        let outcome = self.drive().await;
        self.by_reference.learn(self.state.machine.policy());
        if outcome.is_ok() {
            self.by_reference.sent_all();
        }
        outcome
    }

    async fn drive(&mut self) -> Result<SendSummary, SendError> {
        let mut stop = self.control.stop();
        loop {
            self.state.tick();
            match self.state.next() {
                OutboundStep::Send(gather) => match self.control.stop_now() {
                    Some(stop) => self.state.machine.stop(stop),
                    None => self.send(gather),
                },
                OutboundStep::File { segment } => {
                    // Large, and waits for disks: not part of the future.
                    Box::pin(self.file(segment)).await;
                }
                OutboundStep::Wait(interest) => {
                    if let Some(wanted) = wanted_of_sink(interest) {
                        let ready = self.state.watch.ready(self.socket, wanted);
                        let ready = unless_stopped(&mut stop, ready).await;
                        self.settle(ready.map(|ready| ready.map(drop)));
                    }
                }
                OutboundStep::Pause { until } => {
                    let until = tokio::time::sleep_until(self.control.later(until));
                    let slept = unless_stopped(&mut stop, until).await;
                    self.settle(slept.map(Ok));
                }
                OutboundStep::Reap => self.by_reference.reap(&mut self.state.machine),
                OutboundStep::AwaitRelease => {
                    let came = self.state.watch.ready(self.socket, ERROR);
                    let came = unless_stopped(&mut stop, came).await;
                    self.settle(came.map(|came| came.map(drop)));
                    self.by_reference.reap(&mut self.state.machine);
                }
                OutboundStep::Yield => tokio::task::yield_now().await,
                OutboundStep::Done(outcome) => return outcome,
            }
        }
    }

    fn send(&mut self, gather: Gather) {
        let socket = self.socket;
        if gather.zero_copy {
            let watch = std::mem::replace(&mut self.state.watch, Watch::sink());
            let attempt = |call: &mut dyn FnMut() -> io::Result<()>| {
                watch.attempt(socket, Ready::WRITABLE, call)
            };
            self.state
                .send_by_reference(gather, socket.fd(), self.by_reference, attempt);
            self.state.watch = watch;
            return self.state.publish(self.control.progress);
        }
        let aggregate = &self.state.aggregate;
        let call = || gather::send(socket.fd(), aggregate, &gather, false).map_err(io::Error::from);
        let sent = self.state.watch.attempt(socket, Ready::WRITABLE, call);
        let sent = sent.map_err(|error| errno_of(&error));
        self.state.machine.complete(gather, sent, None);
        self.state.publish(self.control.progress);
    }

    /// What an interruptible wait came to.
    fn settle(&mut self, waited: Result<Result<(), Errno>, Stop>) {
        match waited {
            Ok(Ok(())) => {}
            Ok(Err(errno)) => self.state.machine.fail(Operation::Wait, errno),
            Err(stop) => self.state.machine.stop(stop),
        }
    }

    async fn file(&mut self, segment: usize) {
        let in_place_end = match *self.in_place_end {
            Some(known) => known,
            None => {
                let asked = in_place_end_of(self.socket.fd(), self.cold).await;
                *self.in_place_end.insert(asked)
            }
        };
        let state = &mut *self.state;
        if !state.begin_file(segment, in_place_end, self.pipes) {
            return;
        }
        let chunk_bytes = state.machine.ask().chunk_bytes;
        let stat_pause = state.take_stat_pause();
        if let (Some(part), Some(Segment::File(range))) =
            (&mut state.file, state.aggregate.get(segment))
        {
            if let Some(left) = stat_pause {
                part.state.stat_after(left);
            }
            part.state.exchange_sink(&mut state.watch);
            let file = SharedFile(range.file().clone());
            let read_ahead = part.is_on_disk().then(|| {
                let (version, end) = (part.source.version, part.state.transfer().source_end());
                let file = Kept::new(&file);
                ReadAhead::new(file, version, self.residency, self.cold, chunk_bytes, end)
            });
            let control = Control {
                lease: range.held_lease().map(|lease| &**lease),
                ..self.control
            };
            let ends = (&file, self.socket);
            let drive = Drive::new(ends, &mut part.state, read_ahead, control, AtDrop::Keep);
            // The machine asks the transfer how it ended.
            let _ = drive.run(Goal::End).await;
            part.state.exchange_sink(&mut state.watch);
        }
        state.end_file();
    }
}
