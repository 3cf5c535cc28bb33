//! The report: raw samples, and the tables made of them as text and as Markdown.

mod format;
mod table;

use std::fmt::Write as _;

use serde::Serialize;

use crate::affinity::Cores;
use crate::check::{self, Check};
use crate::cli::Settings;
use crate::cold::throttle::Version;
use crate::host::Host;
use crate::sample::{Metric, Samples};
use crate::server::Contender;
use table::Table;

/// Which figures a case shows.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Layout {
    /// Shown with its spread, and as a ratio.
    pub(crate) primary: Metric,
    pub(crate) floor: Option<Contender>,
    pub(crate) nginx: Contender,
    /// Shown as medians.
    pub(crate) columns: &'static [Metric],
}

/// Everything that `--json` writes.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) host: Host,
    pub(crate) cores: Cores,
    pub(crate) settings: Settings,
    pub(crate) method: &'static [&'static str],
    pub(crate) throttle: Option<Version>,
    pub(crate) layouts: Vec<(String, Layout)>,
    pub(crate) samples: Samples,
    pub(crate) checks: Vec<Check>,
    /// What was left out, and why.
    pub(crate) skipped: Vec<String>,
}

impl Report {
    pub(crate) fn new(host: Host, cores: Cores, settings: Settings, skipped: Vec<String>) -> Self {
        Self {
            host,
            cores,
            settings,
            method: METHOD,
            throttle: None,
            layouts: Vec::new(),
            samples: Samples::default(),
            checks: Vec::new(),
            skipped,
        }
    }

    /// What was measured on, and how.
    pub(crate) fn preamble(&self) -> String {
        let mut text = String::new();
        for line in self
            .facts()
            .iter()
            .map(String::as_str)
            .chain(METHOD.iter().copied())
        {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    fn facts(&self) -> Vec<String> {
        let zhaul_measure::host::Host {
            kernel,
            cpu,
            cores,
            memory_mib,
            file_system,
            load,
        } = &self.host.machine;
        let or_none = |version: &Option<String>| version.clone().unwrap_or("absent".to_owned());
        let versions = [&self.host.zhaul, &self.host.nginx, &self.host.wrk].map(or_none);
        let pinned = match (self.cores.server, self.cores.client) {
            (Some(server), Some(client)) => format!("server on core {server}, client on {client}"),
            _ => "nothing pinned".to_owned(),
        };
        let Settings {
            quick,
            rounds,
            bulk_rounds,
            seconds,
            cold_rounds,
            cold_seconds,
            idle_rounds,
            ..
        } = &self.settings;
        let quick = if *quick {
            " (quick: proves nothing)"
        } else {
            ""
        };
        vec![
            format!(
                "Linux {kernel}, {cpu}, {cores} cores, {memory_mib} MiB, {file_system}, load {load}"
            ),
            format!(
                "zhaul: {}; nginx: {}; wrk: {}; {pinned}",
                versions[0], versions[1], versions[2]
            ),
            format!(
                "{rounds} rounds of {seconds} s; 256 MiB: {bulk_rounds}; cold: {cold_rounds} of \
                 {cold_seconds} s; memory: {idle_rounds}{quick}"
            ),
        ]
    }

    pub(crate) fn table(&self, case: &str, layout: Layout) -> String {
        format!(
            "\n{}\n{}",
            self.title(case),
            Table::of(&self.samples, case, layout).text()
        )
    }

    /// The tables, for docs.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        for line in self
            .facts()
            .iter()
            .map(String::as_str)
            .chain(METHOD.iter().copied())
        {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(text, "- {line}");
        }
        for (case, layout) in &self.layouts {
            let table = Table::of(&self.samples, case, *layout).markdown();
            let _ = write!(text, "\n### {}\n\n{table}", self.title(case));
        }
        if !self.checks.is_empty() {
            text.push_str("\n### Targets\n\n| | target | measured |\n|---|---|---|\n");
        }
        for check in &self.checks {
            let measured = format::spread(None, check.measured);
            let _ = writeln!(
                text,
                "| {} | {} | {measured} |",
                verdict(check),
                check.target
            );
        }
        for reason in &self.skipped {
            let _ = write!(text, "\nSkipped: {reason}\n");
        }
        text
    }

    pub(crate) fn verdicts(&self) -> String {
        let mut text = String::from("\nTargets (median; range over the rounds)\n");
        for check in &self.checks {
            let measured = format::spread(None, check.measured);
            let _ = writeln!(text, "{} {}: {measured}", verdict(check), check.target);
        }
        if self.checks.is_empty() {
            text.push_str("none could be judged: zhaul was not measured\n");
        }
        text
    }

    pub(crate) fn skips(&self) -> String {
        self.skipped
            .iter()
            .fold(String::new(), |text, reason| text + "SKIP " + reason + "\n")
    }

    fn title(&self, case: &str) -> String {
        match case {
            check::COLD_FILES => {
                format!(
                    "{case}: a hot client (16 KiB) beside 32 streams, disk throttled to 40 MB/s"
                )
            }
            check::COLD_LOOKUPS => {
                format!(
                    "{case}: a hot client (16 KiB) beside 32 others, disk throttled to 200 reads/s"
                )
            }
            check::IDLE => {
                format!(
                    "{} {case}",
                    format::number(self.settings.idle_connections.into())
                )
            }
            _ => case.to_owned(),
        }
    }
}

fn verdict(check: &Check) -> &'static str {
    if check.pass { "PASS" } else { "FAIL" }
}

const METHOD: &[&str] = &[
    "CPU: the server process's own clock, all threads. Every figure: median, min–max over rounds.",
    "×: ratio of the medians, and the range of the ratios within one round; below 1 is less.",
    "MiB: the server's peak resident memory in the run.",
    "Loopback: requests/s and latency include the client; the server's CPU time does not.",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_fits_the_width() {
        for line in METHOD {
            assert!(line.chars().count() <= table::WIDTH, "{line}");
        }
    }
}
