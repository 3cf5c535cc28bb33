//! The asynchronous half of the builder.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use zhaul_core::{Errno, Operation, Refusal, SinkKind, SourceKind, Summary, TransferError};

use super::{Facts, Haul};
use crate::cold::ColdPool;
use crate::endpoint;
use crate::errno::of_rustix;
use crate::residency::Memo;
use crate::tokio::{Ahead, Control, Duplicated, MAX_READ_BYTES, Readiness, drive, drive_files};

impl<'a, S, K> Haul<'a, S, K> {
    /// Has cold pages read, and copies from file to file made, by this pool instead of
    /// [`ColdPool::shared`] and a pool of its own for copies. Only
    /// [`run_async`](Self::run_async) needs one.
    pub const fn cold_pool(mut self, pool: &'a Arc<ColdPool>) -> Self {
        self.cold = Some(pool);
        self
    }
}

impl<S: Readiness, K: Readiness> Haul<'_, S, K> {
    /// Makes the transfer on this task; see [`crate::tokio`].
    ///
    /// Cold pages of a file are read by a pool. From file to file every call is made there, since
    /// any of them may wait for a disk. Dropping the future stops it there too, but one call that
    /// a thread is making at that moment may still write what it was asked to: at most
    /// [`Haul::chunk_bytes`], capped at 16 MiB.
    ///
    /// # Errors
    /// Why it stopped, and how many bytes were moved before.
    pub async fn run_async(mut self) -> Result<Summary, TransferError> {
        // No more than is made resident at once.
        self.ask.chunk_bytes = self.ask.chunk_bytes.min(MAX_READ_BYTES);
        let (transfer, hands, facts) = self.prepare()?;
        self.ready_ends(&facts).map_err(TransferError::refused)?;
        let cold = self.cold.unwrap_or_else(|| ColdPool::shared());
        let control = Control {
            lease: self.lease,
            cancel: self.cancel,
            progress: self.progress,
            began: self.keeps_time().then(tokio::time::Instant::now),
            deadline: self.ask.deadline,
        };
        if self.source.is_file() && self.sink.is_file() {
            let source = duplicate(self.source.as_fd());
            let sink = duplicate(self.sink.as_fd());
            let (source, sink) = match (source, sink) {
                (Ok(source), Ok(sink)) => (source, sink),
                (Err(errno), _) | (_, Err(errno)) => {
                    return Err(TransferError::before_start(Operation::Examine, errno));
                }
            };
            let copies = self.cold.unwrap_or_else(|| ColdPool::copies());
            return Box::pin(drive_files(source, sink, transfer, hands, copies, control)).await;
        }
        let reads_disk = matches!(facts.source.kind, SourceKind::Regular | SourceKind::Block);
        let ahead = reads_disk.then(|| {
            let file = Duplicated::new(self.source.as_fd());
            let end = transfer.source_end();
            Ahead::new(
                file,
                facts.source.version,
                memo(),
                cold,
                self.ask.chunk_bytes,
                end,
            )
        });
        drive(&self.source, &self.sink, transfer, hands, ahead, control).await
    }
}

impl<S: Readiness, K: Readiness> Haul<'_, S, K> {
    /// A FIFO, a socket or a terminal opened as a file is not always ready: it would hold the
    /// thread, or be asked again and again.
    fn ready_ends(&self, facts: &Facts) -> Result<(), Refusal> {
        let source_waits = !facts.source.seekable;
        if self.source.is_file() && source_waits {
            return Err(Refusal::SourceNotAttached);
        }
        let sink_waits = match facts.sink.kind {
            SinkKind::Regular | SinkKind::Block | SinkKind::Null => false,
            SinkKind::Device => !endpoint::is_seekable(self.sink.as_fd()),
            _ => true,
        };
        if self.sink.is_file() && sink_waits {
            return Err(Refusal::SinkNotAttached);
        }
        Ok(())
    }
}

/// What transfers made by this builder found resident. The HTTP server has one per worker.
fn memo() -> &'static Memo {
    static MEMO: OnceLock<Memo> = OnceLock::new();
    MEMO.get_or_init(Memo::new)
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<Arc<OwnedFd>, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, 0)
        .map(Arc::new)
        .map_err(of_rustix)
}
