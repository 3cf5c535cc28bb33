//! Files that are in memory: what a request, a connection and a gigabyte cost.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::Bench;
use crate::client::{fan, reconnect, verify::verify};
use crate::memory::{Memory, reset_peak};
use crate::report::Layout;
use crate::sample::Metric;
use crate::server::{Contender, Server, Site};
use zhaul_measure::stats::percentile;

#[derive(Debug, Clone, Copy)]
enum Load {
    KeepAlive { connections: u32 },
    NewConnections,
    Bulk { connections: u64 },
}

#[derive(Debug)]
struct Case {
    name: String,
    bytes: u64,
    load: Load,
}

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    if bench.wrk.is_none() {
        let reason = anyhow::anyhow!("wrk is not installed (Debian package wrk)");
        bench.skip("keep-alive cases", &reason);
    }
    for case in cases() {
        let needs_wrk = matches!(case.load, Load::KeepAlive { .. });
        if bench.includes(&case.name) && (bench.wrk.is_some() || !needs_wrk) {
            run_case(bench, &case).with_context(|| case.name.clone())?;
        }
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (size, bytes) in [
        ("1 KiB", KIB),
        ("16 KiB", 16 * KIB),
        ("128 KiB", 128 * KIB),
        ("1 MiB", MIB),
    ] {
        for (count, connections) in [("32", 32), ("1,000", 1_000)] {
            let name = format!("{size}, {count} connections");
            cases.push(Case {
                name,
                bytes,
                load: Load::KeepAlive { connections },
            });
        }
    }
    let name = "1 KiB, new connections".to_owned();
    cases.push(Case {
        name,
        bytes: KIB,
        load: Load::NewConnections,
    });
    for (name, connections) in [("256 MiB, 1 connection", 1), ("256 MiB, 4 connections", 4)] {
        cases.push(Case {
            name: name.to_owned(),
            bytes: BULK,
            load: Load::Bulk { connections },
        });
    }
    cases
}

fn run_case(bench: &mut Bench, case: &Case) -> anyhow::Result<()> {
    let file = bench
        .fixture
        .file(&format!("{}.bin", case.bytes), case.bytes)?;
    let root = bench.fixture.root().to_path_buf();
    let site = Site {
        root: &root,
        file: &file,
    };
    let wanted: &[Contender] = match case.load {
        // A server that answers from memory would copy 256 MiB a request: that is nobody's floor.
        Load::Bulk { .. } => &[
            Contender::Sendfile,
            Contender::NginxCached,
            Contender::Nginx,
            Contender::Zhaul,
        ],
        _ => &[
            Contender::Canned,
            Contender::Sendfile,
            Contender::NginxCached,
            Contender::Nginx,
            Contender::Zhaul,
        ],
    };
    // All run for the whole case; those whose turn it is not wait in epoll_wait.
    let servers = bench
        .present(wanted)
        .into_iter()
        .map(|contender| {
            let server = bench.launcher.start(contender, site)?;
            verify(&server, site)?;
            Ok(server)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let turns: Vec<&Server> = servers.iter().collect();
    let rounds = match case.load {
        Load::Bulk { .. } => bench.settings().bulk_rounds,
        _ => bench.settings().rounds,
    };
    for round in 0..rounds {
        for server in super::order(&turns, round) {
            let name = server.contender.label();
            bench.progress(&format!(
                "{}: round {}/{rounds}: {name}",
                case.name,
                round + 1
            ))?;
            let values = measure(bench, case, server, &file)
                .with_context(|| server.contender.name().to_owned())?;
            bench.record(&case.name, server.contender, round, values);
        }
    }
    bench.finish(&case.name, layout(case))
}

fn layout(case: &Case) -> Layout {
    let (primary, columns): (_, &'static [Metric]) = match case.load {
        Load::Bulk { .. } => (
            Metric::CpuSecondsPerGb,
            &[Metric::GbPerSecond, Metric::PeakMib],
        ),
        _ => (
            Metric::CpuUsPerRequest,
            &[
                Metric::RequestsPerSecond,
                Metric::P50Us,
                Metric::P99Us,
                Metric::PeakMib,
            ],
        ),
    };
    // One send is the floor while copying the body is cheaper than a second system call.
    let floor = if case.bytes <= 16 * KIB {
        Contender::Canned
    } else {
        Contender::Sendfile
    };
    Layout {
        primary,
        floor: Some(floor),
        nginx: Contender::NginxCached,
        columns,
    }
}

/// One run of one server: its CPU time around the load, its peak memory during it.
fn measure(
    bench: &Bench,
    case: &Case,
    server: &Server,
    file: &str,
) -> anyhow::Result<Vec<(Metric, f64)>> {
    reset_peak(server.pid())?;
    let before = server.cpu()?;
    let mut values = match case.load {
        Load::KeepAlive { connections } => keep_alive(bench, server, file, connections)?,
        Load::NewConnections => new_connections(bench, server, file)?,
        Load::Bulk { connections } => bulk(bench, server, file, connections)?,
    };
    // The server still has to see its connections closed: that is part of the work.
    std::thread::sleep(SETTLE);
    let cpu = (server.cpu()? - before).as_secs_f64();
    let of = |wanted| {
        values
            .iter()
            .find(|&&(metric, _)| metric == wanted)
            .map(|&(_, value)| value)
    };
    let per_unit = match case.load {
        Load::Bulk { .. } => {
            let bytes = of(Metric::Bytes).context("bytes were not counted")?;
            (Metric::CpuSecondsPerGb, cpu * 1e9 / bytes)
        }
        _ => {
            let requests = of(Metric::Requests).context("requests were not counted")?;
            (Metric::CpuUsPerRequest, cpu * 1e6 / requests)
        }
    };
    values.push(per_unit);
    values.push((Metric::CpuSeconds, cpu));
    values.push((
        Metric::PeakMib,
        super::mib(Memory::of(server.pid())?.peak_kib),
    ));
    Ok(values)
}

fn keep_alive(
    bench: &Bench,
    server: &Server,
    file: &str,
    connections: u32,
) -> anyhow::Result<Vec<(Metric, f64)>> {
    let wrk = bench.wrk.as_ref().context("wrk is not installed")?;
    let outcome = wrk.run(&server.url(file), connections, bench.settings().seconds)?;
    let wall = outcome.duration_us as f64 / 1e6;
    Ok(vec![
        (Metric::Requests, outcome.requests as f64),
        (Metric::Bytes, outcome.bytes as f64),
        (Metric::Errors, outcome.errors() as f64),
        (Metric::WallSeconds, wall),
        (Metric::RequestsPerSecond, outcome.requests as f64 / wall),
        (Metric::P50Us, outcome.p50_us as f64),
        (Metric::P99Us, outcome.p99_us as f64),
        (Metric::MaxUs, outcome.max_us as f64),
    ])
}

fn new_connections(
    bench: &Bench,
    server: &Server,
    file: &str,
) -> anyhow::Result<Vec<(Metric, f64)>> {
    let total = bench.settings().new_connections;
    let outcome = reconnect::run(server.address, file, total, PARALLEL, RUN_LIMIT)?;
    let at = |fraction| percentile(&outcome.sorted_ns, fraction).map_or(0.0, |ns| ns as f64 / 1e3);
    let wall = outcome.wall.as_secs_f64();
    Ok(vec![
        (Metric::Requests, f64::from(total)),
        (Metric::WallSeconds, wall),
        (Metric::RequestsPerSecond, f64::from(total) / wall),
        (Metric::P50Us, at(0.50)),
        (Metric::P99Us, at(0.99)),
        (Metric::MaxUs, at(1.0)),
    ])
}

fn bulk(
    bench: &Bench,
    server: &Server,
    file: &str,
    connections: u64,
) -> anyhow::Result<Vec<(Metric, f64)>> {
    // Handed out one by one, so that a server that favours one connection is not waited for.
    let requests = bench.settings().bulk_bytes / BULK;
    let left = Cell::new(requests);
    let started = Instant::now();
    let totals = fan::run(server.address, connections as usize, RUN_LIMIT, |_| {
        left.set(left.get().checked_sub(1)?);
        Some(fan::Request::Get(file.to_owned()))
    })?;
    let wall = started.elapsed().as_secs_f64();
    ensure!(
        totals.answers == requests,
        "{} of {requests} answers",
        totals.answers
    );
    Ok(vec![
        (Metric::Requests, totals.answers as f64),
        (Metric::Bytes, totals.bytes as f64),
        (Metric::WallSeconds, wall),
        (Metric::GbPerSecond, totals.bytes as f64 / 1e9 / wall),
    ])
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const BULK: u64 = 256 * MIB;
/// New connections in flight.
const PARALLEL: usize = 32;
const RUN_LIMIT: Duration = Duration::from_secs(120);
const SETTLE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_that_the_targets_name_is_run() {
        let names: Vec<String> = cases().into_iter().map(|case| case.name).collect();
        for case in crate::check::serve_cases() {
            assert!(
                names.contains(&case),
                "{case} is checked but never run: {names:?}"
            );
        }
    }

    #[test]
    fn small_files_are_compared_with_one_send_and_large_ones_with_sendfile() {
        for case in cases() {
            let floor = layout(&case).floor.unwrap();
            assert_eq!(
                floor == Contender::Canned,
                case.bytes <= 16 * KIB,
                "{}",
                case.name
            );
        }
    }
}
