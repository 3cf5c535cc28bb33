//! Why a run ended without results.

use std::io;
use std::path::PathBuf;

use super::results::{Contender, Path};
use super::size;

/// Why a run ended without results.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// No combination of what was asked for exists.
    #[error("nothing to measure: {why}")]
    Nothing {
        /// Why not.
        why: String,
    },
    /// The directory for the files cannot be used.
    #[error("cannot create files in {}: {source}", dir.display())]
    Dir {
        /// Which.
        dir: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// What arrived is not what was sent. No figure of this run means anything.
    #[error(
        "wrong bytes received: {}, {route} by {}, {}: {what}",
        path.label(),
        contender_name(*contender),
        size::format(*bytes)
    )]
    WrongBytes {
        /// From what to what.
        path: Path,
        /// The route.
        route: &'static str,
        /// Who moved them.
        contender: Contender,
        /// Bytes of one transfer.
        bytes: u64,
        /// What is wrong.
        what: String,
    },
    /// A transfer failed that had worked before.
    #[error(
        "{}, {route} by {}, {}: {source}",
        path.label(),
        contender_name(*contender),
        size::format(*bytes)
    )]
    Transfer {
        /// From what to what.
        path: Path,
        /// The route.
        route: &'static str,
        /// Who.
        contender: Contender,
        /// Bytes of one transfer.
        bytes: u64,
        /// How it failed.
        source: io::Error,
    },
    /// Something that every run needs failed.
    #[error("{what}: {source}")]
    Io {
        /// What.
        what: &'static str,
        /// How it failed.
        source: io::Error,
    },
    /// It was stopped before there was anything to show.
    #[error("interrupted before the first figure")]
    Interrupted,
}

impl BenchError {
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// The word for a contender in messages.
pub(super) const fn contender_name(contender: Contender) -> &'static str {
    match contender {
        Contender::Zhaul => "zhaul",
        Contender::Floor => "the floor",
    }
}
