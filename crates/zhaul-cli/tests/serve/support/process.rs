//! What /proc tells about a process.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Pid;

/// What a process's descriptors are, counted by kind: `socket`, `pipe`, `anon_inode`, `file`.
pub(crate) fn descriptors(pid: Pid) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    let dir = format!("/proc/{}/fd", pid.as_raw_nonzero());
    for entry in fs::read_dir(dir).unwrap() {
        let Ok(target) = fs::read_link(entry.unwrap().path()) else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        let kind = match target.split_once(':') {
            Some((kind, _)) => kind.to_owned(),
            None => "file".to_owned(),
        };
        *kinds.entry(kind).or_insert(0) += 1;
    }
    kinds
}

/// The directories of a process's threads.
pub(crate) fn tasks(pid: Pid) -> impl Iterator<Item = PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).unwrap();
    tasks.map(|task| task.unwrap().path())
}

pub(crate) fn threads(pid: Pid) -> usize {
    tasks(pid).count()
}

/// User and system time that a process has used.
pub(crate) fn cpu_time(pid: Pid) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    // The name in parentheses may hold anything; fields are counted behind it.
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// Resident memory in bytes.
pub(crate) fn resident_bytes(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}
