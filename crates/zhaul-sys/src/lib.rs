//! The system calls of zhaul that rustix lacks, one file each.
//!
//! Every unsafe line of the workspace is in this crate. Each function is safe to call: it takes
//! borrowed descriptors, checks lengths, and returns the raw error number on failure without
//! retrying anything.

pub mod arena;
pub mod bpf;
pub mod cachestat;
pub mod ethtool;
pub mod ethtool_rings;
pub mod exit;
pub mod ficlonerange;
pub mod fiemap;
pub mod getifaddrs;
pub mod getrusage;
pub mod if_nameindex;
#[cfg(feature = "io-uring")]
pub mod io_uring;
pub mod kcmp;
pub mod lease;
#[cfg(not(miri))]
pub mod map_private;
pub mod memfd_map;
#[cfg(not(miri))]
pub mod memfd_pages;
pub mod memfd_seals;
pub mod mmap;
pub mod msg_zerocopy;
mod netlink;
pub mod pacing;
pub mod pagemap;
pub mod peer;
pub mod perf_event;
pub mod sched_setscheduler;
pub mod seccomp;
#[cfg(all(feature = "io-uring", not(miri)))]
pub mod send_zc;
pub mod setsockopt;
pub mod shared_ring;
pub mod sigaction;
pub mod sigwait;
pub mod sigxfsz;
pub mod siocoutq;
pub mod tcp_ulp;
pub mod tcp_zerocopy_receive;
pub mod userfaultfd;
pub mod vmsplice;

use std::io;

/// Turns the C convention (-1 and errno) into a `Result`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The same for calls that return a byte count.
fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
