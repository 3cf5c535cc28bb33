//! The report of `--count` as text.

use std::fmt::Write as _;

use zhaul_measure::Method;
use zhaul_measure::trace::{COST_PERCENT, CountReport, Counted};

use super::screen::{DIM, LINES_PER_HEADING, WIDE, columns, head, rate, rows, title, wrap};
use super::units::{number, percent};

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
                shown(|counted| counted.packets_gathered + counted.packets_linear),
                shown(|counted| counted.packets_gathered),
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
    title(&mut text, "Cost");
    let method = counted.method.to_string();
    let running = format!("{method}; while these processes ran");
    let row = |what: &str, value: String, how: &str| (what.to_owned(), value, how.to_owned());
    let lines = vec![
        row("mode switches", number(counted.mode_switches), &method),
        row(
            "context switches",
            number(counted.context_switches),
            &method,
        ),
        row("major faults", number(counted.major_faults), &method),
        row(
            "page cache additions",
            number(counted.page_cache_adds),
            &method,
        ),
        row("block requests", number(counted.block_requests), &running),
        row(
            "packets, gathered",
            number(counted.packets_gathered),
            &running,
        ),
        row("packets, linear", number(counted.packets_linear), &running),
        row(
            "CPU time",
            format!("{:.3} s", counted.cpu_ns as f64 / 1e9),
            &method,
        ),
    ];
    rows(&mut text, lines, columns);
    title(&mut text, "Notes");
    let note = "Only counted: how many bytes went where, and how often they were copied, is seen \
                without --count. Gathered packets carry payload in page fragments.";
    text.push_str(&wrap(note, "  ", "  ", columns));
    if counted.method != Method::Exact {
        let share = percent(
            (1000.0 * counted.counted_seconds) as u64,
            (1000.0 * counted.seconds) as u64,
        );
        let note = format!(
            "Counted during {share} of the time, and estimated between, since counting all of it \
             would have cost more than {COST_PERCENT} % of the CPU time."
        );
        text.push_str(&wrap(&note, "  ", "  ", columns));
    }
    text
}
