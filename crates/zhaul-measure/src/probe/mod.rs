//! What this kernel, these limits and these devices allow, each found out by trying.
//!
//! [`survey`] tries every mechanism with a transfer of a few KiB whose bytes are compared, and says
//! what was seen, why something is not there, and what would change it. Each probe runs on a thread
//! of its own until a deadline, so a file system that does not answer or a defect costs one finding
//! and never hangs the survey. What the probes make is nameless or in memory, and gone when they
//! end, however they end.
//!
//! One mechanism is one file, named after its system call. A probe returns what it has seen; it
//! prints nothing and decides nothing about the others.

mod alone;
mod bpf;
mod cachestat;
mod context;
mod copy_file_range;
mod deadline;
mod devices;
mod ends;

mod ficlone;
mod hugetlb;
mod infiniband;
mod io_uring;
mod ktls;
mod lease;
mod limits;
mod memfd;
mod mmap;
mod mount;
mod msg_zerocopy;
mod o_direct;
mod pattern;
mod perf_event_open;
mod place;
mod read_write;
mod refusals;
mod report;
mod rwf;
mod scratch;
mod seen;
mod sendfile;
mod splice;
mod survey;
mod tcp_zerocopy_receive;
mod tee;
mod trouble;
mod userfaultfd;
mod verdict;
mod vmsplice;

pub use alone::{is_filtered, mechanisms, try_alone};
pub use refusals::host_refusals;
pub use report::{
    Cause, Device, FileSystem, Finding, Gathering, Group, Judgement, Kernel, Limit, Report, Status,
};
pub use survey::{Ask, SurveyError, survey};
