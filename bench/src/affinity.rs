//! One core for the server, another for the client.
//!
//! Sharing a core would charge the client's cache misses and wake-ups to the server's CPU time.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Cores {
    /// `None` on a machine with one core: then nothing is pinned.
    pub(crate) server: Option<usize>,
    pub(crate) client: Option<usize>,
}

impl Cores {
    /// The first two cores that this process may run on.
    pub(crate) fn pick() -> io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        Ok(match (cores.next(), cores.next()) {
            (Some(server), Some(client)) => Self {
                server: Some(server),
                client: Some(client),
            },
            _ => Self {
                server: None,
                client: None,
            },
        })
    }
}

/// Pins the calling thread; its later threads and children inherit it.
pub(crate) fn pin(core: Option<usize>) -> io::Result<()> {
    let Some(core) = core else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_and_client_never_share_a_core() {
        let cores = Cores::pick().unwrap();
        assert!(cores.server.is_none() || cores.server != cores.client);
        assert_eq!(cores.server.is_none(), cores.client.is_none());
    }

    #[test]
    fn pinned_thread_runs_on_that_core_only() {
        let Cores {
            client: Some(core), ..
        } = Cores::pick().unwrap()
        else {
            zhaul_untested::skip_this("one core");
            return;
        };
        std::thread::spawn(move || {
            pin(Some(core)).unwrap();
            let set = sched_getaffinity(None).unwrap();
            assert!(set.is_set(core));
            assert_eq!(set.count(), 1);
        })
        .join()
        .unwrap();
    }
}
