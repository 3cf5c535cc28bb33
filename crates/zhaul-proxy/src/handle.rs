//! Stopping and reloading a proxy that runs, from any thread.

use std::sync::{Arc, PoisonError};

use zhaul_service::Stop;

use crate::config::Config;
use crate::control::Shared;
use crate::descriptors;
use crate::state::error::ProxyError;
use crate::state::site::{Site, sound};
use crate::worker::Message;

/// Reaches a running proxy, from any thread.
#[derive(Clone, Debug)]
pub struct Handle(pub(crate) Arc<Shared>);

impl Handle {
    /// Refuses new connections, lets sessions end within the time to drain, then makes
    /// [`Proxy::run`](crate::Proxy::run) return.
    pub fn stop(&self) {
        if self.0.stop.advance(Stop::Drain) {
            // Not after a reload, which may be looking up names for a long time.
            let _alone = self.0.replacing();
            let site = Arc::new(self.0.site.load().without_sockets());
            self.0.site.store(Arc::clone(&site));
            self.0.tell_all(|| Message::Drain(Arc::clone(&site)));
            // Whoever looks after the servers lets go of the sockets, too.
            self.0.reloads.send_modify(|count| *count += 1);
        }
    }

    /// Ends every session and makes [`Proxy::run`](crate::Proxy::run) return.
    pub fn stop_now(&self) {
        self.stop();
        if self.0.stop.advance(Stop::Now) {
            self.0.tell_all(|| Message::Stop);
        }
    }

    /// Opens the log by name again, after a rotation.
    pub fn reopen_log(&self) {
        if let Some(log) = &self.0.log {
            log.reopen();
        }
    }

    /// Puts another configuration in force. Sessions go on as they began; sockets, servers and
    /// counts that both configurations have go on, too.
    ///
    /// # Errors
    /// If an address cannot be listened on, or something changed that needs a restart; nothing has
    /// changed then.
    pub fn reload(&self, config: Config) -> Result<(), ProxyError> {
        let shared = &self.0;
        let _one_at_a_time = shared
            .reloading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if shared.stop.state() != Stop::No {
            return Err(ProxyError::Stopping);
        }
        sound(&config)?;
        let old = shared.site.load_full();
        let changed: Vec<_> = [
            (old.config.workers == config.workers, "workers"),
            (old.config.admin == config.admin, "admin"),
            (old.config.metrics == config.metrics, "metrics"),
            (old.config.log == config.log, "log"),
        ]
        .into_iter()
        .filter_map(|(same, what)| (!same).then_some(what))
        .collect();
        if !changed.is_empty() {
            return Err(ProxyError::NeedsRestart(changed.join(", ")));
        }
        let workers = shared.mailboxes.len();
        let most = descriptors::most_sessions(&config, shared.open_files, workers);
        let site = Site::new(config, Some(&old), &mut Vec::new(), workers, most)?;
        let site = Arc::new(site);
        let alone = shared.replacing();
        if shared.stop.state() != Stop::No {
            return Err(ProxyError::Stopping);
        }
        shared.site.store(Arc::clone(&site));
        shared.tell_all(|| Message::Site(Arc::clone(&site)));
        drop(alone);
        // Whoever waits may find a place at a server that is new, or may have more connections now.
        for pool in old.pools.values() {
            pool.queue.call_all();
        }
        shared.reloads.send_modify(|count| *count += 1);
        Ok(())
    }
}
