//! The builder behind [`relay`].

use std::borrow::Cow;
use std::num::NonZeroU64;
use std::os::fd::AsFd;
#[cfg(feature = "tokio")]
use std::os::fd::BorrowedFd;
#[cfg(feature = "tokio")]
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use zhaul_core::Errno;
use zhaul_core::relay::{Abort, RelayEnding, RelayOptions, Side, Trigger, Way};

use super::blocking;
use super::buffers::BufferPool;
#[cfg(feature = "tokio")]
use super::copying::{ByteStream, Copying, SocketOf};
use super::limit::{Limit, RateLimit, now};
use super::progress::RelayProgress;
#[cfg(feature = "tokio")]
use super::task::Task;
use super::turns::{Relay, Resources};
#[cfg(feature = "tokio")]
use crate::async_io::{AsyncEnd, Registered};
use crate::cancel::CancelToken;
use crate::errno::errno_of;
use crate::handle::Handle;
use crate::nonblocking::NonBlocking;
use crate::pipe_pool::PipePool;

/// A relay to be run; see [`relay`].
#[derive(Debug)]
#[must_use = "nothing moves before run() or run_async()"]
pub struct RelayBuilder<'a, A, B> {
    a: A,
    b: B,
    #[cfg(feature = "tokio")]
    sockets: (Option<SocketOf<A>>, Option<SocketOf<B>>),
    options: RelayOptions,
    resources: Resources,
    limits: Vec<(Way, Arc<dyn Limit>)>,
    preloads: Vec<(Way, Cow<'a, [u8]>)>,
    cancel: Option<CancelToken>,
    drain: Option<(CancelToken, Duration)>,
    progress: Option<Handle<'a, RelayProgress>>,
}

/// What serves, stops or watches a relay.
pub(super) struct Control<'a> {
    pub(super) resources: Resources,
    cancel: Option<CancelToken>,
    drain: Option<(CancelToken, Duration)>,
    pub(super) progress: Option<Handle<'a, RelayProgress>>,
}

impl Control<'_> {
    /// Stops the relay if it is to be stopped.
    pub(super) fn apply(&mut self, relay: &mut Relay) {
        if self.cancel.as_ref().is_some_and(CancelToken::is_cancelled) {
            relay.cancel();
        }
        if let Some((token, within)) = &self.drain
            && token.is_cancelled()
        {
            relay.drain(now().saturating_add(*within));
            // It has done its part.
            self.drain = None;
        }
    }

    /// What tells to [apply](Self::apply) it anew.
    pub(super) fn tokens(&self) -> [Option<&CancelToken>; 2] {
        let drain = self.drain.as_ref().map(|(token, _)| token);
        [self.cancel.as_ref(), drain]
    }
}

/// Describes a relay between two stream sockets, which [`RelayBuilder::run_async`] or
/// [`RelayBuilder::run`] runs.
///
/// Give it the sockets, or references to keep them. Either way the relay leaves each of them as
/// its end demands: with a FIN, or reset.
pub fn relay<'a, A, B>(a: A, b: B) -> RelayBuilder<'a, A, B> {
    RelayBuilder {
        a,
        b,
        #[cfg(feature = "tokio")]
        sockets: (None, None),
        options: RelayOptions::default(),
        resources: Resources::shared().clone(),
        limits: Vec::new(),
        preloads: Vec::new(),
        cancel: None,
        drain: None,
        progress: None,
    }
}

impl<'a, A, B> RelayBuilder<'a, A, B> {
    /// All terms at once, except the trigger, which is the driver's business.
    pub const fn options(mut self, options: RelayOptions) -> Self {
        self.options = options;
        self
    }

    /// Relays only what A sends.
    pub const fn one_way(mut self) -> Self {
        self.options.one_way = true;
        self
    }

    /// Ends a relay over which nothing moved for so long.
    pub const fn idle_timeout(mut self, limit: Duration) -> Self {
        self.options.idle = Some(limit);
        self
    }

    /// The same once one side, either, has ended its stream and the other has not.
    pub const fn fin_timeout(mut self, limit: Duration) -> Self {
        self.options.fin_timeout = [Some(limit); 2];
        self
    }

    /// The same, for when it is this side that has ended its stream.
    pub const fn fin_timeout_after(mut self, closed: Side, limit: Duration) -> Self {
        self.options.fin_timeout[closed.index()] = Some(limit);
        self
    }

    /// Ends the relay so long after its start.
    pub const fn deadline(mut self, after: Duration) -> Self {
        self.options.deadline = Some(after);
        self
    }

    /// What an early end does to connections that are in order; [`Abort::Reset`] without this.
    pub const fn abort(mut self, abort: Abort) -> Self {
        self.options.abort = abort;
        self
    }

    /// Takes at most so many bytes a second this way.
    pub fn throttle(self, way: Way, bytes_per_second: NonZeroU64) -> Self {
        self.limit(way, Arc::new(RateLimit::new(bytes_per_second)))
    }

    /// Asks this limit, which others may share, before bytes are taken this way.
    pub fn limit(mut self, way: Way, limit: Arc<dyn Limit>) -> Self {
        self.limits.push((way, limit));
        self
    }

    /// Sends these bytes this way before any others.
    pub fn preload(mut self, way: Way, bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        self.preloads.push((way, bytes.into()));
        self
    }

    /// Stops gracefully when this token is cancelled: takes nothing more, delivers what was taken, ends
    /// both streams with a FIN and waits until they are acknowledged. What is not done within this
    /// time is cut as if [cancelled](Self::cancel). The cause is then
    /// [`RelayCause::Stopped`](super::RelayCause::Stopped).
    pub fn drain(mut self, token: impl Into<CancelToken>, within: Duration) -> Self {
        self.drain = Some((token.into(), within));
        self
    }

    /// Stops at once when cancelled, and leaves connections as [`abort`](Self::abort) says.
    pub fn cancel(mut self, cancel: impl Into<CancelToken>) -> Self {
        self.cancel = Some(cancel.into());
        self
    }

    /// Counts here while it runs.
    pub fn progress(mut self, progress: impl Into<Handle<'a, RelayProgress>>) -> Self {
        self.progress = Some(progress.into());
        self
    }

    /// Takes pipes from this pool.
    pub fn pipes(mut self, pool: &PipePool) -> Self {
        self.resources.pipes = pool.clone();
        self
    }

    /// Takes buffers from this pool.
    pub fn buffers(mut self, pool: &BufferPool) -> Self {
        self.resources.buffers = pool.clone();
        self
    }
}

#[cfg(feature = "tokio")]
impl<A: AsyncEnd + Sync, B: AsyncEnd + Sync> RelayBuilder<'_, A, B> {
    /// Relays on this task until it is over.
    ///
    /// Dropping the future cancels it, before its first poll, too: from here on the relay has the
    /// sockets.
    pub fn run_async(self) -> impl Future<Output = RelayEnding> {
        let relay = self.begin(Trigger::EdgeWithoutUrgent);
        let control = self.control();
        let a = Registered::or_unattached(self.a);
        let b = Registered::or_unattached(self.b);
        let task = Task::new(a, b, relay, control);
        // What is captured is dropped with the future.
        async move { task.run().await }
    }
}

#[cfg(feature = "tokio")]
impl<A: ByteStream, B: ByteStream> RelayBuilder<'_, A, B> {
    /// Relays between two streams that are no descriptors, such as TLS sessions, on this task.
    ///
    /// Everything is copied: [`Stats`](super::Stats) say that nothing was spliced, and
    /// [`RelayProgress::route`] says [`Route::ReadWrite`](crate::Route::ReadWrite) throughout.
    /// Limits, timeouts and the ways to end are those of all relays, but for these:
    ///
    /// - Bytes count as delivered once they are flushed. A flush or an end that fails is a failed
    ///   write, [`RelayCause::Write`](super::RelayCause::Write) or
    ///   [`Reset`](super::RelayCause::Reset). A flush that takes its time holds up its direction
    ///   as a full socket does; the limits that were set apply. An end that is not taken is put up
    ///   with for as long as they allow, or, without any, until nothing has moved for 5 seconds:
    ///   then it is a failed write (ETIMEDOUT).
    /// - **Only a socket can be reset.** Name those beneath the streams
    ///   ([`socket_a`](Self::socket_a), [`socket_b`](Self::socket_b)). A stream whose socket is
    ///   not known is dropped without its end instead: a peer over TLS misses the close_notify,
    ///   but a peer over plain TCP gets a FIN and takes a part for the whole. The same goes for
    ///   what a graceful stop promises of acknowledgements.
    ///
    /// Dropping the future cancels it, before its first poll, too.
    pub fn run_copying(self) -> impl Future<Output = RelayEnding> {
        // A stream wakes up who polled it until it was not ready, and nobody else.
        let relay = self.begin(Trigger::EdgeWithoutUrgent);
        let control = self.control();
        let (a, b) = ((self.a, self.sockets.0), (self.b, self.sockets.1));
        let copying = Copying::new(a, b, relay, control);
        // What is captured is dropped with the future.
        async move { copying.run().await }
    }

    /// Names the socket beneath stream A, as in `|tls| tls.get_ref().0.as_fd()`, for
    /// [`run_copying`](Self::run_copying) to reset, and to ask what it has not sent.
    pub fn socket_a(mut self, socket: for<'s> fn(&'s A) -> BorrowedFd<'s>) -> Self {
        self.sockets.0 = Some(socket);
        self
    }

    /// The same for stream B.
    pub fn socket_b(mut self, socket: for<'s> fn(&'s B) -> BorrowedFd<'s>) -> Self {
        self.sockets.1 = Some(socket);
        self
    }
}

/// `relay.await` is `relay.run_async().await` in a box.
#[cfg(feature = "tokio")]
impl<'a, A, B> IntoFuture for RelayBuilder<'a, A, B>
where
    A: AsyncEnd + Send + Sync + 'a,
    B: AsyncEnd + Send + Sync + 'a,
{
    type Output = RelayEnding;
    type IntoFuture = Pin<Box<dyn Future<Output = RelayEnding> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run_async())
    }
}

impl<A: AsFd, B: AsFd> RelayBuilder<'_, A, B> {
    /// Relays on this thread until it is over.
    ///
    /// Both sockets are in non-blocking mode meanwhile, for all who share them.
    ///
    /// # Errors
    /// If that is not possible; nothing has moved then.
    pub fn run(self) -> Result<RelayEnding, Errno> {
        let switch = |fd| NonBlocking::new(fd).map_err(|error| errno_of(&error));
        let (a, b) = (switch(self.a.as_fd())?, switch(self.b.as_fd())?);
        let relay = self.begin(Trigger::Level);
        Ok(blocking::run(a.as_fd(), b.as_fd(), relay, self.control()))
    }
}

impl<'a, A, B> RelayBuilder<'a, A, B> {
    fn begin(&self, trigger: Trigger) -> Relay {
        let mut options = self.options;
        options.trigger = trigger;
        let mut relay = Relay::new(&Arc::new(options), now());
        for (way, limit) in &self.limits {
            relay.limit(*way, Arc::clone(limit));
        }
        for (way, bytes) in &self.preloads {
            relay.preload(*way, bytes);
        }
        relay
    }

    fn control(&self) -> Control<'a> {
        Control {
            resources: self.resources.clone(),
            cancel: self.cancel.clone(),
            drain: self.drain.clone(),
            progress: self.progress.clone(),
        }
    }
}
