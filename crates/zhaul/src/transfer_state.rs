//! What a transfer holds between two of its steps, whichever driver takes them.

use std::os::fd::BorrowedFd;

use zhaul_core::{Op, Step, Transfer};

use crate::calls::{Buffers, Called};
use crate::endpoint;
use crate::progress::{Progress, Published};

/// A transfer, what its route needs between two calls, and how much of it was published.
#[derive(Debug)]
pub(crate) struct TransferState {
    pub(crate) transfer: Transfer,
    pub(crate) buffers: Buffers,
    published: Published,
}

impl TransferState {
    pub(crate) fn new(transfer: Transfer, buffers: Buffers) -> Self {
        Self {
            transfer,
            buffers,
            published: Published::default(),
        }
    }

    #[cfg(not(feature = "tokio"))]
    pub(crate) const fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    #[cfg(not(feature = "tokio"))]
    pub(crate) const fn held_mut(&mut self) -> &mut Self {
        self
    }

    #[cfg(not(feature = "tokio"))]
    pub(crate) fn into_transfer(self) -> Transfer {
        self.transfer
    }

    /// Has the submitted call made, unless it needs a pipe and none is to be had.
    pub(crate) fn submit(
        &mut self,
        op: Op,
        progress: Option<&Progress>,
        call: impl FnOnce(&mut Buffers, &Op) -> Called,
    ) {
        if self.buffers.hold_pipe_for(&op) {
            call(&mut self.buffers, &op).report(&mut self.transfer, op);
            self.buffers.settle_pipe(self.transfer.pipe_bytes());
        } else {
            self.transfer.no_pipe();
        }
        self.publish(progress);
    }

    /// Looks at the version of the source, which was submitted.
    pub(crate) fn observe(&mut self, source: BorrowedFd<'_>, progress: Option<&Progress>) {
        self.transfer.observed(endpoint::version(source));
        self.publish(progress);
    }

    /// Makes calls as they are submitted, as long as none of them is refused leave, up to the first
    /// step that is something else.
    pub(crate) fn advance(
        &mut self,
        (source, sink): (BorrowedFd<'_>, BorrowedFd<'_>),
        progress: Option<&Progress>,
        mut may_call: impl FnMut(&Op) -> bool,
    ) -> Step {
        loop {
            match self.transfer.next() {
                Step::Submit(Op::Stat) => self.observe(source, progress),
                Step::Submit(op) if may_call(&op) => {
                    self.submit(op, progress, |buffers, op| buffers.call(op, source, sink));
                }
                step => return step,
            }
        }
    }

    fn publish(&mut self, progress: Option<&Progress>) {
        if let Some(progress) = progress {
            self.published.publish(&self.transfer, progress);
        }
    }

    /// To be called when it is over, or nobody will drive it on.
    pub(crate) fn publish_end(&mut self, progress: Option<&Progress>) {
        if let Some(progress) = progress {
            self.published.publish_end(&self.transfer, progress);
        }
    }
}
