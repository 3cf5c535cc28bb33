//! The measured figures beside the expected ones. Pure.

use std::collections::BTreeSet;

use super::layout::{Node, Tone};
use super::nodes::chunks;
use crate::explain::analysis::{Analysis, Figure};
use crate::explain::explanation::Explanation;
use crate::explain::tally::WAITING;
use crate::explain::units::{amount, amount_exactly, duration, grouped, significant};
use crate::figure::Method;

/// One figure of the table.
struct Row {
    what: String,
    expected: String,
    measured: String,
    how: String,
    /// Why there is no figure.
    missing: Option<String>,
}

pub(super) fn node(explanation: &Explanation, analysis: &Analysis, columns: usize) -> Node {
    let (end, tone) = if analysis.finished {
        ("done", Tone::Chosen)
    } else {
        ("stopped", Tone::Warning)
    };
    let differs = analysis.deviations.iter();
    let differs = differs.map(|text| Node::text(text).tone(Tone::Warning));
    let deviations = (!analysis.deviations.is_empty())
        .then(|| Node::text("differs from the plan").children(differs));
    Node::new(end, moved(analysis))
        .tone(tone)
        .child(Node::new("time", time(analysis)))
        .child(Node::new("CPU", cpu(analysis)))
        .child(Node::new("chunks", chunks(&explanation.expected)))
        .children(table(&rows(explanation, analysis), columns))
        .children(deviations)
}

fn moved(analysis: &Analysis) -> String {
    let bytes = amount_exactly(analysis.bytes);
    let lost = match analysis.stranded_bytes {
        0 => String::new(),
        lost => format!(", {} lost on the way", amount_exactly(lost)),
    };
    format!("{bytes} moved{lost}; ended by: {}", analysis.ending)
}

fn time(analysis: &Analysis) -> String {
    let speed = analysis.bytes as f64 / analysis.wall_s / 1e9;
    let speed = if analysis.bytes > 0 && speed.is_finite() {
        format!(", {} GB/s", significant(speed))
    } else {
        String::new()
    };
    let disturbed = if analysis.instruments.is_empty() {
        String::new()
    } else {
        format!(", slowed down by {}", analysis.instruments.join(" and "))
    };
    format!("{}{speed}{disturbed}", duration(analysis.wall_s))
}

fn rows(explanation: &Explanation, analysis: &Analysis) -> Vec<Row> {
    let expected = &explanation.expected;
    let bytes = |value: f64| amount(value as u64);
    let mut rows = vec![row(
        "mode switches a chunk",
        significant(expected.mode_switches_per_chunk),
        &analysis.mode_switches_per_chunk,
        significant,
    )];
    rows.extend(calls(explanation, analysis));
    rows.push(row(
        "CPU copies of a byte",
        expected.cpu_copies_per_byte.to_string(),
        &analysis.cpu_copies_per_byte,
        significant,
    ));
    if analysis.copying_time.value.is_some() {
        let percent = |value: f64| format!("{} %", significant(value * 100.0));
        rows.push(row(
            "CPU time in copies",
            unknown(),
            &analysis.copying_time,
            percent,
        ));
    }
    rows.push(row(
        "read from a disk",
        match (expected.dma.source_copies, expected.dma.source_bytes) {
            (0, _) => amount(0),
            (_, bytes) => bytes.map_or_else(unknown, amount),
        },
        &analysis.disk_read_bytes,
        bytes,
    ));
    if explanation.sink.file_system.is_some() {
        let to_disk = match (expected.dma.sink_copies, expected.bytes) {
            (0, _) => amount(0),
            (_, bytes) => bytes.map_or_else(unknown, amount),
        };
        rows.push(row(
            "left to be written",
            to_disk,
            &analysis.disk_write_bytes,
            bytes,
        ));
    }
    rows
}

/// Calls by name, where the kernel tells; else what the library counted.
fn calls(explanation: &Explanation, analysis: &Analysis) -> Vec<Row> {
    let expected = &explanation.expected;
    let planned = |count: Option<f64>| match (expected.bytes, count) {
        (None, _) => unknown(),
        (_, Some(count)) => grouped(count.round() as u64),
        (_, None) => "0".to_owned(),
    };
    let counted = |what: String, expected: String, count: u64| Row {
        what,
        expected,
        measured: grouped(count),
        how: Method::Exact.to_string(),
        missing: None,
    };
    let Some(by_name) = &analysis.calls.by_name else {
        let expected = planned(Some(expected.operations));
        return vec![counted(
            "library's operations".to_owned(),
            expected,
            analysis.calls.operations,
        )];
    };
    let names: BTreeSet<_> = expected.calls.keys().chain(by_name.keys()).collect();
    let moving = names
        .into_iter()
        .filter(|name| *name != WAITING)
        .map(|name| {
            let measured = by_name.get(name).copied().unwrap_or(0);
            counted(
                format!("- {name}"),
                planned(expected.calls.get(name).copied()),
                measured,
            )
        });
    let waiting = analysis.calls.waiting.filter(|&count| count > 0);
    let waiting = waiting.map(|count| counted("- poll, to wait".to_owned(), unknown(), count));
    let set_up = analysis.calls.set_up;
    let set_up = set_up.map(|count| counted("- before, to set up".to_owned(), unknown(), count));
    moving.chain(waiting).chain(set_up).collect()
}

fn unknown() -> String {
    "-".to_owned()
}

fn row(what: &str, expected: String, figure: &Figure, print: impl Fn(f64) -> String) -> Row {
    let row = Row {
        what: what.to_owned(),
        expected,
        measured: "missing".to_owned(),
        how: String::new(),
        missing: None,
    };
    match figure.value {
        Some(value) => Row {
            measured: match figure.plus_minus {
                Some(error) => format!("{value:.2} ±{error:.2}"),
                None => print(value),
            },
            how: figure
                .method
                .map_or_else(String::new, |method| method.to_string()),
            ..row
        },
        None => Row {
            missing: Some(
                figure
                    .missing
                    .clone()
                    .unwrap_or_else(|| "not measured".to_owned()),
            ),
            ..row
        },
    }
}

/// Columns where they fit; else each figure says by itself what was expected.
fn table(rows: &[Row], columns: usize) -> Vec<Node> {
    if columns < TABLE_COLUMNS {
        return rows.iter().map(sentence).collect();
    }
    let head = format!("{:>COLUMN$} {:>COLUMN$}", "planned", "measured");
    let head = Node::new(format!("{:WHAT$}", ""), head).tone(Tone::Quiet);
    let rows = rows.iter().map(|row| {
        let Row {
            what,
            expected,
            measured,
            how,
            missing,
        } = row;
        let text = format!("{expected:>COLUMN$} {measured:>COLUMN$}  {how}");
        Node::new(format!("{what:WHAT$}"), text)
            .verbatim()
            .children(missing.iter().map(|why| Node::text(why).tone(Tone::Quiet)))
    });
    std::iter::once(head.verbatim()).chain(rows).collect()
}

fn sentence(row: &Row) -> Node {
    let Row {
        what,
        expected,
        measured,
        how,
        missing,
    } = row;
    let how = if how.is_empty() {
        String::new()
    } else {
        format!(" ({how})")
    };
    let expected = match expected.as_str() {
        "-" => String::new(),
        expected => format!(", expected {expected}"),
    };
    Node::new(what, format!("{measured}{expected}{how}"))
        .children(missing.iter().map(|why| Node::text(why).tone(Tone::Quiet)))
}

fn cpu(analysis: &Analysis) -> String {
    let cost = &analysis.cost;
    let per_gb = analysis.cpu_s_per_gb.map_or_else(String::new, |seconds| {
        format!(", {} s/GB", significant(seconds))
    });
    format!(
        "{} user, {} kernel{per_gb}; {} voluntary and {} involuntary context switches; {} minor \
         and {} major faults (exact)",
        duration(cost.user_s),
        duration(cost.system_s),
        grouped(cost.voluntary_switches),
        grouped(cost.involuntary_switches),
        grouped(cost.minor_faults),
        grouped(cost.major_faults)
    )
}

/// From here on the figures stand in columns.
const TABLE_COLUMNS: usize = 72;

const WHAT: usize = 22;
const COLUMN: usize = 10;
