//! The run: files and ends, verification, sizing, timed rounds, counted passes, profiles.

use std::thread;
use std::time::{Duration, Instant};

use super::Observer;
use super::cells::{Cells, Runner};
use super::counting::Instruments;
use super::error::BenchError;
use super::options::Options;
use super::results::{Cell, FORMAT, Profile, Results, Sample};
use super::sample::{Mode, Taken};
use super::set::Set;
use super::size;
use crate::host::Host;
use crate::machine::Machine;
use crate::meter::Reading;

/// Runs the bench on a thread of its own, which is pinned.
///
/// # Errors
/// See [`BenchError`]. A run that is interrupted after its first figures hands them back.
pub fn run(options: &Options, observer: &mut dyn Observer) -> Result<Results, BenchError> {
    on_a_thread(|| Engine::open(options, observer)?.run())
}

/// The mover is pinned, and its caller is not.
pub(super) fn on_a_thread<T: Send>(
    work: impl FnOnce() -> Result<T, BenchError> + Send,
) -> Result<T, BenchError> {
    thread::scope(|scope| {
        let mover = thread::Builder::new()
            .name("zhaul-mover".to_owned())
            .spawn_scoped(scope, work)
            .map_err(BenchError::io("cannot start a thread"))?;
        mover
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

struct Engine<'a> {
    options: &'a Options,
    observer: &'a mut dyn Observer,
    set: Set,
    cells: Cells,
    instruments: Instruments,
    profiles: Vec<Profile>,
    clock: Clock,
    host: Host,
    began: (jiff::Timestamp, Instant),
    /// How long the last round took.
    round_s: Duration,
}

/// How far the run is, in seconds as estimated.
#[derive(Clone, Copy, Debug)]
struct Clock {
    done_s: f64,
    total_s: f64,
}

/// The run was stopped; what there is is kept.
struct Stopped;

/// Goes on, stops, or fails.
type Step = Result<Result<(), Stopped>, BenchError>;

impl<'a> Engine<'a> {
    fn open(options: &'a Options, observer: &'a mut dyn Observer) -> Result<Self, BenchError> {
        let began = (jiff::Timestamp::now(), Instant::now());
        let host = Host::describe(&options.dir);
        let mut set = Set::new(options.dir.clone())?;
        let cells = Cells::prepare(&mut set, options, observer)?;
        let wants_profile = options.profile.is_some();
        Ok(Self {
            options,
            observer,
            set,
            cells,
            instruments: Instruments::attach(options.counted_rounds > 0, wants_profile),
            profiles: Vec::new(),
            clock: Clock {
                done_s: 0.0,
                total_s: 1.0,
            },
            host,
            began,
            round_s: Duration::ZERO,
        })
    }

    fn run(mut self) -> Result<Results, BenchError> {
        let stopped = self.phases()?.is_err();
        let mut notes = std::mem::take(&mut self.set.notes);
        if self.host.load.parse().is_ok_and(|load: f64| load > 0.7) {
            notes.push(format!(
                "others were running: the load was {} when it began",
                self.host.load
            ));
        }
        let mut cells: Vec<Cell> = self.cells.take_cells();
        cells.retain(|cell| !cell.samples.is_empty());
        if cells.is_empty() && stopped {
            return Err(BenchError::Interrupted);
        }
        self.instruments.estimate_copies(&mut cells);
        let (methods, missing) = self.instruments.methods();
        Ok(Results {
            format: FORMAT,
            zhaul: env!("CARGO_PKG_VERSION").to_owned(),
            began: self.began.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            seconds: self.began.1.elapsed().as_secs_f64(),
            interrupted: stopped,
            host: self.host,
            chunk_bytes: zhaul::DEFAULT_CHUNK_BYTES as u64,
            rounds: self.options.rounds,
            seed: self.options.seed,
            methods,
            missing,
            notes,
            cells,
            profiles: self.profiles,
            skipped: self.cells.skipped,
        })
    }

    fn phases(&mut self) -> Step {
        self.plan_time();
        for phase in [
            Self::verify,
            Self::size_up,
            Self::time,
            Self::count,
            Self::profile,
        ] {
            if phase(self)?.is_err() {
                return Ok(Err(Stopped));
            }
        }
        Ok(Ok(()))
    }

    /// Moves each cell once with its bytes compared. What cannot be moved is left out.
    fn verify(&mut self) -> Step {
        for index in 0..self.cells.runners.len() {
            if self.advance(index, "comparing bytes", 0.0).is_err() {
                return Ok(Err(Stopped));
            }
            let runner = &mut self.cells.runners[index];
            let what = runner.take(Runner::to_verify(runner.cell.bytes));
            match self.set.verify(what) {
                Ok(Ok(_)) => runner.cell.verified = true,
                Ok(Err(what)) => return Err(runner.wrong_bytes(what)),
                Err(error) => self.cells.leave_out(index, &error),
            }
            self.clock.done_s += verification_s(self.cells.runners[index].cell.bytes);
        }
        self.cells.runners.retain(|runner| runner.cell.verified);
        if self.cells.runners.is_empty() {
            return Err(self.cells.nothing());
        }
        self.plan_time();
        Ok(Ok(()))
    }

    /// How many transfers make a sample long enough. Both contenders of a lane make as many.
    fn size_up(&mut self) -> Step {
        for index in 0..self.cells.runners.len() {
            if self
                .advance(index, "finding the length of samples", 0.0)
                .is_err()
            {
                return Ok(Err(Stopped));
            }
            let most = self.cells.most_repeats(index, &self.set.room);
            let mut repeats = 1;
            let (took, cpu_s) = loop {
                let taken = self.sample(index, repeats, Mode::Timed)?;
                let took = taken.wall;
                if took * 2 >= self.options.sample || repeats >= most {
                    break (took, taken.mover.cpu_s());
                }
                let factor = self.options.sample.as_secs_f64() / took.as_secs_f64().max(1e-9);
                repeats = (repeats * (factor as u64).clamp(2, 16)).min(most);
            };
            let wanted = self.options.sample.as_secs_f64() * 1.2 / took.as_secs_f64().max(1e-9);
            let runner = &mut self.cells.runners[index];
            runner.repeats = scaled(repeats, wanted).clamp(1, most.max(1));
            runner.seconds = took.as_secs_f64() / repeats as f64;
            runner.cpu_seconds = cpu_s / repeats as f64;
            self.clock.done_s += self.options.sample.as_secs_f64();
        }
        self.cells.even_out();
        self.plan_time();
        Ok(Ok(()))
    }

    fn time(&mut self) -> Step {
        let mut order = fastrand::Rng::with_seed(self.options.seed);
        for round in 0..self.options.rounds {
            let began = Instant::now();
            if round > 0 && self.is_late(TIMED_UNTIL, self.round_s) {
                self.left_out(&format!("rounds from the {}. on", round + 1));
                break;
            }
            for index in self.cells.shuffled(&mut order, round) {
                if self
                    .advance(index, &format!("round {}", round + 1), 1.0)
                    .is_err()
                {
                    return Ok(Err(Stopped));
                }
                let repeats = self.cells.runners[index].repeats;
                let before = Machine::now();
                let taken = self.sample(index, repeats, Mode::Timed)?;
                let machine = Machine::now().since(&before);
                let cell = &mut self.cells.runners[index].cell;
                cell.samples.push(Sample {
                    round,
                    bytes: cell.bytes * repeats,
                    wall_s: taken.wall.as_secs_f64(),
                    mover: taken.mover,
                    receiver: taken.receiver,
                    feeder: taken.feeder,
                    machine,
                });
            }
            self.round_s = began.elapsed();
        }
        Ok(Ok(()))
    }

    /// Counts calls and copies. Instruments slow the mover down, so a fraction of the transfers do.
    fn count(&mut self) -> Step {
        if !self.instruments.counts() {
            self.count_by_call();
            return Ok(Ok(()));
        }
        for _ in 0..self.options.counted_rounds {
            for index in 0..self.cells.runners.len() {
                if self.advance(index, "counting", COUNTED_PART).is_err() {
                    return Ok(Err(Stopped));
                }
                if self.is_late(COUNTED_UNTIL, Duration::ZERO) {
                    self.left_out("some of the counting");
                    return Ok(Ok(()));
                }
                let runner = &self.cells.runners[index];
                let repeats = scaled(runner.repeats, COUNTED_PART).max(1);
                let (bytes, route) = (runner.cell.bytes * repeats, runner.route);
                let Some(mut meter) = self.instruments.take_counter() else {
                    return Ok(Ok(()));
                };
                let taken = self.sample(index, repeats, Mode::Metered(&mut meter));
                self.instruments.give_back_counter(meter);
                let taken = taken?;
                let reading = taken.reading.unwrap_or_default();
                let counted =
                    self.instruments
                        .counted((bytes, route), &reading, taken.copied_after_all);
                self.cells.runners[index].cell.counted.push(counted);
            }
        }
        Ok(Ok(()))
    }

    /// What the calls that were made promise needs no instrument.
    fn count_by_call(&mut self) {
        for runner in &mut self.cells.runners {
            if let Some(sample) = runner.cell.samples.first() {
                let reading = Reading::default();
                let counted =
                    self.instruments
                        .counted((sample.bytes, runner.route), &reading, None);
                runner.cell.counted.push(counted);
            }
        }
    }

    /// Finds out where the CPU time goes, at one large size.
    fn profile(&mut self) -> Step {
        let Some(length) = self.options.profile else {
            return Ok(Ok(()));
        };
        for index in self.cells.to_profile() {
            if self.advance(index, "profiling", 0.0).is_err() {
                return Ok(Err(Stopped));
            }
            if self.is_late(PROFILED_UNTIL, length) {
                self.left_out("some of the profiling");
                return Ok(Ok(()));
            }
            let Some(mut meter) = self.instruments.take_profiler() else {
                return Ok(Ok(()));
            };
            // So much CPU time, since that is what the samples are taken of.
            let wanted = length.as_secs_f64() / self.cells.runners[index].cpu_seconds.max(1e-9);
            let most = self.cells.most_repeats(index, &self.set.room);
            let repeats = scaled(1, wanted).clamp(1, most.max(1));
            let taken = self.sample(index, repeats, Mode::Metered(&mut meter));
            self.instruments.give_back_profiler(meter);
            let reading = taken?.reading.unwrap_or_default();
            if let Some(samples) = reading.profile {
                let runner = &self.cells.runners[index];
                let (cell, moved) = (&runner.cell, runner.cell.bytes * repeats);
                let profile = self
                    .instruments
                    .profile((cell, runner.route), moved, samples);
                self.profiles.push(profile);
            }
            self.clock.done_s += length.as_secs_f64();
        }
        Ok(Ok(()))
    }

    /// Whether what takes `more` would go beyond a part of the time there is.
    fn is_late(&self, part: f64, more: Duration) -> bool {
        let budget = self.options.budget.map(|budget| budget.mul_f64(part));
        budget.is_some_and(|budget| self.began.1.elapsed() + more > budget)
    }

    fn left_out(&mut self, what: &str) {
        let note = format!("{what} left out, to end in time: this machine is slow or busy");
        self.set.notes.push(note);
    }

    fn sample(&mut self, index: usize, repeats: u64, mode: Mode<'_>) -> Result<Taken, BenchError> {
        let runner = &self.cells.runners[index];
        let taken = self.set.sample(runner.take(repeats), mode);
        taken.map_err(|source| runner.failed(source))
    }

    /// Says what comes next, `part` of a timed sample, unless the run is to stop.
    fn advance(&mut self, index: usize, what: &str, part: f64) -> Result<(), Stopped> {
        if self.observer.is_interrupted() {
            return Err(Stopped);
        }
        let runner = &self.cells.runners[index];
        let label = format!(
            "{what}: {}, {}, {}",
            runner.cell.path.label(),
            runner.cell.route,
            size::format(runner.cell.bytes)
        );
        let Clock { done_s, total_s } = self.clock;
        self.observer.advanced(done_s, total_s, &label);
        self.clock.done_s += runner.sample_s() * part;
        Ok(())
    }

    /// Estimates what is left, from what is known.
    fn plan_time(&mut self) {
        let sample_s = self.options.sample.as_secs_f64();
        let mut left = 0.0;
        for runner in &self.cells.runners {
            if !runner.cell.verified {
                left += verification_s(runner.cell.bytes) + sample_s;
            }
            let counted = f64::from(self.options.counted_rounds) * COUNTED_PART;
            left += runner.sample_s() * (f64::from(self.options.rounds) + counted);
        }
        let profiled = self.cells.to_profile().len() as f64;
        left += profiled
            * self
                .options
                .profile
                .map_or(0.0, |length| length.as_secs_f64());
        self.clock.total_s = self.clock.done_s + left;
    }
}

/// Parts of the time there is, if it is bounded, after which what belongs to a phase is left out.
const TIMED_UNTIL: f64 = 0.7;
const COUNTED_UNTIL: f64 = 0.8;
const PROFILED_UNTIL: f64 = 1.0;

/// The part of a timed sample's transfers that are counted.
const COUNTED_PART: f64 = 0.25;

/// Hashing takes longer than moving.
fn verification_s(bytes: u64) -> f64 {
    (bytes * Runner::to_verify(bytes)) as f64 / 1e9
}

/// Of a number of transfers, so many times as many.
fn scaled(repeats: u64, factor: f64) -> u64 {
    (repeats as f64 * factor).ceil() as u64
}
