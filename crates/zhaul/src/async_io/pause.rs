//! Waits that nobody asked for.
//!
//! A file that has to be looked at again in a moment, an acknowledgement that the kernel tells nobody
//! of, a reset that is passed on after what came before it: none of these may demand a runtime with
//! timers, which tokio's `sleep` does with a panic. They are rare, and wait for a `timerfd(2)`; without
//! a descriptor to spare, or outside of a runtime, for a thread ([`Alarm`]). None holds up its own.
//! What the caller asked for (a deadline, a throttle, an idle timeout) goes by the runtime's timers.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::Timespec;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

use super::alarm::Alarm;

/// As good as never.
pub(crate) const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Waits so long, or for a year: nobody waits longer, and a clock may not be able to tell. Other
/// tasks run meanwhile, whatever the process is short of.
pub(crate) async fn pause(time: Duration) {
    let began = Instant::now();
    if let Some(timer) = timer(time)
        && timer.readable().await.is_ok()
    {
        return;
    }
    // The runtime may have ended while it was waited for.
    Alarm::after(time.saturating_sub(began.elapsed())).await;
}

fn timer(time: Duration) -> Option<AsyncFd<OwnedFd>> {
    Handle::try_current().ok()?;
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags).ok()?;
    let value = Itimerspec {
        it_interval: Timespec::default(),
        // Zero would be no alarm at all.
        it_value: time.clamp(Duration::from_nanos(1), FAR).try_into().ok()?,
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &value).ok()?;
    // Deprecated because an arbitrary AsRawFd may lie about its descriptor; OwnedFd does not, and
    // the replacement is an unsafe function.
    #[expect(deprecated)]
    AsyncFd::with_interest(timer, Interest::READABLE).ok()
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Wake, Waker};
    use std::thread::Thread;

    use super::*;

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    /// As without a descriptor: there is no runtime to register one with.
    #[test]
    fn a_pause_without_a_timer_is_pending_until_its_time_is_up() {
        let time = Duration::from_millis(50);
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut cx = Context::from_waker(&waker);
        let (mut paused, began) = (pin!(pause(time)), Instant::now());
        while paused.as_mut().poll(&mut cx).is_pending() {
            assert!(began.elapsed() < Duration::from_secs(20));
            std::thread::park_timeout(Duration::from_secs(5));
        }
        assert!(began.elapsed() >= time);
    }

    #[tokio::test]
    async fn a_time_that_no_clock_can_tell_is_waited_for() {
        let waited = tokio::time::timeout(Duration::from_millis(50), pause(Duration::MAX)).await;
        assert!(waited.is_err(), "as if the time were up");
    }
}
