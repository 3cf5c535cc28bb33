//! What to run, and how often.

use std::path::PathBuf;
use std::time::Duration;

use super::results::Path;
use super::way::Way;

/// What to run, and how often.
#[derive(Clone, Debug)]
pub struct Options {
    /// From what to what.
    pub paths: Vec<Path>,
    /// The ways, where a path allows them.
    pub routes: Vec<Way>,
    /// Bytes of one transfer.
    pub sizes: Vec<u64>,
    /// Timed samples of each cell.
    pub rounds: u32,
    /// Counted samples of each cell.
    pub counted_rounds: u32,
    /// How long a timed sample takes at least.
    pub sample: Duration,
    /// How long each route is profiled, if at all.
    pub profile: Option<Duration>,
    /// How long all of it may take, if that is bounded: then rounds after the first, counts and
    /// profiles are left out, and a note says so.
    pub budget: Option<Duration>,
    /// Seed of the random order.
    pub seed: u64,
    /// Where the files lie.
    pub dir: PathBuf,
}

impl Options {
    /// A run of a few minutes. Sizes are dense where routes overtake each other.
    pub fn standard() -> Self {
        Self {
            paths: Path::ALL.to_vec(),
            routes: Way::ALL.to_vec(),
            sizes: [10, 12, 14, 16, 18, 20, 22, 24, 27, 30]
                .map(|shift| 1 << shift)
                .to_vec(),
            rounds: 5,
            counted_rounds: 3,
            sample: Duration::from_millis(40),
            profile: Some(Duration::from_millis(300)),
            budget: None,
            seed: fastrand::u64(..),
            dir: std::env::temp_dir(),
        }
    }

    /// A run of less than half a minute.
    pub fn quick() -> Self {
        Self {
            sizes: [10, 14, 18, 24].map(|shift| 1 << shift).to_vec(),
            rounds: 3,
            counted_rounds: 1,
            sample: Duration::from_millis(15),
            profile: Some(Duration::from_millis(150)),
            budget: Some(Duration::from_secs(27)),
            ..Self::standard()
        }
    }
}
