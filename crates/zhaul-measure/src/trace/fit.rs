//! What stands against another way between two ends: what the trace saw fail, and what is known of
//! files. Advice that the kernel would refuse is none.

use std::collections::HashMap;
use std::rc::Rc;

use super::flows::Flow;
use super::object::{Kind, Object};
use super::world::World;

/// Another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum By {
    Sendfile = 1,
    Splice = 2,
    CopyFileRange = 4,
    /// `ioctl(FICLONE)`: shared blocks.
    Reflink = 8,
}

/// What is known of a pair of ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Fit {
    /// Both are the same file.
    pub(crate) same_file: bool,
    /// The files lie on different file systems, so that `copy_file_range` gives EXDEV.
    pub(crate) other_file_system: bool,
    /// The sink's file system can share blocks.
    pub(crate) shares_blocks: bool,
    /// The sink is open with `O_APPEND`, for which there is no sendfile, splice or copy_file_range.
    pub(crate) appends: bool,
    /// The bytes arrived as they left: they did not pass through a program's memory, or both files
    /// were compared. `None` if nobody can tell.
    pub(crate) unchanged: Option<bool>,
    /// The bits of [`By`] that the trace saw fail.
    pub(crate) refused: u8,
}

impl Fit {
    #[cfg(test)]
    pub(crate) const fn new() -> Self {
        Self {
            same_file: false,
            other_file_system: false,
            shares_blocks: false,
            appends: false,
            unchanged: None,
            refused: 0,
        }
    }

    #[cfg(test)]
    pub(crate) const fn refusing(mut self, by: By) -> Self {
        self.refused |= by as u8;
        self
    }

    /// The trace saw it fail between such ends.
    pub(crate) const fn is_refused(self, by: By) -> bool {
        self.refused & by as u8 != 0
    }
}

/// Calls that failed for good, by what they failed between.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    seen: Vec<(By, Rc<Object>, Rc<Object>)>,
}

impl Refusals {
    pub(crate) fn add(&mut self, by: By, source: Rc<Object>, sink: Rc<Object>) {
        if !self.is_refused(by, &source, &sink) && self.seen.len() < REFUSALS_AT_MOST {
            self.seen.push((by, source, sink));
        }
    }

    fn is_refused(&self, by: By, source: &Object, sink: &Object) -> bool {
        self.seen
            .iter()
            .any(|(call, from, to)| *call == by && are_alike(from, source) && are_alike(to, sink))
    }
}

/// Files of one file system are, and other things of one kind.
fn are_alike(one: &Object, other: &Object) -> bool {
    let device = |object: &Object| object.file().map(|file| file.device);
    match (one.kind().is_stored(), other.kind().is_stored()) {
        (true, true) => device(one) == device(other) && one.appends() == other.appends(),
        (false, false) => one.kind() == other.kind(),
        _ => false,
    }
}

/// What is known of the ends of each flow, in the order of `flows`. Files are compared where bytes
/// went from one to the other through a program's memory: the largest flows, and what is found there
/// is taken for the smaller ones if all of it agrees.
pub(crate) fn fits<W: World>(flows: &[Flow<'_>], refusals: &Refusals, world: &mut W) -> Vec<Fit> {
    let mut compared = 0;
    let mut found: HashMap<(Kind, Kind), Vec<bool>> = HashMap::new();
    let mut fits: Vec<Fit> = Vec::with_capacity(flows.len());
    for flow in flows {
        let mut fit = fit(flow, refusals);
        if fit.unchanged.is_some() || fit.same_file || !are_stored(flow) {
            fits.push(fit);
            continue;
        }
        if compared < COMPARED_AT_MOST {
            compared += 1;
            fit.unchanged = world.unchanged(flow.source, flow.sink);
            let found = found.entry((flow.source.kind(), flow.sink.kind()));
            found.or_default().extend(fit.unchanged);
        } else if let Some(found) = found.get(&(flow.source.kind(), flow.sink.kind()))
            && let Some(first) = found.first()
            && found.iter().all(|one| one == first)
        {
            fit.unchanged = Some(*first);
        }
        fits.push(fit);
    }
    fits
}

fn are_stored(flow: &Flow<'_>) -> bool {
    flow.source.kind().is_stored() && flow.sink.kind().is_stored()
}

fn fit(flow: &Flow<'_>, refusals: &Refusals) -> Fit {
    let (source, sink) = (flow.source, flow.sink);
    let refused = [By::Sendfile, By::Splice, By::CopyFileRange, By::Reflink]
        .into_iter()
        .filter(|&by| refusals.is_refused(by, source, sink))
        .fold(0, |bits, by| bits | by as u8);
    let both_stored = are_stored(flow);
    let device = |object: &Object| object.file().map(|file| file.device);
    let in_memory = |object: &Object| matches!(object.kind(), Kind::Program | Kind::Unknown);
    let through_memory = flow.route.passes_through_memory() || in_memory(source) || in_memory(sink);
    Fit {
        same_file: both_stored && source.file().is_some() && source.file() == sink.file(),
        other_file_system: both_stored && device(source) != device(sink),
        shares_blocks: both_stored && sink.shares_blocks(),
        appends: sink.appends() && sink.kind().is_stored(),
        unchanged: (!through_memory).then_some(true),
        refused,
    }
}

const REFUSALS_AT_MOST: usize = 256;
const COMPARED_AT_MOST: usize = 16;
