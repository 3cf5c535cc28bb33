//! What one end is ready for, as a driver on tokio sees it.
//!
//! The runtime's readiness is believed until it says "closed" of an end that the kernel knows to be
//! neither ready nor hung up. That is what tokio makes of anything in a socket's error queue, for
//! good ([`crate::edges`] tells more); from then on the end is watched by an epoll instance of its
//! own, nested in the runtime's, and the runtime's opinion of the end is not asked any more.

use std::io;

use rustix::event::PollFlags;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::runtime::Handle;

use zhaul_core::Errno;

use super::end::AsyncEnd;
use super::pause;
use crate::edges::{BLIND_WAIT, ERROR, Edges, READABLE, WRITABLE, has, is_ready, reported_now};
use crate::errno::errno_of;

/// What is known of one end; to be used with the same end always.
#[derive(Debug)]
pub(crate) struct Watch {
    /// All that is ever wanted of it.
    events: PollFlags,
    /// Errors are wanted even when nothing else is.
    errors: bool,
    own: Option<AsyncFd<Edges>>,
}

impl Watch {
    /// Of an end that is read from.
    pub(crate) const fn source() -> Self {
        Self::of(READABLE, false)
    }

    /// Of an end that is written to.
    pub(crate) const fn sink() -> Self {
        Self::of(WRITABLE, false)
    }

    /// Of an end used both ways, whose errors count at any time.
    pub(crate) const fn both() -> Self {
        Self::of(READABLE.union(WRITABLE), true)
    }

    const fn of(events: PollFlags, errors: bool) -> Self {
        Self {
            events,
            errors,
            own: None,
        }
    }

    /// Waits until the end has what is wanted of it, and returns what is reported of it: [`ERROR`]
    /// without anything that was wanted means that a call is to find out. With [`ERROR`] wanted,
    /// everything that comes into the error queue is reported once.
    ///
    /// Dropping the future loses nothing.
    pub(crate) async fn ready<E: AsyncEnd>(
        &mut self,
        end: &E,
        wanted: PollFlags,
    ) -> Result<PollFlags, Errno> {
        if self.own.is_none() && !wanted.contains(ERROR) {
            let came = end.ready(self.interest(wanted)).await;
            let came = came.map_err(|error| errno_of(&error))?;
            let error = if came.is_error() {
                take_error_back(end);
                ERROR
            } else {
                PollFlags::empty()
            };
            if !came.is_read_closed() && !came.is_write_closed() {
                return Ok(reported(came) | error);
            }
            let now = reported_now(end.fd(), wanted);
            if has(now, wanted) {
                return Ok(now.difference(ERROR) | error);
            }
        }
        let own = match &mut self.own {
            Some(own) => own,
            none => match watch(end, self.events) {
                Ok(edges) => none.insert(edges),
                // Out of descriptors: a call is to find out, but not at once again.
                Err(_) => {
                    pause(BLIND_WAIT).await;
                    return Ok(ERROR);
                }
            },
        };
        let level = wanted.difference(ERROR);
        loop {
            if !level.is_empty() {
                let now = reported_now(end.fd(), level);
                if has(now, level) {
                    return Ok(now.difference(ERROR));
                }
            }
            if wanted.contains(ERROR) && own.get_mut().takes_error() {
                return Ok(ERROR);
            }
            let mut edges = own.readable_mut().await.map_err(|e| errno_of(&e))?;
            // First: what comes from here on makes it readable again.
            edges.clear_ready();
            let came = edges.get_inner_mut().take()?;
            if came.contains(ERROR) && !wanted.contains(ERROR) {
                return Ok(ERROR);
            }
            // A hang-up lasts. Whoever wants nothing else is told once.
            if came.contains(PollFlags::HUP) && level.is_empty() {
                return Ok(came);
            }
        }
    }

    /// Makes a call unless the end is known not to be ready.
    pub(crate) fn attempt<R>(
        &self,
        end: &impl AsyncEnd,
        interest: Interest,
        call: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        match self.own {
            Some(_) => call(),
            None => end.try_io(interest, call),
        }
    }

    /// A call answered EAGAIN that could not say which end it was. The runtime must forget the
    /// readiness of the one that has none, or it would never report it anew.
    pub(crate) fn recheck(&self, end: &impl AsyncEnd, wanted: PollFlags) {
        if self.own.is_some() {
            return;
        }
        let _ = end.try_io(self.interest(wanted), || {
            if is_ready(end.fd(), wanted) {
                Ok(())
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            }
        });
    }

    /// What is known of the end without waiting.
    pub(crate) fn known(&self, end: &impl AsyncEnd, wanted: PollFlags) -> PollFlags {
        if self.own.is_some() {
            return reported_now(end.fd(), wanted).difference(ERROR);
        }
        let mut known = PollFlags::empty();
        for (flags, interest) in [
            (PollFlags::IN, Interest::READABLE),
            (PollFlags::OUT, Interest::WRITABLE),
        ] {
            if wanted.intersects(flags) && end.try_io(interest, || Ok(())).is_ok() {
                known |= flags;
            }
        }
        if self.errors && take_error_back(end) {
            known |= ERROR;
        }
        known
    }

    const fn interest(&self, wanted: PollFlags) -> Interest {
        let reads = wanted.intersects(READABLE);
        let writes = wanted.intersects(WRITABLE);
        let interest = match (reads, writes) {
            (true, true) => Interest::READABLE.add(Interest::WRITABLE),
            (true, false) => Interest::READABLE,
            (false, true) => Interest::WRITABLE,
            (false, false) => return Interest::ERROR,
        };
        if self.errors {
            interest.add(Interest::ERROR)
        } else {
            interest
        }
    }
}

/// True if the runtime reports an error of the end, which is taken back at once, or it would be
/// reported for ever.
fn take_error_back(end: &impl AsyncEnd) -> bool {
    let mut reported = false;
    let _ = end.try_io(Interest::ERROR, || {
        reported = true;
        io::Result::<()>::Err(io::ErrorKind::WouldBlock.into())
    });
    reported
}

fn watch(end: &impl AsyncEnd, events: PollFlags) -> Result<AsyncFd<Edges>, Errno> {
    // A future may be polled outside of the runtime that its sockets belong to. There is nobody
    // then who could watch.
    Handle::try_current().map_err(|_| Errno::ENXIO)?;
    let edges = Edges::of(end.fd(), events)?;
    // Deprecated because an arbitrary AsRawFd may lie about its descriptor; this one does not, and
    // the replacement is an unsafe function.
    #[expect(deprecated)]
    AsyncFd::with_interest(edges, Interest::READABLE).map_err(|error| errno_of(&error))
}

fn reported(ready: Ready) -> PollFlags {
    let mut reported = PollFlags::empty();
    reported.set(PollFlags::IN, ready.is_readable());
    reported.set(PollFlags::OUT, ready.is_writable());
    reported
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As when there is no descriptor for an epoll instance: epoll takes no files.
    #[tokio::test]
    async fn who_cannot_be_told_of_errors_is_sent_to_look_every_so_often() {
        let file = tempfile::tempfile().unwrap();
        let began = std::time::Instant::now();
        let mut watch = Watch::sink();
        assert_eq!(watch.ready(&file, ERROR).await, Ok(ERROR));
        assert!(began.elapsed() >= BLIND_WAIT, "not at once");
    }
}
