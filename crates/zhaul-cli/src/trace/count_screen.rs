//! The report of `--count` as text.

use std::fmt::Write as _;

use zhaul_measure::trace::{CountReport, Counted};

use super::screen::{
    DEVICES, DIM, LINES_PER_HEADING, WIDE, blind, columns, head, rate, rows, title, wrap,
};
use super::units::number;

/// A line of counts while the trace goes on.
pub(super) struct CountLines {
    columns: usize,
    last: Option<Counted>,
    printed: usize,
}

impl CountLines {
    pub(super) fn new() -> Self {
        Self {
            columns: columns(),
            last: None,
            printed: 0,
        }
    }

    /// What happened since the last line, with a heading now and then.
    pub(super) fn line(&mut self, now: Counted) -> String {
        let wide = self.columns >= WIDE;
        let mut text = String::new();
        if self.printed.is_multiple_of(LINES_PER_HEADING) {
            let _ = write!(text, "{DIM}  time   calls/s  ctxsw/s");
            if wide {
                text.push_str("   CPU  packets/s  of them gathered  most frequent");
            }
            let _ = writeln!(text, "{DIM:#}");
        }
        self.printed += 1;
        let last = self.last.as_ref();
        let seconds = now.seconds - last.map_or(0.0, |last| last.seconds);
        let shown = |of: fn(&Counted) -> u64| {
            let since = of(&now).saturating_sub(last.map_or(0, of));
            number(rate(since, seconds))
        };
        let _ = write!(
            text,
            "{:>6} {:>9} {:>8}",
            format!("{:.1}s", now.seconds),
            shown(all_calls),
            shown(|counted| counted.context_switches),
        );
        if wide {
            let cpu_ns = now
                .cpu_ns
                .saturating_sub(last.map_or(0, |last| last.cpu_ns));
            let cpu = format!("{:.0}%", cpu_ns as f64 / 1e7 / seconds);
            let _ = write!(
                text,
                " {cpu:>5} {:>10} {:>17}  {}",
                shown(|counted| {
                    counted.packets_gathered.unwrap_or(0) + counted.packets_linear.unwrap_or(0)
                }),
                shown(|counted| counted.packets_gathered.unwrap_or(0)),
                now.calls.first().map_or("-", |line| &line.name),
            );
        }
        text.push('\n');
        self.last = Some(now);
        text
    }
}

fn all_calls(counted: &Counted) -> u64 {
    counted.calls.iter().map(|line| line.calls).sum()
}

/// The whole report.
pub(super) fn report(report: &CountReport, what: &str) -> String {
    let columns = columns();
    let counted = &report.counted;
    let mut text = head(
        what,
        report.threads,
        report.processes,
        counted.seconds,
        columns,
    );
    title(&mut text, "System calls that move data");
    if counted.calls.is_empty() {
        text.push_str("  none\n");
    } else {
        let name = counted.calls.iter().map(|line| line.name.len()).max();
        let name = name.unwrap_or(0).max(4);
        let _ = writeln!(
            text,
            "{DIM}  {:name$} {:>11} {:>9}{DIM:#}",
            "call", "calls", "a second"
        );
        for line in &counted.calls {
            let a_second = number(rate(line.calls, counted.seconds));
            let calls = number(line.calls);
            let _ = writeln!(text, "  {:name$} {calls:>11} {a_second:>9}", line.name);
        }
    }
    blind(&mut text, &report.blind, columns);
    title(&mut text, "Cost");
    let method = counted.method.to_string();
    let row = |what: &str, value: String, how: &str| (what.to_owned(), value, how.to_owned());
    let exact = |what: &str, value: u64| row(what, number(value), &method);
    let mut lines = vec![
        exact("mode switches", counted.mode_switches),
        exact("context switches", counted.context_switches),
        exact("major faults", counted.major_faults),
    ];
    lines.extend(
        counted
            .page_cache_adds
            .map(|adds| exact("page cache additions", adds)),
    );
    let cpu = format!("{:.3} s", counted.cpu_ns as f64 / 1e9);
    lines.push(row("CPU time", cpu, &method));
    rows(&mut text, lines, columns);
    let devices = [
        ("block requests", counted.block_requests),
        ("packets, gathered", counted.packets_gathered),
        ("packets, linear", counted.packets_linear),
    ];
    let devices: Vec<_> = devices
        .iter()
        .filter_map(|&(what, count)| Some(row(what, number(count?), "while these processes ran")))
        .collect();
    if !devices.is_empty() {
        title(&mut text, DEVICES);
        rows(&mut text, devices, columns);
    }
    title(&mut text, "Notes");
    let note = "Only counted: how many bytes went where, and how often they were copied, is seen \
                without --count. Gathered packets carry payload in page fragments.";
    text.push_str(&wrap(note, "  ", "  ", columns));
    text
}
