//! Descriptors that no reactor knows yet: those of the standard library, and of child processes.

use std::io;
use std::net as std_net;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net as std_unix;
use std::process as std_process;

use tokio::io::{Interest, Ready};

use super::end::{AsyncEnd, Attached, BACK_OFF, SharedFd};
use crate::nonblocking::NonBlocking;

macro_rules! unregistered {
    ($($end:ty),* $(,)?) => {$(
        impl AsyncEnd for $end {
            fn fd(&self) -> BorrowedFd<'_> {
                self.as_fd()
            }

            fn try_io<R>(
                &self,
                interest: Interest,
                call: impl FnOnce() -> io::Result<R>,
            ) -> io::Result<R> {
                // Nobody knows of errors.
                if !interest.is_readable() && !interest.is_writable() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                call()
            }

            async fn ready(&self, _interest: Interest) -> io::Result<Ready> {
                // Where it could not be registered, it is asked every so often.
                super::pause(BACK_OFF).await;
                Ok(Ready::READABLE | Ready::WRITABLE)
            }

            fn is_registered(&self) -> bool {
                false
            }
        }
    )*};
}

unregistered!(
    OwnedFd,
    BorrowedFd<'_>,
    std_net::TcpStream,
    std_unix::UnixStream,
    io::PipeReader,
    io::PipeWriter,
    io::Stdin,
    io::Stdout,
    io::Stderr,
    std_process::ChildStdin,
    std_process::ChildStdout,
    std_process::ChildStderr,
    tokio::process::ChildStdin,
    tokio::process::ChildStdout,
    tokio::process::ChildStderr,
    tokio::io::Stdin,
    tokio::io::Stdout,
    tokio::io::Stderr,
);

/// An end that a reactor knows: by itself, or by a duplicate that is attached for as long as this
/// lives.
#[derive(Debug)]
pub(crate) enum Registered<E: AsyncEnd> {
    Given(E),
    Attached(E, Attached),
    /// There was no descriptor for a duplicate: it is asked every so often, in non-blocking mode.
    Unattached(NonBlocking<ByFd<E>>),
}

/// An end as the descriptor that it is.
#[derive(Debug)]
pub(crate) struct ByFd<E>(E);

impl<E: AsyncEnd> AsFd for ByFd<E> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }
}

impl<E: AsyncEnd> Registered<E> {
    /// # Errors
    /// As [`Attached::new`], and the end as it is.
    pub(crate) fn of(end: E) -> Result<Self, (E, io::Error)> {
        if end.is_registered() {
            return Ok(Self::Given(end));
        }
        match end.fd().try_clone_to_owned().and_then(Attached::new) {
            Ok(attached) => Ok(Self::Attached(end, attached)),
            Err(error) => Err((end, error)),
        }
    }

    /// The same for a socket, which can do without a reactor when descriptors have run out.
    pub(crate) fn or_unattached(end: E) -> Self {
        // Switching takes no descriptor. It fails for what is none, as every call on it will.
        let unattached = |(end, _)| Self::Unattached(NonBlocking::if_possible(ByFd(end)));
        Self::of(end).unwrap_or_else(unattached)
    }
}

impl<E: AsyncEnd + Sync> AsyncEnd for Registered<E> {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Given(end) => end.fd(),
            Self::Attached(_, attached) => attached.fd(),
            Self::Unattached(end) => end.as_fd(),
        }
    }

    fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match self {
            Self::Given(end) => end.try_io(interest, call),
            Self::Attached(_, attached) => attached.try_io(interest, call),
            Self::Unattached(end) => end.get_ref().0.try_io(interest, call),
        }
    }

    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Given(end) => end.ready(interest).await,
            Self::Attached(_, attached) => attached.ready(interest).await,
            Self::Unattached(end) => end.get_ref().0.ready(interest).await,
        }
    }

    fn is_file(&self) -> bool {
        match self {
            Self::Given(end) => end.is_file(),
            Self::Attached(_, attached) => attached.is_file(),
            Self::Unattached(end) => end.get_ref().0.is_file(),
        }
    }

    fn shared(&self) -> Option<SharedFd> {
        match self {
            Self::Given(end) => end.shared(),
            Self::Attached(..) | Self::Unattached(..) => None,
        }
    }
}
