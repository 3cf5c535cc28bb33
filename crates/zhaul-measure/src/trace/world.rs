//! What the ledger asks of the machine when events do not tell.

use std::ops::Range;

use super::object::{Object, Seen};

/// Looks at the processes that are traced, as they are at this moment: later than the event about
/// which is asked, so that an answer may be about something newer. `None` is always a right answer.
pub trait World {
    /// What a descriptor refers to.
    fn object(&mut self, pid: u32, fd: i32) -> Option<Seen>;

    /// The files that are mapped into the process.
    fn mappings(&mut self, pid: u32) -> Vec<MappedFile>;

    /// Reads the process's memory; `false` if not all of it could be read.
    fn memory(&mut self, pid: u32, address: u64, into: &mut [u8]) -> bool;

    /// Whether the bytes that one file got from another are those of the other. `None` if nobody
    /// can tell any more.
    fn unchanged(&mut self, source: &Object, sink: &Object) -> Option<bool>;
}

/// A file mapped into memory.
#[derive(Clone, Debug)]
pub struct MappedFile {
    /// Where.
    pub range: Range<u64>,
    /// Mapped for execution: it is a program or a library.
    pub executable: bool,
    /// What.
    pub file: Seen,
}
