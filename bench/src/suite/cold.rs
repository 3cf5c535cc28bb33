//! Does one client's hot file wait while others read what is not cached?
//!
//! Each run: everything cold evicted, and checked to be gone; a fresh server in a throttled cgroup;
//! the hot client alone; then the hot client beside the cold ones. That these did read the disk is
//! checked by the cgroup's own count.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::Bench;
use crate::client::{fan, hot, verify::verify};
use crate::cold::device::Device;
use crate::cold::evict;
use crate::cold::loop_fs::LoopFs;
use crate::cold::throttle::{Limits, Throttle, permitted};
use crate::fixture::{tree, write_noise};
use crate::report::Layout;
use crate::sample::Metric;
use crate::server::{Contender, Site};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Files,
    Lookups,
}

/// What is read cold.
#[derive(Debug)]
enum ColdSet {
    /// Large files, whose pages are evicted.
    Files { root: PathBuf, paths: Vec<String> },
    /// Paths on a file system that was just mounted.
    Lookups { fs: LoopFs, paths: Vec<String> },
}

impl ColdSet {
    fn create(bench: &Bench, kind: Kind) -> anyhow::Result<Self> {
        let root = bench.fixture.root();
        let set = match kind {
            Kind::Files => {
                let length = cold_bytes(bench);
                let paths = (0..STREAMS)
                    .map(|index| bench.fixture.file(&format!("cold-{index}.bin"), length))
                    .collect::<anyhow::Result<_>>()?;
                Self::Files {
                    root: root.to_path_buf(),
                    paths,
                }
            }
            Kind::Lookups => {
                let fs = LoopFs::create(root, 2 * DIRECTORIES * (FILES_EACH + 1))?;
                let paths = tree(fs.root(), DIRECTORIES, FILES_EACH)?;
                Self::Lookups { fs, paths }
            }
        };
        write_noise(&set.root().join(HOT_FILE), HOT_BYTES)?;
        Ok(set)
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Files { .. } => Kind::Files,
            Self::Lookups { .. } => Kind::Lookups,
        }
    }

    fn root(&self) -> &Path {
        match self {
            Self::Files { root, .. } => root,
            Self::Lookups { fs, .. } => fs.root(),
        }
    }

    fn paths(&self) -> &[String] {
        match self {
            Self::Files { paths, .. } | Self::Lookups { paths, .. } => paths,
        }
    }

    /// Makes the set cold; no server may be running.
    fn chill(&self) -> anyhow::Result<()> {
        match self {
            Self::Files { root, paths } => {
                let paths: Vec<PathBuf> = paths.iter().map(|path| root.join(path)).collect();
                evict::pages(paths.iter().map(PathBuf::as_path))
            }
            Self::Lookups { fs, .. } => fs.remount(),
        }
    }
}

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let root = bench.fixture.root().to_path_buf();
    // A trial: what fails here is the machine's, what fails later is an error.
    let trial = permitted()
        .and_then(|()| Device::holding(&root))
        .and_then(|device| Throttle::create(&device, limits(Kind::Lookups)));
    match trial {
        Ok(throttle) => bench.report.throttle = Some(throttle.version()),
        Err(reason) => {
            bench.skip("cold", &reason);
            return Ok(());
        }
    }
    for kind in [Kind::Files, Kind::Lookups] {
        let case = name(kind);
        if !bench.includes(case) {
            continue;
        }
        bench.progress(&format!("{case}: writing files"))?;
        match ColdSet::create(bench, kind) {
            Ok(set) => run_case(bench, case, &set).with_context(|| case.to_owned())?,
            Err(reason) if kind == Kind::Lookups => bench.skip(case, &reason),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn run_case(bench: &mut Bench, case: &str, set: &ColdSet) -> anyhow::Result<()> {
    let turns = bench.present(&[Contender::Nginx, Contender::NginxAio, Contender::Zhaul]);
    let rounds = bench.settings().cold_rounds;
    for round in 0..rounds {
        for contender in super::order(&turns, round) {
            let name = contender.label();
            bench.progress(&format!("{case}: round {}/{rounds}: {name}", round + 1))?;
            let values =
                measure(bench, contender, set).with_context(|| contender.name().to_owned())?;
            bench.record(case, contender, round, values);
        }
    }
    let columns: &'static [Metric] = match set.kind() {
        Kind::Files => &FILES_COLUMNS,
        Kind::Lookups => &LOOKUPS_COLUMNS,
    };
    bench.finish(
        case,
        Layout {
            primary: Metric::P99Us,
            floor: None,
            nginx: Contender::NginxAio,
            columns,
        },
    )
}

fn measure(
    bench: &Bench,
    contender: Contender,
    set: &ColdSet,
) -> anyhow::Result<Vec<(Metric, f64)>> {
    let settings = bench.settings();
    let site = Site {
        root: set.root(),
        file: HOT_FILE,
    };
    set.chill()?;
    // The device may be another one since the remount. Declared before the server: a cgroup can be
    // removed only behind its last process.
    let throttle = Throttle::create(&Device::holding(set.root())?, limits(set.kind()))?;
    let server = bench.launcher.start(contender, site)?;
    throttle.add(server.pid())?;
    verify(&server, site)?;
    let alone = Duration::from_secs(settings.alone_seconds.into());
    let alone = hot::run(server.address, HOT_FILE, alone)?;
    ensure!(!alone.unanswered, "the hot client alone got no answer");

    let cpu_before = server.cpu()?;
    let reads_before = throttle.reads()?;
    let length = Duration::from_secs(settings.cold_seconds.into());
    let (loaded, totals) = std::thread::scope(|scope| {
        let hot = scope.spawn(|| {
            // The cold ones come first, or the head of the measurement is a run alone.
            std::thread::sleep(LEAD);
            hot::run(server.address, HOT_FILE, length - LEAD)
        });
        let totals = cold_clients(&server, set, length);
        let hot = hot
            .join()
            .map_err(|_| anyhow::anyhow!("the hot client panicked"));
        anyhow::Ok((hot??, totals?))
    })?;
    let reads = throttle.reads()? - reads_before;
    ensure!(
        reads > 0,
        "the cold clients read nothing from the disk: the set was cached"
    );
    Ok(vec![
        (Metric::AloneP50Us, alone.percentile_us(0.50)),
        (Metric::AloneP99Us, alone.percentile_us(0.99)),
        (Metric::P50Us, loaded.percentile_us(0.50)),
        (Metric::P99Us, loaded.percentile_us(0.99)),
        (Metric::MaxUs, loaded.percentile_us(1.0)),
        (Metric::Requests, loaded.count() as f64),
        (Metric::Unanswered, f64::from(u8::from(loaded.unanswered))),
        (
            Metric::CpuSeconds,
            (server.cpu()? - cpu_before).as_secs_f64(),
        ),
        (Metric::DiskReads, reads as f64),
        cold_rate(set.kind(), totals, length)?,
    ])
}

/// What the cold clients got together; fails if that is more than the disk could give.
fn cold_rate(kind: Kind, totals: fan::Totals, length: Duration) -> anyhow::Result<(Metric, f64)> {
    let seconds = length.as_secs_f64();
    if kind == Kind::Lookups {
        return Ok((
            Metric::ColdLookupsPerSecond,
            totals.answers as f64 / seconds,
        ));
    }
    let limit = limits(kind).read_bytes_per_second as f64 / 1e6;
    let rate = totals.bytes as f64 / 1e6 / seconds;
    ensure!(
        rate < 1.5 * limit,
        "{rate:.0} MB/s came from a disk throttled to {limit:.0}: the throttle had no effect"
    );
    Ok((Metric::ColdMbPerSecond, rate))
}

fn cold_clients(
    server: &crate::server::Server,
    set: &ColdSet,
    length: Duration,
) -> anyhow::Result<fan::Totals> {
    // Every path once: what has been read is no longer cold.
    let mut left: VecDeque<&String> = set.paths().iter().collect();
    fan::run(server.address, STREAMS, length, |_| {
        let path = left.pop_front()?.clone();
        Some(match set.kind() {
            Kind::Files => fan::Request::Get(path),
            Kind::Lookups => fan::Request::Head(path),
        })
    })
}

fn limits(kind: Kind) -> Limits {
    let reads_per_second = match kind {
        Kind::Files => None,
        // A lookup reads a block or two, which no limit on bytes would slow: 5 ms each, as on a
        // rotating or a network disk.
        Kind::Lookups => Some(200),
    };
    Limits {
        read_bytes_per_second: 40_000_000,
        reads_per_second,
    }
}

/// Large enough that the streams cannot all end before the run does.
fn cold_bytes(bench: &Bench) -> u64 {
    let read = limits(Kind::Files).read_bytes_per_second * u64::from(bench.settings().cold_seconds);
    (2 * read / STREAMS as u64)
        .next_multiple_of(1 << 20)
        .max(64 << 20)
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Files => crate::check::COLD_FILES,
        Kind::Lookups => crate::check::COLD_LOOKUPS,
    }
}

const FILES_COLUMNS: [Metric; 5] = [
    Metric::P50Us,
    Metric::MaxUs,
    Metric::Requests,
    Metric::AloneP99Us,
    Metric::ColdMbPerSecond,
];
const LOOKUPS_COLUMNS: [Metric; 5] = [
    Metric::P50Us,
    Metric::MaxUs,
    Metric::Requests,
    Metric::AloneP99Us,
    Metric::ColdLookupsPerSecond,
];
const HOT_FILE: &str = "hot.bin";
const HOT_BYTES: u64 = 16 << 10;
const STREAMS: usize = 32;
const DIRECTORIES: u32 = 4_000;
const FILES_EACH: u32 = 4;
const LEAD: Duration = Duration::from_millis(300);
