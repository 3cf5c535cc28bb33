//! A transfer that outlives the futures that drive it.

use std::fmt;
use std::future::Future;

use tokio::time::Instant;

use zhaul_core::{Summary, TransferError};

use super::Haul;
use super::task::Begun;
use crate::async_io::{AsyncEnd, AtDrop, Drive, Goal, Registered, drive_files};
use crate::progress::Progress;

/// A transfer under way, as [`Haul::start`] returns it.
///
/// Between two streams bytes are on their way in a pipe or buffer, which is this value's, and not
/// that of a future: dropping any of the futures below loses nothing, and the next one goes on.
///
/// ```no_run
/// # async fn example(a: tokio::net::TcpStream, b: tokio::net::TcpStream) -> Result<(), zhaul::TransferError> {
/// use std::time::Duration;
///
/// let mut running = zhaul::transfer(&a, &b).start().await?;
/// loop {
///     let a_second = tokio::time::sleep(Duration::from_secs(1));
///     match running.run_until(a_second).await? {
///         Some(summary) => break println!("{} bytes", summary.moved),
///         None => println!("{} bytes so far", running.moved()),
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// Dropping it offers a stream what is in transit once; what it does not take at once is lost, and so is
/// what no thread has begun to write to a file; [`Progress::stranded`] counts it.
/// [`deliver`](Self::deliver) waits for the sink. From file to file with [`Haul::from_position`], dropping it waits for the call that a thread is making.
#[must_use = "nothing moves before run(), run_until() or deliver()"]
pub struct Running<'a, S: AsyncEnd + Sync, K: AsyncEnd + Sync> {
    haul: Haul<'a, Registered<S>, Registered<K>>,
    begun: Begun,
    began: Option<Instant>,
    /// Where moved bytes are counted, if the caller gave nothing for that.
    counted: Progress,
}

impl<'a, S: AsyncEnd + Sync, K: AsyncEnd + Sync> Running<'a, S, K> {
    pub(super) async fn new(
        haul: Haul<'a, Registered<S>, Registered<K>>,
    ) -> Result<Self, TransferError> {
        Ok(Self {
            begun: haul.begin().await?,
            began: haul.began(),
            haul,
            counted: Progress::new(),
        })
    }

    /// Drives the transfer to its end. After that the outcome is returned again.
    ///
    /// # Errors
    /// Why it stopped, and how many bytes were moved before.
    pub async fn run(&mut self) -> Result<Summary, TransferError> {
        let outcome = self.drive(Goal::End).await?;
        // Nothing but the end ends it.
        outcome.unwrap_or_else(|| Ok(self.begun.transfer().summary()))
    }

    /// Drives the transfer until it ends or this future does: `None` if that came first, and the
    /// transfer may be driven on.
    ///
    /// # Errors
    /// Why the transfer stopped, and how many bytes were moved before.
    pub async fn run_until(
        &mut self,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<Summary>, TransferError> {
        tokio::select! {
            biased;
            outcome = self.run() => outcome.map(Some),
            () = stop => Ok(None),
        }
    }

    /// Delivers what is in transit and takes nothing more from the source: afterwards all that was
    /// taken is in the sink, and both can be used otherwise.
    ///
    /// # Errors
    /// Why the transfer stopped, and how many bytes were moved before.
    pub async fn deliver(&mut self) -> Result<(), TransferError> {
        match self.drive(Goal::Delivered).await? {
            Some(outcome) => outcome.map(drop),
            None => Ok(()),
        }
    }

    /// Bytes that the sink took.
    pub fn moved(&self) -> u64 {
        self.begun.transfer().moved()
    }

    /// Bytes that were taken from the source and that the sink has not taken yet.
    pub fn in_transit(&self) -> u64 {
        self.begun.transfer().in_transit()
    }

    async fn drive(
        &mut self,
        goal: Goal,
    ) -> Result<Option<Result<Summary, TransferError>>, TransferError> {
        let haul = &self.haul;
        let progress = haul.counts_in(&self.counted);
        let _position = haul.keep_position(haul.source.fd(), progress)?;
        let control = haul.control(progress, self.began);
        Ok(match &mut self.begun {
            Begun::OnTask { state, disk } => {
                let read_ahead = haul.read_ahead(*disk);
                let ends = (&haul.source, &haul.sink);
                Drive::new(ends, state, read_ahead, control, AtDrop::Keep)
                    .run(goal)
                    .await
            }
            Begun::Files(state) => {
                let ends = (haul.stream(), &**haul.copies());
                drive_files(state, ends, control, goal).await
            }
        })
    }
}

impl<S: AsyncEnd + Sync, K: AsyncEnd + Sync> Drop for Running<'_, S, K> {
    fn drop(&mut self) {
        let haul = &self.haul;
        let progress = haul.counts_in(&self.counted);
        match &mut self.begun {
            Begun::OnTask { state, .. } => {
                let control = haul.control(progress, self.began);
                let ends = (&haul.source, &haul.sink);
                let read_ahead = haul.read_ahead(None);
                drop(Drive::new(ends, state, read_ahead, control, AtDrop::Flush));
            }
            Begun::Files(state) => {
                // It could be told when the transfer began.
                if let Ok(Some(_position)) = haul.keep_position(haul.source.fd(), progress) {
                    state.settle(progress);
                }
                state.publish_end(progress);
            }
        }
    }
}

impl<S: AsyncEnd + Sync, K: AsyncEnd + Sync> fmt::Debug for Running<'_, S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("moved", &self.moved())
            .field("in_transit", &self.in_transit())
            .finish_non_exhaustive()
    }
}
