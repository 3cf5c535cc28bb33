//! The kernel's `perf_event_open(2)`, as far as zhaul needs it.
//!
//! * [`Tracefs`] and [`Tracepoint`]: which tracepoints there are, and where their fields lie;
//!   [`Symbols`]: the kernel's functions by address.
//! * [`Counter`]: how often something happened to a thread, exactly.
//! * [`Session`]: what happened to a thread, a process with all it starts, or every CPU, as
//!   [`Record`]s in the order of time.
//! * [`CopyRoutines`]: bytes that the kernel's copy routines copied, exactly, where the kernel
//!   allows breakpoints on its own text.
//! * [`Profiler`]: where CPU time goes, by [`part_of`].
//! * [`CopyTime`]: CPU copies per byte, estimated from samples.
//!
//! Everything is closed when it is dropped, and leaves nothing behind in the kernel.

mod copies;
mod counter;
mod error;
mod estimate;
mod format;
mod kallsyms;
mod parts;
mod profile;
mod record;
mod session;
mod tracefs;

pub use copies::{Copy, CopyEvents, CopyRoutines, Direction};
pub use counter::Counter;
pub use error::{Error, Needs, Paranoid};
pub use estimate::{CopyTime, Estimate, least};
pub use format::{Field, Format, Location};
pub use kallsyms::{Symbol, Symbols};
pub use parts::part_of;
pub use profile::{Copying, PERIOD_NS, Profiler, Samples};
pub use record::{Callchain, EventKey, Kind, Record, Registers, User};
pub use session::{Builder, Drained, Session, Switch, Target, UserSide, Woken};
pub use tracefs::{Tracefs, Tracepoint};
