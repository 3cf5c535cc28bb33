//! A relay on a tokio task.

use std::future::{Future, pending};
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::{Pin, pin};
use std::time::Duration;

use rustix::event::PollFlags;
use tokio::io::Interest;
use tokio::time::{Instant, Sleep};

use zhaul_core::Errno;
use zhaul_core::relay::{Readiness, RelayEnding, RelayInterest, Side};

use super::builder::Control;
use super::calls::{Awaits, Sockets};
use super::epoll::readiness;
use super::limit::now;
use super::turns::{Relay, Turn};
use crate::async_io::{AsyncEnd, FAR, Watch, pause};
use crate::cancel::CancelToken;
use crate::edges::{READABLE, WRITABLE};
use crate::errno::errno_of;

/// A relay whose future may be dropped at any time, before its first poll, too: it is cancelled then,
/// or peers would take a part for the whole.
pub(super) struct Task<'a, A: AsyncEnd, B: AsyncEnd> {
    relay: Relay,
    sockets: Watched<A, B>,
    control: Control<'a>,
    is_over: bool,
}

impl<'a, A: AsyncEnd, B: AsyncEnd> Task<'a, A, B> {
    pub(super) fn new(a: A, b: B, relay: Relay, control: Control<'a>) -> Self {
        let watches = [Watch::both(), Watch::both()];
        let mut task = Self {
            relay,
            sockets: Watched { a, b, watches },
            control,
            is_over: false,
        };
        for side in Side::BOTH {
            task.relay
                .note(side, Readiness::READABLE | Readiness::WRITABLE);
        }
        task
    }

    /// Runs the relay to its end.
    pub(super) async fn run(mut self) -> RelayEnding {
        let tokens = self.control.tokens().map(Option::<&CancelToken>::cloned);
        let mut cancelled = pin!(cancelling(tokens[0].as_ref()));
        let mut drained = pin!(cancelling(tokens[1].as_ref()));
        let mut timer = Timer::new(self.relay.has_time_limits());
        loop {
            self.control.apply(&mut self.relay);
            let may_be_drained = self.control.tokens()[1].is_some();
            let turn = self.turn();
            if let Some(progress) = &self.control.progress {
                progress.publish(&self.relay.stats());
            }
            let wants = match turn {
                Turn::Done(ending) => return ending,
                Turn::Again => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Turn::Wait(wants) => wants,
            };
            timer.arm(wants.wake_at);
            // Neither side may be ready for ever without the other tasks having their turn.
            tokio::task::coop::consume_budget().await;
            let Watched { a, b, watches } = &mut self.sockets;
            let [watch_a, watch_b] = watches;
            let wanted = [flags(wants.a), flags(wants.b)];
            let mut came = [PollFlags::empty(); 2];
            tokio::select! {
                report = ready(watch_a, a, wanted[0]) => came[0] = report,
                report = ready(watch_b, b, wanted[1]) => came[1] = report,
                () = &mut cancelled => {}
                () = &mut drained, if may_be_drained => {}
                () = timer.elapsed() => {}
                () = self.control.resources.buffers.available(), if wants.buffer => {}
            }
            came[0] |= watch_a.known(a, wanted[0]);
            came[1] |= watch_b.known(b, wanted[1]);
            for (side, came) in Side::BOTH.into_iter().zip(came) {
                // The two interfaces have their flags in common.
                self.relay.note(side, readiness(came.bits().into()));
            }
        }
    }

    fn turn(&mut self) -> Turn {
        let resources = &self.control.resources;
        let turn = self.relay.turn_with(&self.sockets, resources, now());
        self.is_over = matches!(turn, Turn::Done(_));
        turn
    }
}

impl<A: AsyncEnd, B: AsyncEnd> Drop for Task<'_, A, B> {
    fn drop(&mut self) {
        if !self.is_over {
            self.relay.cancel();
            self.turn();
        }
    }
}

pub(super) async fn cancelling(cancel: Option<&CancelToken>) {
    match cancel {
        Some(cancel) => cancel.cancelled().await,
        None => pending().await,
    }
}

fn flags(wanted: RelayInterest) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(READABLE, wanted.readable);
    flags.set(WRITABLE, wanted.writable);
    flags
}

/// Waits for what is wanted of a side, or for an error of it.
async fn ready(watch: &mut Watch, end: &impl AsyncEnd, wanted: PollFlags) -> PollFlags {
    match watch.ready(end, wanted).await {
        Ok(reported) => reported,
        // The runtime shuts down, and the task is dropped here.
        Err(_) => pending().await,
    }
}

/// Sockets that a reactor watches over.
struct Watched<A, B> {
    a: A,
    b: B,
    watches: [Watch; 2],
}

impl<A: AsyncEnd, B: AsyncEnd> Sockets for Watched<A, B> {
    fn fd(&self, side: Side) -> BorrowedFd<'_> {
        match side {
            Side::A => self.a.fd(),
            Side::B => self.b.fd(),
        }
    }

    fn attempt(
        &self,
        side: Side,
        awaits: Awaits,
        call: impl FnMut() -> Result<usize, Errno>,
    ) -> Option<Result<usize, Errno>> {
        let interest = match awaits {
            Awaits::Readable => Interest::READABLE,
            Awaits::Writable => Interest::WRITABLE,
        };
        let watch = &self.watches[side.index()];
        match side {
            Side::A => through(watch, &self.a, interest, call),
            Side::B => through(watch, &self.b, interest, call),
        }
    }

    fn may_be_readable(&self, side: Side) -> bool {
        let (watch, known) = (&self.watches[side.index()], || Ok(()));
        match side {
            Side::A => watch.attempt(&self.a, Interest::READABLE, known).is_ok(),
            Side::B => watch.attempt(&self.b, Interest::READABLE, known).is_ok(),
        }
    }
}

/// Makes the call under the eyes of the reactor, which takes readiness back on EAGAIN.
fn through(
    watch: &Watch,
    end: &impl AsyncEnd,
    interest: Interest,
    mut call: impl FnMut() -> Result<usize, Errno>,
) -> Option<Result<usize, Errno>> {
    let mut made = false;
    let result = watch.attempt(end, interest, || {
        made = true;
        call().map_err(io::Error::from)
    });
    made.then(|| result.map_err(|error| errno_of(&error)))
}

/// One timer for all limits of a relay. It is moved only when it would be late; when it is early,
/// the relay takes a look and it is set anew. So a connection that is not idle pays nothing for
/// its idle timeout.
pub(super) struct Timer {
    alarm: Option<Alarm>,
    at: Option<Duration>,
    /// The caller asked for time limits, and so for a runtime with timers.
    is_asked_for: bool,
}

enum Alarm {
    OfRuntime(Pin<Box<Sleep>>),
    Own(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl Timer {
    pub(super) fn new(is_asked_for: bool) -> Self {
        Self {
            alarm: None,
            at: None,
            is_asked_for,
        }
    }

    pub(super) fn arm(&mut self, wake_at: Option<Duration>) {
        let Some(wake_at) = wake_at else { return };
        if self.at.is_some_and(|at| at <= wake_at) {
            return;
        }
        self.at = Some(wake_at);
        // A clock that was told to end in a century may not be able to tell.
        let after = wake_at.saturating_sub(now()).min(FAR);
        match &mut self.alarm {
            Some(Alarm::OfRuntime(sleep)) => sleep.as_mut().reset(Instant::now() + after),
            alarm if self.is_asked_for => {
                let sleep = Box::pin(tokio::time::sleep(after));
                *alarm = Some(Alarm::OfRuntime(sleep));
            }
            alarm => *alarm = Some(Alarm::Own(Box::pin(pause(after)))),
        }
    }

    pub(super) async fn elapsed(&mut self) {
        match (&mut self.alarm, self.at) {
            (Some(Alarm::OfRuntime(sleep)), Some(_)) => sleep.await,
            (Some(Alarm::Own(pause)), Some(_)) => pause.await,
            _ => pending().await,
        }
        self.at = None;
    }
}

const _: () = {
    /// The future of a relay can be spawned on any runtime.
    fn _is_send(future: impl Future + Send) -> impl Future + Send {
        future
    }

    fn _relay_is_send(a: tokio::net::TcpStream, b: tokio::net::UnixStream) -> impl Future + Send {
        _is_send(crate::relay(a, b).run_async())
    }
};
