//! A bounded pool of pipes for `splice(2)` between ends that are no pipes.
//!
//! A transfer holds a pipe only while it contains bytes, so a few pipes serve many connections.
//! A pipe comes back empty or is closed: bytes left in it would enter somebody else's stream.
//!
//! The kernel counts a user's pipe pages. Past `/proc/sys/fs/pipe-user-pages-soft` an ordinary
//! user's new pipes have two pages and cannot be enlarged; moving 8 KiB a call is slower than
//! copying 64 KiB, so such a pipe is closed again and the pool counts as exhausted. What
//! F_SETPIPE_SZ really gave is measured, never assumed.
//!
//! F_SETPIPE_SZ is there since Linux 2.6.35.
//! [pipe(7)](https://man7.org/linux/man-pages/man7/pipe.7.html)

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use zhaul_core::Errno;

use crate::errno::of_rustix;

/// A pool; clones share it.
#[derive(Clone, Debug)]
pub struct PipePool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max_pipes: usize,
    pipe_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Pipe>,
    /// Pipes that exist, idle or held.
    alive: usize,
}

#[derive(Debug)]
struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    /// What the kernel says its capacity is. In slots of a page, so not a limit in bytes.
    nominal_bytes: usize,
}

/// Why there is no pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PipeDenied {
    /// All pipes of the pool are in use.
    Limit,
    /// The kernel gave a pipe too small to be worth it: this user holds too many pipe pages.
    UserPages,
    /// `pipe2(2)` failed.
    Errno(Errno),
}

impl PipePool {
    /// A pool of at most `max_pipes`, each of `pipe_bytes` if the kernel grants that.
    pub fn new(max_pipes: usize, pipe_bytes: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                max_pipes,
                pipe_bytes,
                state: Mutex::default(),
            }),
        }
    }

    /// The process-wide pool: at most an eighth of the descriptors this process may open.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<PipePool> = OnceLock::new();
        SHARED.get_or_init(|| Self::of_size(PIPE_BYTES))
    }

    /// A pool of pipes of `pipe_bytes` if the kernel grants that, or as near to it as it does. The
    /// pipes take at most an eighth of the descriptors this process may open.
    pub fn of_size(pipe_bytes: usize) -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let descriptors = limit.map_or(MAX_PIPES, |n| usize::try_from(n).unwrap_or(MAX_PIPES));
        Self::new((descriptors / 16).clamp(1, MAX_PIPES), pipe_bytes)
    }

    /// Takes an empty pipe.
    ///
    /// # Errors
    /// Never waits: if there is none, says why.
    pub fn take(&self) -> Result<PooledPipe, PipeDenied> {
        let mut state = self.state();
        if let Some(pipe) = state.idle.pop() {
            return Ok(PooledPipe {
                pipe: Some(pipe),
                pool: self.clone(),
            });
        }
        if state.alive >= self.shared.max_pipes {
            return Err(PipeDenied::Limit);
        }
        state.alive += 1;
        drop(state);
        match Pipe::open(self.shared.pipe_bytes) {
            Ok(pipe) => Ok(PooledPipe {
                pipe: Some(pipe),
                pool: self.clone(),
            }),
            Err(denied) => {
                self.state().alive -= 1;
                Err(denied)
            }
        }
    }

    /// Pipes that exist, idle or held.
    pub fn alive(&self) -> usize {
        self.state().alive
    }

    /// Pipes held by transfers.
    pub fn held(&self) -> usize {
        let state = self.state();
        state.alive - state.idle.len()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is consistent between any two statements, so a panic elsewhere in the
        // process while it was locked spoils nothing.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pipe {
    fn open(wanted_bytes: usize) -> Result<Self, PipeDenied> {
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (reader, writer) =
            pipe_with(flags).map_err(|errno| PipeDenied::Errno(of_rustix(errno)))?;
        enlarge(&writer, wanted_bytes);
        let nominal_bytes =
            fcntl_getpipe_size(&writer).map_err(|errno| PipeDenied::Errno(of_rustix(errno)))?;
        if nominal_bytes < MIN_PIPE_BYTES.min(wanted_bytes) {
            return Err(PipeDenied::UserPages);
        }
        Ok(Self {
            reader,
            writer,
            nominal_bytes,
        })
    }
}

/// Makes a pipe as large as the kernel allows, up to what is wanted. EPERM: it would exceed the
/// user's soft limit, so a smaller one is tried, or pipe-max-size. A pipe that is below the default
/// already is one too many for this user, and stays small.
fn enlarge(pipe: &OwnedFd, wanted_bytes: usize) {
    let mut bytes = wanted_bytes;
    while fcntl_setpipe_size(pipe, bytes).is_err() {
        bytes /= 2;
        let is_small = fcntl_getpipe_size(pipe).is_ok_and(|size| size < MIN_PIPE_BYTES);
        if is_small || bytes <= MIN_PIPE_BYTES {
            return;
        }
    }
}

/// A pipe held by a transfer; closed on drop unless it was given back.
#[derive(Debug)]
pub struct PooledPipe {
    pipe: Option<Pipe>,
    pool: PipePool,
}

impl PooledPipe {
    /// The end that bytes come out of.
    pub fn reader(&self) -> BorrowedFd<'_> {
        self.held().reader.as_fd()
    }

    /// The end that bytes go into.
    pub fn writer(&self) -> BorrowedFd<'_> {
        self.held().writer.as_fd()
    }

    /// What the kernel says its capacity is.
    pub fn nominal_bytes(&self) -> usize {
        self.held().nominal_bytes
    }

    /// Returns the pipe to the pool. The caller vouches that it is empty.
    pub(crate) fn give_back_empty(mut self) {
        let Some(pipe) = self.pipe.take() else { return };
        debug_assert_eq!(
            rustix::io::ioctl_fionread(&pipe.reader),
            Ok(0),
            "the pipe is empty"
        );
        let mut state = self.pool.state();
        if state.idle.len() < MAX_IDLE {
            state.idle.push(pipe);
        } else {
            state.alive -= 1;
        }
    }

    fn held(&self) -> &Pipe {
        self.pipe
            .as_ref()
            .expect("the pipe is there until it is given back")
    }
}

impl Drop for PooledPipe {
    fn drop(&mut self) {
        if self.pipe.take().is_some() {
            self.pool.state().alive -= 1;
        }
    }
}

/// 64 slots. A socket's segments take a slot each, so 256 KiB nominal carry about 180 KiB of
/// 1448-byte segments a call.
const PIPE_BYTES: usize = 256 << 10;

/// Below this a copy through a 64 KiB buffer moves more per call.
const MIN_PIPE_BYTES: usize = 64 << 10;

const MAX_PIPES: usize = 1024;

/// Idle pipes kept open; more are closed after a burst.
const MAX_IDLE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pipe_is_used_again_and_a_dirty_one_is_not() {
        let pool = PipePool::new(2, PIPE_BYTES);
        let first = pool.take().unwrap();
        first.give_back_empty();
        assert_eq!((pool.alive(), pool.held()), (1, 0));

        let dirty = pool.take().unwrap();
        rustix::io::write(dirty.writer(), b"left over").unwrap();
        drop(dirty);
        assert_eq!((pool.alive(), pool.held()), (0, 0), "closed, not pooled");

        let fresh = pool.take().unwrap();
        assert_eq!(rustix::io::ioctl_fionread(fresh.reader()), Ok(0));
    }

    #[test]
    fn the_pool_is_bounded_and_never_waits() {
        let pool = PipePool::new(2, PIPE_BYTES);
        let _first = pool.take().unwrap();
        let second = pool.take().unwrap();
        assert_eq!(pool.take().unwrap_err(), PipeDenied::Limit);
        drop(second);
        assert!(pool.take().is_ok());
    }

    #[test]
    fn the_size_is_what_the_kernel_gave() {
        let pipe = PipePool::new(1, PIPE_BYTES).take().unwrap();
        assert_eq!(fcntl_getpipe_size(pipe.writer()), Ok(pipe.nominal_bytes()));
        assert!(pipe.nominal_bytes() >= MIN_PIPE_BYTES);
    }
}
