//! A file that its owner has examined already.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use tokio::io::{Interest, Ready};

use super::end::{AsyncEnd, SharedFd};

/// A regular file, or a part of a cache that is one, which threads that read ahead keep alive by a
/// clone: `Arc<File>`, `Arc<OwnedFd>`, or an `Arc` of whatever a cache keeps that is `AsFd`.
///
/// Together with [`Haul::source_facts`](crate::Haul::source_facts) and
/// [`Haul::sink_facts`](crate::Haul::sink_facts) no system call is made to find out what the ends
/// are: while the file is resident and was asked about within the last second, a chunk costs one
/// `sendfile(2)`, and with [`Stability::Immutable`](crate::Stability::Immutable) one `fstat(2)`.
#[derive(Clone, Debug)]
pub struct SharedFile<F>(pub F);

impl<F: AsFd> AsFd for SharedFile<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<F: AsFd + Clone + Send + Sync + 'static> AsyncEnd for SharedFile<F> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn try_io<R>(
        &self,
        _interest: Interest,
        call: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        call()
    }

    fn ready(&self, _interest: Interest) -> impl Future<Output = io::Result<Ready>> + Send {
        std::future::ready(Ok(Ready::READABLE | Ready::WRITABLE))
    }

    fn is_file(&self) -> bool {
        true
    }

    fn shared(&self) -> Option<SharedFd> {
        Some(Arc::new(self.0.clone()).into())
    }
}
