//! A relay between two streams that are no descriptors, such as TLS sessions: everything is copied.
//!
//! The machine is that of all relays, with its limits, timeouts and ways to end. It never gets a
//! pipe, so it never splices. What only a socket can do is left out: a reset closes the stream
//! without its end (TLS: without close_notify), when the stream is dropped.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use zhaul_core::Errno;
use zhaul_core::relay::{Call, Readiness, RelayEnding, Side};

use super::buffers::BufferPool;
use super::builder::Control;
use super::calls::{Calls, WayBuffers};
use super::limit::now;
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

/// The two streams. Behind a lock, which nobody contends for, since calls are made by reference.
struct Streams<A, B> {
    state: Mutex<State<A, B>>,
}

struct State<A, B> {
    a: A,
    b: B,
    waker: Waker,
    /// Sides whose writing end is being shut down, or is to be flushed.
    shuts: [bool; 2],
    flushes: [bool; 2],
}

impl<A: ByteStream, B: ByteStream> State<A, B> {
    fn side(&mut self, side: Side) -> Pin<&mut dyn ByteStream> {
        match side {
            Side::A => Pin::new(&mut self.a),
            Side::B => Pin::new(&mut self.b),
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
                Ok(room.filled().len())
            }
            Call::Send { way, start, len } => {
                let buffer = buffers[way.index()].buffer.as_ref().ok_or(Errno::EFAULT)?;
                let bytes = buffer.bytes().get(start..start + len);
                let bytes = bytes.ok_or(Errno::EFAULT)?;
                let sent = answer(self.side(way.sink()).poll_write(cx, bytes))?;
                self.flushes[way.sink().index()] = true;
                Ok(sent)
            }
            Call::ShutdownWrite { way } => {
                self.shuts[way.sink().index()] = true;
                Ok(0)
            }
            // Nobody knows, and nothing is left to be waited for here.
            Call::TakeError { .. } | Call::Unsent { .. } | Call::Unacknowledged { .. } => Ok(0),
            // Dropped without its end.
            Call::Reset { side } => {
                self.shuts[side.index()] = false;
                self.flushes[side.index()] = false;
                Ok(0)
            }
            Call::SpliceIn { .. } | Call::SpliceOut { .. } | Call::ReadPipe { .. } => {
                Err(Errno::ENOSYS)
            }
        }
    }

    /// Pushes out what was written, and ends what is to be ended; true when that is done.
    fn settle(&mut self) -> bool {
        let waker = self.waker.clone();
        let cx = &mut Context::from_waker(&waker);
        for side in Side::BOTH {
            let (shuts, flushes) = (self.shuts[side.index()], self.flushes[side.index()]);
            let poll = match (shuts, flushes) {
                (true, _) => self.side(side).poll_shutdown(cx),
                (false, true) => self.side(side).poll_flush(cx),
                (false, false) => continue,
            };
            // An error shows at the next write, or has no one to matter to.
            if poll.is_ready() {
                self.shuts[side.index()] = false;
                self.flushes[side.index()] = false;
            }
        }
        !self.shuts.contains(&true) && !self.flushes.contains(&true)
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

/// Relays to the end.
pub(super) async fn run<A: ByteStream, B: ByteStream>(
    a: A,
    b: B,
    mut relay: Relay,
    mut control: Control<'_>,
) -> RelayEnding {
    control.resources.pipes = PipePool::new(0, 0);
    control.resources.buffers = BufferPool::new(2, control.resources.buffers.buffer_bytes());
    let streams = Streams {
        state: Mutex::new(State {
            a,
            b,
            waker: Waker::noop().clone(),
            shuts: [false; 2],
            flushes: [false; 2],
        }),
    };
    let mut stops = control.tokens().map(|token| token.map(wait));
    let mut alarm: Option<(Duration, Alarm)> = None;
    let ending = poll_fn(|cx| {
        streams.state().waker = cx.waker().clone();
        for stop in &mut stops {
            if stop
                .as_mut()
                .is_some_and(|stop| stop.as_mut().poll(cx).is_ready())
            {
                *stop = None;
            }
        }
        if alarm
            .as_mut()
            .is_some_and(|(_, alarm)| alarm.as_mut().poll(cx).is_ready())
        {
            alarm = None;
        }
        control.apply(&mut relay);
        for side in Side::BOTH {
            relay.note(side, Readiness::READABLE | Readiness::WRITABLE);
        }
        let turn = relay.turn_with(&streams, &control.resources, now());
        if let Some(progress) = &control.progress {
            progress.publish(&relay.stats());
        }
        streams.state().settle();
        match turn {
            Turn::Done(ending) => return Poll::Ready(ending),
            Turn::Again => cx.waker().wake_by_ref(),
            Turn::Wait(wants) => {
                if let Some(at) = wants.wake_at
                    && alarm.as_ref().is_none_or(|&(set, _)| at < set)
                {
                    let mut sleep: Alarm = Box::pin(pause(at.saturating_sub(now())));
                    if sleep.as_mut().poll(cx).is_ready() {
                        cx.waker().wake_by_ref();
                    }
                    alarm = Some((at, sleep));
                }
            }
        }
        Poll::Pending
    })
    .await;
    // A peer that takes nothing more is not waited for long.
    let settled = poll_fn(|cx| {
        streams.state().waker = cx.waker().clone();
        match streams.state().settle() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    });
    tokio::select! {
        () = settled => {}
        () = pause(LAST_FLUSH) => {}
    }
    ending
}

type Alarm = Pin<Box<dyn Future<Output = ()> + Send>>;

fn wait(token: &CancelToken) -> Alarm {
    let token = token.clone();
    Box::pin(async move { token.cancelled().await })
}

/// For the end of a stream that its peer does not take.
const LAST_FLUSH: Duration = Duration::from_secs(5);
