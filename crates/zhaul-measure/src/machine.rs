//! What the whole machine did meanwhile, by the kernel's own counters: devices and interrupts work
//! for whomever, so none of it is the cost of one thread.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Counters of the machine at a moment, or their growth between two. `None`: the kernel does not
/// tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Bytes that disks and network devices with hardware behind them moved, in either direction.
    pub dma_bytes: Option<u64>,
    /// Interrupts, those of timers and between processors among them.
    pub interrupts: Option<u64>,
    /// Soft interrupts.
    pub softirqs: Option<u64>,
}

impl Machine {
    /// The counters now.
    pub fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self {
            dma_bytes: disks().zip(networks()).map(|(disks, nets)| disks + nets),
            interrupts: total(&stat, "intr "),
            softirqs: total(&stat, "softirq "),
        }
    }

    /// What was added since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let grown = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Self {
            dma_bytes: grown(self.dma_bytes, before.dma_bytes),
            interrupts: grown(self.interrupts, before.interrupts),
            softirqs: grown(self.softirqs, before.softirqs),
        }
    }
}

/// The first number of a line of `/proc/stat` is the sum of the others.
fn total(stat: &str, label: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Sectors read and written of `/proc/diskstats`; loop, zram and mapped devices have no hardware of
/// their own, and partitions are part of their disks.
fn disks() -> Option<u64> {
    let stats = fs::read_to_string("/proc/diskstats").ok()?;
    let bytes = stats.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let name = fields.next()?;
        if !is_hardware("/sys/block", name) {
            return None;
        }
        let read: u64 = fields.nth(2)?.parse().ok()?;
        let written: u64 = fields.nth(3)?.parse().ok()?;
        Some((read + written) * SECTOR_BYTES)
    });
    Some(bytes.sum())
}

fn networks() -> Option<u64> {
    let devices = fs::read_dir("/sys/class/net").ok()?;
    let names = devices.flatten().map(|entry| entry.file_name());
    let bytes = names.filter_map(|name| {
        let name = name.to_str()?;
        let count = |which: &str| -> Option<u64> {
            let path = format!("/sys/class/net/{name}/statistics/{which}");
            fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        is_hardware("/sys/class/net", name).then_some(())?;
        Some(count("rx_bytes")? + count("tx_bytes")?)
    });
    Some(bytes.sum())
}

/// A device with a driver for hardware, or for what a hypervisor shows as such.
fn is_hardware(class: &str, name: &str) -> bool {
    Path::new(class).join(name).join("device").exists()
}

/// Of the kernel's statistics, whatever the disk's own are.
const SECTOR_BYTES: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_go_on_whatever_else_does() {
        let before = Machine::now();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let grown = Machine::now().since(&before);
        assert!(grown.interrupts.is_some_and(|count| count > 0), "{grown:?}");
        assert!(grown.softirqs.is_some(), "{grown:?}");
    }

    #[test]
    fn what_was_not_told_at_either_moment_is_not_zero() {
        let known = Machine {
            interrupts: Some(7),
            ..Machine::default()
        };
        assert_eq!(known.since(&Machine::default()), Machine::default());
        assert_eq!(known.since(&known).interrupts, Some(0));
    }
}
