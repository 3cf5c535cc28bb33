//! One case as rows and columns, for a terminal of 100 columns and for Markdown.

use super::{Layout, format};
use crate::sample::{Metric, Samples};
use crate::server::Contender;

/// What the widest table may take.
#[cfg(test)]
pub(super) const WIDTH: usize = 100;

pub(super) struct Table {
    /// The heading first; every row has the same number of cells.
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn of(samples: &Samples, case: &str, layout: Layout) -> Self {
        let mut heading = vec![String::new(), layout.primary.label().to_owned()];
        if layout.floor.is_some() {
            heading.push("× floor".to_owned());
        }
        heading.push(format!("× {}", layout.nginx.label()));
        heading.extend(
            layout
                .columns
                .iter()
                .map(|metric| metric.label().to_owned()),
        );
        let mut rows = vec![heading];
        for server in samples.servers(case) {
            rows.push(
                Row {
                    samples,
                    case,
                    server,
                }
                .cells(layout),
            );
        }
        Self { rows }
    }

    pub(super) fn text(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width_of = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width_of).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (index, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                // Names to the left, figures to the right.
                if index == 0 {
                    line += &format!("{cell:<width$}");
                } else {
                    line += &format!("  {cell:>width$}");
                }
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            text += &format!("| {} |\n", row.join(" | "));
            if index == 0 {
                text += &format!("|---{}|\n", "|---:".repeat(row.len() - 1));
            }
        }
        text
    }
}

struct Row<'a> {
    samples: &'a Samples,
    case: &'a str,
    server: Contender,
}

impl Row<'_> {
    fn cells(&self, layout: Layout) -> Vec<String> {
        let mut cells = vec![self.server.label().to_owned(), self.primary(layout.primary)];
        cells.extend(layout.floor.map(|floor| self.ratio(layout.primary, floor)));
        cells.push(self.ratio(layout.primary, layout.nginx));
        cells.extend(layout.columns.iter().map(|&metric| self.median(metric)));
        cells
    }

    fn primary(&self, metric: Metric) -> String {
        let spread = self.samples.spread(self.case, self.server, metric);
        spread.map_or_else(missing, |spread| {
            self.bound(metric).to_owned() + &format::spread(Some(metric), spread)
        })
    }

    fn ratio(&self, metric: Metric, reference: Contender) -> String {
        if self.server == reference {
            return "1".to_owned();
        }
        let ratio = self
            .samples
            .ratio(self.case, metric, self.server, reference);
        ratio.map_or_else(missing, |ratio| format::spread(None, ratio))
    }

    fn median(&self, metric: Metric) -> String {
        let spread = self.samples.spread(self.case, self.server, metric);
        spread.map_or_else(missing, |spread| {
            self.bound(metric).to_owned() + &format::value(metric, spread.median)
        })
    }

    /// The run ended before its last and longest answer came: that one took as long at least, and
    /// so does every percentile that it is.
    fn bound(&self, metric: Metric) -> &'static str {
        let longest = self.median_of(Metric::MaxUs);
        let loaded = matches!(metric, Metric::P50Us | Metric::P99Us | Metric::MaxUs);
        let unanswered = self
            .samples
            .spread(self.case, self.server, Metric::Unanswered);
        let is_it = loaded && longest.is_some() && self.median_of(metric) == longest;
        if is_it && unanswered.is_some_and(|spread| spread.max > 0.0) {
            "≥"
        } else {
            ""
        }
    }

    fn median_of(&self, metric: Metric) -> Option<f64> {
        Some(self.samples.spread(self.case, self.server, metric)?.median)
    }
}

fn missing() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use std::collections::BTreeMap;

    const SERVE: Layout = Layout {
        primary: Metric::CpuUsPerRequest,
        floor: Some(Contender::Canned),
        nginx: Contender::NginxCached,
        columns: &[
            Metric::RequestsPerSecond,
            Metric::P50Us,
            Metric::P99Us,
            Metric::PeakMib,
        ],
    };

    fn samples(rows: &[(Contender, u32, Metric, f64)]) -> Samples {
        let mut samples = Samples::default();
        for &(server, round, metric, value) in rows {
            let values = BTreeMap::from([(metric, value)]);
            samples.push(Sample {
                case: "case".into(),
                server,
                round,
                values,
            });
        }
        samples
    }

    #[test]
    fn widest_plausible_table_fits_the_terminal() {
        let mut rows = Vec::new();
        for server in [
            Contender::Canned,
            Contender::Sendfile,
            Contender::NginxCached,
        ] {
            let cpu = match server {
                Contender::Canned => [105.4, 120.3, 99.97],
                Contender::Sendfile => [187.6, 257.1, 212.1],
                _ => [1_044.0, 1_713.0, 1_201.0],
            };
            for (round, cpu) in (0..).zip(cpu) {
                rows.push((server, round, Metric::CpuUsPerRequest, cpu));
            }
            rows.push((server, 0, Metric::RequestsPerSecond, 187_654.0));
            rows.push((server, 0, Metric::P50Us, 123_456.0));
            rows.push((server, 0, Metric::P99Us, 1_234_567.0));
            rows.push((server, 0, Metric::PeakMib, 1_234.0));
        }
        let text = Table::of(&samples(&rows), "case", SERVE).text();
        for line in text.lines() {
            assert!(
                line.chars().count() <= WIDTH,
                "{} columns: {line}",
                line.chars().count()
            );
        }
        assert!(text.contains("2.01 1.78–2.14"), "{text}");
    }

    #[test]
    fn figure_that_was_not_measured_is_a_dash() {
        let rows = [(Contender::Zhaul, 0, Metric::CpuUsPerRequest, 5.0)];
        let text = Table::of(&samples(&rows), "case", SERVE).text();
        assert!(
            text.contains("zhaul            5.00        –               –"),
            "{text}"
        );
    }

    #[test]
    fn unanswered_request_makes_what_it_decides_a_lower_bound() {
        let rows = [
            (Contender::Nginx, 0, Metric::P50Us, 1e3),
            (Contender::Nginx, 0, Metric::P99Us, 28e6),
            (Contender::Nginx, 0, Metric::MaxUs, 28e6),
            (Contender::Nginx, 0, Metric::Unanswered, 1.0),
        ];
        let text = Table::of(&samples(&rows), "case", SERVE).text();
        assert!(text.contains("≥28.0s"), "{text}");
        assert!(!text.contains("≥1.00ms"), "{text}");
    }

    #[test]
    fn markdown_has_a_cell_for_every_heading() {
        let rows = [(Contender::Zhaul, 0, Metric::CpuUsPerRequest, 5.0)];
        let text = Table::of(&samples(&rows), "case", SERVE).markdown();
        let bars: Vec<usize> = text.lines().map(|line| line.matches('|').count()).collect();
        assert_eq!(bars, [9, 9, 9], "{text}");
    }
}
