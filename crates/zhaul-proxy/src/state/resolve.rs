//! What the names of servers stand for: looking them up, and waiting for those that have to be known
//! before a configuration is in force.

use std::io;
use std::net::ToSocketAddrs;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::pool::Pool;
use crate::config::{Init, Upstream};
use crate::pure::addresses::Endpoint;

/// How long is waited for names that may be found later: long enough for most of them, so that their
/// servers are there from the first connection.
const LATER_TIMEOUT: Duration = Duration::from_secs(1);

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
    let deadline = Instant::now() + LATER_TIMEOUT;
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

/// What a name stands for. Waits for as long as the C library's resolver does.
pub(crate) fn look_up(host: &str, port: u16) -> io::Result<Vec<Endpoint>> {
    let found: Vec<_> = (host, port).to_socket_addrs()?.map(Endpoint::Tcp).collect();
    match found.is_empty() {
        true => Err(io::Error::other("it stands for no address")),
        false => Ok(found),
    }
}
