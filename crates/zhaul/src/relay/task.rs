//! A relay on a tokio task.

use std::future::{Future, pending};
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::io::Interest as Ready;
use tokio::time::{Instant, Sleep};

use zhaul_core::Errno;
use zhaul_core::relay::{Ending, Interest, Readiness as Reported, Side};

use super::builder::Control;
use super::calls::{Awaits, Sockets};
use super::limit::now;
use super::turns::{Relay, Resources, Turn};
use crate::cancel::CancelToken;
use crate::errno::errno_of;
use crate::tokio::Readiness;

/// Runs the relay to its end.
pub(super) async fn run<A: Readiness, B: Readiness>(
    a: &A,
    b: &B,
    relay: Relay,
    control: Control<'_>,
) -> Ending {
    let mut task = Task {
        relay,
        sockets: Watched { a, b },
        resources: control.resources,
        is_over: false,
    };
    let mut cancelled = pin!(cancelled(control.cancel));
    let mut timer = Timer::default();
    for side in Side::BOTH {
        task.relay
            .note(side, Reported::READABLE | Reported::WRITABLE);
    }
    loop {
        if control.cancel.is_some_and(CancelToken::is_cancelled) {
            task.relay.cancel();
        }
        let turn = task.turn();
        if let Some(progress) = control.progress {
            progress.publish(&task.relay.stats());
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
        tokio::select! {
            () = ready(a, wants.a) => {}
            () = ready(b, wants.b) => {}
            () = &mut cancelled => {}
            () = timer.elapsed() => {}
            () = control.resources.buffers.available(), if wants.buffer => {}
        }
        for side in Side::BOTH {
            let reported = match side {
                Side::A => observe(a, wants.a),
                Side::B => observe(b, wants.b),
            };
            task.relay.note(side, reported);
        }
    }
}

/// A relay whose future may be dropped at any time: it is cancelled then, or peers would take a
/// part for the whole.
struct Task<'a, A: Readiness, B: Readiness> {
    relay: Relay,
    sockets: Watched<'a, A, B>,
    resources: &'a Resources,
    is_over: bool,
}

impl<A: Readiness, B: Readiness> Task<'_, A, B> {
    fn turn(&mut self) -> Turn {
        let turn = self.relay.turn_with(&self.sockets, self.resources, now());
        self.is_over = matches!(turn, Turn::Done(_));
        turn
    }
}

impl<A: Readiness, B: Readiness> Drop for Task<'_, A, B> {
    fn drop(&mut self) {
        if !self.is_over {
            self.relay.cancel();
            self.turn();
        }
    }
}

async fn cancelled(cancel: Option<&CancelToken>) {
    match cancel {
        Some(cancel) => cancel.cancelled().await,
        None => pending().await,
    }
}

/// Waits for what is wanted of a side, or for an error of it.
async fn ready(end: &impl Readiness, wanted: Interest) {
    let mut interest = Ready::ERROR;
    if wanted.readable {
        interest |= Ready::READABLE;
    }
    if wanted.writable {
        interest |= Ready::WRITABLE;
    }
    // It fails only when the runtime shuts down; then the task is dropped here.
    if end.ready(interest).await.is_err() {
        pending::<()>().await;
    }
}

/// What of that has come.
fn observe(end: &impl Readiness, wanted: Interest) -> Reported {
    let is = |interest| end.try_io(interest, || Ok(())).is_ok();
    let mut reported = Reported::empty();
    if wanted.readable && is(Ready::READABLE) {
        reported |= Reported::READABLE;
    }
    if wanted.writable && is(Ready::WRITABLE) {
        reported |= Reported::WRITABLE;
    }
    // Taken back at once, or it would be reported for ever.
    let mut failed = false;
    let _ = end.try_io(Ready::ERROR, || {
        failed = true;
        io::Result::<()>::Err(io::ErrorKind::WouldBlock.into())
    });
    if failed {
        reported |= Reported::ERROR;
    }
    reported
}

/// Sockets that a reactor watches over.
struct Watched<'a, A, B> {
    a: &'a A,
    b: &'a B,
}

impl<A: Readiness, B: Readiness> Sockets for Watched<'_, A, B> {
    fn fd(&self, side: Side) -> BorrowedFd<'_> {
        match side {
            Side::A => self.a.as_fd(),
            Side::B => self.b.as_fd(),
        }
    }

    fn attempt(
        &self,
        side: Side,
        awaits: Awaits,
        call: impl FnMut() -> Result<usize, Errno>,
    ) -> Option<Result<usize, Errno>> {
        let interest = match awaits {
            Awaits::Readable => Ready::READABLE,
            Awaits::Writable => Ready::WRITABLE,
        };
        match side {
            Side::A => through(self.a, interest, call),
            Side::B => through(self.b, interest, call),
        }
    }

    fn may_be_readable(&self, side: Side) -> bool {
        let known = || Ok(());
        match side {
            Side::A => self.a.try_io(Ready::READABLE, known).is_ok(),
            Side::B => self.b.try_io(Ready::READABLE, known).is_ok(),
        }
    }
}

/// Makes the call under the eyes of the reactor, which takes readiness back on EAGAIN.
fn through(
    end: &impl Readiness,
    interest: Ready,
    mut call: impl FnMut() -> Result<usize, Errno>,
) -> Option<Result<usize, Errno>> {
    let mut made = false;
    let result = end.try_io(interest, || {
        made = true;
        call().map_err(io::Error::from)
    });
    made.then(|| result.map_err(|error| errno_of(&error)))
}

/// One timer for all limits of a relay. It is moved only when it would be late; when it is early,
/// the relay takes a look and it is set anew. So a connection that is not idle pays nothing for
/// its idle timeout.
#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    at: Option<Duration>,
}

impl Timer {
    fn arm(&mut self, wake_at: Option<Duration>) {
        let Some(wake_at) = wake_at else { return };
        if self.at.is_some_and(|at| at <= wake_at) {
            return;
        }
        self.at = Some(wake_at);
        // A clock that was told to end in a century may not be able to tell.
        let after = wake_at.saturating_sub(now()).min(FAR);
        let deadline = Instant::now() + after;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(deadline),
            none => *none = Some(Box::pin(tokio::time::sleep_until(deadline))),
        }
    }

    async fn elapsed(&mut self) {
        match (&mut self.sleep, self.at) {
            (Some(sleep), Some(_)) => sleep.await,
            _ => pending().await,
        }
        self.at = None;
    }
}

const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

const _: () = {
    /// The future of a relay can be spawned on any runtime.
    fn _is_send(future: impl Future + Send) -> impl Future + Send {
        future
    }

    fn _relay_is_send(a: tokio::net::TcpStream, b: tokio::net::UnixStream) -> impl Future + Send {
        _is_send(crate::relay(a, b).run_async())
    }
};
