//! One end on a tokio reactor.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, OFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::net::unix::{self, pipe};
use tokio::net::{TcpStream, UnixStream, tcp};

pub use crate::memory::SharedFd;
use crate::nonblocking::{NonBlocking, open_anew};

/// An end of an asynchronous transfer or relay.
///
/// It is a descriptor whose readiness a tokio reactor knows, and which is in non-blocking mode, as
/// tokio keeps them; or a file, which is always ready; or any other descriptor, of which a duplicate
/// is [attached](Attached) to the reactor for the time of the transfer. Who transfers often from or
/// to one of the last kind saves calls by attaching it once.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an end of an asynchronous transfer or relay",
    label = "not a descriptor that a tokio reactor knows, and no file",
    note = "the sockets, halves of sockets, pipes, files and standard streams of std and tokio, \
            `OwnedFd`, `BorrowedFd`, and `&T`, `&mut T`, `Box<T>` and `Arc<T>` of these can be; \
            `zhaul::async_io::Attached::new` makes one of any other descriptor",
    note = "what is no descriptor, as a TLS stream, can only be copied: \
            `zhaul::relay(a, b).run_copying()`, `tokio::io::copy`"
)]
pub trait AsyncEnd {
    /// The descriptor.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Makes a call unless the reactor knows that it would block, and tells the reactor when it
    /// did block.
    ///
    /// # Errors
    /// Those of the call; [`io::ErrorKind::WouldBlock`] if it was not made.
    fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R>;

    /// Waits until a call may succeed, and returns what made it think so.
    ///
    /// That one of the "closed" bits is among it is taken with a grain of salt: tokio says
    /// "closed for writing" for any `EPOLLERR` and never takes it back, although all that happened
    /// may be that something lies in the socket's error queue. The driver then asks the kernel.
    ///
    /// # Errors
    /// If the runtime is shutting down.
    fn ready(&self, interest: Interest) -> impl Future<Output = io::Result<Ready>> + Send;

    /// True for what is always ready and can only wait for a disk.
    fn is_file(&self) -> bool {
        false
    }

    /// False for a descriptor that no reactor knows, which may be in blocking mode. A transfer or
    /// relay [attaches](Attached) a duplicate of it for its time, and asks that one everything else.
    fn is_registered(&self) -> bool {
        true
    }

    /// The same file, to be kept alive by a thread that reads ahead in it; without one the
    /// descriptor is duplicated for that.
    fn shared(&self) -> Option<SharedFd> {
        None
    }
}

macro_rules! on_a_reactor {
    ($($socket:ty),*) => {$(
        impl AsyncEnd for $socket {
            fn fd(&self) -> BorrowedFd<'_> {
                self.as_fd()
            }

            fn try_io<R>(
                &self,
                interest: Interest,
                call: impl FnOnce() -> io::Result<R>,
            ) -> io::Result<R> {
                Self::try_io(self, interest, call)
            }

            async fn ready(&self, interest: Interest) -> io::Result<Ready> {
                Self::ready(self, interest).await
            }
        }
    )*};
}

on_a_reactor!(TcpStream, UnixStream);

macro_rules! half {
    ($($half:ty),*) => {$(
        impl AsyncEnd for $half {
            fn fd(&self) -> BorrowedFd<'_> {
                self.as_ref().as_fd()
            }

            fn try_io<R>(
                &self,
                interest: Interest,
                call: impl FnOnce() -> io::Result<R>,
            ) -> io::Result<R> {
                self.as_ref().try_io(interest, call)
            }

            async fn ready(&self, interest: Interest) -> io::Result<Ready> {
                self.as_ref().ready(interest).await
            }
        }
    )*};
}

half!(
    tcp::OwnedReadHalf,
    tcp::OwnedWriteHalf,
    tcp::ReadHalf<'_>,
    tcp::WriteHalf<'_>,
    unix::OwnedReadHalf,
    unix::OwnedWriteHalf,
    unix::ReadHalf<'_>,
    unix::WriteHalf<'_>
);

macro_rules! one_way {
    ($($pipe:ty: $is_its:ident),*) => {$(
        impl AsyncEnd for $pipe {
            fn fd(&self) -> BorrowedFd<'_> {
                self.as_fd()
            }

            fn try_io<R>(
                &self,
                interest: Interest,
                call: impl FnOnce() -> io::Result<R>,
            ) -> io::Result<R> {
                // Of errors, and of the other way, its reactor knows nothing.
                if !interest.$is_its() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Self::try_io(self, call)
            }

            async fn ready(&self, interest: Interest) -> io::Result<Ready> {
                Self::ready(self, interest).await
            }
        }
    )*};
}

one_way!(pipe::Sender: is_writable, pipe::Receiver: is_readable);

impl<T: AsRawFd + AsFd + Sync> AsyncEnd for AsyncFd<T> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        Self::try_io(self, interest, |_| call())
    }

    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        // The guard would clear the readiness only if told to.
        Self::ready(self, interest).await.map(|guard| guard.ready())
    }
}

macro_rules! always_ready {
    ($($file:ty),*) => {$(
        impl AsyncEnd for $file {
            fn fd(&self) -> BorrowedFd<'_> {
                self.as_fd()
            }

            fn try_io<R>(
                &self,
                _interest: Interest,
                call: impl FnOnce() -> io::Result<R>,
            ) -> io::Result<R> {
                call()
            }

            async fn ready(&self, _interest: Interest) -> io::Result<Ready> {
                // A file never says "not yet"; should one do, it is asked again a little later.
                super::pause(BACK_OFF).await;
                Ok(Ready::READABLE | Ready::WRITABLE)
            }

            fn is_file(&self) -> bool {
                true
            }
        }
    )*};
}

// What tokio buffers of a file has to be flushed before.
always_ready!(File, tokio::fs::File);

/// Of what claims to be a file and is not ready.
pub(super) const BACK_OFF: std::time::Duration = std::time::Duration::from_millis(1);

macro_rules! through_a_pointer {
    ($($pointer:ty),*) => {$(
        impl<T: AsyncEnd> AsyncEnd for $pointer {
            fn fd(&self) -> BorrowedFd<'_> {
                T::fd(self)
            }

            fn try_io<R>(
                &self,
                interest: Interest,
                call: impl FnOnce() -> io::Result<R>,
            ) -> io::Result<R> {
                T::try_io(self, interest, call)
            }

            fn ready(
                &self,
                interest: Interest,
            ) -> impl Future<Output = io::Result<Ready>> + Send {
                T::ready(self, interest)
            }

            fn is_file(&self) -> bool {
                T::is_file(self)
            }

            fn is_registered(&self) -> bool {
                T::is_registered(self)
            }

            fn shared(&self) -> Option<SharedFd> {
                T::shared(self)
            }
        }
    )*};
}

through_a_pointer!(&T, &mut T, Box<T>, Arc<T>);

/// Any descriptor made fit for the tokio driver: in non-blocking mode and registered with the current
/// runtime's reactor, or known to be always ready.
///
/// Whoever else has the same open file description (the shell whose stdin it is, a child process)
/// notices as little of it as possible: pipes and terminals are opened anew through
/// `/proc/thread-self/fd`. Sockets, and what cannot be opened so, are in non-blocking mode for all
/// who share them until this is dropped.
#[derive(Debug)]
pub struct Attached(Inner);

#[derive(Debug)]
enum Inner {
    /// Known to the reactor.
    Stream(AsyncFd<NonBlocking<OwnedFd>>),
    /// Epoll takes no files: they are always ready.
    File(File),
}

impl Attached {
    /// Takes a descriptor over.
    ///
    /// # Errors
    /// Those of `fcntl(2)` and `epoll_ctl(2)`, EPERM for files excepted.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&fd)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if matches!(kind, FileType::RegularFile | FileType::BlockDevice) {
            return Ok(Self(Inner::File(fd.into())));
        }
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        let fd = if flags.contains(OFlags::NONBLOCK) {
            fd
        } else {
            open_anew(fd.as_fd(), flags, &stat).unwrap_or(fd)
        };
        // Deprecated because an arbitrary AsRawFd may lie about its descriptor; this one does not,
        // and the replacement is an unsafe function.
        #[expect(deprecated)]
        let registered = AsyncFd::try_new(NonBlocking::new(fd)?);
        match registered {
            Ok(stream) => Ok(Self(Inner::Stream(stream))),
            Err(refused) => match refused.into_parts() {
                (fd, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    Ok(Self(Inner::File(fd.into_inner()?.into())))
                }
                (_, error) => Err(error),
            },
        }
    }
}

impl AsFd for Attached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Inner::Stream(stream) => stream.get_ref().as_fd(),
            Inner::File(file) => file.as_fd(),
        }
    }
}

impl AsyncEnd for Attached {
    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match &self.0 {
            Inner::Stream(stream) => AsyncEnd::try_io(stream, interest, call),
            Inner::File(file) => file.try_io(interest, call),
        }
    }

    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match &self.0 {
            Inner::Stream(stream) => AsyncEnd::ready(stream, interest).await,
            Inner::File(file) => file.ready(interest).await,
        }
    }

    fn is_file(&self) -> bool {
        matches!(self.0, Inner::File(_))
    }
}
