//! Memory: of idle connections, and of answers that are large or in many parts.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::{Bench, mib};
use crate::check;
use crate::client::{exchange::Exchange, verify::verify};
use crate::interrupt;
use crate::memory::{Memory, reset_peak};
use crate::report::Layout;
use crate::sample::Metric;
use crate::server::{Contender, Server, Site};

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    if bench.includes(check::IDLE) {
        let connections = u64::from(bench.settings().idle_connections);
        if bench.nofile < connections + SPARE_FDS {
            let limit = bench.nofile;
            let reason = anyhow::anyhow!("{connections} connections, but RLIMIT_NOFILE is {limit}");
            bench.skip(check::IDLE, &reason);
        } else {
            let servers = [
                Contender::Canned,
                Contender::Sendfile,
                Contender::NginxCached,
                Contender::Zhaul,
            ];
            each(bench, check::IDLE, &servers, idle)?;
            let columns = &[
                Metric::IdlePssMib,
                Metric::StartRssMib,
                Metric::IdleBytesPerConnection,
            ];
            let floor = Some(Contender::Canned);
            let primary = Metric::IdleRssMib;
            let nginx = Contender::NginxCached;
            bench.finish(
                check::IDLE,
                Layout {
                    primary,
                    floor,
                    nginx,
                    columns,
                },
            )?;
        }
    }
    if bench.includes(check::LARGE) {
        each(
            bench,
            check::LARGE,
            &[Contender::NginxCached, Contender::Zhaul],
            large,
        )?;
        let columns = &[
            Metric::SmallPeakMib,
            Metric::OneRangePeakMib,
            Metric::ManyRangesPeakMib,
            Metric::ManyRangesStatus,
        ];
        let (primary, nginx) = (Metric::SparsePeakMib, Contender::NginxCached);
        bench.finish(
            check::LARGE,
            Layout {
                primary,
                floor: None,
                nginx,
                columns,
            },
        )?;
    }
    Ok(())
}

type Values = Vec<(Metric, f64)>;

/// A fresh server for each measurement: memory that an earlier one left behind would count.
fn each(
    bench: &mut Bench,
    case: &str,
    wanted: &[Contender],
    measure: fn(&Bench, &Server) -> anyhow::Result<Values>,
) -> anyhow::Result<()> {
    let file = bench.fixture.file(SMALL_FILE, 1 << 10)?;
    bench
        .fixture
        .sparse_file(SPARSE_FILE, bench.settings().sparse_bytes)?;
    let turns = bench.present(wanted);
    let root = bench.fixture.root().to_path_buf();
    let site = Site {
        root: &root,
        file: &file,
    };
    let rounds = bench.settings().idle_rounds;
    for round in 0..rounds {
        for contender in super::order(&turns, round) {
            let name = contender.label();
            bench.progress(&format!("{case}: round {}/{rounds}: {name}", round + 1))?;
            let values = bench
                .launcher
                .start(contender, site)
                .and_then(|server| {
                    verify(&server, site)?;
                    measure(bench, &server)
                })
                .with_context(|| format!("{case}: {}", contender.name()))?;
            bench.record(case, contender, round, values);
        }
    }
    Ok(())
}

/// Every connection makes one request and stays.
fn idle(bench: &Bench, server: &Server) -> anyhow::Result<Values> {
    let count = bench.settings().idle_connections;
    let start = Memory::of(server.pid())?;
    let mut connections = Vec::with_capacity(count as usize);
    for index in 0..count {
        interrupt::check()?;
        // A few connections from each address: ports and per-address limits are not what is tested.
        let host = 2 + (index % 250) as u8;
        let mut connection = Exchange::connect(server.address, Ipv4Addr::new(127, 0, 0, host))?;
        let head = connection
            .get(SMALL_FILE, "")
            .with_context(|| format!("connection {index}"))?;
        ensure!(
            head.status == 200,
            "status {} for connection {index}",
            head.status
        );
        connection.discard(head.length)?;
        connections.push(connection);
    }
    std::thread::sleep(SETTLE);
    let now = Memory::of(server.pid())?;
    // An answer on the first one shows that nobody was thrown out to make room.
    let first = connections.first_mut().context("no connections")?;
    let head = first
        .get(SMALL_FILE, "")
        .context("the oldest idle connection was closed")?;
    ensure!(
        head.status == 200,
        "status {} on the oldest connection",
        head.status
    );
    let grown = now.rss_kib.saturating_sub(start.rss_kib) * 1024;
    Ok(vec![
        (Metric::StartRssMib, mib(start.rss_kib)),
        (Metric::IdleRssMib, mib(now.rss_kib)),
        (Metric::IdlePssMib, mib(now.pss_kib)),
        (
            Metric::IdleBytesPerConnection,
            grown as f64 / f64::from(count),
        ),
        (Metric::Requests, f64::from(count)),
    ])
}

/// Peak memory by kind of answer.
fn large(bench: &Bench, server: &Server) -> anyhow::Result<Values> {
    let sparse = bench.settings().sparse_bytes;
    let (small, _) = peak(server, SMALL_FILE, "", Some((200, 1 << 10)))?;
    let (whole, _) = peak(server, SPARSE_FILE, "", Some((200, sparse)))?;
    let one = "Range: bytes=0-1048575\r\n";
    let (one, _) = peak(server, SPARSE_FILE, one, Some((206, 1 << 20)))?;
    // How a server bounds the count of ranges is its own affair: any status will do.
    let (many, status) = peak(server, SPARSE_FILE, &many_ranges(sparse), None)?;
    Ok(vec![
        (Metric::SmallPeakMib, small),
        (Metric::SparsePeakMib, whole),
        (Metric::OneRangePeakMib, one),
        (Metric::ManyRangesPeakMib, many),
        (Metric::ManyRangesStatus, f64::from(status)),
    ])
}

fn peak(
    server: &Server,
    path: &str,
    extra: &str,
    expected: Option<(u16, u64)>,
) -> anyhow::Result<(f64, u16)> {
    reset_peak(server.pid())?;
    let mut exchange = Exchange::connect(server.address, Ipv4Addr::LOCALHOST)?;
    let head = exchange.get(path, &format!("Connection: close\r\n{extra}"))?;
    let bytes = exchange.discard(head.length)?;
    if let Some(expected) = expected {
        ensure!(
            (head.status, bytes) == expected,
            "{path}: status {}, {bytes} B",
            head.status
        );
    }
    Ok((mib(Memory::of(server.pid())?.peak_kib), head.status))
}

/// 100 ranges of 1 MiB, evenly spread.
fn many_ranges(length: u64) -> String {
    let mut header = String::from("Range: bytes=");
    for index in 0..RANGES {
        let start = length / RANGES * index;
        let comma = if index == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(header, "{comma}{start}-{}", start + (1 << 20) - 1);
    }
    header + "\r\n"
}

const SMALL_FILE: &str = "idle.bin";
const SPARSE_FILE: &str = "sparse.bin";
const RANGES: u64 = 100;
/// What the bench and a server need beside the connections.
const SPARE_FDS: u64 = 200;
const SETTLE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_disjoint_and_within_the_file() {
        let length = 1 << 30;
        let header = many_ranges(length);
        let list = header.trim().strip_prefix("Range: bytes=").unwrap();
        let mut end_before = None;
        let mut count = 0;
        for range in list.split(',') {
            let (start, end) = range.split_once('-').unwrap();
            let (start, end): (u64, u64) = (start.parse().unwrap(), end.parse().unwrap());
            assert!(end_before.is_none_or(|before| start > before));
            assert!(end < length);
            end_before = Some(end);
            count += 1;
        }
        assert_eq!(count, RANGES);
        // nginx takes header lines of up to 8 KiB.
        assert!(many_ranges(4 << 30).len() < 8 << 10);
    }
}
