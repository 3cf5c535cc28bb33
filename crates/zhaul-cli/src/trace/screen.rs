//! The report as text, for terminals of 80 and of 40 columns.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use zhaul_measure::trace::{Blind, DeviceLine, FlowLine, Progress, Report, Summary};

use super::units::{bytes, number, percent};

/// How wide lines may be.
pub(super) fn columns() -> usize {
    let asked = std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.parse().ok());
    let terminal = || Some(usize::from(terminal_size::terminal_size()?.0.0));
    asked.or_else(terminal).unwrap_or(80).clamp(30, 120)
}

/// A line of figures while the trace goes on.
pub(super) struct Lines {
    columns: usize,
    last: Progress,
    printed: usize,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self {
            columns: columns(),
            last: Progress::default(),
            printed: 0,
        }
    }

    fn is_wide(&self) -> bool {
        self.columns >= WIDE
    }

    /// What happened since the last line, with a heading now and then.
    pub(super) fn line(&mut self, now: &Progress) -> String {
        let mut text = String::new();
        if self.printed.is_multiple_of(LINES_PER_HEADING) {
            text.push_str(&self.heading());
        }
        self.printed += 1;
        let span = now.seconds - self.last.seconds;
        let per_second = |now: u64, last: u64| rate(now.saturating_sub(last), span);
        let (sums, before) = (&now.sums, &self.last.sums);
        let moved = sums.moved() - before.moved();
        let copied = sums.copied - before.copied;
        let _ = write!(
            text,
            "{:>6} {:>9} {:>9} {:>8}",
            format!("{:.1}s", now.seconds),
            bytes(rate(moved, span)),
            bytes(rate(copied, span)),
            number(per_second(sums.calls, before.calls)),
        );
        if self.is_wide() {
            let (costs, old) = (&now.costs, &self.last.costs);
            let _ = write!(
                text,
                " {:>8} {:>9} {:>8} {:>6}",
                quotient(copied, moved),
                number(per_second(costs.mode_switches, old.mode_switches)),
                number(per_second(costs.context_switches, old.context_switches)),
                number(sums.lost - before.lost),
            );
        }
        text.push('\n');
        self.last = *now;
        text
    }

    fn heading(&self) -> String {
        let mut text = format!("{DIM}  time   moved/s  copied/s  calls/s");
        if self.is_wide() {
            text.push_str(" copies/B  modesw/s  ctxsw/s   lost");
        }
        let _ = writeln!(text, "{DIM:#}");
        text
    }
}

pub(super) fn rate(count: u64, seconds: f64) -> u64 {
    if seconds > 0.0 {
        (count as f64 / seconds).round() as u64
    } else {
        0
    }
}

fn quotient(copied: u64, moved: u64) -> String {
    match (copied, moved) {
        (_, 0) => "-".to_owned(),
        (0, _) => "0".to_owned(),
        _ => format!("{:.2}", copied as f64 / moved as f64),
    }
}

/// The whole report.
pub(super) fn report(report: &Report, what: &str) -> String {
    let columns = columns();
    let mut text = head(
        what,
        report.threads,
        report.processes,
        report.seconds,
        columns,
    );
    flows(&mut text, &report.summary, columns);
    calls(&mut text, &report.summary, columns);
    blind(&mut text, &report.summary.blind, columns);
    costs(&mut text, report, columns);
    machine(&mut text, &report.summary, columns);
    let lost = match report.summary.lost {
        0 => "No record was lost.".to_owned(),
        lost => format!(
            "{} records were lost: all figures but those of the kernel's own counters are too \
             low, and flows may be missing.",
            number(lost)
        ),
    };
    title(&mut text, "Notes");
    let style = if report.summary.lost > 0 {
        BAD
    } else {
        Style::new()
    };
    let _ = write!(text, "{style}{}{style:#}", wrap(&lost, "  ", "  ", columns));
    for note in &report.notes {
        text.push_str(&wrap(note, "  ", "  ", columns));
    }
    text
}

/// What was watched, and for how long.
pub(super) fn head(
    what: &str,
    threads: usize,
    processes: usize,
    seconds: f64,
    columns: usize,
) -> String {
    let threads = plural(threads, "thread");
    let processes = plural(processes, "process");
    let head = format!("{what}: {threads} in {processes}, {seconds:.2} s");
    wrap(&head, "", "  ", columns)
}

fn flows(text: &mut String, summary: &Summary, columns: usize) {
    title(text, "Flows");
    if summary.flows.is_empty() {
        text.push_str(if summary.hides_bytes() {
            "  ?\n"
        } else {
            "  none\n"
        });
    }
    let total: u64 = summary.flows.iter().map(|flow| flow.bytes).sum();
    let (large, small): (Vec<_>, Vec<_>) = summary
        .flows
        .iter()
        .partition(|flow| flow.bytes >= total / SMALL_PART);
    for flow in large {
        let style = match flow.copies_per_byte {
            Some(0.0) => GOOD,
            _ if flow.advice.is_some() => BAD,
            _ => Style::new(),
        };
        let line = format!("{}  {}", bytes(flow.bytes), flow.verdict);
        let wrapped = wrap(&line, "  ", "    ", columns);
        let _ = write!(text, "{style}{wrapped}{style:#}");
        if let Some(names) = names(flow) {
            let _ = write!(
                text,
                "{DIM}{}{DIM:#}",
                wrap(&names, "    ", "      ", columns)
            );
        }
        if flow.inferred_bytes > 0 {
            let note = format!(
                "{} of it inferred: no address says where it came from",
                bytes(flow.inferred_bytes)
            );
            text.push_str(&wrap(&note, "    ", "      ", columns));
        }
    }
    if !small.is_empty() {
        let sum = small.iter().map(|flow| flow.bytes).sum();
        let line = format!("{}  in {}", bytes(sum), plural(small.len(), "smaller flow"));
        let _ = write!(text, "{DIM}{}{DIM:#}", wrap(&line, "  ", "    ", columns));
    }
}

fn names(flow: &FlowLine) -> Option<String> {
    let list = |names: &[String], more| {
        let dots = if more { ", …" } else { "" };
        (!names.is_empty()).then(|| format!("{}{dots}", names.join(", ")))
    };
    let from = list(&flow.sources, flow.more_sources);
    let to = list(&flow.sinks, flow.more_sinks);
    match (from, to) {
        (Some(from), Some(to)) => Some(format!("{from} → {to}")),
        (Some(from), None) => Some(format!("from {from}")),
        (None, Some(to)) => Some(format!("to {to}")),
        (None, None) => None,
    }
}

fn calls(text: &mut String, summary: &Summary, columns: usize) {
    title(text, "System calls that move data");
    if summary.calls.is_empty() {
        text.push_str("  none\n");
        return;
    }
    let wide = columns >= WIDE;
    let name = summary.calls.iter().map(|line| line.name.len()).max();
    let name = name.unwrap_or(0).max(4);
    let _ = write!(
        text,
        "{DIM}  {:name$} {:>9} {:>9}",
        "call", "calls", "bytes"
    );
    if wide {
        let _ = write!(
            text,
            " {:>10} {:>8} {:>7}",
            "CPU copied", "not now", "failed"
        );
    }
    let _ = writeln!(text, "{DIM:#}");
    for line in &summary.calls {
        let moved = line.bytes.map_or("?".to_owned(), bytes);
        let _ = write!(
            text,
            "  {:name$} {:>9} {moved:>9}",
            line.name,
            number(line.calls)
        );
        if wide {
            let _ = write!(
                text,
                " {:>10} {:>8} {:>7}",
                line.copied_bytes.map_or("?".to_owned(), bytes),
                number(line.would_block),
                number(line.errors)
            );
        }
        text.push('\n');
    }
}

fn costs(text: &mut String, report: &Report, columns: usize) {
    let (summary, costs) = (&report.summary, &report.costs);
    title(text, "Cost");
    let copied = &summary.copied;
    let mut rows = vec![(
        "copied by the CPU".to_owned(),
        at_least(copied.value, summary.hides_bytes()),
        copied.method.to_string(),
    )];
    if summary.copied_elsewhere > 0 {
        let value = bytes(summary.copied_elsewhere);
        rows.push((
            "copied for other calls".to_owned(),
            value,
            "exact".to_owned(),
        ));
    }
    let mut exact = |what: &str, value: String| {
        rows.push((what.to_owned(), value, "exact".to_owned()));
    };
    exact("mode switches", number(costs.mode_switches));
    exact("context switches", number(costs.context_switches));
    exact("major faults", number(costs.major_faults));
    exact("page cache misses", number(summary.pages_missed));
    exact("CPU time", format!("{:.3} s", costs.cpu_ns as f64 / 1e9));
    if let Some(cpu) = &report.cpu {
        let share = percent(cpu.copying, cpu.samples);
        let how = format!("{}; of the CPU time", cpu.method);
        rows.push(("in copy routines".to_owned(), share, how));
    }
    self::rows(text, rows, columns);
}

/// A sum that leaves something out.
fn at_least(value: u64, more: bool) -> String {
    match (value, more) {
        (0, true) => "?".to_owned(),
        (_, true) => format!("≥ {}", bytes(value)),
        (_, false) => bytes(value),
    }
}

/// What is in none of the figures.
pub(super) fn blind(text: &mut String, blind: &[Blind], columns: usize) {
    if blind.is_empty() {
        return;
    }
    title(text, "Not seen");
    for blind in blind {
        let times = blind.times.map(|times| format!(" ({})", number(times)));
        let line = format!("?  {}{}", blind.what, times.unwrap_or_default());
        text.push_str(&wrap(&line, "  ", "     ", columns));
    }
}

/// Devices work for whomever, whoever is running: that is no process's own cost.
fn machine(text: &mut String, summary: &Summary, columns: usize) {
    let mut rows = Vec::new();
    for device in devices(&summary.block) {
        rows.extend(device.block_rows());
    }
    for device in devices(&summary.net).iter().filter(|device| device.traced) {
        rows.push(device.net_row());
    }
    if !rows.is_empty() {
        title(text, DEVICES);
        self::rows(text, rows, columns);
    }
}

pub(super) const DEVICES: &str = "Devices, for whomever they worked";

/// Figures: what, how much, and how it is known.
pub(super) fn rows(text: &mut String, rows: Vec<(String, String, String)>, columns: usize) {
    let labels = rows.iter().map(|(label, ..)| label.chars().count());
    let label = labels.max().unwrap_or(0);
    for (what, value, how) in rows {
        if columns >= WIDE {
            let line = format!("{what:label$} {value:>10}  {how}");
            let behind = " ".repeat(label + 15);
            text.push_str(&wrap(&line, "  ", &behind, columns));
        } else {
            text.push_str(&wrap(
                &format!("{what}: {value}, {how}"),
                "  ",
                "    ",
                columns,
            ));
        }
    }
}

/// A device with what it did while traced threads ran, and while others did.
struct Device<'a> {
    line: &'a DeviceLine,
    others: Option<&'a DeviceLine>,
    traced: bool,
}

/// Devices that had to do with what was traced come first; of the others nothing is shown unless
/// they may have worked for it later.
fn devices(lines: &[DeviceLine]) -> Vec<Device<'_>> {
    let mut devices: Vec<Device<'_>> = Vec::new();
    for line in lines.iter().filter(|line| line.by_traced) {
        let others = lines
            .iter()
            .find(|other| other.name == line.name && !other.by_traced);
        devices.push(Device {
            line,
            others,
            traced: true,
        });
    }
    for line in lines.iter().filter(|line| !line.by_traced) {
        if !devices.iter().any(|device| device.line.name == line.name) {
            devices.push(Device {
                line,
                others: None,
                traced: false,
            });
        }
    }
    devices
}

impl Device<'_> {
    fn others(&self, amount: impl Fn(&DeviceLine) -> u64) -> String {
        if !self.traced {
            return "while others ran".to_owned();
        }
        match self.others.map(amount) {
            None | Some(0) => "while these processes ran".to_owned(),
            Some(more) => format!(
                "while these processes ran; {} while others did",
                bytes(more)
            ),
        }
    }

    fn block_rows(&self) -> Vec<(String, String, String)> {
        let by = if self.line.is_virtual { "" } else { "DMA, " };
        let mut rows = Vec::new();
        let all =
            |amount: fn(&DeviceLine) -> u64| amount(self.line) + self.others.map_or(0, amount);
        if all(|line| line.bytes_in) > 0 {
            let how = self.others(|line| line.bytes_in);
            let value = bytes(self.line.bytes_in);
            rows.push((
                format!("from {}", self.line.name),
                value,
                format!("{by}{how}"),
            ));
        }
        if all(|line| line.bytes_out) > 0 {
            let how = self.others(|line| line.bytes_out);
            let value = bytes(self.line.bytes_out);
            rows.push((
                format!("to {}", self.line.name),
                value,
                format!("{by}{how}"),
            ));
        }
        rows
    }

    fn net_row(&self) -> (String, String, String) {
        let line = self.line;
        let by = if line.is_virtual { "no DMA" } else { "DMA" };
        let how = format!(
            "{} in page fragments; {by}, {}",
            percent(line.gathered_bytes, line.bytes_out),
            self.others(|line| line.bytes_out)
        );
        (format!("sent on {}", line.name), bytes(line.bytes_out), how)
    }
}

pub(super) fn title(text: &mut String, title: &str) {
    let _ = writeln!(text, "\n{BOLD}{title}{BOLD:#}");
}

pub(super) fn plural(count: usize, what: &str) -> String {
    match (count, what) {
        (1, _) => format!("1 {what}"),
        (_, "process") => format!("{count} processes"),
        _ => format!("{count} {what}s"),
    }
}

/// Breaks at blanks. The first line begins with `first`, the others with `others`. A word that is
/// longer than a line stays whole: a path is copied from the screen.
pub(super) fn wrap(text: &str, first: &str, others: &str, columns: usize) -> String {
    let mut wrapped = first.to_owned();
    let mut width = first.chars().count();
    let mut at_start = true;
    for word in text.split_inclusive(' ') {
        let length = word.trim_end().chars().count();
        if !at_start && width + length > columns {
            wrapped.truncate(wrapped.trim_end().len());
            wrapped.push('\n');
            wrapped.push_str(others);
            width = others.chars().count();
        }
        wrapped.push_str(word);
        width += word.chars().count();
        at_start = false;
    }
    wrapped.truncate(wrapped.trim_end().len());
    wrapped.push('\n');
    wrapped
}

/// Flows smaller than this part of all are added up in one line.
const SMALL_PART: u64 = 1000;
pub(super) const WIDE: usize = 72;
pub(super) const LINES_PER_HEADING: usize = 20;
const BOLD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_blanks_and_words_stay_whole() {
        assert_eq!(
            wrap("one two three", "  ", "    ", 10),
            "  one two\n    three\n"
        );
        assert_eq!(
            wrap("/a/very/long/path to", "", " ", 10),
            "/a/very/long/path\n to\n"
        );
        assert_eq!(wrap("", "", " ", 10), "\n");
    }

    #[test]
    fn quotients_of_nothing_are_not_numbers() {
        assert_eq!(quotient(0, 0), "-");
        assert_eq!(quotient(0, 5), "0");
        assert_eq!(quotient(10, 5), "2.00");
    }
}
