//! One core for the mover, another for those it works with.
//!
//! Sharing a core would charge the others' cache misses and wake-ups to the mover.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where each thread runs. `None` on a machine with one core, where nothing is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cores {
    pub(super) mover: Option<usize>,
    pub(super) receiver: Option<usize>,
    pub(super) feeder: Option<usize>,
}

impl Cores {
    /// The first cores that this thread may run on. With two, receiver and feeder share one.
    pub(super) fn pick() -> Self {
        let allowed = sched_getaffinity(None).unwrap_or_default();
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        match (cores.next(), cores.next(), cores.next()) {
            (Some(mover), Some(receiver), third) => Self {
                mover: Some(mover),
                receiver: Some(receiver),
                feeder: third.or(Some(receiver)),
            },
            _ => Self {
                mover: None,
                receiver: None,
                feeder: None,
            },
        }
    }

    /// For people.
    pub(super) fn note(self) -> String {
        match (self.mover, self.receiver, self.feeder) {
            (Some(mover), Some(receiver), Some(feeder)) => {
                format!("mover pinned to core {mover}, receiver to {receiver}, feeder to {feeder}")
            }
            _ => "one core: mover, receiver and feeder take turns on it".to_owned(),
        }
    }
}

/// Pins the calling thread; its later threads inherit that. A sandbox may forbid it: then the
/// scheduler places the thread.
pub(super) fn pin(core: Option<usize>) {
    if let Some(core) = core {
        let mut set = CpuSet::new();
        set.set(core);
        let _ = sched_setaffinity(None, &set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mover_shares_its_core_with_nobody() {
        let cores = Cores::pick();
        assert!(cores.mover.is_none() || cores.mover != cores.receiver);
        assert!(cores.mover.is_none() || cores.mover != cores.feeder);
    }
}
