//! A connection's socket, TCP or UNIX, and what is known of its readiness.
//!
//! What is sent is an aggregate ([`zhaul::send()`]); here is the socket under it. The worker's reactor
//! tells it what epoll(7) reported ([`Stream::note`]); calls that would block
//! take it back. Reads go into a buffer that the worker lends, so an idle connection holds none.

use std::future::poll_fn;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown};
use tokio::io::{Interest, Ready};
use zhaul::async_io::AsyncEnd;

/// A connected, non-blocking stream socket.
///
/// Everything happens on its worker's thread; atomics and the lock are there because the engine
/// wants futures that could move, and cost nothing when nobody contends.
#[derive(Debug)]
pub(crate) struct Stream {
    fd: OwnedFd,
    is_tcp: bool,
    ready: AtomicU8,
    waiting: Mutex<Waiting>,
    reactor: Arc<OwnedFd>,
    /// What the reactor knows it by.
    key: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A receive may succeed.
const READABLE: u8 = 1;
/// A send may succeed.
const WRITABLE: u8 = 2;
/// The peer has ended its side, or the connection is broken: readable for ever.
const ENDED: u8 = 4;
/// The reactor reports it.
const WATCHED: u8 = 8;
/// The reactor reports when it becomes writable.
const WATCHES_WRITABLE: u8 = 16;
/// What is queued is given up.
const ABORTED: u8 = 32;

const WATCH_READABLE: EventFlags = EventFlags::IN
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

impl Stream {
    /// A new connection, which the epoll instance `reactor` will report as `key` once it is
    /// [watched](Self::watch). It counts as readable and writable until a call says otherwise.
    pub(crate) fn new(fd: OwnedFd, is_tcp: bool, reactor: &Arc<OwnedFd>, key: u64) -> Self {
        Self {
            fd,
            is_tcp,
            ready: AtomicU8::new(READABLE | WRITABLE),
            waiting: Mutex::default(),
            reactor: Arc::clone(reactor),
            key,
        }
    }

    /// Has the reactor report what happens, from now on; what has happened is reported at once.
    ///
    /// A connection that is answered and closed in the round in which it was accepted never gets
    /// here, which saves it a call and an event. Writability is not watched: few connections ever wait for
    /// it, and it would cause each an event.
    pub(crate) fn watch(&self) -> io::Result<()> {
        if !self.is(WATCHED) {
            let key = EventData::new_u64(self.key);
            epoll::add(&*self.reactor, &self.fd, key, WATCH_READABLE)?;
            self.ready.fetch_or(WATCHED, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether the reactor reports what happens.
    pub(crate) fn is_watched(&self) -> bool {
        self.is(WATCHED)
    }

    /// Takes in what epoll reported.
    pub(crate) fn note(&self, flags: EventFlags) {
        let ended = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        let mut now = 0;
        if flags.intersects(EventFlags::IN | ended) {
            now |= READABLE;
        }
        if flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR) {
            now |= WRITABLE;
        }
        if flags.intersects(ended) {
            now |= ENDED;
        }
        self.ready.fetch_or(now, Ordering::Relaxed);
    }

    /// Wakes whoever waits for what has become possible.
    pub(crate) fn wake(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is(READABLE)
            && let Some(reader) = waiting.reader.take()
        {
            reader.wake();
        }
        if self.is(WRITABLE)
            && let Some(writer) = waiting.writer.take()
        {
            writer.wake();
        }
    }

    /// Whether a receive may bring something.
    pub(crate) fn may_be_readable(&self) -> bool {
        self.is(READABLE)
    }

    /// Receives into `buf`; `Ok(0)` is the peer's end of stream.
    ///
    /// A short receive drained the socket, so readiness is taken back with it: without that, each
    /// request of a keep-alive connection would pay a second recv that answers EAGAIN.
    pub(crate) fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.try_io(Interest::READABLE, || {
            loop {
                match rustix::net::recv(&self.fd, &mut *buf, RecvFlags::empty()) {
                    Ok((n, _)) => {
                        if n < buf.len() && !self.is(ENDED) {
                            self.ready.fetch_and(!READABLE, Ordering::Relaxed);
                        }
                        return Ok(n);
                    }
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        })
    }

    /// Receives, waiting for the peer if need be.
    pub(crate) async fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.try_recv(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.ready(Interest::READABLE).await?;
                }
                done => return done,
            }
        }
    }

    /// A send found the socket full.
    pub(crate) fn note_full(&self) {
        self.ready.fetch_and(!WRITABLE, Ordering::Relaxed);
    }

    /// Ends the sending direction.
    pub(crate) fn shutdown_send(&self) {
        // ENOTCONN after a reset: there is nobody left to tell.
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Write);
    }

    /// Gives up what the peer has not acknowledged: from now on there is no peer to wait for. TCP
    /// drops it and resets the connection, now rather than at the close, so that a client knows that
    /// its answer is incomplete. A UNIX socket has no such call; what its peer has not received stays
    /// readable there, and the close ends it.
    pub(crate) fn abort_queued(&self) {
        self.ready.fetch_or(ABORTED, Ordering::Relaxed);
        if self.is_tcp {
            // Dissolving the association is how connect(2) lets a TCP socket be reset and emptied
            // while its descriptor stays open. It fails only on one that is reset already.
            let _ = rustix::net::connect_unspec(&self.fd);
        }
    }

    /// Whether there is still a connection, in whatever state, to deliver bytes by.
    pub(crate) fn has_peer(&self) -> bool {
        !self.is(ABORTED) && !matches!(rustix::net::getpeername(&self.fd), Err(Errno::NOTCONN))
    }

    /// Whether something was received that nobody has seen yet.
    pub(crate) fn has_unread(&self) -> bool {
        !matches!(zhaul_sys::siocoutq::unread(self.fd.as_fd()), Ok(0))
    }

    /// Has the kernel limit how fast it sends.
    pub(crate) fn set_max_rate(&self, bytes_per_second: NonZeroU64) -> io::Result<()> {
        if self.is_tcp {
            zhaul_sys::pacing::set_max_pacing_rate(self.fd.as_fd(), bytes_per_second.get())?;
        }
        Ok(())
    }

    /// Has the reactor report when it becomes writable, too.
    fn watch_writable(&self) -> io::Result<()> {
        if self.ready.fetch_or(WATCHES_WRITABLE, Ordering::Relaxed) & WATCHES_WRITABLE == 0 {
            // Modifying an edge-triggered registration reports what is ready at that moment, so
            // nothing is missed between the send and this.
            let flags = WATCH_READABLE | EventFlags::OUT;
            epoll::modify(
                &*self.reactor,
                &self.fd,
                EventData::new_u64(self.key),
                flags,
            )?;
        }
        Ok(())
    }

    fn is(&self, flag: u8) -> bool {
        self.ready.load(Ordering::Relaxed) & flag != 0
    }
}

impl AsyncEnd for Stream {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn try_io<T>(&self, interest: Interest, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let flag = if interest.is_readable() {
            READABLE
        } else {
            WRITABLE
        };
        if !self.is(flag) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let done = call();
        if done
            .as_ref()
            .is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
        {
            self.ready.fetch_and(!flag, Ordering::Relaxed);
        }
        done
    }

    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        if interest.is_writable() {
            self.watch_writable()?;
        }
        poll_fn(|cx| {
            let reads = interest.is_readable();
            let (flag, came) = if reads {
                (READABLE, Ready::READABLE)
            } else {
                (WRITABLE, Ready::WRITABLE)
            };
            if self.is(flag) {
                return Poll::Ready(Ok(came));
            }
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = if reads {
                &mut waiting.reader
            } else {
                &mut waiting.writer
            };
            *slot = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
