//! The targets, and how the measured figures compare. Nothing fails because of a verdict.

use serde::Serialize;

use crate::cli::Settings;
use crate::sample::{Metric, Samples};
use crate::server::Contender;
use zhaul_measure::stats::Spread;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Check {
    pub(crate) target: String,
    pub(crate) measured: Spread,
    pub(crate) limit: f64,
    pub(crate) pass: bool,
}

/// Case names that suites and targets share.
pub(crate) const COLD_FILES: &str = "cold files";
pub(crate) const COLD_LOOKUPS: &str = "cold lookups";
pub(crate) const IDLE: &str = "idle connections";
pub(crate) const LARGE: &str = "peak memory of one answer";

/// Bulk, request and response, and the rest, in the order of the tables.
pub(crate) const PROXY_CASES: [&str; 9] = [
    "bulk, 1 connection",
    "bulk, 32 connections",
    "bulk, 1,000 connections",
    "exchange of 64 B",
    "exchange of 1 KiB",
    "exchange of 16 KiB",
    "connect, 1 KiB, close",
    "idle through a proxy",
    "1 KiB beside 4 bulk streams",
];

const SMALL: [&str; 5] = [
    "1 KiB, 32 connections",
    "1 KiB, 1,000 connections",
    "16 KiB, 32 connections",
    "16 KiB, 1,000 connections",
    "1 KiB, new connections",
];
const MEDIUM: [&str; 4] = [
    "128 KiB, 32 connections",
    "128 KiB, 1,000 connections",
    "1 MiB, 32 connections",
    "1 MiB, 1,000 connections",
];
const BULK: [&str; 2] = ["256 MiB, 1 connection", "256 MiB, 4 connections"];

/// "No worse" allows for what two equal servers differ by.
const TIE: f64 = 0.02;
/// Memory "does not grow" by more than the allocator's own rounding.
const GROWTH_MIB: f64 = 4.0;

#[cfg(test)]
pub(crate) fn serve_cases() -> impl Iterator<Item = String> {
    SMALL
        .into_iter()
        .chain(MEDIUM)
        .chain(BULK)
        .map(str::to_owned)
}

/// One verdict for each target whose figures are there.
pub(crate) fn evaluate(samples: &Samples, settings: &Settings) -> Vec<Check> {
    let mut checks = Checks {
        samples,
        list: Vec::new(),
    };
    for case in SMALL {
        checks.small(case);
    }
    for case in MEDIUM {
        checks.medium(case);
    }
    for case in BULK {
        let ratio = samples.ratio(
            case,
            Metric::CpuSecondsPerGb,
            Contender::Zhaul,
            Contender::Sendfile,
        );
        checks.at_most(&format!("{case}: CPU / sendfile loop"), ratio, 1.05);
    }
    checks.cold(COLD_FILES, Metric::ColdMbPerSecond);
    checks.cold(COLD_LOOKUPS, Metric::ColdLookupsPerSecond);
    checks.memory(settings);
    checks.proxy();
    checks.list
}

struct Checks<'a> {
    samples: &'a Samples,
    list: Vec<Check>,
}

impl Checks<'_> {
    fn small(&mut self, case: &str) {
        let cpu = Metric::CpuUsPerRequest;
        let floor = self
            .samples
            .ratio(case, cpu, Contender::Zhaul, Contender::Canned);
        self.at_most(&format!("{case}: CPU / floor"), floor, 1.25);
        let nginx = self
            .samples
            .ratio(case, cpu, Contender::NginxCached, Contender::Zhaul);
        self.at_least(
            &format!("{case}: CPU of nginx with cache / ours"),
            nginx,
            1.3,
        );
    }

    fn medium(&mut self, case: &str) {
        for (metric, what) in [
            (Metric::CpuUsPerRequest, "CPU"),
            (Metric::RequestsPerSecond, "requests/s"),
        ] {
            let lower_is_better = metric == Metric::CpuUsPerRequest;
            let ratio = self.ratio_to_best_nginx(case, metric, lower_is_better);
            let target = format!("{case}: {what} / better nginx");
            if lower_is_better {
                self.at_most(&target, ratio, 1.0 + TIE);
            } else {
                self.at_least(&target, ratio, 1.0 - TIE);
            }
        }
    }

    fn cold(&mut self, case: &str, rate: Metric) {
        let zhaul = Contender::Zhaul;
        let p99 = self.samples.spread(case, zhaul, Metric::P99Us);
        self.at_most(&format!("{case}: hot p99, µs"), p99, 1000.0);
        let loaded = self.samples.series(case, zhaul, Metric::P99Us);
        let alone = self.samples.series(case, zhaul, Metric::AloneP99Us);
        self.at_most(
            &format!("{case}: p99 / alone"),
            Spread::ratio(&loaded, &alone),
            5.0,
        );
        let aio = self
            .samples
            .ratio(case, Metric::P99Us, Contender::NginxAio, zhaul);
        self.at_least(&format!("{case}: p99 of nginx with aio / ours"), aio, 100.0);
        let ratio = self.ratio_to_best_nginx(case, rate, false);
        self.at_least(
            &format!("{case}: cold rate / better nginx"),
            ratio,
            1.0 - TIE,
        );
    }

    fn memory(&mut self, settings: &Settings) {
        let zhaul = Contender::Zhaul;
        if settings.idle_connections >= 10_000 {
            let rss = self.samples.spread(IDLE, zhaul, Metric::IdleRssMib);
            self.at_most(
                &format!("{} {IDLE}: RSS, MiB", settings.idle_connections),
                rss,
                100.0,
            );
        }
        let growth = |from, to| {
            let from = self.samples.spread(LARGE, zhaul, from)?.median;
            let to = self.samples.spread(LARGE, zhaul, to)?;
            Some(Spread {
                median: to.median - from,
                min: to.min - from,
                max: to.max - from,
            })
        };
        let by_size = growth(Metric::SmallPeakMib, Metric::SparsePeakMib);
        let by_ranges = growth(Metric::OneRangePeakMib, Metric::ManyRangesPeakMib);
        self.at_most("peak of a sparse file - of 1 KiB, MiB", by_size, GROWTH_MIB);
        self.at_most("peak of 100 ranges - of one, MiB", by_ranges, GROWTH_MIB);
    }

    fn proxy(&mut self) {
        let (zhaul, haproxy) = (Contender::Zhaul, Contender::Haproxy);
        let [few, several, many, exchanges @ .., connect, idle, mixed] = PROXY_CASES;
        let samples = self.samples;
        let cpu = Metric::CpuSecondsPerGb;
        for case in [few, several] {
            let gain = samples.ratio(case, cpu, haproxy, zhaul);
            self.at_least(&format!("{case}: CPU of HAProxy / ours"), gain, 3.0);
            let floor = samples.ratio(case, cpu, zhaul, Contender::FloorSplice);
            self.at_most(&format!("{case}: CPU / splice loop"), floor, 1.15);
        }
        let ratio = samples.ratio(many, cpu, zhaul, haproxy);
        self.at_most(&format!("{many}: CPU / HAProxy"), ratio, 1.0 + TIE);
        for case in exchanges {
            for metric in [
                Metric::P50Us,
                Metric::P99Us,
                Metric::P999Us,
                Metric::CpuUsPerRequest,
            ] {
                let against = |other| samples.ratio(case, metric, zhaul, other);
                let label = metric.label();
                // No worse than both, so two verdicts: HAProxy, and the floor and a tenth.
                let target = format!("{case}: {label} / HAProxy");
                self.at_most(&target, against(haproxy), 1.0 + TIE);
                let target = format!("{case}: {label} / copy loop");
                self.at_most(&target, against(Contender::FloorCopy), 1.1);
            }
        }
        let rate = Metric::ConnectionsPerCpuSecond;
        let ratio = samples.ratio(connect, rate, zhaul, haproxy);
        self.at_least(&format!("{connect}: rate / HAProxy"), ratio, 1.0 - TIE);
        let memory = Metric::IdleBytesPerConnection;
        let ratio = samples.ratio(idle, memory, zhaul, haproxy);
        self.at_most(&format!("{idle}: memory / HAProxy"), ratio, 0.5);
        let loaded = samples.series(mixed, zhaul, Metric::P99Us);
        let alone = samples.series(mixed, zhaul, Metric::AloneP99Us);
        let ratio = Spread::ratio(&loaded, &alone);
        self.at_most(&format!("{mixed}: p99 / alone"), ratio, 2.0);
    }

    /// Against the nginx variant that does best at this figure.
    fn ratio_to_best_nginx(
        &self,
        case: &str,
        metric: Metric,
        lower_is_better: bool,
    ) -> Option<Spread> {
        let sign = if lower_is_better { 1.0 } else { -1.0 };
        let (best, _) = [
            Contender::Nginx,
            Contender::NginxCached,
            Contender::NginxAio,
        ]
        .into_iter()
        .filter_map(|nginx| Some((nginx, self.samples.spread(case, nginx, metric)?.median)))
        .min_by(|(_, ours), (_, theirs)| (sign * ours).total_cmp(&(sign * theirs)))?;
        self.samples.ratio(case, metric, Contender::Zhaul, best)
    }

    fn at_most(&mut self, target: &str, measured: Option<Spread>, limit: f64) {
        let Some(measured) = measured else { return };
        let target = format!("{target} ≤ {limit}");
        self.list.push(Check {
            target,
            measured,
            limit,
            pass: measured.median <= limit,
        });
    }

    fn at_least(&mut self, target: &str, measured: Option<Spread>, limit: f64) {
        let Some(measured) = measured else { return };
        let target = format!("{target} ≥ {limit}");
        self.list.push(Check {
            target,
            measured,
            limit,
            pass: measured.median >= limit,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use crate::sample::Sample;
    use clap::Parser as _;
    use std::collections::BTreeMap;

    fn settings() -> Settings {
        let cli = Cli::parse_from(["zhaul-bench", "all"]);
        let Command::All(options) = cli.command else {
            panic!("all was asked for")
        };
        Settings::new(&options)
    }

    fn samples(rows: &[(&str, Contender, Metric, f64)]) -> Samples {
        let mut samples = Samples::default();
        for &(case, server, metric, value) in rows {
            let values = BTreeMap::from([(metric, value)]);
            samples.push(Sample {
                case: case.into(),
                server,
                round: 0,
                values,
            });
        }
        samples
    }

    fn verdicts(rows: &[(&str, Contender, Metric, f64)]) -> Vec<bool> {
        evaluate(&samples(rows), &settings())
            .into_iter()
            .map(|check| check.pass)
            .collect()
    }

    #[test]
    fn small_files_are_judged_by_the_floor_and_by_cached_nginx() {
        let cpu = Metric::CpuUsPerRequest;
        let case = SMALL[0];
        let rows = |ours, theirs| {
            [
                (case, Contender::Zhaul, cpu, ours),
                (case, Contender::Canned, cpu, 4.0),
                (case, Contender::NginxCached, cpu, theirs),
            ]
        };
        assert_eq!(verdicts(&rows(5.0, 6.5)), [true, true]);
        assert_eq!(verdicts(&rows(5.1, 6.5)), [false, false]);
    }

    #[test]
    fn medium_files_are_judged_by_the_better_nginx_of_each_figure() {
        let (cpu, rate) = (Metric::CpuUsPerRequest, Metric::RequestsPerSecond);
        let case = MEDIUM[0];
        let rows = [
            (case, Contender::Zhaul, cpu, 10.0),
            (case, Contender::Nginx, cpu, 9.0),
            (case, Contender::NginxCached, cpu, 11.0),
            (case, Contender::Zhaul, rate, 100.0),
            (case, Contender::Nginx, rate, 101.0),
            (case, Contender::NginxCached, rate, 90.0),
        ];
        assert_eq!(verdicts(&rows), [false, true]);
    }

    #[test]
    fn what_was_not_measured_gets_no_verdict() {
        assert!(verdicts(&[]).is_empty());
        let floor_only = [(SMALL[0], Contender::Canned, Metric::CpuUsPerRequest, 4.0)];
        assert!(verdicts(&floor_only).is_empty());
    }

    #[test]
    fn growth_is_judged_by_the_difference() {
        let row = |metric, value| (LARGE, Contender::Zhaul, metric, value);
        let rows = [
            row(Metric::SmallPeakMib, 10.0),
            row(Metric::SparsePeakMib, 13.0),
            row(Metric::OneRangePeakMib, 10.0),
            row(Metric::ManyRangesPeakMib, 15.0),
        ];
        assert_eq!(verdicts(&rows), [true, false]);
    }
}
