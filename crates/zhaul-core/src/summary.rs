//! What a transfer did, finished or not.

use std::fmt;

use crate::errno::Errno;
use crate::op::Operation;
use crate::route::Route;

/// Account of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Bytes that the sink took.
    pub moved: u64,
    /// Bytes taken from a stream that reached no sink: they are lost to both sides. Always 0
    /// for a finished transfer.
    pub stranded: u64,
    /// The route taken last.
    pub route: Route,
    /// Every change of route, in order.
    pub changes: Vec<RouteChange>,
    /// System calls submitted, waiting excepted.
    pub calls: u64,
    /// What ended it, if it is finished.
    pub ending: Option<Ending>,
    /// The source grew meanwhile; the length asked for was sent.
    pub grew: bool,
    /// Bytes that were holes of a sparse source and are holes of the sink; they count as moved.
    pub holes: u64,
    /// Bytes for which the sink had its blocks before anything was moved.
    pub reserved: u64,
}

impl Summary {
    /// True if pages of the source may have entered the sink by reference.
    pub fn sent_in_place(&self) -> bool {
        let by_reference = |route| matches!(route, Route::Sendfile | Route::Splice);
        by_reference(self.route) || self.changes.iter().any(|change| by_reference(change.from))
    }
}

/// What a finished transfer ended at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// The length asked for.
    Length,
    /// The end of the source.
    SourceEnd,
}

/// One change of route, at a byte-exact point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteChange {
    /// The route left.
    pub from: Route,
    /// The route taken instead.
    pub to: Route,
    /// Bytes moved when it happened.
    pub moved: u64,
    /// Why.
    pub why: Why,
}

/// Why a route was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The kernel does not do this between these two ends.
    Refused {
        /// The call.
        operation: Operation,
        /// What it said.
        errno: Errno,
    },
    /// The pipe pool has no pipe to give.
    PipePoolExhausted,
    /// The pool has a pipe again.
    PipeAgain,
    /// The call reported the end of a source that had delivered nothing, or of a file that should
    /// have more; some file systems do so although a read delivers (size 0 in procfs), so a read has
    /// the last word.
    EndUnconfirmed,
    /// The kernel copied what it was asked to send from the pages of memory
    /// (`SO_EE_CODE_ZEROCOPY_COPIED`): a loopback or virtual device, or one that does not gather.
    CopiedAfterAll,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { operation, errno } => write!(f, "{operation}: {errno}"),
            Self::PipePoolExhausted => f.write_str("no pipe to be had"),
            Self::PipeAgain => f.write_str("there is a pipe again"),
            Self::EndUnconfirmed => f.write_str("an end that a read is to confirm"),
            Self::CopiedAfterAll => f.write_str("the kernel copied after all"),
        }
    }
}

impl fmt::Display for RouteChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} to {} after {} bytes: {}",
            self.from, self.to, self.moved, self.why
        )
    }
}
