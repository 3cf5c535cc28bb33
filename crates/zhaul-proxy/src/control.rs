//! Everything that is not on the path of bytes, on one thread: checks of servers, names, metrics,
//! the administrator's socket, and the end.

mod admin;
mod checks;
mod metrics;
mod names;

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::task::JoinSet;
use zhaul_service::Listener;

pub(crate) use names::resolve_all;

use crate::mailbox::Letter;
use crate::proxy::{Shared, Stop};

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

/// Checks servers and resolves names, anew for each configuration.
async fn look_after(shared: Arc<Shared>) {
    let mut reloads = shared.reloads.subscribe();
    loop {
        let site = shared.site.load_full();
        let mut tasks = JoinSet::new();
        for pool in site.pools.values() {
            checks::start(&mut tasks, &shared, pool);
            names::start(&mut tasks, pool);
        }
        if reloads.changed().await.is_err() {
            return;
        }
        // Dropping the set ends its tasks.
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
        for mailbox in &shared.mailboxes {
            mailbox.send(Letter::Stop);
        }
    }
    let _ = stop.wait_for(|stop| *stop == Stop::Done).await;
}

/// Accepts for ever, and talks to a bounded number at a time.
async fn converse<T, F: Future<Output = ()> + 'static>(
    accept: impl AsyncFn() -> io::Result<T>,
    talk: impl Fn(T) -> F,
) {
    let mut conversations = JoinSet::new();
    loop {
        while conversations.len() >= MAX_CONVERSATIONS {
            conversations.join_next().await;
        }
        while conversations.try_join_next().is_some() {}
        match accept().await {
            Ok(stream) => drop(conversations.spawn_local(talk(stream))),
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
