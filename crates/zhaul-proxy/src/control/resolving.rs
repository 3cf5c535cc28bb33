//! What names stand for, looked up again and again while a configuration is in force.

use std::sync::Arc;
use std::time::Duration;

use super::shared::{Shared, pool_of};
use crate::config::Upstream;
use crate::state::resolve::look_up;
use crate::state::server::Server;

/// How often a name is looked up that stands for nothing, if not more often.
const UNRESOLVED_EVERY: Duration = Duration::from_secs(1);

/// Looks the name of a server up for as long as there is one: every so often, and after each reload.
/// One that a reload brought back goes to where it was before, so this is looked up at once, too.
pub(super) async fn keep_resolving(shared: Arc<Shared>, server: Arc<Server>) {
    let Upstream::Name(host, port) = server.address.clone() else {
        return;
    };
    let mut reloads = shared.reloads.subscribe();
    let mut failing = !server.is_resolved();
    let mut at_once = *reloads.borrow() > 0;
    while let Some((pool, _)) = pool_of(&shared, &server) {
        let every = match server.is_resolved() {
            true => pool.config.resolve_every,
            false => pool.config.resolve_every.min(UNRESOLVED_EVERY),
        };
        tokio::select! {
            () = tokio::time::sleep(every), if !at_once => {}
            () = std::future::ready(()), if at_once => at_once = false,
            _ = reloads.changed() => {}
        }
        let asked = host.clone();
        // The resolver of the C library waits, so it does that elsewhere.
        let found = tokio::task::spawn_blocking(move || look_up(&asked, port)).await;
        let name = format!("{}/{}", server.pool, server.name);
        match found.unwrap_or_else(|e| Err(e.into())) {
            Ok(found) => {
                failing = false;
                let was_resolved = server.is_resolved();
                if server.resolved(found) {
                    if was_resolved {
                        tracing::info!("server {name}: {host} stands for other addresses now");
                    } else {
                        tracing::warn!("server {name} is there: {host} was found");
                    }
                    pool.queue.call_all();
                }
            }
            // A name that stands for nothing for a moment is no reason to forget where it was.
            Err(e) if !failing => {
                failing = true;
                tracing::warn!(
                    "server {name}: cannot look up {host}: {e} (its last addresses are used)"
                );
            }
            Err(_) => {}
        }
    }
}
