//! Connections from administrators and scrapers: a bounded number at a time.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};

/// How long accepting rests after an error.
const REST: Duration = Duration::from_millis(100);
/// Conversations with administrators and scrapers at a time.
const MAX_CONVERSATIONS: usize = 32;

/// Accepts for ever, and talks to a bounded number at a time: when there are more, the oldest has had
/// its time. So nobody who is slow, or silent, holds up others.
pub(super) async fn converse<T, F: Future<Output = ()> + 'static>(
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

pub(super) fn unix_listener(fd: OwnedFd) -> io::Result<tokio::net::UnixListener> {
    tokio::net::UnixListener::from_std(fd.into())
}
