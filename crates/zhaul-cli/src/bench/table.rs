//! The results as text: a table for each path, or lists on a terminal too narrow for one.
//!
//! A figure is its median over the rounds, with the range below it. Where the terminal has no room
//! for all ranges, those that matter least go first; `--json` has every sample.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use zhaul_measure::bench::figures::Figure;
use zhaul_measure::bench::results::{Cell, Contender, Path, Results};
use zhaul_measure::bench::size;

use super::numbers::{number, range};

/// The whole output.
pub(super) fn text(results: &Results, width: usize) -> String {
    let mut text = String::new();
    for path in Path::ALL {
        let cells = results.cells.iter();
        let cells: Vec<&Cell> = cells
            .filter(|cell| cell.path == path && cell.contender == Contender::Zhaul)
            .collect();
        if cells.is_empty() {
            continue;
        }
        let table = Table::of(results, &cells);
        let _ = writeln!(text, "{BOLD}{}{BOLD:#}", path.label());
        text += &table.text(width);
        text.push('\n');
    }
    text += &wrap(&legend(results), width);
    text
}

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const SLOWER: Style = AnsiColor::Yellow.on_default();

/// What stands in a column.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Figure(Figure),
    /// The mover's CPU time, divided by the floor's.
    ToFloor,
    /// Exact or by call, and else an estimate from samples.
    Copies,
}

impl Column {
    const ALL: [Self; 9] = [
        Self::Figure(Figure::Throughput),
        Self::Figure(Figure::MoverCpu),
        Self::ToFloor,
        Self::Figure(Figure::ReceiverCpu),
        Self::Figure(Figure::FeederCpu),
        Self::Figure(Figure::Calls),
        Self::Figure(Figure::ContextSwitches),
        Self::Figure(Figure::Faults),
        Self::Copies,
    ];

    /// The columns whose ranges go, in that order, where there is no room.
    const DISPENSABLE: [Self; 9] = [
        Self::Copies,
        Self::Figure(Figure::Calls),
        Self::Figure(Figure::FeederCpu),
        Self::Figure(Figure::ReceiverCpu),
        Self::Figure(Figure::Faults),
        Self::Figure(Figure::ContextSwitches),
        Self::Figure(Figure::Throughput),
        Self::ToFloor,
        Self::Figure(Figure::MoverCpu),
    ];

    const fn heading(self) -> &'static str {
        match self {
            Self::Figure(Figure::Throughput) => "GB/s",
            Self::Figure(Figure::MoverCpu) => "mover",
            Self::Figure(Figure::ReceiverCpu) => "receiver",
            Self::Figure(Figure::FeederCpu) => "feeder",
            Self::Figure(Figure::Calls) => "calls",
            Self::Figure(Figure::ContextSwitches) => "switch",
            Self::Figure(Figure::Faults) => "faults",
            Self::ToFloor => "×floor",
            Self::Figure(_) | Self::Copies => "copies",
        }
    }

    /// The same where there is room for words.
    const fn words(self) -> &'static str {
        match self {
            Self::Figure(Figure::Throughput) => "GB/s",
            Self::Figure(Figure::MoverCpu) => "mover s/GB",
            Self::Figure(Figure::ReceiverCpu) => "receiver s/GB",
            Self::Figure(Figure::FeederCpu) => "feeder s/GB",
            Self::Figure(Figure::Calls) => "calls/GB",
            Self::Figure(Figure::ContextSwitches) => "switches/GB",
            Self::Figure(Figure::Faults) => "faults/GB",
            Self::ToFloor => "mover ×floor",
            Self::Figure(_) | Self::Copies => "copies/byte",
        }
    }

    fn entry(self, results: &Results, cell: &Cell) -> Option<Entry> {
        let spread = match self {
            Self::Figure(figure) => figure.of(cell)?,
            Self::ToFloor => Figure::MoverCpu.to_floor(results, cell)?,
            Self::Copies => match Figure::Copies.of(cell) {
                Some(spread) => spread,
                None => {
                    let estimate = Figure::SampledCopies.of(cell)?;
                    return Some(Entry {
                        // Samples tell no more digits.
                        median: format!("~{:.1}", estimate.median),
                        ..Entry::default()
                    });
                }
            },
        };
        Some(Entry {
            median: number(spread.median),
            range: range(spread),
            is_slower: self == Self::ToFloor && spread.min > 1.0,
        })
    }
}

#[derive(Clone, Default)]
struct Entry {
    median: String,
    range: Option<String>,
    /// Slower than the floor in every round.
    is_slower: bool,
}

struct Row {
    route: String,
    entries: Vec<Entry>,
}

/// One path.
struct Table {
    columns: Vec<Column>,
    /// By bytes of a transfer.
    groups: BTreeMap<u64, Vec<Row>>,
}

impl Table {
    fn of(results: &Results, cells: &[&Cell]) -> Self {
        let has = |column: &Column| {
            let mut entries = cells.iter().map(|cell| column.entry(results, cell));
            entries.any(|entry| entry.is_some())
        };
        let columns: Vec<Column> = Column::ALL.into_iter().filter(has).collect();
        let mut groups: BTreeMap<u64, Vec<Row>> = BTreeMap::new();
        for cell in cells {
            let entries = columns.iter().map(|column| {
                let missing = || Entry {
                    median: "–".to_owned(),
                    ..Entry::default()
                };
                column.entry(results, cell).unwrap_or_else(missing)
            });
            groups.entry(cell.bytes).or_default().push(Row {
                route: cell.route.clone(),
                entries: entries.collect(),
            });
        }
        Self { columns, groups }
    }

    fn text(&self, width: usize) -> String {
        let mut ranged: Vec<bool> = vec![true; self.columns.len()];
        for dispensable in Column::DISPENSABLE {
            if self.width(&ranged) <= width {
                break;
            }
            let place = self
                .columns
                .iter()
                .position(|&column| column == dispensable);
            if let Some(place) = place {
                ranged[place] = false;
            }
        }
        if self.width(&ranged) <= width {
            self.grid(&ranged)
        } else {
            self.list()
        }
    }

    fn widths(&self, ranged: &[bool]) -> Vec<usize> {
        let of = |place: usize| {
            let rows = self.groups.values().flatten();
            let entries = rows.map(|row| {
                let entry = &row.entries[place];
                let range = entry.range.as_deref().filter(|_| ranged[place]);
                columns(&entry.median).max(range.map_or(0, columns))
            });
            let heading = columns(self.columns[place].heading());
            entries.max().unwrap_or(0).max(heading)
        };
        (0..self.columns.len()).map(of).collect()
    }

    fn name_width(&self) -> usize {
        let rows = self.groups.values().flatten();
        let routes = rows.map(|row| columns(&row.route));
        let sizes = self
            .groups
            .keys()
            .map(|&bytes| columns(&size::format(bytes)));
        routes.chain(sizes).max().unwrap_or(0)
    }

    fn width(&self, ranged: &[bool]) -> usize {
        let widths = self.widths(ranged);
        self.name_width() + widths.iter().sum::<usize>() + widths.len()
    }

    fn grid(&self, ranged: &[bool]) -> String {
        let widths = self.widths(ranged);
        let name = self.name_width();
        let mut text = format!("{DIM}{:name$}", "");
        for (column, &width) in self.columns.iter().zip(&widths) {
            let _ = write!(text, " {:>width$}", column.heading());
        }
        let _ = writeln!(text, "{DIM:#}");
        for (&bytes, rows) in &self.groups {
            let _ = writeln!(text, "{BOLD}{}{BOLD:#}", size::format(bytes));
            for row in rows {
                let _ = write!(text, "{:name$}", row.route);
                for (entry, &width) in row.entries.iter().zip(&widths) {
                    let style = if entry.is_slower {
                        SLOWER
                    } else {
                        Style::new()
                    };
                    let _ = write!(text, " {style}{:>width$}{style:#}", entry.median);
                }
                text.push('\n');
                text += &row.ranges(name, &widths, ranged);
            }
        }
        text
    }

    fn list(&self) -> String {
        let words = self.columns.iter().map(|column| columns(column.words()));
        let width = words.max().unwrap_or(0);
        let mut text = String::new();
        for (&bytes, rows) in &self.groups {
            for row in rows {
                let _ = writeln!(text, "{BOLD}{}, {}{BOLD:#}", size::format(bytes), row.route);
                for (column, entry) in self.columns.iter().zip(&row.entries) {
                    let _ = write!(text, "  {:width$} {:>6}", column.words(), entry.median);
                    if let Some(range) = &entry.range {
                        let _ = write!(text, "  {DIM}{range}{DIM:#}");
                    }
                    text.push('\n');
                }
            }
        }
        text
    }
}

impl Row {
    /// The line of ranges, if it says anything.
    fn ranges(&self, name: usize, widths: &[usize], ranged: &[bool]) -> String {
        let mut line = String::new();
        for ((entry, &width), &ranged) in self.entries.iter().zip(widths).zip(ranged) {
            let range = entry
                .range
                .as_deref()
                .filter(|_| ranged)
                .unwrap_or_default();
            let _ = write!(line, " {range:>width$}");
        }
        if line.trim().is_empty() {
            return String::new();
        }
        format!("{:name$}{DIM}{}{DIM:#}\n", "", line.trim_end())
    }
}

/// What the figures mean, how they were found, what is missing, and what the run was.
fn legend(results: &Results) -> Vec<String> {
    let mut lines = vec![format!(
        "Median and range of {} {}; GB = 1e9 bytes. GB/s: until the receiver has the last \
         byte. mover, receiver, feeder: CPU-seconds for a GB at that end; ×floor: the mover's, \
         divided by that of a bare loop of the same calls. calls, switch, faults: the mover's for a \
         GB. copies: times the CPU copied a byte at the mover's end.",
        results.rounds,
        if results.rounds == 1 {
            "round"
        } else {
            "rounds"
        }
    )];
    for figure in [
        Figure::MoverCpu,
        Figure::Calls,
        Figure::ContextSwitches,
        Figure::Copies,
        Figure::SampledCopies,
    ] {
        if let Some(found) = figure.found(results) {
            let sign = if figure == Figure::SampledCopies {
                "~"
            } else {
                ""
            };
            lines.push(format!(
                "{sign}{}: {} ({})",
                figure.label(),
                found.method,
                found.how
            ));
        } else if let Some(why) = results.missing.get(figure.key()) {
            lines.push(format!("{}: not measured ({why})", figure.label()));
        }
    }
    lines.extend(skipped(results));
    let host = &results.host;
    lines.push(format!(
        "Linux {}, {}, {} cores, files on {}; zhaul {}; seed {}; {:.0} s. Every cell's bytes were \
         compared.",
        host.kernel,
        host.cpu,
        host.cores,
        host.file_system,
        results.zhaul,
        results.seed,
        results.seconds
    ));
    lines.extend(results.notes.iter().cloned());
    if results.interrupted {
        lines.push("INTERRUPTED: cells lack rounds, or are missing.".to_owned());
    }
    lines
}

/// What did not run, with those that share a reason together.
fn skipped(results: &Results) -> Vec<String> {
    let mut by_reason: BTreeMap<(&str, Option<u64>), Vec<String>> = BTreeMap::new();
    for skipped in &results.skipped {
        let name = format!("{}, {}", skipped.path.label(), skipped.route);
        let reason = (skipped.why.as_str(), skipped.bytes);
        let names = by_reason.entry(reason).or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let lines = by_reason.into_iter().map(|((why, bytes), names)| {
        let size = bytes.map(|bytes| format!(" with {}", size::format(bytes)));
        format!(
            "not run: {}{}: {why}",
            names.join("; "),
            size.unwrap_or_default()
        )
    });
    lines.collect()
}

/// Lines broken between words, continued with an indent.
pub(super) fn wrap(lines: &[String], width: usize) -> String {
    let mut text = String::new();
    for line in lines {
        let mut used = 0;
        for word in line.split(' ') {
            let len = columns(word);
            if used > 0 && used + 1 + len > width {
                text += "\n  ";
                used = 2;
            } else if used > 0 {
                text.push(' ');
                used += 1;
            }
            text += word;
            used += len;
        }
        text.push('\n');
    }
    text
}

/// Every character here takes one column.
pub(super) fn columns(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
