//! A worker: one thread, one event loop, its connections and its cache.
//!
//! Connections are registered with an epoll instance of the worker's own, which the runtime of
//! tokio watches as one descriptor. A connection that waits for requests is an entry in a list and
//! nothing more: no task, no buffer. What epoll reports in one round is received, parsed and, where
//! the answer is in memory, answered in the same round, on the stack of the event loop. Only an
//! answer that has to wait (for the client to take it, for a disk, for an editor) gets a task.
//! Measured against a task for each connection on tokio's own readiness, at 1,000 keep-alive
//! connections this took a sixth off the CPU time of a small answer (ARCHITECTURE.md).
//!
//! Time limits cost a request a coarse clock reading; a sweep over all connections twice a second
//! enforces them.
//!
//! Here is what a worker has; each part looks after its own state. What happens to it is in
//! [`crate::run::rounds`] and [`crate::run::drain`].

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use zhaul::residency::ResidencyCache;
use zhaul_service::Wake;

use crate::answer::directory::PageBytes;
use crate::files::loading::Loader;
use crate::files::lookup::Catalog;
use crate::files::tree::Tree;
use crate::host::clock::Clock;
use crate::host::site::Site;
use crate::log::lines::Lines;
use crate::run::connection::Connection;
use crate::run::connections::Connections;
use crate::run::door::Door;
use crate::run::reactor::Reactor;
use crate::run::reports::Reports;

/// How often time limits are looked at and the log is flushed.
pub(crate) const SWEEP: Duration = Duration::from_millis(500);

/// What one event loop has.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) files: Rc<Catalog>,
    pub(crate) loader: Rc<Loader>,
    /// Which parts of files were found in the page cache lately.
    pub(crate) residency: ResidencyCache,
    pub(crate) pages: PageBytes,
    pub(crate) clock: Clock,
    pub(crate) lines: Lines,
    pub(crate) reports: Reports,
    pub(crate) reactor: Reactor,
    pub(crate) connections: Connections,
    pub(crate) door: Arc<Door>,
    /// Connections are closed behind their current answer.
    pub(crate) draining: Cell<bool>,
    /// Connections with a task.
    pub(crate) attending: Cell<usize>,
    /// Connections that another thread has accepted wait to be taken in.
    pub(crate) has_mail: Cell<bool>,
}

impl Worker {
    pub(crate) fn new(
        files: Catalog,
        lines: Lines,
        pages: PageBytes,
        door: Arc<Door>,
        wake: &Wake,
    ) -> io::Result<Rc<Self>> {
        let files = Rc::new(files);
        Ok(Rc::new(Self {
            loader: Loader::new(&files),
            files,
            residency: ResidencyCache::new(),
            pages,
            clock: Clock::new(),
            lines,
            reports: Reports::default(),
            reactor: Reactor::new(wake)?,
            connections: Connections::default(),
            door,
            draining: Cell::new(false),
            attending: Cell::new(0),
            has_mail: Cell::new(false),
        }))
    }

    pub(crate) fn tree(&self) -> &Arc<Tree> {
        &self.files.tree
    }

    pub(crate) fn site(&self) -> &Site {
        &self.files.tree.site
    }

    /// Whether the runtime has nothing to wait for.
    pub(crate) fn may_sleep(&self) -> bool {
        self.attending.get() == 0 && !self.draining.get() && !self.has_mail.get()
    }

    /// Has the rest of a connection's life reported; false if that is over.
    pub(crate) fn watch(&self, key: usize, connection: &Connection) -> bool {
        let watched = connection.stream.watch();
        if let Err(e) = &watched {
            self.reports
                .error(|| format!("cannot watch a connection: {e}"));
            self.connections.remove(key);
        }
        watched.is_ok()
    }
}
