//! On which terms a file is sent: who else may write to it meanwhile.

use std::ops::Range;
use std::sync::Arc;

use zhaul::lease::Lease;
use zhaul::{Aggregate, FileRange, Segment, Stability};

use crate::files::entry::Representation;
use crate::host::config;
use crate::host::site::Site;
use crate::run::reports::Reports;

/// What is promised of a file that is sent.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) stability: Stability,
    /// Held until what was sent in place is out of an editor's reach.
    pub(crate) lease: Option<Arc<Lease>>,
    /// The file was found unchanged a moment ago.
    fresh: bool,
}

impl Terms {
    /// Whether files are only sent under a lease.
    pub(crate) fn take_a_lease(site: &Site) -> bool {
        site.config.stability == config::Stability::Lease
    }

    /// Those of a file without a lease, which was found unchanged just now.
    pub(crate) const fn plain(asked: config::Stability) -> Self {
        let stability = match asked {
            config::Stability::Immutable => Stability::Immutable,
            config::Stability::Lease | config::Stability::Copy => Stability::MayChange,
        };
        Self {
            stability,
            lease: None,
            fresh: true,
        }
    }

    /// Those of `file`, which was found unchanged just now if it is `fresh`.
    pub(crate) fn of(site: &Site, file: &Representation, fresh: bool, reports: &Reports) -> Self {
        let plain = Self {
            fresh,
            ..Self::plain(site.config.stability)
        };
        if file.file.is_remote() {
            // It is copied, whatever is asked for.
            return Self {
                stability: Stability::MayChange,
                ..plain
            };
        }
        if !Self::take_a_lease(site) {
            return plain;
        }
        match Lease::acquire(&file.file) {
            Ok(lease) => Self {
                stability: Stability::Leased,
                lease: Some(Arc::new(lease)),
                // Until a lease is held, the file may change; only then does looking at it help.
                fresh: false,
            },
            Err(why) => {
                let path = file.path();
                reports.warn(|| format!("no lease on {path:?}, so it is copied: {why}"));
                plain
            }
        }
    }

    /// A range of a file on these terms.
    pub(crate) fn range(&mut self, file: &Representation, range: Range<u64>) -> FileRange {
        let range = FileRange::new(Arc::clone(&file.file), range)
            .source_facts(Arc::clone(&file.facts))
            .version_is_fresh(std::mem::take(&mut self.fresh))
            // An answer has one entity tag.
            .one_version(true)
            .stability(self.stability);
        match &self.lease {
            Some(lease) => range.lease(Arc::clone(lease)),
            None => range,
        }
    }

    /// The lease is broken, and whoever wants to write gets in: the `rest` is copied, and the file
    /// compared each time before it is sent. One that only grows is sent to its end.
    pub(crate) fn without_lease(&mut self, file: &Representation, rest: Aggregate) -> Aggregate {
        self.lease = None;
        self.stability = Stability::MayChange;
        let copied = |segment| match segment {
            Segment::File(range) => Segment::File(self.range(file, range.range())),
            memory @ Segment::Memory(_) => memory,
        };
        rest.into_iter().map(copied).collect()
    }
}
