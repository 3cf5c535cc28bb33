//! What names stand for: before a configuration is in force, and again and again while it is.

use std::io;
use std::net::ToSocketAddrs;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::pool_of;
use crate::addresses::Endpoint;
use crate::config::{Init, Upstream};
use crate::pool::Pool;
use crate::proxy::Shared;
use crate::server::Server;

/// How long is waited for names that may be found later: long enough for most of them, so that their
/// servers are there from the first connection.
const LATER_PATIENCE: Duration = Duration::from_secs(1);

/// How often a name is looked up that stands for nothing, if not more often.
const UNRESOLVED_EVERY: Duration = Duration::from_secs(1);

/// Resolves every name of these pools that nothing is known of yet, and waits for it.
///
/// # Errors
/// The first that stands for nothing and has to: pool, server, name, why.
pub(crate) fn resolve_all<'a>(
    pools: impl Iterator<Item = &'a Arc<Pool>>,
) -> Result<(), (String, String, io::Error)> {
    let (mut now, mut later) = (Vec::new(), Vec::new());
    for pool in pools {
        for (server, config) in pool.servers.iter().zip(&pool.config.servers) {
            if let Upstream::Name(host, port) = &server.address
                && !server.is_resolved()
            {
                let asked = (Arc::clone(server), host.clone(), *port);
                match config.init {
                    Init::Now => now.push(asked),
                    // Later the task that it has goes on with it.
                    Init::Later if server.is_unsought() => later.push(asked),
                    Init::Later => {}
                }
            }
        }
    }
    // Meanwhile those that may fail, each by itself: one may take as long as it likes.
    let (done, all_done) = mpsc::channel();
    let deadline = Instant::now() + LATER_PATIENCE;
    let later: Vec<_> = later
        .into_iter()
        .map(|(server, host, port)| {
            let done = done.clone();
            let look_up = move || {
                let name = format!("{}/{}", server.pool, server.name);
                match look_up(&host, port) {
                    Ok(found) => drop(server.resolved(found)),
                    Err(e) => tracing::warn!(
                        "server {name}: cannot look up {host}: {e} (it is down until that succeeds)"
                    ),
                }
                let _ = done.send(());
            };
            // Without a thread it is looked up while the proxy runs.
            thread::Builder::new()
                .name("zhaul-names".to_owned())
                .spawn(look_up)
                .is_ok()
        })
        .collect();
    for (server, host, port) in now {
        let failed = |e| (format!("{}/{}", server.pool, server.name), host.clone(), e);
        server.resolved(look_up(&host, port).map_err(failed)?);
    }
    for _ in later.into_iter().filter(|started| *started) {
        let left = deadline.saturating_duration_since(Instant::now());
        if all_done.recv_timeout(left).is_err() {
            break;
        }
    }
    Ok(())
}

fn look_up(host: &str, port: u16) -> io::Result<Vec<Endpoint>> {
    let found: Vec<_> = (host, port).to_socket_addrs()?.map(Endpoint::Tcp).collect();
    match found.is_empty() {
        true => Err(io::Error::other("it stands for no address")),
        false => Ok(found),
    }
}

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
                    pool.call_all();
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
