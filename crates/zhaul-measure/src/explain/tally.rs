//! System calls by name, counted by the kernel for the calling thread.
//!
//! One counter on each `syscalls:sys_enter_*` tracepoint of interest: no records, nothing to lose.

use std::collections::BTreeMap;

use crate::perf::{Counter, Error, Tracefs};

/// Counters on the calling thread, one for each name.
#[derive(Debug)]
pub(crate) struct Tally {
    counters: Vec<(&'static str, Counter)>,
}

impl Tally {
    /// Attaches to the calling thread for the calls that are `in_play`; a counter that counts nothing
    /// still takes the kernel some milliseconds to set up and to take down. Nothing is counted yet.
    ///
    /// # Errors
    /// If tracepoints are not to be had by this user or on this kernel.
    pub(crate) fn of_this_thread(in_play: impl Fn(&str) -> bool) -> Result<Self, Error> {
        let tracefs = Tracefs::find()?;
        let mut counters = Vec::new();
        for (name, tracepoint) in NAMES.into_iter().filter(|(name, _)| in_play(name)) {
            let tracepoint = match tracefs.tracepoint(&format!("syscalls:sys_enter_{tracepoint}")) {
                // Not every architecture has every call.
                Err(Error::NoTracepoint(_)) if !counters.is_empty() => continue,
                found => found?,
            };
            counters.push((name, Counter::of_this_thread(&tracepoint)?));
        }
        Ok(Self { counters })
    }

    /// Counts from zero.
    pub(crate) fn start(&self) -> Result<(), Error> {
        for (_, counter) in &self.counters {
            counter.reset()?;
        }
        // Resetting is no call that is counted here, nor is enabling.
        self.counters
            .iter()
            .try_for_each(|(_, counter)| counter.enable())
    }

    /// Stops, and says how often each was called; names that were not are left out.
    pub(crate) fn stop(&self) -> Result<BTreeMap<&'static str, u64>, Error> {
        for (_, counter) in &self.counters {
            counter.disable()?;
        }
        let mut found = BTreeMap::new();
        for (name, counter) in &self.counters {
            let count = counter.read()?.value;
            if count > 0 {
                *found.entry(*name).or_default() += count;
            }
        }
        Ok(found)
    }
}

/// The names that people know, and those of the tracepoints.
const NAMES: [(&str, &str); 14] = [
    ("fstat", "newfstat"),
    ("read", "read"),
    ("pread64", "pread64"),
    ("recvfrom", "recvfrom"),
    ("write", "write"),
    ("sendto", "sendto"),
    ("mmap", "mmap"),
    ("madvise", "madvise"),
    ("munmap", "munmap"),
    ("sendfile", "sendfile64"),
    ("splice", "splice"),
    ("copy_file_range", "copy_file_range"),
    ("poll", "poll"),
    ("poll", "ppoll"),
];

/// Calls that wait for an end and move nothing.
pub(crate) const WAITING: &str = "poll";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_counted_under_its_name() {
        let tally = match Tally::of_this_thread(|name| name != "sendfile") {
            Ok(tally) => tally,
            Err(error) => {
                zhaul_untested::skip("each_call_is_counted_under_its_name", error);
                return;
            }
        };
        let file = tempfile::tempfile().unwrap();
        rustix::io::write(&file, b"before").unwrap();
        tally.start().unwrap();
        for _ in 0..7 {
            rustix::io::write(&file, b"within").unwrap();
        }
        rustix::fs::fstat(&file).unwrap();
        let counted = tally.stop().unwrap();
        rustix::io::write(&file, b"after").unwrap();
        assert_eq!(counted.get("write"), Some(&7));
        assert_eq!(counted.get("fstat"), Some(&1));
        assert_eq!(counted.get("read"), None);
        tally.start().unwrap();
        assert_eq!(tally.stop().unwrap().get("write"), None, "from zero again");
    }
}
