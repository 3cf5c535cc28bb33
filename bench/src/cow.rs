//! Writing on while the state of before is kept: what that costs by how much is written.
//!
//! One cycle: take a snapshot, store a byte to each of so many pages, chosen anew and in random
//! order, let go of the snapshot. All contenders go through the same cycles in alternating order, on
//! one core. With `--send` the snapshot is sent meanwhile, over loopback to somebody who discards it,
//! by a thread (or, for fork, the child) on the other core.
//!
//! Each cycle is checked: the snapshot shows what was there before in every page that was written.
//! The check is not in the times.

mod contender;
mod forked;
mod protected;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use zhaul_measure::host::Host;

use crate::affinity::{self, Cores};
use crate::interrupt;
use contender::NAMES;

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Size of the region
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=16384))]
    mib: u32,
    /// Rounds; in each one every contender goes through every rate
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Percent of the pages that are written in a cycle
    #[arg(
        long,
        value_name = "PERCENT",
        value_delimiter = ',',
        default_value = "0,1,5,10,25,50,100"
    )]
    rates: Vec<u32>,
    /// Cycles in a row, of which the last is measured: copies are warm then, and rates known
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    cycles: u32,
    /// Send each snapshot over loopback while pages are written
    #[arg(long)]
    send: bool,
    /// Write every raw sample as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Goes through cycles with memory of its own.
trait Contender {
    fn cycle(&mut self, cycle: &Cycle<'_>) -> anyhow::Result<Times>;
}

/// One measured cycle, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Times {
    /// Until the program may write.
    snapshot_us: f64,
    /// From there until all is written.
    write_us: f64,
    /// From there until everything is let go, and written pages are where they belong.
    release_us: f64,
}

impl Times {
    fn total(self) -> f64 {
        self.snapshot_us + self.write_us + self.release_us
    }
}

#[derive(Debug, Serialize)]
struct Sample {
    contender: &'static str,
    percent: u32,
    round: u32,
    #[serde(flatten)]
    times: Times,
}

#[derive(Debug, Serialize)]
struct Report {
    host: Host,
    mib: u32,
    sends: bool,
    samples: Vec<Sample>,
}

/// What a cycle does.
pub(crate) struct Cycle<'a> {
    pub(crate) pages: &'a [usize],
    /// What the first byte of each page was before.
    pub(crate) before: &'a [u8],
    /// What is stored there.
    pub(crate) byte: u8,
    pub(crate) sink: Option<&'a TcpStream>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    interrupt::install()?;
    affinity::pin(Cores::pick()?.server)?;
    let sink = if options.send {
        Some(discarding()?)
    } else {
        None
    };
    let mut report = Report {
        host: Host::describe(std::path::Path::new("/")),
        mib: options.mib,
        sends: options.send,
        samples: Vec::new(),
    };
    for round in 0..options.rounds {
        measure(options, round, sink.as_ref(), &mut report.samples)?;
    }
    let mut out = std::io::stdout().lock();
    write!(out, "{}", table(&report, &options.rates))?;
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, text).with_context(|| format!("{}", path.display()))?;
    }
    Ok(())
}

fn measure(
    options: &Options,
    round: u32,
    sink: Option<&TcpStream>,
    samples: &mut Vec<Sample>,
) -> anyhow::Result<()> {
    let page_bytes = rustix::param::page_size();
    let pages = ((options.mib as usize) << 20) / page_bytes;
    let mut random = Random(u64::from(round) + 1);
    let mut order = NAMES;
    order.rotate_left(round as usize % NAMES.len());
    for name in order {
        for &percent in &options.rates {
            // Made anew for each rate, so that no contender remembers the rate before.
            let Some(mut contender) = contender::make(name, pages, sink.is_some())? else {
                continue;
            };
            let mut times = Times::default();
            let mut stored = vec![1; pages];
            for number in 0..options.cycles {
                interrupt::check()?;
                let written = random.pages(pages, pages * percent.min(100) as usize / 100);
                let byte = 2 + number as u8;
                times = contender.cycle(&Cycle {
                    pages: &written,
                    before: &written.iter().map(|&page| stored[page]).collect::<Vec<_>>(),
                    byte,
                    sink,
                })?;
                written.iter().for_each(|&page| stored[page] = byte);
            }
            samples.push(Sample {
                contender: name,
                percent,
                round,
                times,
            });
        }
    }
    Ok(())
}

/// A row for each rate, a column for each contender: median microseconds of a cycle, and in brackets
/// the ratio to copying into memory that is there already.
fn table(report: &Report, rates: &[u32]) -> String {
    let mut medians: BTreeMap<(u32, &str), (f64, f64)> = BTreeMap::new();
    for &percent in rates {
        for name in NAMES {
            let of = |part: fn(Times) -> f64| {
                let samples = report.samples.iter();
                let chosen = samples.filter(|s| s.percent == percent && s.contender == name);
                median(chosen.map(|sample| part(sample.times)).collect())
            };
            if let (Some(total), Some(pause)) = (of(Times::total), of(|times| times.snapshot_us)) {
                medians.insert((percent, name), (total, pause));
            }
        }
    }
    let used: Vec<_> = NAMES
        .into_iter()
        .filter(|name| medians.keys().any(|key| key.1 == *name))
        .collect();
    let mut text = format!(
        "{} MiB, {}\n\n",
        report.mib,
        if report.sends {
            "sent meanwhile"
        } else {
            "not sent"
        }
    );
    text += &format!(
        "| written | {} |\n|---|{}\n",
        used.join(" | "),
        "---|".repeat(used.len())
    );
    for &percent in rates {
        text += &format!("| {percent} % |");
        let reference = medians.get(&(percent, contender::COPY)).map(|of| of.0);
        for name in &used {
            text += &match (medians.get(&(percent, *name)), reference) {
                (Some((total, pause)), Some(reference)) => {
                    format!(
                        " {:.2} ms ({:.2}×, pause {:.2}) |",
                        total / 1e3,
                        total / reference,
                        pause / 1e3
                    )
                }
                _ => " – |".to_owned(),
            };
        }
        text.push('\n');
    }
    text
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// A connection to a thread on the other core that discards what it receives.
fn discarding() -> anyhow::Result<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    let core = Cores::pick()?.client;
    std::thread::spawn(move || {
        let _ = affinity::pin(core);
        let mut buffer = vec![0; 1 << 20];
        while rustix::net::recv(&far, &mut buffer[..], rustix::net::RecvFlags::TRUNC)
            .is_ok_and(|(_, received)| received > 0)
        {}
    });
    Ok(near)
}

/// Microseconds that `work` takes, and what it returns.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let began = Instant::now();
    let result = work();
    (began.elapsed().as_secs_f64() * 1e6, result)
}

/// xorshift64: the same pages in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    /// `count` of so many pages, each once, in random order.
    fn pages(&mut self, pages: usize, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..pages).collect();
        for index in 0..count {
            let other = index + self.below(pages - index);
            all.swap(index, other);
        }
        all.truncate(count);
        all
    }
}
