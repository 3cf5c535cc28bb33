//! What the input and output of any process costs: `zhaul trace`.
//!
//! [`Ledger`] keeps account of [`Event`]s and knows nothing of the kernel; it is tested by scripted
//! events.

mod blind;
mod calls;
mod collector;
mod compare;
mod contract;
mod counting;
mod event;
mod fit;
mod flows;
mod instruments;
mod ledger;
mod memory;
mod object;
mod pipes;
mod process;
mod procfs;
mod report;
mod route;
mod summary;
mod tracer;
mod verdict;
mod world;

pub use blind::Blind;
pub use counting::{CallCount, CountReport, Counted, Counting};
pub use event::{Call, Event, Stack, Task, Timed, Way};
pub use instruments::Copies;
pub use ledger::{Ledger, Pages, Sums};
pub use object::{FileId, Kind, Object, PipeId, Seen};
pub use procfs::{Procfs, family, name_of, process_of};
pub use report::{Costs, CpuParts, FORMAT, Report};
pub use summary::{CallLine, DeviceLine, Figure, FlowLine, Summary};
pub use tracer::{Progress, Tracer};
pub use world::{MappedFile, World};
