//! What is known of one process: its descriptors and its memory.

use std::collections::HashMap;
use std::rc::Rc;

use super::memory::{Inputs, Mappings};
use super::object::Object;

/// A descriptor: a number by which a process reaches an open file.
#[derive(Clone, Debug)]
pub(crate) struct Descriptor {
    pub(crate) object: Rc<Object>,
    /// `execve(2)` closes it.
    pub(crate) cloexec: bool,
    /// Its number was taken over from a descriptor whose `close(2)`, by another thread, had not been
    /// seen to return: when that was.
    pub(crate) took_over_ns: Option<u64>,
    /// Who made it.
    pub(crate) maker: u32,
}

impl Descriptor {
    pub(crate) fn of(object: Rc<Object>, cloexec: bool) -> Self {
        Self {
            object,
            cloexec,
            took_over_ns: None,
            maker: 0,
        }
    }
}

/// What is known of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Process {
    pub(crate) descriptors: HashMap<i32, Descriptor>,
    pub(crate) inputs: Inputs,
    pub(crate) mappings: Mappings,
    /// All that is mapped is in `mappings`; else `/proc/PID/maps` has to be read.
    pub(crate) mappings_are_known: bool,
    /// The end of the heap, when it was last seen.
    pub(crate) heap_end: u64,
    /// Calls that moved data.
    pub(crate) calls: u64,
}

impl Process {
    /// What a child made by `fork(2)` begins with: the same, but nothing of it waits to go on, since
    /// the parent's copy does.
    pub(crate) fn forked(&self) -> Self {
        let mut child = self.clone();
        child.inputs.all_sent();
        child
    }

    /// The process runs another program: gives back the descriptors that this closes.
    pub(crate) fn exec(&mut self) -> Vec<(i32, Descriptor)> {
        self.heap_end = 0;
        self.mappings = Mappings::default();
        // Whatever is mapped from now on is seen; the program itself is no data.
        self.mappings_are_known = true;
        let closed = self
            .descriptors
            .extract_if(|_, descriptor| descriptor.cloexec);
        closed.collect()
    }
}
