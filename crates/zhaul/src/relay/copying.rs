//! A relay between two streams that are no descriptors, such as TLS sessions: everything is copied.
//!
//! The machine is that of all relays, with its limits, timeouts and ways to end. It never gets a
//! pipe, so it never splices. Three things are other than with sockets:
//! - Bytes count as delivered once they were flushed, and a stream has ended once its
//!   `poll_shutdown` is done. What fails of either ends the relay as a failed write does.
//! - Only the socket beneath a stream can be reset. Where the caller does not name it, the stream
//!   is dropped instead: TLS peers miss its end, but those of a plain TCP stream get a FIN.
//! - The readiness of a stream is known by asking it: each turn does so until it has none.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use zhaul_core::Errno;
use zhaul_core::relay::{Call, Readiness, RelayEnding, Side};

use super::builder::Control;
use super::calls::{Calls, WayBuffers, is_unix, queued, reset};
use super::limit::now;
use super::task::{Timer, cancelling};
use super::turns::{Relay, Turn};
use crate::async_io::pause;
use crate::cancel::CancelToken;
use crate::errno::errno_of;
use crate::pipe_pool::PipePool;

/// What can be read and written without a descriptor.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be relayed by copying",
    note = "both sides have to be `AsyncRead + AsyncWrite + Send + Unpin` of tokio"
)]
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// Finds the socket beneath a stream.
pub(super) type SocketOf<S> = for<'s> fn(&'s S) -> BorrowedFd<'s>;

/// A stream, and its socket if the caller named that.
pub(super) type Stream<S> = (S, Option<SocketOf<S>>);

/// The two streams. Behind a lock, which nobody contends for, since calls are made by reference.
struct Streams<A, B> {
    state: Mutex<State<A, B>>,
}

struct State<A, B> {
    a: Stream<A>,
    b: Stream<B>,
    waker: Waker,
    /// By way: bytes that the sink took and has not flushed.
    unflushed: [usize; 2],
    /// By side: since when the end of the stream is not taken, with nothing moving.
    ending_since: [Option<Duration>; 2],
    /// How long that is put up with, if the caller set no limit.
    patience: Option<Duration>,
}

impl<A: ByteStream, B: ByteStream> State<A, B> {
    fn side(&mut self, side: Side) -> Pin<&mut dyn ByteStream> {
        match side {
            Side::A => Pin::new(&mut self.a.0),
            Side::B => Pin::new(&mut self.b.0),
        }
    }

    fn socket(&self, side: Side) -> Option<BorrowedFd<'_>> {
        match side {
            Side::A => self.a.1.map(|socket| socket(&self.a.0)),
            Side::B => self.b.1.map(|socket| socket(&self.b.0)),
        }
    }

    fn perform(&mut self, call: Call, buffers: &mut [WayBuffers; 2]) -> Result<usize, Errno> {
        let waker = self.waker.clone();
        let cx = &mut Context::from_waker(&waker);
        match call {
            Call::Recv { way, len } => {
                let buffer = buffers[way.index()].buffer.as_mut().ok_or(Errno::EFAULT)?;
                let room = buffer.bytes_mut().get_mut(..len).ok_or(Errno::EFAULT)?;
                let mut room = ReadBuf::new(room);
                answer(self.side(way.source()).poll_read(cx, &mut room))?;
                self.ending_since = [None; 2];
                Ok(room.filled().len())
            }
            Call::Send { way, start, len } => {
                // What a stream has taken and not flushed may never leave it.
                if self.unflushed[way.index()] == 0 {
                    let buffer = buffers[way.index()].buffer.as_ref().ok_or(Errno::EFAULT)?;
                    let bytes = buffer.bytes().get(start..start + len);
                    let bytes = bytes.ok_or(Errno::EFAULT)?;
                    let taken = answer(self.side(way.sink()).poll_write(cx, bytes))?;
                    self.unflushed[way.index()] = taken;
                }
                answer(self.side(way.sink()).poll_flush(cx))?;
                self.ending_since = [None; 2];
                Ok(std::mem::take(&mut self.unflushed[way.index()]))
            }
            Call::ShutdownWrite { way } => {
                let ended = answer(self.side(way.sink()).poll_shutdown(cx));
                self.ended(way.sink(), ended)
            }
            // The stream reports its errors itself.
            Call::TakeError { .. } => Ok(0),
            Call::Unsent { side } => self.socket(side).map_or(Ok(0), queued),
            Call::Unacknowledged { side } => match self.socket(side) {
                Some(socket) if !is_unix(socket) => queued(socket),
                _ => Ok(0),
            },
            Call::Reset { side } => {
                self.ending_since[side.index()] = None;
                self.socket(side).map_or(Ok(0), reset)
            }
            Call::SpliceIn { .. } | Call::SpliceOut { .. } | Call::ReadPipe { .. } => {
                Err(Errno::ENOSYS)
            }
        }
    }

    fn ended(&mut self, side: Side, ended: Result<(), Errno>) -> Result<usize, Errno> {
        let since = &mut self.ending_since[side.index()];
        if ended != Err(Errno::EAGAIN) {
            *since = None;
            return ended.map(|()| 0);
        }
        let since = *since.get_or_insert_with(now);
        match self.patience {
            Some(patience) if now() >= since.saturating_add(patience) => Err(Errno::ETIMEDOUT),
            _ => Err(Errno::EAGAIN),
        }
    }

    /// When patience with an end that is not taken is over.
    fn end_limit(&self) -> Option<Duration> {
        let since = self.ending_since.into_iter().flatten().min()?;
        Some(since.saturating_add(self.patience?))
    }

    /// Asks again the streams whose end was not taken.
    fn poll_ends(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for side in Side::BOTH {
            if self.ending_since[side.index()].is_some()
                && self.side(side).poll_shutdown(cx).is_ready()
            {
                self.ending_since[side.index()] = None;
            }
        }
        match self.ending_since {
            [None, None] => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

fn answer<T>(poll: Poll<io::Result<T>>) -> Result<T, Errno> {
    match poll {
        Poll::Ready(result) => result.map_err(|error| errno_of(&error)),
        Poll::Pending => Err(Errno::EAGAIN),
    }
}

impl<A, B> Streams<A, B> {
    fn state(&self) -> std::sync::MutexGuard<'_, State<A, B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A: ByteStream, B: ByteStream> Calls for Streams<A, B> {
    fn perform(&self, call: Call, buffers: &mut [WayBuffers; 2]) -> Option<Result<usize, Errno>> {
        Some(self.state().perform(call, buffers))
    }

    fn is_tcp(&self, _side: Side) -> bool {
        false
    }
}

/// A relay whose future may be dropped at any time, before its first poll, too: it is cancelled
/// then.
pub(super) struct Copying<'a, A: ByteStream, B: ByteStream> {
    relay: Relay,
    streams: Streams<A, B>,
    control: Control<'a>,
    is_over: bool,
}

impl<'a, A: ByteStream, B: ByteStream> Copying<'a, A, B> {
    pub(super) fn new(a: Stream<A>, b: Stream<B>, relay: Relay, mut control: Control<'a>) -> Self {
        control.resources.pipes = PipePool::new(0, 0);
        let state = State {
            a,
            b,
            waker: Waker::noop().clone(),
            unflushed: [0; 2],
            ending_since: [None; 2],
            patience: (!relay.has_time_limits()).then_some(END_PATIENCE),
        };
        Self {
            relay,
            streams: Streams {
                state: Mutex::new(state),
            },
            control,
            is_over: false,
        }
    }

    /// Relays to the end.
    pub(super) async fn run(mut self) -> RelayEnding {
        let tokens = self.control.tokens().map(Option::<&CancelToken>::cloned);
        let mut cancelled = pin!(cancelling(tokens[0].as_ref()));
        let mut drained = pin!(cancelling(tokens[1].as_ref()));
        let mut timer = Timer::new(self.relay.has_time_limits());
        let mut may_be_ready = true;
        let ending = loop {
            self.control.apply(&mut self.relay);
            let may_be_drained = self.control.tokens()[1].is_some();
            if std::mem::replace(&mut may_be_ready, true) {
                self.note_both();
            }
            let turn = poll_fn(|cx| Poll::Ready(self.turn(cx.waker()))).await;
            let wants = match turn {
                Turn::Done(ending) => break ending,
                Turn::Again => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Turn::Wait(wants) => wants,
            };
            timer.arm(wants.wake_at);
            timer.arm(self.streams.state().end_limit());
            tokio::select! {
                biased;
                () = woken() => {}
                () = &mut cancelled => {}
                () = &mut drained, if may_be_drained => {}
                () = timer.elapsed() => {}
                // No stream woke it up. The way that has none yet gets the buffer, which one that
                // is asked in vain again would take first.
                () = self.control.resources.buffers.available(), if wants.buffer => {
                    may_be_ready = false;
                }
            }
        };
        // Only ends that an early ending was to leave behind are open: not waited for for long.
        tokio::select! {
            () = poll_fn(|cx| self.streams.state().poll_ends(cx)) => {}
            () = pause(END_PATIENCE) => {}
        }
        ending
    }

    fn note_both(&mut self) {
        for side in Side::BOTH {
            self.relay
                .note(side, Readiness::READABLE | Readiness::WRITABLE);
        }
    }

    /// A turn in which the streams are asked, and register this waker.
    fn turn(&mut self, waker: &Waker) -> Turn {
        self.streams.state().waker.clone_from(waker);
        let resources = &self.control.resources;
        let turn = self.relay.turn_with(&self.streams, resources, now());
        self.is_over = matches!(turn, Turn::Done(_));
        if let Some(progress) = &self.control.progress {
            progress.publish(&self.relay.stats());
        }
        turn
    }
}

impl<A: ByteStream, B: ByteStream> Drop for Copying<'_, A, B> {
    fn drop(&mut self) {
        if !self.is_over && !std::thread::panicking() {
            self.relay.cancel();
            self.turn(Waker::noop());
        }
    }
}

/// Waits until somebody wakes the task: a stream, if nobody else.
fn woken() -> impl Future<Output = ()> {
    let mut is_waiting = false;
    poll_fn(move |_| match std::mem::replace(&mut is_waiting, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
}

/// For the end of a stream that is not taken while nothing moves.
const END_PATIENCE: Duration = Duration::from_secs(5);
