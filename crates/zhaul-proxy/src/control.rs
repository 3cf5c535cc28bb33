//! Everything that is not on the path of bytes, on one thread: checks of servers, names, metrics,
//! the administrator's socket, and the end.

mod admin;
mod checks;
mod metrics;
mod names;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{AbortHandle, JoinSet};
use zhaul_service::Listener;

pub(crate) use names::resolve_all;

use crate::config::Upstream;
use crate::mailbox::Letter;
use crate::pool::Pool;
use crate::proxy::{Shared, Stop};
use crate::server::Server;

/// How long accepting rests after an error.
const REST: Duration = Duration::from_millis(100);
/// Conversations with administrators and scrapers at a time.
const MAX_CONVERSATIONS: usize = 32;

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
                checks::keep_checking(Arc::clone(&shared), server)
            });
            if matches!(server.address, Upstream::Name(..)) {
                resolving.ensure(server, |server| {
                    names::keep_resolving(Arc::clone(&shared), server)
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

/// The pool that a server is in, and its place there, by the configuration in force.
fn pool_of(shared: &Shared, server: &Arc<Server>) -> Option<(Arc<Pool>, usize)> {
    let site = shared.site.load();
    let pool = site.pools.get(&server.pool)?;
    let index = pool
        .servers
        .iter()
        .position(|other| Arc::ptr_eq(other, server))?;
    Some((Arc::clone(pool), index))
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
        for mailbox in &shared.mailboxes {
            mailbox.send(Letter::Stop);
        }
    }
    let _ = stop.wait_for(|stop| *stop == Stop::Done).await;
}

/// Accepts for ever, and talks to a bounded number at a time: when there are more, the oldest has had
/// its time. So nobody who is slow, or silent, holds up others.
async fn converse<T, F: Future<Output = ()> + 'static>(
    accept: impl AsyncFn() -> io::Result<T>,
    talk: impl Fn(T) -> F,
) {
    let mut conversations = JoinSet::new();
    let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match accept().await {
            Ok(stream) => {
                while conversations.try_join_next().is_some() {}
                by_age.retain(|conversation| !conversation.is_finished());
                if by_age.len() >= MAX_CONVERSATIONS
                    && let Some(oldest) = by_age.pop_front()
                {
                    oldest.abort();
                }
                by_age.push_back(conversations.spawn_local(talk(stream)));
            }
            Err(e) => {
                tracing::warn!("cannot accept an administrator's connection: {e}");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

fn unix_listener(fd: OwnedFd) -> io::Result<tokio::net::UnixListener> {
    tokio::net::UnixListener::from_std(fd.into())
}
