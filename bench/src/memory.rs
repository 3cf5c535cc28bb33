//! Memory of another process from `/proc/PID`: resident now, resident at most, proportional share.
//!
//! Kernel memory (socket buffers, page cache) is not in these figures; it is the same for all.

use std::fs;
use std::io;

use anyhow::Context as _;
use rustix::process::Pid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) rss_kib: u64,
    /// Since the start or since [`reset_peak`].
    pub(crate) peak_kib: u64,
    pub(crate) pss_kib: u64,
}

impl Memory {
    pub(crate) fn of(pid: Pid) -> anyhow::Result<Self> {
        let read = |file: &str| {
            let path = proc_path(pid, file);
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let status = read("status")?;
        let field = |text: &str, name: &str| {
            kib(text, name)
                .with_context(|| format!("no {name} for process {}", pid.as_raw_nonzero()))
        };
        Ok(Self {
            rss_kib: field(&status, "VmRSS")?,
            peak_kib: field(&status, "VmHWM")?,
            pss_kib: field(&read("smaps_rollup")?, "Pss")?,
        })
    }
}

/// Makes the peak start again from what is resident now.
pub(crate) fn reset_peak(pid: Pid) -> io::Result<()> {
    fs::write(proc_path(pid, "clear_refs"), "5")
}

fn proc_path(pid: Pid, file: &str) -> String {
    format!("/proc/{}/{file}", pid.as_raw_nonzero())
}

/// The value of a line `Name:   123 kB`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_is_found_by_its_whole_name() {
        let text = "Pss_Anon:  7 kB\nPss:     12 kB\nVmRSS:\t    34 kB\nVmBad: x kB\n";
        assert_eq!(kib(text, "Pss"), Some(12));
        assert_eq!(kib(text, "VmRSS"), Some(34));
        assert_eq!(kib(text, "VmBad"), None);
        assert_eq!(kib(text, "VmHWM"), None);
    }

    #[test]
    fn reset_peak_forgets_what_was_freed() {
        let pid = rustix::process::getpid();
        let touched = vec![1u8; 64 << 20];
        std::hint::black_box(&touched);
        drop(touched);
        let high = Memory::of(pid).unwrap();
        reset_peak(pid).unwrap();
        let after = Memory::of(pid).unwrap();
        assert!(
            high.peak_kib >= after.peak_kib + (32 << 10),
            "{high:?} {after:?}"
        );
    }
}
