//! `zhaul-bench channel`: what it costs to hand a message to another process and get one back.
//!
//! Two processes play ping-pong: each message is written by one, stamped at both ends, and the stamps
//! are looked at by the other. Both sleep while they wait. In each round every way runs once for each
//! size, in an order that turns, on one core and on two. Latency is of a whole round trip; CPU time is
//! that of both processes, by the process clock, for one message (half a round trip).
//!
//! The bare eventfd carries no message; it is the floor that two wake-ups cost.

mod exchange;
#[cfg(feature = "iceoryx2")]
mod iceoryx;
mod table;
mod ways;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::affinity::{Cores, pin};
use ways::{Ends, Way};
use zhaul_measure::host::Host;

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Rounds; in each, every way runs once for each size and placement
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Round trips of one run with 4 KiB; larger messages have fewer
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    messages: u32,
    /// Write every sample as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the tables as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// The other process of a run.
#[derive(Debug, Clone, Args)]
pub(crate) struct PeerArgs {
    way: Way,
    bytes: usize,
    messages: u32,
    /// Distinguishes runs where names are global
    name: String,
    /// The core to run on
    core: Option<usize>,
}

/// One run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    way: Way,
    bytes: usize,
    cores: u32,
    round: u32,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
}

#[derive(Serialize)]
struct Report {
    host: Host,
    samples: Vec<Sample>,
}

const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];

pub(crate) fn run(options: &Options) -> Result<()> {
    let ways = Way::available();
    let cores = Cores::pick()?;
    let mut samples = Vec::new();
    for round in 0..options.rounds {
        for bytes in SIZES {
            for placement in [1, 2] {
                for turn in 0..ways.len() {
                    let way = ways[(turn + round as usize) % ways.len()];
                    let sample = once(way, bytes, placement, round, cores, options)
                        .with_context(|| format!("{way:?}, {bytes} bytes"))?;
                    samples.push(sample);
                }
            }
        }
    }
    let text = table::markdown(&samples);
    std::io::stdout().write_all(text.as_bytes())?;
    if let Some(path) = &options.markdown {
        std::fs::write(path, &text).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &options.json {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        let host = Host::describe(&std::env::temp_dir());
        serde_json::to_writer_pretty(file, &Report { host, samples })?;
    }
    Ok(())
}

fn once(
    way: Way,
    bytes: usize,
    placement: u32,
    round: u32,
    cores: Cores,
    options: &Options,
) -> Result<Sample> {
    let messages =
        (options.messages as usize * SIZES[0] / bytes).max(options.messages as usize / 5);
    let other = if placement == 1 {
        cores.client
    } else {
        cores.server
    };
    pin(cores.client)?;
    let name = format!("{}-{round}-{placement}-{bytes}", std::process::id());
    let (ends, far) = Ends::pair(way)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("channel-peer")
        .args([way.name(), &bytes.to_string(), &messages.to_string(), &name])
        .args(other.map(|core| core.to_string()))
        .stdin(far.input.map_or_else(Stdio::null, Stdio::from))
        .stdout(far.output.map_or_else(Stdio::null, Stdio::from))
        .stderr(Stdio::piped());
    let child = Guard(command.spawn()?);
    // What the other has is open there only, so that its end is noticed.
    drop(command);
    let mut exchange = way.open(ends, bytes, &name, true)?;
    let mut times = Vec::with_capacity(messages);
    for warm in 0..warm_up(messages as u32) {
        exchange.send(u64::from(warm))?;
        exchange.receive()?;
    }
    let cpu = cpu_us();
    for message in 0..messages as u64 {
        let start = Instant::now();
        exchange.send(message)?;
        let answer = exchange.receive()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
        ensure!(answer == message, "{answer} came for {message}");
    }
    let own_us = cpu_us() - cpu;
    let other_us = child.report()?;
    times.sort_by(f64::total_cmp);
    Ok(Sample {
        way,
        bytes,
        cores: placement,
        round,
        p50_us: times[messages / 2],
        p99_us: times[messages * 99 / 100],
        cpu_us: (own_us + other_us) / (2 * messages) as f64,
    })
}

pub(crate) fn peer(args: &PeerArgs) -> Result<()> {
    pin(args.core)?;
    let ends = Ends::inherited()?;
    let mut exchange = args.way.open(ends, args.bytes, &args.name, false)?;
    for _ in 0..warm_up(args.messages) {
        let message = exchange.receive()?;
        exchange.send(message)?;
    }
    let cpu = cpu_us();
    for _ in 0..args.messages {
        let message = exchange.receive()?;
        exchange.send(message)?;
    }
    writeln!(std::io::stderr(), "{}", cpu_us() - cpu)?;
    Ok(())
}

/// Round trips before the clock runs: every slot of a pool was used, every page touched.
const fn warm_up(messages: u32) -> u32 {
    100 + messages / 10
}

/// Killed if it is not waited for.
struct Guard(Child);

impl Guard {
    /// The CPU time that it says it took.
    fn report(mut self) -> Result<f64> {
        let mut said = String::new();
        let mut stderr = self.0.stderr.take().context("its stderr")?;
        stderr.read_to_string(&mut said)?;
        ensure!(self.0.wait()?.success(), "the other process failed: {said}");
        said.trim()
            .parse()
            .with_context(|| format!("it said {said:?}"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}
