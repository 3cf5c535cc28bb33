//! A socket and the calls on it that are not completed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;

use super::calls::Calls;
use super::error_queue::{self, Completion, Message};
use super::{Reaped, pinned};

#[derive(Debug)]
pub(super) struct Account {
    /// Ours, so that the number stays the socket's, and the error queue is read, as long as
    /// something is pending.
    pub(super) socket: OwnedFd,
    pub(super) cookie: u64,
    pub(super) calls: Calls<Vec<Bytes>>,
    /// A call failed in a way that may have used up a number.
    pub(super) is_number_in_doubt: bool,
}

/// Owners of what was completed. Dropping them runs code of theirs.
#[derive(Debug, Default)]
pub(super) struct Freed(Vec<Vec<Bytes>>);

impl Freed {
    pub(super) fn into_calls(self) -> impl Iterator<Item = Vec<Bytes>> {
        self.0.into_iter()
    }
}

impl Account {
    /// Empties the error queue, and shows each completion to `each`.
    ///
    /// # Errors
    /// As `recvmsg(2)`. What was taken until then is in `freed`.
    pub(super) fn reap(
        &mut self,
        freed: &mut Freed,
        mut each: impl FnMut(Completion),
    ) -> io::Result<Reaped> {
        let mut reaped = Reaped::default();
        let ended = loop {
            match error_queue::take(self.socket.as_fd()) {
                Ok(None) => break Ok(()),
                Ok(Some(Message::Other)) => {
                    reaped.other_messages += 1;
                    pinned::count_others(1);
                }
                Ok(Some(Message::Completion(completion))) => {
                    // All is counted before the caller's code, which may panic.
                    self.complete(completion, freed, &mut reaped);
                    each(completion);
                }
                Err(error) => break Err(error),
            }
        };
        ended.map(|()| reaped)
    }

    fn complete(&mut self, completion: Completion, freed: &mut Freed, reaped: &mut Reaped) {
        let Completion { first, last, .. } = completion;
        let released = self.calls.complete(first, last, &mut freed.0);
        if released.calls > 0 {
            pinned::give_back(released.bytes, self.calls.is_empty());
        }
        reaped.calls += released.calls;
        reaped.bytes += released.bytes;
        if completion.copied {
            reaped.copied_calls += released.calls;
            reaped.copied_bytes += released.bytes;
        }
        if released.is_ahead {
            // A number that we have not given: it went to the call that failed, if that is the only
            // one; else somebody else sends, and numbers say nothing any more.
            let is_of_the_failed = self.is_number_in_doubt && last == self.calls.next();
            if is_of_the_failed {
                self.calls.skip();
            }
            self.is_number_in_doubt = !is_of_the_failed;
        }
    }
}
