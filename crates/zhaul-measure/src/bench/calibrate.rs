//! From which size on a route pays on this host, measured from a file to TCP.
//!
//! Two questions, each about the library's own routes between the same two ends and under the same
//! promise: sendfile or read + write of an immutable file, mmap + write or read + write of a file
//! under a lease. What counts is the CPU time of the sender.
//!
//! A threshold moves off its default only for sizes at which the range of the ratio excludes 1, and
//! only to where fewer of them speak against it ([`decide`]). The range is the one of the ratios
//! within the rounds that holds their true median with 95 % confidence, whatever their
//! distribution: with nine rounds, from the second lowest to the second highest.

mod decide;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use zhaul::calibration::Calibration;
use zhaul::{Route, Thresholds};

use super::Observer;
use super::engine::on_a_thread;
use super::error::BenchError;
use super::results::{Contender, Path};
use super::sample::Mode;
use super::set::{Copying, Set, Take};
use super::size;
use super::way::Way;
use crate::stats::Spread;

use self::decide::ratio;
pub use self::decide::{Says, decide};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sizes of a transfer.
    pub sizes: Vec<u64>,
    /// Samples of each.
    pub rounds: u32,
    /// How long a sample takes at least.
    pub sample: Duration,
    /// Seed of the random order.
    pub seed: u64,
    /// Where the files lie.
    pub dir: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sizes: (8..=18).map(|shift| 1 << shift).chain([1 << 20]).collect(),
            rounds: 9,
            sample: Duration::from_millis(20),
            seed: fastrand::u64(..),
            dir: std::env::temp_dir(),
        }
    }
}

/// What was measured, and what follows.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The kernel release.
    pub kernel: String,
    /// When: RFC 3339.
    pub measured: String,
    /// Seed of the random order.
    pub seed: u64,
    /// Rounds that each ratio rests on.
    pub rounds: u32,
    /// One for each threshold.
    pub decisions: Vec<Decision>,
}

/// A threshold, and the evidence for it.
#[derive(Clone, Debug, Serialize)]
pub struct Decision {
    /// The route whose threshold it is.
    pub route: &'static str,
    /// Its name in the file.
    pub name: &'static str,
    /// Its default.
    pub default: u64,
    /// What was decided.
    pub threshold: u64,
    /// By size: the route's CPU time divided by that of read + write, with the range in which the
    /// median lies.
    pub ratios: Vec<(u64, Spread)>,
}

/// A route under a promise, with its samples: round and CPU-seconds of a transfer.
struct Trial {
    route: Route,
    copying: Copying,
    bytes: u64,
    repeats: u64,
    costs: Vec<(u32, f64)>,
}

/// Measures, on a thread of its own.
///
/// # Errors
/// See [`BenchError`]; an interrupted calibration decides nothing.
pub fn run(options: &Options, observer: &mut dyn Observer) -> Result<Outcome, BenchError> {
    on_a_thread(|| measure(options, observer))
}

fn measure(options: &Options, observer: &mut dyn Observer) -> Result<Outcome, BenchError> {
    let measured = jiff::Timestamp::now();
    let mut set = Set::new(options.dir.clone())?;
    set.open(PATH)
        .map_err(BenchError::io("cannot set up a connection"))?;
    let mut trials = prepare(&mut set, options)?;
    let mut order = fastrand::Rng::with_seed(options.seed);
    let total = f64::from(options.rounds + 1);
    for round in 0..=options.rounds {
        let mut indices: Vec<usize> = (0..trials.len()).collect();
        order.shuffle(&mut indices);
        for (done, &index) in indices.iter().enumerate() {
            if observer.is_interrupted() {
                return Err(BenchError::Interrupted);
            }
            let part = done as f64 / indices.len() as f64;
            let trial = &mut trials[index];
            let what = format!("{} with {}", trial.route, size::format(trial.bytes));
            observer.advanced(f64::from(round) + part, total, &what);
            // The first round finds out how long a sample has to be.
            if round == 0 {
                trial.size_up(&mut set, options.sample)?;
            } else {
                let cost = trial.sample(&mut set)?.1;
                trial.costs.push((round, cost));
            }
        }
    }
    let default = Thresholds::default();
    Ok(Outcome {
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        measured: measured.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        seed: options.seed,
        rounds: options.rounds,
        decisions: vec![
            decision(
                &trials,
                (Route::Sendfile, "sendfile_min_bytes"),
                Copying::Immutable,
                default.sendfile_min_bytes,
            ),
            decision(
                &trials,
                (Route::MmapWrite, "mmap_min_bytes"),
                Copying::Leased,
                default.mmap_min_bytes,
            ),
        ],
    })
}

const PATH: Path = Path::FileToTcp;

/// Each route beside the copy under the same promise, at each size.
fn prepare(set: &mut Set, options: &Options) -> Result<Vec<Trial>, BenchError> {
    let mut sizes = options.sizes.clone();
    sizes.sort_unstable();
    sizes.dedup();
    let mut trials = Vec::new();
    for bytes in sizes {
        if let Some(why) = set.room.refuses(bytes, 0) {
            let why = format!("{}: {why}", size::format(bytes));
            return Err(BenchError::Nothing { why });
        }
        set.add_file(bytes)
            .map_err(BenchError::io("cannot make a file"))?;
        for (route, copying) in [
            (Route::ReadWrite, Copying::Immutable),
            (Route::Sendfile, Copying::Immutable),
            (Route::ReadWrite, Copying::Leased),
            (Route::MmapWrite, Copying::Leased),
        ] {
            let trial = Trial {
                route,
                copying,
                bytes,
                repeats: 1,
                costs: Vec::new(),
            };
            let verified = set.verify(trial.take(2)).map_err(|e| trial.failed(e))?;
            verified.map_err(|what| trial.wrong_bytes(what))?;
            trials.push(trial);
        }
    }
    Ok(trials)
}

fn decision(
    trials: &[Trial],
    (route, name): (Route, &'static str),
    copying: Copying,
    default: u64,
) -> Decision {
    let under = |route| {
        let trials = trials.iter();
        trials.filter(move |trial| (trial.route, trial.copying) == (route, copying))
    };
    let ratios: Vec<(u64, Spread)> = under(route)
        .filter_map(|trial| {
            let copy = under(Route::ReadWrite).find(|copy| copy.bytes == trial.bytes)?;
            Some((trial.bytes, ratio(&trial.costs, &copy.costs)?))
        })
        .collect();
    Decision {
        route: route.name(),
        name,
        default,
        // Ranges of so few rounds exclude 1 by chance.
        threshold: if trials.iter().any(|trial| trial.costs.len() < FEWEST_ROUNDS) {
            default
        } else {
            decide(default, &ratios)
        },
        ratios,
    }
}

/// Of equal routes one is the cheaper in all of five rounds once in 16 times.
pub const FEWEST_ROUNDS: usize = 5;

impl Trial {
    const fn take(&self, repeats: u64) -> Take {
        Take {
            path: PATH,
            route: Way::Route(self.route),
            contender: Contender::Zhaul,
            bytes: self.bytes,
            repeats,
            copying: self.copying,
        }
    }

    /// Wall-clock time of the sample, and CPU-seconds of one transfer.
    fn sample(&self, set: &mut Set) -> Result<(Duration, f64), BenchError> {
        let taken = set.sample(self.take(self.repeats), Mode::Timed);
        let taken = taken.map_err(|error| self.failed(error))?;
        Ok((taken.wall, taken.mover.cpu_s() / self.repeats as f64))
    }

    fn size_up(&mut self, set: &mut Set, wanted: Duration) -> Result<(), BenchError> {
        loop {
            let (took, _) = self.sample(set)?;
            if took >= wanted {
                return Ok(());
            }
            let factor = wanted.as_secs_f64() / took.as_secs_f64().max(1e-9);
            self.repeats *= (factor.ceil() as u64).clamp(2, 16);
        }
    }

    fn failed(&self, source: std::io::Error) -> BenchError {
        BenchError::Transfer {
            path: PATH,
            route: self.route.name(),
            contender: Contender::Zhaul,
            bytes: self.bytes,
            source,
        }
    }

    fn wrong_bytes(&self, what: String) -> BenchError {
        BenchError::WrongBytes {
            path: PATH,
            route: self.route.name(),
            contender: Contender::Zhaul,
            bytes: self.bytes,
            what,
        }
    }
}

impl Outcome {
    /// The thresholds decided.
    pub fn calibration(&self) -> Calibration {
        let mut thresholds = Thresholds::default();
        for decision in &self.decisions {
            match decision.name {
                "sendfile_min_bytes" => thresholds.sendfile_min_bytes = decision.threshold,
                _ => thresholds.mmap_min_bytes = decision.threshold,
            }
        }
        Calibration {
            thresholds,
            kernel: self.kernel.clone(),
            measured: self.measured.clone(),
        }
    }

    /// The text of the file that the planner reads, with the evidence as comments.
    pub fn file_text(&self) -> String {
        let mut text = String::from(
            "# Thresholds of this host, measured by `zhaul bench --calibrate`. The planner of zhaul\n\
             # reads them under this kernel; without this file its defaults hold.\n",
        );
        let _ = write!(text, "{}", self.calibration());
        for decision in &self.decisions {
            let _ = write!(
                text,
                "\n# {}: CPU time of the sender divided by that of read+write, file to TCP on \
                 loopback:\n# median of {} rounds, and where it lies with 95 %. Default {}.\n",
                decision.route, self.rounds, decision.default
            );
            for &(bytes, ratio) in &decision.ratios {
                let _ = writeln!(
                    text,
                    "# {:>8}  {:.2}  {:.2}-{:.2}  {}",
                    size::format(bytes),
                    ratio.median,
                    ratio.min,
                    ratio.max,
                    Says::of(ratio).words()
                );
            }
        }
        text
    }
}

#[cfg(test)]
mod tests;
