//! What names stand for: before the start, and again and again while the proxy runs.

use std::io;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::config::Upstream;
use crate::pool::Pool;
use crate::server::{Endpoint, Server};

/// Resolves every name of these pools that nothing is known of yet, and waits for it.
///
/// # Errors
/// The first that stands for nothing: pool, server, name, why.
pub(crate) fn resolve_all<'a>(
    pools: impl Iterator<Item = &'a Arc<Pool>>,
) -> Result<(), (String, String, io::Error)> {
    for pool in pools {
        for server in &pool.servers {
            let Upstream::Name(host, port) = &server.address else {
                continue;
            };
            if !server.endpoints().is_empty() {
                continue;
            }
            let failed = |e| (format!("{}/{}", pool.name, server.name), host.clone(), e);
            let found = std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), *port))
                .map_err(failed)?;
            server.resolved(found.map(Endpoint::Tcp).collect());
        }
    }
    Ok(())
}

/// Starts resolving the names of a pool again and again.
pub(super) fn start(tasks: &mut JoinSet<()>, pool: &Arc<Pool>) {
    for server in &pool.servers {
        if let Upstream::Name(host, port) = &server.address {
            let (pool, server) = (Arc::clone(pool), Arc::clone(server));
            tasks.spawn_local(keep_resolving(pool, server, host.clone(), *port));
        }
    }
}

async fn keep_resolving(pool: Arc<Pool>, server: Arc<Server>, host: String, port: u16) {
    let mut failing = false;
    loop {
        tokio::time::sleep(pool.config.resolve_every).await;
        let name = format!("{}/{}", pool.name, server.name);
        match tokio::net::lookup_host((host.as_str(), port)).await {
            Ok(found) => {
                failing = false;
                let found: Vec<_> = found.map(Endpoint::Tcp).collect();
                // A name that stands for nothing for a moment is no reason to forget where it was.
                if !found.is_empty() && server.resolved(found) {
                    tracing::info!("server {name}: {host} stands for other addresses now");
                    pool.call_all();
                }
            }
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
