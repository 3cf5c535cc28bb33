//! Everything that is not on the path of bytes, on one thread: checks of servers, names, metrics,
//! the administrator's socket, and the end.

mod admin;
mod checking;
mod conversations;
mod metrics;
mod resolving;
mod shared;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{AbortHandle, JoinSet};
use zhaul_service::{Listener, Stop};

pub(crate) use shared::Shared;

use crate::config::Upstream;
use crate::state::server::Server;
use crate::worker::Message;

/// Runs until the workers have ended.
pub(crate) fn run(
    shared: &Arc<Shared>,
    admin: Option<&Listener>,
    metrics: &[Listener],
) -> io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        if let Some(listener) = admin {
            tasks.spawn_local(admin::serve(Arc::clone(shared), listener)?);
        }
        for listener in metrics {
            tasks.spawn_local(metrics::serve(Arc::clone(shared), listener)?);
        }
        tasks.spawn_local(look_after(Arc::clone(shared)));
        end(shared).await;
        Ok::<(), io::Error>(())
    })?;
    // A name that is being looked up is no reason to stay.
    runtime.shutdown_background();
    Ok(())
}

/// Has each server checked, and its name looked up, by tasks of its own. They go on over reloads, and
/// end by themselves when their server is gone.
async fn look_after(shared: Arc<Shared>) {
    let mut reloads = shared.reloads.subscribe();
    let (mut checking, mut resolving) = (PerServer::default(), PerServer::default());
    loop {
        checking.forget_ended();
        resolving.forget_ended();
        let site = shared.site.load_full();
        for server in site.pools.values().flat_map(|pool| &pool.servers) {
            checking.ensure(server, |server| {
                checking::keep_checking(Arc::clone(&shared), server)
            });
            if matches!(server.address, Upstream::Name(..)) {
                resolving.ensure(server, |server| {
                    resolving::keep_resolving(Arc::clone(&shared), server)
                });
            }
        }
        if reloads.changed().await.is_err() {
            return;
        }
    }
}

/// A task for each server.
#[derive(Default)]
struct PerServer {
    tasks: JoinSet<()>,
    known: HashMap<*const Server, AbortHandle>,
}

impl PerServer {
    /// Starts the task of a server, unless it has one.
    fn ensure<F: Future<Output = ()> + 'static>(
        &mut self,
        server: &Arc<Server>,
        task: impl FnOnce(Arc<Server>) -> F,
    ) {
        // A task keeps its server while it runs, so no other has the same place in memory.
        let known = self.known.get(&Arc::as_ptr(server));
        if known.is_none_or(AbortHandle::is_finished) {
            let task = self.tasks.spawn_local(task(Arc::clone(server)));
            self.known.insert(Arc::as_ptr(server), task);
        }
    }

    fn forget_ended(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.known.retain(|_, task| !task.is_finished());
    }
}

/// Waits for the end, and sees to it that draining has one.
async fn end(shared: &Shared) {
    let mut stop = shared.stop.subscribe();
    // The sender lives as long as `shared`.
    let _ = stop.wait_for(|stop| *stop != Stop::No).await;
    let drain = shared.site.load().config.drain;
    let ended = tokio::time::timeout(drain, stop.wait_for(|stop| *stop >= Stop::Now)).await;
    let is_overdue = ended.is_err();
    drop(ended);
    if is_overdue {
        let open = shared.site.load().door.open();
        if open > 0 {
            tracing::warn!("{open} sessions were cut off when the time to drain had passed");
        }
        shared.tell_all(|| Message::Stop);
    }
    let _ = stop.wait_for(|stop| *stop == Stop::Done).await;
}
