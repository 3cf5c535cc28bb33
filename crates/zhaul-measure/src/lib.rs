//! What moving bytes costs on this machine, and how we know.
//!
//! * [`probe`]: what this kernel, these limits and these devices allow, each found out by trying
//!   (`zhaul doctor`).
//! * [`explain`]: the plan of one transfer, and its measured cost beside the expected one
//!   (`zhaul explain`).
//! * [`mod@bench`]: every route over every kind of path and size, next to the bare system calls
//!   (`zhaul bench`), with [`report`] for the result as a page.
//! * [`trace`]: what the input and output of any process costs (`zhaul trace`).
//!
//! Under them lie [`meter`] (what one thread cost between two moments) and [`perf`] (the kernel's
//! `perf_event_open(2)`). Every figure carries the [`Method`] by which it was found.
#![forbid(unsafe_code)]

pub mod bench;
pub mod explain;
pub mod figure;
pub mod host;
pub mod machine;
pub mod meter;
pub mod perf;
pub mod probe;
pub mod report;
pub mod stats;
pub mod trace;

pub use figure::Method;
pub use stats::Spread;
