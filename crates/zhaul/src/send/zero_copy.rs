//! Memory that goes by reference: who sends it, and who owns it meanwhile.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bytes::Bytes;

use zhaul_core::outbound::{Gather, Outbound, ZeroCopy, ZeroCopyPolicy};
use zhaul_core::{Errno, Operation};
use zhaul_sys::msg_zerocopy::Sender;

use super::SendState;
use crate::endpoint;
use crate::errno::errno_of;
use crate::memory::Segment;

/// Sends memory on one socket by reference (MSG_ZEROCOPY), and owns it until the kernel is done with
/// it; what is pending when this is dropped is owned by a thread of the process until then.
///
/// It belongs to a connection: what was learnt of it, such as that the kernel copies all the same,
/// counts for the aggregates that follow.
#[derive(Debug)]
pub struct ZeroCopySender {
    sender: Sender,
    policy: ZeroCopyPolicy,
}

impl ZeroCopySender {
    /// For this TCP socket. From which size on memory goes by reference is
    /// [`Thresholds::zero_copy_min_bytes`](zhaul_core::Thresholds::zero_copy_min_bytes).
    ///
    /// # Errors
    /// EOPNOTSUPP for any other socket; EBUSY if somebody else sends by reference on it.
    pub fn new(socket: impl AsFd, mode: ZeroCopy) -> io::Result<Self> {
        Ok(Self {
            sender: Sender::new(socket.as_fd())?,
            policy: policy(mode),
        })
    }

    /// Bytes that the kernel may still read.
    pub fn pending(&self) -> usize {
        self.sender.pending()
    }

    /// Drops the sender. If nothing of what is pending is completed for so long, the connection is
    /// reset, whoever else may still use it: a peer that does not read could else hold memory as
    /// long as it likes.
    pub fn abandon(self, patience: Duration) {
        self.sender.abandon(patience);
    }

    /// Lets go of what the kernel is done with, without waiting. Sending does so, too.
    ///
    /// # Errors
    /// As `recvmsg(2)`.
    pub fn reap(&mut self) -> io::Result<()> {
        self.sender.reap().map(drop)
    }
}

fn policy(mode: ZeroCopy) -> ZeroCopyPolicy {
    let min_bytes = endpoint::host_facts().thresholds.zero_copy_min_bytes;
    ZeroCopyPolicy::new(mode, min_bytes)
}

/// Whether and by whom memory is sent by reference.
#[derive(Debug, Default)]
pub(super) enum ByReference<'a> {
    #[default]
    Never,
    /// By a sender of its own, once there is something for it.
    Wanted(ZeroCopy),
    Own(ZeroCopySender),
    Lent(&'a mut ZeroCopySender),
}

impl ByReference<'_> {
    pub(super) const fn is_never(&self) -> bool {
        matches!(self, Self::Never | Self::Wanted(ZeroCopy::Never))
    }

    /// What is known of the socket.
    pub(super) fn policy(&self) -> ZeroCopyPolicy {
        match self {
            Self::Never => ZeroCopyPolicy::NEVER,
            Self::Wanted(mode) => policy(*mode),
            Self::Own(sender) => sender.policy,
            Self::Lent(sender) => sender.policy,
        }
    }

    /// Keeps what was learnt.
    pub(super) fn learn(&mut self, policy: ZeroCopyPolicy) {
        if let Some(sender) = self.existing() {
            sender.policy = policy;
        }
    }

    /// All was sent: the connection is a good one, and not to be reset however slowly it is read.
    pub(super) fn sent_all(&mut self) {
        if let Self::Own(own) = self {
            own.sender.set_patience(None);
        }
    }

    fn existing(&mut self) -> Option<&mut ZeroCopySender> {
        match self {
            Self::Never | Self::Wanted(_) => None,
            Self::Own(sender) => Some(sender),
            Self::Lent(sender) => Some(sender),
        }
    }

    fn sender(&mut self, socket: BorrowedFd<'_>) -> Result<&mut Sender, Errno> {
        if let Self::Wanted(mode) = *self {
            let mut made = ZeroCopySender::new(socket, mode).map_err(|error| errno_of(&error))?;
            made.sender.set_patience(Some(PATIENCE));
            *self = Self::Own(made);
        }
        let is_lent = matches!(self, Self::Lent(_));
        let sender = &mut self.existing().ok_or(Errno::EOPNOTSUPP)?.sender;
        // Its own may be for another connection, which would get these bytes.
        if is_lent && !sender.is_of(socket) {
            return Err(Errno::EINVAL);
        }
        Ok(sender)
    }

    /// Takes completions out of the error queue.
    pub(super) fn reap(&mut self, machine: &mut Outbound) {
        let Some(sender) = self.existing() else {
            return;
        };
        let reaped = sender.sender.reap_each(|completion| {
            machine.completed(completion.first, completion.last, completion.copied);
        });
        if let Err(error) = reaped {
            machine.fail(Operation::Wait, errno_of(&error));
        }
    }
}

/// How long memory of a sending that failed, or was stopped or dropped, waits for the peer to
/// acknowledge anything before the connection is reset.
const PATIENCE: Duration = Duration::from_secs(60);

impl SendState {
    /// Sends a piece by reference. `attempt` makes the call, or knows that it would block.
    pub(super) fn send_by_reference(
        &mut self,
        gather: Gather,
        socket: BorrowedFd<'_>,
        by_reference: &mut ByReference<'_>,
        attempt: impl FnOnce(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()>,
    ) {
        let sender = match by_reference.sender(socket) {
            Ok(sender) => sender,
            Err(errno) => return self.machine.no_sender(gather, errno),
        };
        let Some(Segment::Memory(memory)) = self.aggregate.get(gather.segment) else {
            return;
        };
        let end = gather.offset.saturating_add(gather.len).min(memory.len());
        let piece = [Bytes::from(memory.slice(gather.offset..end))];
        let mut sent = None;
        let mut call = || loop {
            match sender.send(&piece, gather.more) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(done) => {
                    sent = Some(done);
                    return Ok(());
                }
            }
        };
        let outcome = attempt(&mut call);
        let result = match (outcome, sent) {
            (Ok(()), Some(sent)) => Ok(sent.bytes),
            (Ok(()), None) => Err(Errno::EAGAIN),
            (Err(error), _) => Err(errno_of(&error)),
        };
        self.machine
            .complete(gather, result, sent.map(|sent| sent.call));
    }
}
