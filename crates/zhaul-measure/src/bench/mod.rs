//! Every route over every path and size, next to the bare system calls.
//!
//! [`run`] sets up both ends of each [path](results::Path) on this machine, asks the planner which
//! routes it allows there, and has each of them taken by two contenders: the library, and the
//! *floor*, a bare loop of the same system calls. What it found is [`results::Results`]; derived
//! figures are in [`figures`], two runs are compared by [`compare`], and [`calibrate`] finds the
//! sizes at which one route overtakes another.
//!
//! # What one sample is
//! As many transfers, one after another over one connection, as take long enough to be timed
//! ([`Options::sample`]). The end that moves the bytes, the receiver and the feeder of a stream
//! source are threads of this process, each with its own account; mover and receiver are pinned to
//! different cores where there are two. A sample lasts from the moment when all threads are ready
//! until the receiver has the last byte. The receiver copies what it receives into a buffer of 128
//! KiB that it uses again, as a program would that looks at its data. What the kernel does in
//! interrupts on a core is accounted to whichever thread runs there: on loopback the whole way
//! through TCP up to the receiver's queue is the sender's.
//!
//! # What keeps the figures honest
//! * Each cell is first moved once with every received byte hashed and compared, outside the timed
//!   part; wrong bytes end the run.
//! * In each round all cells run in a new random order, the two contenders of a cell one after the
//!   other, in alternating order.
//! * No instrument is attached while a sample is timed. Calls and copies are counted, and profiles
//!   taken, in passes of their own.
//! * Files are in the page cache (this is checked before each sample) and have no name, so that
//!   nothing stays behind however the run ends. A file that is written has its pages before, and
//!   they are written over.
//!
//! What it does not do: it measures no disk and no network device.

pub mod calibrate;
pub mod compare;
pub mod figures;
pub mod results;
pub mod size;

mod cells;
mod content;
mod cores;
mod counting;
mod datagrams;
mod ends;
mod engine;
mod error;
mod feeder;
mod files;
mod floor;
mod library;
mod matrix;
mod mover;
mod options;
mod receiver;
mod room;
mod sample;
mod set;
mod way;

pub use engine::run;
pub use error::BenchError;
pub use options::Options;
pub use way::Way;
pub use zhaul::{Route, calibration};

/// Watches a run, and may stop it. Called between samples, never within one.
pub trait Observer: Send {
    /// How far it is: `done` of `total`, in units of time, and what is being done.
    fn advanced(&mut self, done: f64, total: f64, what: &str);

    /// True if the run should stop and hand back what it has.
    fn is_interrupted(&self) -> bool;
}
