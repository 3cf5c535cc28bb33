//! Work that is given up when its time is over.
//!
//! A system call that hangs cannot be taken back, so the work runs on a thread of its own, which is
//! left behind when it does not answer. It ends with the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Why work has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// It did not answer in time.
    Up,
    /// It panicked, or no thread could be started.
    Out,
}

/// Work under way.
pub(super) struct Running<T>(Receiver<T>);

/// Starts work on a thread of its own.
pub(super) fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Running<T> {
    let (done, result) = sync_channel(1);
    let spawned = std::thread::Builder::new()
        .name("zhaul-probe".into())
        .spawn(move || {
            // A panic is a defect of one probe; the channel closes without a result.
            if let Ok(value) = catch_unwind(AssertUnwindSafe(work)) {
                // Nobody listens any more when the time was over.
                let _ = done.send(value);
            }
        });
    // Without a thread the closure, and with it the channel's end, is gone.
    drop(spawned);
    Running(result)
}

impl<T> Running<T> {
    /// The result, if it comes before the deadline.
    pub(super) fn until(&self, deadline: Instant) -> Result<T, Given> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.0.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => Given::Up,
            RecvTimeoutError::Disconnected => Given::Out,
        })
    }
}

/// The result of the work, if it comes in time.
pub(super) fn within<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Given> {
    start(work).until(Instant::now() + patience)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_hangs_is_given_up() {
        let (never, wait) = sync_channel::<()>(0);
        let given = within(Duration::from_millis(20), move || wait.recv().is_ok());
        assert_eq!(given, Err(Given::Up));
        drop(never);
    }

    #[test]
    fn work_that_panics_has_no_result() {
        let given: Result<(), _> = within(Duration::from_secs(20), || panic!("on purpose"));
        assert_eq!(given, Err(Given::Out));
    }

    #[test]
    fn work_that_is_done_has_its_result() {
        assert_eq!(within(Duration::from_secs(20), || 7), Ok(7));
    }
}
