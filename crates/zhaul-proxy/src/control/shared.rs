//! What all threads of a proxy know.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use zhaul_service::{LogSender, Mailbox, StopSwitch};

use crate::state::pool::Pool;
use crate::state::server::Server;
use crate::state::site::Site;
use crate::worker::Message;

/// What all threads of a proxy know.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) site: ArcSwap<Site>,
    pub(crate) mailboxes: Vec<Mailbox<Message>>,
    /// The zero of all times.
    pub(crate) zero: Instant,
    pub(crate) stop: StopSwitch,
    /// Counts configurations.
    pub(crate) reloads: watch::Sender<u64>,
    pub(crate) log: Option<LogSender>,
    pub(crate) open_files: usize,
    /// Reloads come one after the other.
    pub(crate) reloading: Mutex<()>,
    /// Held while one site takes the place of another.
    replacing: Mutex<()>,
}

impl Shared {
    /// Of this configuration, for as many workers as have mailboxes.
    pub(crate) fn new(
        site: Site,
        mailboxes: Vec<Mailbox<Message>>,
        log: Option<LogSender>,
        open_files: usize,
    ) -> Self {
        Self {
            site: ArcSwap::from_pointee(site),
            mailboxes,
            zero: Instant::now(),
            stop: StopSwitch::default(),
            reloads: watch::channel(0).0,
            log,
            open_files,
            reloading: Mutex::default(),
            replacing: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.zero.elapsed()
    }

    /// While this is held, no site takes the place of another.
    pub(crate) fn replacing(&self) -> MutexGuard<'_, ()> {
        self.replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message to every worker.
    pub(crate) fn tell_all(&self, message: impl Fn() -> Message) {
        for mailbox in &self.mailboxes {
            mailbox.send(message());
        }
    }
}

/// The pool that a server is in, and its place there, by the configuration in force.
pub(super) fn pool_of(shared: &Shared, server: &Arc<Server>) -> Option<(Arc<Pool>, usize)> {
    let site = shared.site.load();
    let pool = site.pools.get(&server.pool)?;
    let index = pool
        .servers
        .iter()
        .position(|other| Arc::ptr_eq(other, server))?;
    Some((Arc::clone(pool), index))
}
