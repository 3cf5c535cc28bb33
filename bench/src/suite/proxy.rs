//! Proxies: bulk, request and response, new connections, idle connections, and a mixture.
//!
//! Every run has a fresh proxy and a fresh backend. Backend and client are threads of this process
//! on the client's core, so their work is in the rates and latencies, not in the CPU time.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use zhaul_measure::stats::percentile;

use super::{Bench, mib};
use crate::check;
use crate::client::peer::{self, Backend};
use crate::interrupt;
use crate::memory::Memory;
use crate::report::Layout;
use crate::sample::Metric;
use crate::server::{Contender, Server};

const PROXIES: [Contender; 6] = [
    Contender::FloorSplice,
    Contender::FloorCopy,
    Contender::Haproxy,
    Contender::HaproxyCopy,
    Contender::NginxStream,
    Contender::Zhaul,
];

type Values = Vec<(Metric, f64)>;

#[derive(Debug, Clone, Copy)]
enum Work {
    Bulk(u64),
    Exchange(usize),
    Connect,
    Idle,
    Mixed,
}

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let works = [
        Work::Bulk(1),
        Work::Bulk(32),
        Work::Bulk(1000),
        Work::Exchange(64),
        Work::Exchange(1 << 10),
        Work::Exchange(16 << 10),
        Work::Connect,
        Work::Idle,
        Work::Mixed,
    ];
    for (case, work) in check::PROXY_CASES.into_iter().zip(works) {
        if bench.includes(case) {
            each(bench, case, work)?;
            bench.finish(case, layout(work))?;
        }
    }
    Ok(())
}

fn layout(work: Work) -> Layout {
    let (primary, columns): (Metric, &'static [Metric]) = match work {
        Work::Bulk(_) => (
            Metric::CpuSecondsPerGb,
            &[Metric::GbPerSecond, Metric::PeakMib],
        ),
        Work::Exchange(_) => (
            Metric::CpuUsPerRequest,
            &[Metric::P50Us, Metric::P99Us, Metric::P999Us],
        ),
        Work::Connect => (
            Metric::ConnectionsPerCpuSecond,
            &[Metric::RequestsPerSecond, Metric::P50Us, Metric::P99Us],
        ),
        Work::Idle => (
            Metric::IdleBytesPerConnection,
            &[Metric::StartRssMib, Metric::IdleRssMib, Metric::Requests],
        ),
        Work::Mixed => (
            Metric::P99Us,
            &[
                Metric::AloneP99Us,
                Metric::P50Us,
                Metric::AloneP50Us,
                Metric::GbPerSecond,
                Metric::CpuSecondsPerGb,
            ],
        ),
    };
    let floor = match work {
        Work::Bulk(_) => Some(Contender::FloorSplice),
        Work::Idle => None,
        _ => Some(Contender::FloorCopy),
    };
    Layout {
        primary,
        floor,
        nginx: Contender::Haproxy,
        columns,
    }
}

fn each(bench: &mut Bench, case: &str, work: Work) -> anyhow::Result<()> {
    let mut turns = bench.present(&PROXIES);
    let (rounds, idle) = (bench.settings().rounds, bench.settings().idle_rounds);
    let rounds = if matches!(work, Work::Idle) {
        idle
    } else {
        rounds
    };
    for round in 0..rounds {
        for contender in super::order(&turns, round) {
            let name = contender.label();
            bench.progress(&format!("{case}: round {}/{rounds}: {name}", round + 1))?;
            match measure(bench, contender, work) {
                Ok(values) => bench.record(case, contender, round, values),
                Err(error) => {
                    interrupt::check()?;
                    // Others can still be compared; what failed is in the report.
                    turns.retain(|&other| other != contender);
                    bench.skip(&format!("{case}: {name}"), &error);
                }
            }
        }
    }
    Ok(())
}

fn measure(bench: &Bench, contender: Contender, work: Work) -> anyhow::Result<Values> {
    let backend = Backend::start()?;
    let server = bench.launcher.start_proxy(contender, backend.address)?;
    let start = Memory::of(server.pid())?;
    peer::verify(server.address, VERIFIED_BYTES)?;
    let settings = bench.settings();
    let time = Duration::from_secs(settings.seconds.into());
    match work {
        Work::Bulk(connections) => {
            let bytes = if settings.quick { 256 << 20 } else { 2 << 30 };
            bulk(&server, connections, bytes / connections)
        }
        Work::Exchange(bytes) => exchanges(&server, bytes, time),
        Work::Connect => connects(&server, settings.new_connections),
        Work::Idle => idle(&server, start, settings.idle_connections, bench.nofile),
        Work::Mixed => mixed(&server, time),
    }
}

fn bulk(server: &Server, connections: u64, each: u64) -> anyhow::Result<Values> {
    let mut streams = open(server.address, connections)?;
    let (cpu, begin) = (server.cpu()?, Instant::now());
    for stream in &mut streams {
        stream.write_all(&peer::request(0, each))?;
    }
    let never = AtomicBool::new(false);
    let bytes = peer::drain(&streams, each, &never)?;
    let (cpu, wall) = (server.cpu()? - cpu, begin.elapsed());
    ensure!(bytes == each * connections, "{bytes} B arrived");
    let gb = bytes as f64 / 1e9;
    Ok(vec![
        (Metric::CpuSecondsPerGb, cpu.as_secs_f64() / gb),
        (Metric::GbPerSecond, gb / wall.as_secs_f64()),
        (Metric::PeakMib, mib(Memory::of(server.pid())?.peak_kib)),
        (Metric::Bytes, bytes as f64),
        (Metric::CpuSeconds, cpu.as_secs_f64()),
        (Metric::WallSeconds, wall.as_secs_f64()),
    ])
}

/// Connections that have exchanged something, so that each reached the backend.
fn open(to: SocketAddrV4, count: u64) -> anyhow::Result<Vec<TcpStream>> {
    let mut streams = Vec::with_capacity(count as usize);
    let (request, mut answer) = (peer::request(64, 64), [0; 64]);
    for index in 0..count {
        interrupt::check()?;
        // A few connections from each address: ports are not what is tested.
        let host = 2 + (index % 250) as u8;
        let mut stream = peer::connect(to, Ipv4Addr::new(127, 0, 0, host))?;
        peer::exchange(&mut stream, &request, &mut answer)
            .with_context(|| format!("connection {index}"))?;
        streams.push(stream);
    }
    Ok(streams)
}

fn exchanges(server: &Server, bytes: usize, time: Duration) -> anyhow::Result<Values> {
    ping(server.address, bytes, WARM_UP)?;
    let cpu = server.cpu()?;
    let mut latencies = ping(server.address, bytes, time)?;
    let cpu = server.cpu()? - cpu;
    latencies.sort_unstable();
    let mut values = percentiles(&latencies);
    let count = latencies.len() as f64;
    values.push((Metric::CpuUsPerRequest, cpu.as_secs_f64() * 1e6 / count));
    values.push((Metric::Requests, count));
    values.push((Metric::CpuSeconds, cpu.as_secs_f64()));
    Ok(values)
}

/// One connection, one exchange after the other: every latency in ns.
fn ping(to: SocketAddrV4, bytes: usize, time: Duration) -> anyhow::Result<Vec<u64>> {
    let mut stream = peer::connect(to, Ipv4Addr::LOCALHOST)?;
    let (request, mut answer) = (peer::request(bytes, bytes as u64), vec![0; bytes]);
    let mut latencies = Vec::with_capacity(1 << 20);
    let end = Instant::now() + time;
    loop {
        interrupt::check()?;
        let begin = Instant::now();
        if begin >= end {
            return Ok(latencies);
        }
        peer::exchange(&mut stream, &request, &mut answer)?;
        latencies.push(begin.elapsed().as_nanos() as u64);
    }
}

fn percentiles(sorted: &[u64]) -> Values {
    let ranks = [
        (Metric::P50Us, 0.5),
        (Metric::P99Us, 0.99),
        (Metric::P999Us, 0.999),
        (Metric::MaxUs, 1.0),
    ];
    let us = |fraction| Some(percentile(sorted, fraction)? as f64 / 1e3);
    ranks
        .into_iter()
        .filter_map(|(metric, fraction)| Some((metric, us(fraction)?)))
        .collect()
}

fn connects(server: &Server, count: u32) -> anyhow::Result<Values> {
    let (request, mut answer) = (peer::request(64, 1 << 10), [0; 1 << 10]);
    let mut latencies = Vec::with_capacity(count as usize);
    let (cpu, begin) = (server.cpu()?, Instant::now());
    for _ in 0..count {
        interrupt::check()?;
        let start = Instant::now();
        let mut stream = peer::connect(server.address, Ipv4Addr::LOCALHOST)?;
        peer::exchange(&mut stream, &request, &mut answer)?;
        drop(stream);
        latencies.push(start.elapsed().as_nanos() as u64);
    }
    let wall = begin.elapsed();
    // The last ones are still being closed.
    std::thread::sleep(SETTLE);
    let cpu = server.cpu()? - cpu;
    latencies.sort_unstable();
    let mut values = percentiles(&latencies);
    let count = f64::from(count);
    values.extend([
        (Metric::ConnectionsPerCpuSecond, count / cpu.as_secs_f64()),
        (Metric::RequestsPerSecond, count / wall.as_secs_f64()),
        (Metric::CpuUsPerRequest, cpu.as_secs_f64() * 1e6 / count),
        (Metric::Requests, count),
    ]);
    Ok(values)
}

fn idle(server: &Server, start: Memory, wanted: u32, nofile: u64) -> anyhow::Result<Values> {
    // Both ends of every connection are in this process, and two sockets of it in the proxy.
    let count = u64::from(wanted).min(nofile.saturating_sub(SPARE_FDS) / 2);
    let mut streams = open(server.address, count)?;
    std::thread::sleep(SETTLE);
    let now = Memory::of(server.pid())?;
    let oldest = streams.first_mut().context("no connections")?;
    peer::exchange(oldest, &peer::request(64, 64), &mut [0; 64])
        .context("the oldest idle connection was closed")?;
    let grown = now.rss_kib.saturating_sub(start.rss_kib) * 1024;
    Ok(vec![
        (Metric::IdleBytesPerConnection, grown as f64 / count as f64),
        (Metric::StartRssMib, mib(start.rss_kib)),
        (Metric::IdleRssMib, mib(now.rss_kib)),
        (Metric::Requests, count as f64),
    ])
}

/// A small exchange alone, then beside bulk streams of the same proxy. What feeds and drains these
/// gives way to everything else: waiting for the client's core is not what is measured.
fn mixed(server: &Server, time: Duration) -> anyhow::Result<Values> {
    ping(server.address, MIXED_BYTES, WARM_UP)?;
    let mut alone = ping(server.address, MIXED_BYTES, time)?;
    alone.sort_unstable();
    let mut streams = open(server.address, BULK_BESIDE)?;
    for stream in &mut streams {
        stream.write_all(&peer::request(0, peer::ENDLESS))?;
    }
    let stop = AtomicBool::new(false);
    let (cpu, begin) = (server.cpu()?, Instant::now());
    let (loaded, bulk) = std::thread::scope(|scope| {
        let bulk = scope.spawn(|| {
            peer::give_way();
            peer::drain(&streams, peer::ENDLESS, &stop)
        });
        let loaded = ping(server.address, MIXED_BYTES, time);
        stop.store(true, Ordering::Relaxed);
        (loaded, bulk.join())
    });
    let wall = begin.elapsed().as_secs_f64();
    let cpu = server.cpu()? - cpu;
    let bulk = bulk.map_err(|_panic| anyhow::anyhow!("the bulk client panicked"))??;
    let mut loaded = loaded?;
    loaded.sort_unstable();
    ensure!(bulk > 0, "no bulk byte arrived");
    let mut values = percentiles(&loaded);
    for (metric, value) in percentiles(&alone) {
        match metric {
            Metric::P50Us => values.push((Metric::AloneP50Us, value)),
            Metric::P99Us => values.push((Metric::AloneP99Us, value)),
            _ => {}
        }
    }
    let gb = bulk as f64 / 1e9;
    values.push((Metric::GbPerSecond, gb / wall));
    // With what the messages took, of which there are more the shorter they wait.
    values.push((Metric::CpuSecondsPerGb, cpu.as_secs_f64() / gb));
    values.push((Metric::Requests, loaded.len() as f64));
    Ok(values)
}

const VERIFIED_BYTES: u64 = 5_000_001;
const WARM_UP: Duration = Duration::from_millis(100);
const SETTLE: Duration = Duration::from_millis(200);
const MIXED_BYTES: usize = 1 << 10;
const BULK_BESIDE: u64 = 4;
/// What the bench and a proxy need beside the connections.
const SPARE_FDS: u64 = 200;
