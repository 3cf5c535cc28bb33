//! An open file or directory, which is closed where closing it may wait.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::files::storage::FileSystem;

/// A descriptor, and where it leads.
///
/// `close(2)` flushes to a network file system's server and to a FUSE daemon, and waits for the answer,
/// so the last reference to such a file gives it to the pool to be closed.
#[derive(Debug)]
pub(crate) struct OpenFile {
    /// `None` only while it is dropped.
    fd: Option<OwnedFd>,
    file_system: Arc<FileSystem>,
    is_remote: bool,
}

impl OpenFile {
    pub(crate) fn new(fd: OwnedFd, file_system: Arc<FileSystem>, is_remote: bool) -> Self {
        file_system.open_files.fetch_add(1, Ordering::Relaxed);
        Self {
            fd: Some(fd),
            file_system,
            is_remote,
        }
    }

    /// Another descriptor of the same.
    pub(crate) fn with(&self, fd: OwnedFd) -> Self {
        Self::new(fd, Arc::clone(&self.file_system), self.is_remote)
    }

    /// The file system, with the threads that may wait for it.
    pub(crate) fn file_system(&self) -> &FileSystem {
        &self.file_system
    }

    /// Whether any use of it may wait for somebody who does not answer.
    pub(crate) fn is_remote(&self) -> bool {
        self.is_remote
    }
}

impl AsFd for OpenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd
            .as_ref()
            .expect("it is there until it is dropped")
            .as_fd()
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let open_files = Arc::clone(&self.file_system.open_files);
        let fd = self.fd.take();
        let close = move || {
            drop(fd);
            open_files.fetch_sub(1, Ordering::Relaxed);
        };
        if self.is_remote {
            self.file_system.closing.detach(close);
        } else {
            close();
        }
    }
}
