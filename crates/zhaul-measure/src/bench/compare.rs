//! Two runs side by side: ratios of medians, and "no difference" where the spreads overlap.
//!
//! A cell differs in a figure only if the ranges over the rounds do not touch, and each side has at
//! least [`FEWEST_ROUNDS`]. That still happens by chance: with three rounds a side in one of ten
//! comparisons of equal things, with five in one of 126. [`Comparison::by_chance`] says how many of
//! the differences shown are to be expected of two equal programs.

use serde::Serialize;

use super::figures::Figure;
use super::results::{Cell, Contender, FORMAT, Path, Results};
use crate::stats::Spread;

/// With fewer on either side nothing is called a difference.
pub const FEWEST_ROUNDS: usize = 3;

/// The figures compared.
pub const COMPARED: [Figure; 2] = [Figure::MoverCpu, Figure::Throughput];

/// What became of one figure of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The second run is better, and the spreads do not overlap.
    Better,
    /// It is worse, and they do not overlap.
    Worse,
    /// The spreads overlap.
    NoDifference,
    /// One side has too few rounds to tell.
    TooFewRounds,
}

/// One figure of a cell that both runs have.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// From what to what.
    pub path: Path,
    /// The name of the route.
    pub route: String,
    /// Who.
    pub contender: Contender,
    /// Bytes of one transfer.
    pub bytes: u64,
    /// Which figure.
    pub figure: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// In the first run.
    pub a: Spread,
    /// In the second.
    pub b: Spread,
    /// The second median divided by the first.
    pub ratio: f64,
    /// What that means.
    pub verdict: Verdict,
    /// How likely two equal programs differ as much as to be told apart.
    #[serde(skip)]
    chance: f64,
}

/// Two runs side by side.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Comparison {
    /// What makes the two runs hard to compare: other hosts, kernels, versions; a run cut short.
    pub differs: Vec<String>,
    /// The figures that both have.
    pub compared: Vec<Compared>,
    /// Cells that only the first has.
    pub only_a: Vec<String>,
    /// Cells that only the second has.
    pub only_b: Vec<String>,
    /// How many differences two equal programs would show.
    pub by_chance: f64,
}

impl Comparison {
    /// Compares the second run with the first.
    pub fn of(a: &Results, b: &Results) -> Self {
        let mut comparison = Self {
            differs: differing(a, b),
            ..Self::default()
        };
        for cell in &a.cells {
            match twin(b, cell) {
                Some(twin) => comparison.compare(cell, twin),
                None => comparison.only_a.push(name(cell)),
            }
        }
        let new = b.cells.iter().filter(|cell| twin(a, cell).is_none());
        comparison.only_b = new.map(name).collect();
        comparison.by_chance = comparison.compared.iter().map(|c| c.chance).sum();
        comparison
    }

    /// How many figures have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        let compared = self.compared.iter();
        compared.filter(|one| one.verdict == verdict).count()
    }

    fn compare(&mut self, a: &Cell, b: &Cell) {
        for figure in COMPARED {
            let (Some(of_a), Some(of_b)) = (figure.of(a), figure.of(b)) else {
                continue;
            };
            if of_a.median <= 0.0 {
                continue;
            }
            let rounds = (figure.values(a).len(), figure.values(b).len());
            let verdict = verdict(of_a, of_b, rounds, figure.is_gain());
            self.compared.push(Compared {
                path: a.path,
                route: a.route.clone(),
                contender: a.contender,
                bytes: a.bytes,
                figure: figure.label(),
                unit: figure.unit(),
                a: of_a,
                b: of_b,
                ratio: of_b.median / of_a.median,
                verdict,
                chance: if verdict == Verdict::TooFewRounds {
                    0.0
                } else {
                    chance(rounds)
                },
            });
        }
    }
}

fn verdict(a: Spread, b: Spread, rounds: (usize, usize), more_is_better: bool) -> Verdict {
    if rounds.0.min(rounds.1) < FEWEST_ROUNDS {
        return Verdict::TooFewRounds;
    }
    let (higher, lower) = (b.min > a.max, b.max < a.min);
    match (higher, lower) {
        (false, false) => Verdict::NoDifference,
        (higher, _) if higher == more_is_better => Verdict::Better,
        _ => Verdict::Worse,
    }
}

/// The chance that the values of two equal things do not interleave at all: two orders of all that
/// are possible.
fn chance((a, b): (usize, usize)) -> f64 {
    let mut orders = 1.0;
    for step in 1..=b {
        orders *= (a + step) as f64 / step as f64;
    }
    2.0 / orders
}

fn twin<'a>(results: &'a Results, cell: &Cell) -> Option<&'a Cell> {
    results.cells.iter().find(|other| {
        (other.path, other.contender, other.bytes) == (cell.path, cell.contender, cell.bytes)
            && other.route == cell.route
    })
}

fn name(cell: &Cell) -> String {
    let contender = match cell.contender {
        Contender::Zhaul => "",
        Contender::Floor => " (floor)",
    };
    let size = super::size::format(cell.bytes);
    format!("{}, {}{contender}, {size}", cell.path.label(), cell.route)
}

fn differing(a: &Results, b: &Results) -> Vec<String> {
    let mut differs = Vec::new();
    let mut note = |what: &str, a: String, b: String| {
        if a != b {
            differs.push(format!("{what}: {a} and {b}"));
        }
    };
    note(
        "the kernels differ",
        a.host.kernel.clone(),
        b.host.kernel.clone(),
    );
    note(
        "the processors differ",
        a.host.cpu.clone(),
        b.host.cpu.clone(),
    );
    note(
        "the numbers of cores differ",
        a.host.cores.to_string(),
        b.host.cores.to_string(),
    );
    note(
        "the file systems differ",
        a.host.file_system.clone(),
        b.host.file_system.clone(),
    );
    note(
        "the chunks differ",
        a.chunk_bytes.to_string(),
        b.chunk_bytes.to_string(),
    );
    note(
        "the versions of zhaul differ",
        a.zhaul.clone(),
        b.zhaul.clone(),
    );
    for (results, which) in [(a, "first"), (b, "second")] {
        if results.interrupted {
            differs.push(format!("the {which} run was interrupted"));
        }
    }
    differs
}

/// Why a file cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// It is something else.
    #[error("is no result of zhaul bench --json: {0}")]
    Foreign(#[from] serde_json::Error),
    /// It was written by a later zhaul.
    #[error("has format {found}, and this zhaul knows formats up to {FORMAT}")]
    TooNew {
        /// Its format.
        found: u32,
    },
}

/// Reads the results of a run.
///
/// # Errors
/// See [`LoadError`].
pub fn load(path: &std::path::Path) -> Result<Results, LoadError> {
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    let text = std::fs::read(path)?;
    // Before the rest, which a later version may have changed.
    let Format { format } = serde_json::from_slice(&text)?;
    if format > FORMAT {
        return Err(LoadError::TooNew { found: format });
    }
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
pub(super) use tests::results_of;

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
