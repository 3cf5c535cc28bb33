//! `zhaul bench`: from the command line to a run, and from its results to a table and files.

mod calibrate;
mod compare;
mod numbers;
mod output;
mod progress;
mod table;
mod terminal;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, ValueHint};
use zhaul_measure::bench::results::{Path, Results};
use zhaul_measure::bench::{self, BenchError, Options};
use zhaul_measure::report::page;

use self::output::Output;
use self::progress::{Interrupt, Progress};
use crate::Failure;

const EXAMPLES: &str = "\
Examples:
  zhaul bench                                   # everything; a few minutes
  zhaul bench --quick --html report.html
  zhaul bench sendfile read+write --path file-tcp --sizes 1K,4K,16K --rounds 9
  zhaul bench --json before.json; ...; zhaul bench --json after.json
  zhaul bench --compare before.json after.json
  zhaul bench --calibrate                       # the planner then uses this host's thresholds

Routes: read+write, mmap+write, splice, sendfile, copy_file_range; from memory send,
  send-zerocopy (MSG_ZEROCOPY).
Paths: file-tcp, file-file, tcp-tcp (a relay), tcp-file, pipe-tcp, memory-tcp, memory-udp.

Ctrl-C ends the run, shows what there is, and writes it to the files asked for, marked as
interrupted; the exit code is then 130. A second Ctrl-C ends it at once.";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The routes to measure; all without this
    #[arg(value_name = "ROUTE", value_parser = route)]
    routes: Vec<bench::Way>,

    /// A path to measure, such as file-tcp; repeatable, all without this
    #[arg(long, value_name = "PATH", value_parser = path, value_delimiter = ',')]
    path: Vec<Path>,

    /// Bytes of one transfer, such as 1K,64K,16M
    #[arg(long, value_name = "SIZES", value_parser = bench::size::parse, value_delimiter = ',')]
    sizes: Vec<u64>,

    /// Timed samples of each cell
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,

    /// Fewer sizes and rounds: less than half a minute
    #[arg(long)]
    quick: bool,

    /// Do not sample where the CPU time goes, nor estimate copies from that
    #[arg(long)]
    no_profile: bool,

    /// Seed of the random order; printed with the results
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Where the files lie that are sent and written [default: the temporary directory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,

    /// Write all raw samples to this file, or to standard output with -
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    json: Option<PathBuf>,

    /// Measure from which size on sendfile and mmap+write pay, and leave that where zhaul's planner
    /// reads it: in FILE, or where this user's processes look first
    #[arg(
        long,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        num_args = 0..=1,
        require_equals = true,
        conflicts_with_all = ["routes", "path", "quick", "html"]
    )]
    calibrate: Option<Option<PathBuf>>,

    /// Write a report to this file: one page that needs nothing else, or to standard output with -
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "compare")]
    html: Option<PathBuf>,

    /// Compare the second of two results with the first, instead of measuring
    #[arg(
        long,
        num_args = 2,
        value_names = ["A.json", "B.json"],
        value_hint = ValueHint::FilePath,
        conflicts_with_all = [
            "routes", "path", "sizes", "rounds", "quick", "seed", "dir", "calibrate",
            "no_profile"
        ]
    )]
    compare: Option<Vec<PathBuf>>,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    if arguments.json.is_some() && arguments.json == arguments.html {
        return Err(usage(anyhow!(
            "bench: --json and --html name the same file (name two)"
        )));
    }
    let json = arguments.json.as_deref().map(Output::open).transpose()?;
    let html = arguments.html.as_deref().map(Output::open).transpose()?;
    if let Some(files) = &arguments.compare {
        return compare::run(files, json);
    }
    if let Some(file) = &arguments.calibrate {
        let options = arguments.calibration_options();
        return calibrate::run(&options, file.as_deref(), json.as_ref());
    }
    let options = arguments.into_options();
    let interrupt = Interrupt::watch()?;
    let mut progress = Progress::new(&interrupt);
    let results = bench::run(&options, &mut progress);
    progress.finish();
    interrupt.spare();
    let results = results.map_err(|error| explain(&error, &interrupt))?;
    let mut files = [&json, &html].into_iter().flatten();
    if !files.any(Output::is_stdout) {
        show(&table::text(&results, terminal::columns()));
    }
    let written = json
        .as_ref()
        .map_or(Ok(()), |json| json.write(&to_json(&results)?));
    // One that cannot be written is no reason to lose the other.
    if let Some(html) = &html {
        html.write(page(&results).as_bytes())?;
    }
    written?;
    if results.interrupted {
        return Err(interrupted(&results));
    }
    Ok(())
}

impl Arguments {
    fn calibration_options(&self) -> bench::calibrate::Options {
        let standard = bench::calibrate::Options::default();
        bench::calibrate::Options {
            sizes: or_default(self.sizes.clone(), standard.sizes),
            rounds: self.rounds.unwrap_or(standard.rounds),
            seed: self.seed.unwrap_or(standard.seed),
            dir: self.dir.clone().unwrap_or(standard.dir),
            ..standard
        }
    }

    fn into_options(self) -> Options {
        let standard = if self.quick {
            Options::quick()
        } else {
            Options::standard()
        };
        Options {
            paths: or_default(self.path, standard.paths),
            routes: or_default(self.routes, standard.routes),
            sizes: or_default(self.sizes, standard.sizes),
            rounds: self.rounds.unwrap_or(standard.rounds),
            seed: self.seed.unwrap_or(standard.seed),
            dir: self.dir.unwrap_or(standard.dir),
            profile: standard.profile.filter(|_| !self.no_profile),
            ..standard
        }
    }
}

const fn usage(why: anyhow::Error) -> Failure {
    Failure { why, exit: 2 }
}

fn or_default<T>(given: Vec<T>, default: Vec<T>) -> Vec<T> {
    if given.is_empty() { default } else { given }
}

/// Prints to standard output. A reader that closed it has seen enough.
fn show(text: &str) {
    let mut stdout = anstream::stdout().lock();
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
}

fn to_json(what: &impl serde::Serialize) -> anyhow::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(what)?;
    text.push(b'\n');
    Ok(text)
}

fn interrupted(results: &Results) -> Failure {
    let complete =
        |rounds: u32| move |cell: &bench::results::Cell| cell.samples.len() >= rounds as usize;
    let whole = results
        .cells
        .iter()
        .filter(|cell| complete(results.rounds)(cell))
        .count();
    Failure {
        why: anyhow!(
            "bench interrupted: {whole} of {} cells have all {} rounds (run it again to the end)",
            results.cells.len(),
            results.rounds
        ),
        exit: INTERRUPTED,
    }
}

/// 128 and the number of SIGINT, as shells say it.
const INTERRUPTED: u8 = 130;

fn explain(error: &BenchError, interrupt: &Interrupt) -> Failure {
    let (exit, remedy) = match error {
        BenchError::Interrupted => (INTERRUPTED, " (run it again to the end)"),
        // The ends are shut on the way out, so a transfer may well fail.
        BenchError::Transfer { .. } if interrupt.is_set() => (INTERRUPTED, ""),
        BenchError::Nothing { .. } => (2, " (ask for other routes, paths or sizes)"),
        BenchError::Dir { .. } => (1, " (name another with --dir)"),
        BenchError::WrongBytes { .. } => (1, " (a defect of zhaul or of this kernel: report it)"),
        _ => (1, ""),
    };
    Failure {
        why: anyhow!("bench: {error}{remedy}"),
        exit,
    }
}

fn route(name: &str) -> Result<bench::Way, String> {
    let known = bench::Way::ALL.into_iter().find(|way| way.name() == name);
    known.ok_or_else(|| {
        let names = bench::Way::ALL.map(bench::Way::name);
        format!("there is no such route (there are {})", names.join(", "))
    })
}

fn path(name: &str) -> Result<Path, String> {
    let known = Path::ALL.into_iter().find(|&path| path_name(path) == name);
    known.ok_or_else(|| {
        let names = Path::ALL.map(path_name);
        format!("there is no such path (there are {})", names.join(", "))
    })
}

const fn path_name(path: Path) -> &'static str {
    match path {
        Path::FileToTcp => "file-tcp",
        Path::FileToFile => "file-file",
        Path::TcpToTcp => "tcp-tcp",
        Path::TcpToFile => "tcp-file",
        Path::PipeToTcp => "pipe-tcp",
        Path::MemoryToTcp => "memory-tcp",
        Path::MemoryToUdp => "memory-udp",
    }
}
