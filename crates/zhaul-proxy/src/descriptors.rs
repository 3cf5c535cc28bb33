//! What the open files that this process may have are for: sessions, pipes, listening sockets.

use zhaul_service::DescriptorBudget;

use crate::config::{self, Config};

/// A session's sockets: the client's and the server's.
const FILES_PER_SESSION: usize = 2;
/// A pipe's two ends.
const FILES_PER_PIPE: usize = 2;
/// Pipes each worker has at most; when they are out, bytes are copied.
const PIPES: usize = 64;
/// Of the open files, the part that may go to pipes.
const PIPES_SHARE: usize = 4;
/// With fewer sessions than that, somebody forgot to raise the limit on open files.
const FEW_SESSIONS: usize = 1000;

/// Sessions that may be open at once.
pub(crate) fn most_sessions(config: &Config, open_files: usize, workers: usize) -> usize {
    let pipes = pipes_of_a_worker(open_files, workers) * FILES_PER_PIPE * workers;
    let sockets = |listener: &config::Listener| match listener.reuse_port {
        true => listener.listen.len() * workers,
        false => listener.listen.len(),
    };
    let sockets: usize = config.listeners.values().map(sockets).sum();
    let budget = DescriptorBudget {
        open_files,
        reserved: pipes + sockets,
        per_connection: FILES_PER_SESSION,
    };
    let most = budget.connections(config.max_connections);
    if config.max_connections == 0 && most < FEW_SESSIONS {
        tracing::warn!(
            "{open_files} open files allow {most} connections at once (raise the limit on open files)"
        );
    }
    most
}

/// Pipes that each worker may have: not so many that nothing is left for sessions.
pub(crate) fn pipes_of_a_worker(open_files: usize, workers: usize) -> usize {
    let share = open_files / PIPES_SHARE / FILES_PER_PIPE / workers.max(1);
    PIPES.min(share).max(1)
}
