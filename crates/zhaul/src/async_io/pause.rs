//! Waits that nobody asked for.
//!
//! A file that has to be looked at again in a moment, an acknowledgement that the kernel tells nobody
//! of, a reset that is passed on after what came before it: none of these may demand a runtime with
//! timers, which tokio's `sleep` does with a panic. They are rare, and wait for a `timerfd(2)`.
//! What the caller asked for (a deadline, a throttle, an idle timeout) goes by the runtime's timers.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::Timespec;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

/// As good as never.
pub(crate) const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Waits so long, or for a year: nobody waits longer, and a clock may not be able to tell.
pub(crate) async fn pause(time: Duration) {
    let waited = match timer(time) {
        Some(timer) => timer.readable().await.is_ok(),
        None => false,
    };
    if !waited {
        // Out of descriptors, or outside of the runtime: the thread waits, but not for long.
        std::thread::sleep(time.min(Duration::from_millis(1)));
    }
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
    use super::*;

    #[tokio::test]
    async fn a_time_that_no_clock_can_tell_is_waited_for() {
        let waited = tokio::time::timeout(Duration::from_millis(50), pause(Duration::MAX)).await;
        assert!(waited.is_err(), "as if the time were up");
    }
}
