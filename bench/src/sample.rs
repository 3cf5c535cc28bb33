//! What is measured, of whom, in which case and round: the raw data that every table is made from.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::server::Contender;
use zhaul_measure::stats::Spread;

/// A figure with its unit in its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    CpuUsPerRequest,
    CpuSecondsPerGb,
    RequestsPerSecond,
    GbPerSecond,
    P50Us,
    P99Us,
    P999Us,
    MaxUs,
    PeakMib,
    Requests,
    Bytes,
    CpuSeconds,
    WallSeconds,
    Errors,
    ConnectionsPerCpuSecond,
    /// The hot client of `cold` with nothing cold beside it.
    AloneP50Us,
    AloneP99Us,
    /// 1 if the last request was still unanswered at the end; it counts as if answered then.
    Unanswered,
    ColdMbPerSecond,
    ColdLookupsPerSecond,
    DiskReads,
    StartRssMib,
    IdleRssMib,
    IdlePssMib,
    IdleBytesPerConnection,
    SmallPeakMib,
    SparsePeakMib,
    OneRangePeakMib,
    ManyRangesPeakMib,
    ManyRangesStatus,
}

impl Metric {
    /// Column heading.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::CpuUsPerRequest => "CPU µs/request",
            Self::CpuSecondsPerGb => "CPU s/GB",
            Self::RequestsPerSecond => "req/s",
            Self::GbPerSecond => "GB/s",
            Self::P50Us => "p50",
            Self::P99Us => "p99",
            Self::P999Us => "p99.9",
            Self::ConnectionsPerCpuSecond => "connections/CPU s",
            Self::MaxUs => "max",
            Self::PeakMib => "MiB",
            Self::Requests => "requests",
            Self::Bytes => "bytes",
            Self::CpuSeconds => "CPU s",
            Self::WallSeconds => "wall s",
            Self::Errors => "errors",
            Self::AloneP50Us => "p50 alone",
            Self::AloneP99Us => "p99 alone",
            Self::Unanswered => "unanswered",
            Self::ColdMbPerSecond => "cold MB/s",
            Self::ColdLookupsPerSecond => "cold/s",
            Self::DiskReads => "disk reads",
            Self::StartRssMib => "start RSS",
            Self::IdleRssMib => "RSS MiB",
            Self::IdlePssMib => "PSS MiB",
            Self::IdleBytesPerConnection => "B/connection",
            Self::SmallPeakMib => "1 KiB",
            Self::SparsePeakMib => "sparse",
            Self::OneRangePeakMib => "1 range",
            Self::ManyRangesPeakMib => "100 ranges",
            Self::ManyRangesStatus => "status",
        }
    }

    pub(crate) fn is_latency(self) -> bool {
        matches!(
            self,
            Self::P50Us
                | Self::P99Us
                | Self::P999Us
                | Self::MaxUs
                | Self::AloneP50Us
                | Self::AloneP99Us
        )
    }
}

/// One run of one server.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) case: String,
    pub(crate) server: Contender,
    pub(crate) round: u32,
    pub(crate) values: BTreeMap<Metric, f64>,
}

/// Every run so far.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Samples(Vec<Sample>);

impl Samples {
    pub(crate) fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// `(round, value)` of one figure.
    pub(crate) fn series(&self, case: &str, server: Contender, metric: Metric) -> Vec<(u32, f64)> {
        self.0
            .iter()
            .filter(|sample| sample.case == case && sample.server == server)
            .filter_map(|sample| Some((sample.round, *sample.values.get(&metric)?)))
            .collect()
    }

    pub(crate) fn spread(&self, case: &str, server: Contender, metric: Metric) -> Option<Spread> {
        Spread::of(
            self.series(case, server, metric)
                .into_iter()
                .map(|(_, value)| value),
        )
    }

    /// One figure of `server` as a multiple of that of `reference`.
    pub(crate) fn ratio(
        &self,
        case: &str,
        metric: Metric,
        server: Contender,
        reference: Contender,
    ) -> Option<Spread> {
        let ours = self.series(case, server, metric);
        Spread::ratio(&ours, &self.series(case, reference, metric))
    }

    /// The servers of a case, in the order of [`Contender`].
    pub(crate) fn servers(&self, case: &str) -> Vec<Contender> {
        let of_case = self.0.iter().filter(|sample| sample.case == case);
        let mut servers: Vec<Contender> = of_case.map(|sample| sample.server).collect();
        servers.sort();
        servers.dedup();
        servers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_keeps_cases_and_servers_apart() {
        let mut samples = Samples::default();
        for (case, server, value) in [
            ("a", Contender::Zhaul, 1.0),
            ("a", Contender::Nginx, 4.0),
            ("b", Contender::Zhaul, 9.0),
        ] {
            samples.push(Sample {
                case: case.into(),
                server,
                round: 0,
                values: BTreeMap::from([(Metric::P50Us, value)]),
            });
        }
        assert_eq!(
            samples.series("a", Contender::Zhaul, Metric::P50Us),
            [(0, 1.0)]
        );
        let ratio = samples
            .ratio("a", Metric::P50Us, Contender::Nginx, Contender::Zhaul)
            .unwrap();
        assert_eq!(ratio.median, 4.0);
        assert!(
            samples
                .series("a", Contender::Zhaul, Metric::P99Us)
                .is_empty()
        );
        assert_eq!(samples.servers("a"), [Contender::Nginx, Contender::Zhaul]);
    }

    #[test]
    fn samples_are_written_with_units_in_their_names() {
        let sample = Sample {
            case: "a".into(),
            server: Contender::NginxCached,
            round: 3,
            values: BTreeMap::from([(Metric::CpuUsPerRequest, 1.5)]),
        };
        let text = serde_json::to_string(&sample).unwrap();
        assert!(text.contains(r#""server":"nginx-cached""#), "{text}");
        assert!(text.contains(r#""cpu_us_per_request":1.5"#), "{text}");
    }
}
