//! What it takes to make a disk slow and its data cold: a throttled cgroup, and evictions.

pub(crate) mod device;
pub(crate) mod evict;
pub(crate) mod loop_fs;
pub(crate) mod throttle;
