//! The plan of one transfer, and its measured cost beside the expected one (`zhaul explain`).
//!
//! ```no_run
//! use std::ffi::OsStr;
//! use zhaul_measure::explain::{Endpoint, Explanation, Role, Sink, Source, Wishes};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let source = Source::look(&Endpoint::parse(OsStr::new("big.bin"), Role::Source)?)?;
//! let sink = Sink::look(&Endpoint::parse(OsStr::new("tcp:192.0.2.1:9000"), Role::Sink)?)?;
//! let explanation = Explanation::of(&source, &sink, &Wishes::default())?;
//! println!("{} because {}", explanation.plan.route, explanation.plan.because);
//! # Ok(())
//! # }
//! ```
//!
//! Looking moves, creates, connects and changes nothing. [`Prepared`] opens the ends, makes the
//! transfer and puts what was measured beside what was expected. [`render`] turns an explanation
//! into lines for a terminal.

mod about;
mod abstract_name;
mod analysis;
mod deviations;
mod endpoint;
mod error;
mod expected;
mod explanation;
mod figures;
mod instruments;
mod look;
mod memory;
mod notes;
mod open;
pub mod render;
mod run;
#[cfg(test)]
mod sample;
mod tally;
mod units;
mod way;
mod yardstick;

pub use about::{AboutSink, AboutSource, FoundBy};
pub use analysis::{Analysis, Calls, Change, CopiedBytes, Figure};
pub use endpoint::{Endpoint, NotAnEndpoint, Role};
pub use error::{Error, Problem};
pub use expected::{Dma, Expected, SAMPLE_CHUNKS};
pub use explanation::{Asked, Choice, Explanation, FORMAT, PassedOver, ThresholdsInForce, Wishes};
pub use look::{Sink, Source};
pub use memory::InMemory;
pub use open::Consent;
pub use run::{Prepared, Ran};
pub use units::{NotAnAmount, parse_bytes};
