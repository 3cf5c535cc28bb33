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
}

/// What is known of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Process {
    pub(crate) descriptors: HashMap<i32, Descriptor>,
    pub(crate) inputs: Inputs,
    pub(crate) mappings: Mappings,
    /// All that is mapped is in `mappings`; else `/proc/PID/maps` has to be read.
    pub(crate) mappings_are_known: bool,
}

impl Process {
    /// What a child made by `fork(2)` begins with: the same, but nothing of it waits to go on, since
    /// the parent's copy does.
    pub(crate) fn forked(&self) -> Self {
        let mut child = self.clone();
        child.inputs.all_sent();
        child
    }

    /// The process runs another program.
    pub(crate) fn exec(&mut self) {
        self.descriptors.retain(|_, descriptor| !descriptor.cloexec);
        self.mappings = Mappings::default();
        // Whatever is mapped from now on is seen; the program itself is no data.
        self.mappings_are_known = true;
    }
}
