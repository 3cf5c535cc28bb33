//! The cells of a run: which there are, how often each is moved, and in which order.

use std::collections::BTreeMap;
use std::io;

use super::Observer;
use super::error::{BenchError, contender_name};
use super::matrix::Lane;
use super::options::Options;
use super::results::{Cell, Contender, Path, Skipped};
use super::room::Room;
use super::set::{Copying, Set, Take};
use super::size;
use super::way::Way;

/// A cell, and what is needed to take samples of it.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) cell: Cell,
    pub(super) route: Way,
    /// Transfers of one timed sample.
    pub(super) repeats: u64,
    /// What one transfer takes, as far as is known.
    pub(super) seconds: f64,
    /// The mover's part of it on the CPU.
    pub(super) cpu_seconds: f64,
}

impl Runner {
    fn new(lane: &Lane, contender: Contender, bytes: u64) -> Self {
        let seconds = GUESSED_CALL_S + bytes as f64 / GUESSED_BYTES_PER_S;
        Self {
            cell: Cell {
                path: lane.path,
                route: lane.route.name().to_owned(),
                contender,
                bytes,
                expected: lane.expected,
                verified: false,
                samples: Vec::new(),
                counted: Vec::new(),
            },
            route: lane.route,
            repeats: 1,
            seconds,
            cpu_seconds: seconds,
        }
    }

    pub(super) fn take(&self, repeats: u64) -> Take {
        Take {
            path: self.cell.path,
            route: self.route,
            contender: self.cell.contender,
            bytes: self.cell.bytes,
            repeats,
            copying: Copying::Plainly,
        }
    }

    /// What a timed sample takes.
    pub(super) fn sample_s(&self) -> f64 {
        self.seconds * self.repeats as f64
    }

    /// As many transfers as find out whether one ends where the next begins.
    pub(super) fn to_verify(bytes: u64) -> u64 {
        ((1 << 20) / bytes)
            .clamp(2, 64)
            .min((256 << 20) / bytes)
            .max(1)
    }

    pub(super) fn wrong_bytes(&self, what: String) -> BenchError {
        BenchError::WrongBytes {
            path: self.cell.path,
            route: self.route.name(),
            contender: self.cell.contender,
            bytes: self.cell.bytes,
            what,
        }
    }

    pub(super) fn failed(&self, source: io::Error) -> BenchError {
        BenchError::Transfer {
            path: self.cell.path,
            route: self.route.name(),
            contender: self.cell.contender,
            bytes: self.cell.bytes,
            source,
        }
    }
}

/// Guesses that are replaced by the first measurement.
const GUESSED_CALL_S: f64 = 5e-6;
const GUESSED_BYTES_PER_S: f64 = 2e9;

/// All cells of a run.
#[derive(Debug)]
pub(super) struct Cells {
    /// The two contenders of a lane and size stand side by side.
    pub(super) runners: Vec<Runner>,
    pub(super) skipped: Vec<Skipped>,
    refused: BTreeMap<u64, String>,
}

impl Cells {
    /// Makes the files, opens the ends, and finds out what can run.
    pub(super) fn prepare(
        set: &mut Set,
        options: &Options,
        observer: &mut dyn Observer,
    ) -> Result<Self, BenchError> {
        let mut sizes = options.sizes.clone();
        sizes.sort_unstable();
        sizes.dedup();
        let mut cells = Self {
            runners: Vec::new(),
            skipped: Vec::new(),
            refused: BTreeMap::new(),
        };
        cells.make_files(set, options, &sizes, observer)?;
        sizes.retain(|bytes| !cells.refused.contains_key(bytes));
        for lane in cells.lanes(set, options, sizes.first().copied())? {
            for (&bytes, why) in &cells.refused {
                cells.skipped.push(skipped(&lane, Some(bytes), why));
            }
            for &bytes in &sizes {
                if writes_file(lane.path)
                    && let Some(why) = set.room.refuses_to_dirty(bytes)
                {
                    cells.skipped.push(skipped(&lane, Some(bytes), &why));
                    continue;
                }
                if from_memory(lane.path) && bytes > MEMORY_BYTES {
                    cells.skipped.push(skipped(&lane, Some(bytes), MEMORY_WHY));
                    continue;
                }
                let pair = [Contender::Zhaul, Contender::Floor];
                let runners = pair.map(|contender| Runner::new(&lane, contender, bytes));
                cells.runners.extend(runners);
            }
        }
        if cells.runners.is_empty() {
            return Err(cells.nothing());
        }
        Ok(cells)
    }

    fn make_files(
        &mut self,
        set: &mut Set,
        options: &Options,
        sizes: &[u64],
        observer: &mut dyn Observer,
    ) -> Result<(), BenchError> {
        let wants_files = options.paths.iter().any(|&path| reads_file(path));
        let mut beside = 0;
        for &bytes in sizes {
            if observer.is_interrupted() {
                return Err(BenchError::Interrupted);
            }
            // Once as a source, once as the sink.
            if let Some(why) = set.room.refuses(bytes, beside + bytes) {
                self.refused.insert(bytes, why);
            } else if wants_files {
                observer.advanced(0.0, 1.0, &format!("a file of {}", size::format(bytes)));
                match set.add_file(bytes) {
                    Ok(()) => beside += bytes,
                    Err(error) => drop(self.refused.insert(bytes, error.to_string())),
                }
            }
        }
        Ok(())
    }

    /// The routes that the plan allows between the ends of each path.
    fn lanes(
        &mut self,
        set: &mut Set,
        options: &Options,
        smallest: Option<u64>,
    ) -> Result<Vec<Lane>, BenchError> {
        let mut lanes = Vec::new();
        let Some(bytes) = smallest else {
            return Ok(lanes);
        };
        let paths = Path::ALL
            .into_iter()
            .filter(|path| options.paths.contains(path));
        for path in paths {
            set.open(path)
                .map_err(BenchError::io("cannot set up a connection"))?;
            let routes = Way::ALL
                .into_iter()
                .filter(|way| way.is_from_memory() == from_memory(path));
            for route in routes.filter(|route| options.routes.contains(route)) {
                match set.lane(path, route, bytes) {
                    Ok(Ok(lane)) => lanes.push(lane),
                    Ok(Err(why)) => self.skipped.push(Skipped {
                        path,
                        route: route.name().to_owned(),
                        bytes: None,
                        why,
                    }),
                    Err(error) => return Err(BenchError::io("cannot examine an end")(error)),
                }
            }
        }
        Ok(lanes)
    }

    /// A cell that does not work here.
    pub(super) fn leave_out(&mut self, index: usize, error: &io::Error) {
        let cell = &self.runners[index].cell;
        self.skipped.push(Skipped {
            path: cell.path,
            route: cell.route.clone(),
            bytes: Some(cell.bytes),
            why: format!("{}: {error}", contender_name(cell.contender)),
        });
    }

    /// There is no cell, and these are the reasons.
    pub(super) fn nothing(&self) -> BenchError {
        let sizes = self.refused.iter();
        let mut whys: Vec<String> = sizes
            .map(|(&bytes, why)| format!("{}: {why}", size::format(bytes)))
            .collect();
        whys.extend(self.skipped.iter().map(|skipped| {
            let (path, route) = (skipped.path.label(), &skipped.route);
            format!("{path} by {route}: {}", skipped.why)
        }));
        whys.dedup();
        whys.truncate(4);
        BenchError::Nothing {
            why: whys.join("; "),
        }
    }

    /// How many transfers one sample may make.
    pub(super) fn most_repeats(&self, index: usize, room: &Room) -> u64 {
        let cell = &self.runners[index].cell;
        if writes_file(cell.path) {
            (room.most_to_write() / cell.bytes).max(1)
        } else {
            MOST_REPEATS
        }
    }

    /// Gives both contenders of a lane the larger number of transfers.
    pub(super) fn even_out(&mut self) {
        for range in self.pairs() {
            let pair = &mut self.runners[range];
            let repeats = pair.iter().map(|runner| runner.repeats).max().unwrap_or(1);
            for runner in pair {
                runner.repeats = repeats;
            }
        }
    }

    /// A random order of the pairs; within each, the contenders take turns at going first.
    pub(super) fn shuffled(&self, order: &mut fastrand::Rng, round: u32) -> Vec<usize> {
        let mut pairs = self.pairs();
        order.shuffle(&mut pairs);
        let mut indices = Vec::with_capacity(self.runners.len());
        for (place, pair) in pairs.into_iter().enumerate() {
            let swapped = (place + round as usize) % 2 == 1;
            if swapped {
                indices.extend(pair.rev());
            } else {
                indices.extend(pair);
            }
        }
        indices
    }

    fn pairs(&self) -> Vec<std::ops::Range<usize>> {
        let mut pairs = Vec::new();
        let mut start = 0;
        for chunk in self.runners.chunk_by(|a, b| {
            (a.cell.path, a.route, a.cell.bytes) == (b.cell.path, b.route, b.cell.bytes)
        }) {
            pairs.push(start..start + chunk.len());
            start += chunk.len();
        }
        pairs
    }

    /// The cells of the largest size at which a profile need not be long.
    pub(super) fn to_profile(&self) -> Vec<usize> {
        let sizes = self.runners.iter().map(|runner| runner.cell.bytes);
        let smallest = sizes.clone().min();
        let Some(bytes) = sizes.filter(|&n| n <= PROFILED_BYTES).max().or(smallest) else {
            return Vec::new();
        };
        (0..self.runners.len())
            .filter(|&index| self.runners[index].cell.bytes == bytes)
            .collect()
    }

    pub(super) fn take_cells(&mut self) -> Vec<Cell> {
        self.runners.drain(..).map(|runner| runner.cell).collect()
    }
}

const MOST_REPEATS: u64 = 1 << 24;

const PROFILED_BYTES: u64 = 16 << 20;

/// The largest transfer from memory.
const MEMORY_BYTES: u64 = 64 << 20;
const MEMORY_WHY: &str = "nobody holds more in one piece: up to 64 MiB are sent from memory";

fn skipped(lane: &Lane, bytes: Option<u64>, why: &str) -> Skipped {
    Skipped {
        path: lane.path,
        route: lane.route.name().to_owned(),
        bytes,
        why: why.to_owned(),
    }
}

pub(super) const fn reads_file(path: Path) -> bool {
    matches!(path, Path::FileToTcp | Path::FileToFile)
}

pub(super) const fn from_memory(path: Path) -> bool {
    matches!(path, Path::MemoryToTcp | Path::MemoryToUdp)
}

const fn writes_file(path: Path) -> bool {
    matches!(path, Path::FileToFile | Path::TcpToFile)
}
