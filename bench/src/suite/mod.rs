//! The suites, and what they share: who runs, in which order, and where results go.

mod cold;
mod idle;
mod proxy;
mod serve;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use crate::affinity::{self, Cores};
use crate::cli::{Options, Settings};
use crate::fixture::Fixture;
use crate::host::Host;
use crate::report::{Layout, Report};
use crate::sample::{Metric, Sample};
use crate::server::{Contender, Launcher, find_program};
use crate::wrk::Wrk;
use crate::{check, interrupt, limits};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suite {
    Serve,
    Cold,
    Idle,
    Proxy,
}

impl Suite {
    pub(crate) const ALL: [Self; 3] = [Self::Serve, Self::Cold, Self::Idle];
}

/// Runs suites, prints their tables, writes the files that were asked for.
pub(crate) fn run(suites: &[Suite], options: &Options) -> anyhow::Result<()> {
    interrupt::install()?;
    let mut bench = Bench::new(options)?;
    bench.print(&bench.report.preamble())?;
    for suite in suites {
        match suite {
            Suite::Serve => serve::run(&mut bench)?,
            Suite::Cold => cold::run(&mut bench)?,
            Suite::Idle => idle::run(&mut bench)?,
            Suite::Proxy => proxy::run(&mut bench)?,
        }
    }
    bench.report.checks = check::evaluate(&bench.report.samples, &bench.report.settings);
    if options.check {
        bench.print(&bench.report.verdicts())?;
    }
    bench.print(&bench.report.skips())?;
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&bench.report)?;
        write(path, &(text + "\n"))?;
    }
    if let Some(path) = &options.markdown {
        write(path, &bench.report.markdown())?;
    }
    Ok(())
}

fn write(path: &PathBuf, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A run in progress.
struct Bench {
    launcher: Launcher,
    wrk: Option<Wrk>,
    fixture: Fixture,
    nofile: u64,
    only: Option<String>,
    servers: Vec<Contender>,
    report: Report,
}

impl Bench {
    fn new(options: &Options) -> anyhow::Result<Self> {
        let nofile = limits::raise_nofile()?;
        let settings = Settings::new(options);
        let servers = chosen(&options.servers)?;
        let mut skipped = Vec::new();
        let cores = Cores::pick()?;
        if cores.server.is_none() {
            skipped.push("pinning: there is one core, server and client share it".to_owned());
        }
        let launcher = Launcher {
            cores,
            nginx: find_program("nginx"),
            haproxy: find_program("haproxy"),
            zhaul: options.zhaul.is_file().then(|| options.zhaul.clone()),
            zhaul_args: options.zhaul_arg.clone(),
            nofile,
        };
        if launcher.nginx.is_none() {
            skipped.push("nginx: not installed (Debian package nginx)".to_owned());
        }
        if launcher.zhaul.is_none() {
            let path = options.zhaul.display();
            skipped.push(format!(
                "zhaul: no {path} (cargo build --release -p zhaul-cli)"
            ));
        }
        let wrk = find_program("wrk");
        let host = Host::describe(&launcher, wrk.as_deref(), &options.dir);
        let wrk = wrk
            .map(|program| Wrk::new(program, cores.client))
            .transpose()?;
        // Behind the description of the host, which counts the cores. Clients are threads of this
        // process and inherit the core; servers choose their own when they start.
        affinity::pin(cores.client)?;
        Ok(Self {
            launcher,
            wrk,
            fixture: Fixture::create(&options.dir)?,
            nofile,
            only: options.only.clone(),
            servers,
            report: Report::new(host, cores, settings, skipped),
        })
    }

    fn settings(&self) -> &Settings {
        &self.report.settings
    }

    /// Those of `wanted` that are installed and were not ruled out.
    fn present(&self, wanted: &[Contender]) -> Vec<Contender> {
        wanted
            .iter()
            .copied()
            .filter(|contender| self.servers.contains(contender))
            .filter(|&contender| self.launcher.can_start(contender))
            .collect()
    }

    fn includes(&self, case: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|text| case.contains(text.as_str()))
    }

    fn skip(&mut self, what: &str, reason: &anyhow::Error) {
        self.report.skipped.push(format!("{what}: {reason:#}"));
    }

    fn record(
        &mut self,
        case: &str,
        server: Contender,
        round: u32,
        values: impl IntoIterator<Item = (Metric, f64)>,
    ) {
        let values = values.into_iter().collect();
        self.report.samples.push(Sample {
            case: case.to_owned(),
            server,
            round,
            values,
        });
    }

    /// A case is complete: print its table.
    fn finish(&mut self, case: &str, layout: Layout) -> anyhow::Result<()> {
        self.progress("")?;
        self.report.layouts.push((case.to_owned(), layout));
        self.print(&self.report.table(case, layout))
    }

    fn print(&self, text: &str) -> anyhow::Result<()> {
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .context("cannot write the report")?;
        Ok(stdout.flush()?)
    }

    /// Says on a terminal what is running now; an empty text wipes it.
    fn progress(&self, text: &str) -> anyhow::Result<()> {
        interrupt::check()?;
        let mut stderr = std::io::stderr().lock();
        if stderr.is_terminal() {
            write!(stderr, "\r\x1b[K{text}")?;
            stderr.flush()?;
        }
        Ok(())
    }
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<Contender>> {
    for name in names {
        let known = Contender::ALL
            .iter()
            .any(|contender| contender.name() == name);
        ensure!(known, "no server is called {name} (see --help)");
    }
    let all = Contender::ALL.into_iter();
    Ok(all
        .filter(|c| names.is_empty() || names.iter().any(|name| name == c.name()))
        .collect())
}

/// The order of a round: another one starts each time, and every second round runs backwards, so
/// that no server is always first, last, or behind the same neighbour.
fn order<T: Copy>(items: &[T], round: u32) -> Vec<T> {
    let mut order = items.to_vec();
    if !order.is_empty() {
        let start = round as usize % order.len();
        order.rotate_left(start);
    }
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_runs_everybody_once_and_the_first_place_goes_round() {
        let items = [0, 1, 2, 3, 4];
        let mut firsts = Vec::new();
        for round in 0..10 {
            let mut order = order(&items, round);
            firsts.push(order[0]);
            order.sort_unstable();
            assert_eq!(order, items);
        }
        for item in items {
            assert!(
                firsts.contains(&item),
                "{item} never runs first: {firsts:?}"
            );
        }
        assert!(order::<u8>(&[], 3).is_empty());
    }

    #[test]
    fn unknown_server_is_refused() {
        assert!(chosen(&["apache".into()]).is_err());
        assert_eq!(chosen(&["zhaul".into()]).unwrap(), [Contender::Zhaul]);
        assert_eq!(chosen(&[]).unwrap().len(), Contender::ALL.len());
    }
}
