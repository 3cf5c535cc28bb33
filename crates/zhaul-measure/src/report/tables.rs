//! All figures: a table for each path, a row for each size, route and contender.

use maud::{Markup, html};

use super::view::{Count, Metric, PathView, count, method, name, values};
use super::words::{self, MISSING};
use crate::bench::results::{Cell, Contender, Results};
use crate::stats::Spread;

/// A column: its heading, its unit, and the name under which its method is recorded.
struct Column {
    heading: &'static str,
    unit: &'static str,
    found: &'static str,
    value: Value,
}

#[derive(Clone, Copy)]
enum Value {
    Timed(Metric),
    Counted(Count),
    OverBare,
}

const COLUMNS: [Column; 15] = [
    column("Speed", "GB/s", "wall_s", Value::Timed(Metric::GbPerSecond)),
    column(
        "CPU, mover",
        "s/GB",
        "user_s",
        Value::Timed(Metric::MoverCpu),
    ),
    column("CPU, mover", "× bare calls", "user_s", Value::OverBare),
    column(
        "CPU, receiver",
        "s/GB",
        "user_s",
        Value::Timed(Metric::ReceiverCpu),
    ),
    column(
        "CPU, feeder",
        "s/GB",
        "user_s",
        Value::Timed(Metric::FeederCpu),
    ),
    column(
        "CPU copies",
        "per byte",
        "copied_bytes",
        Value::Counted(Count::Copies),
    ),
    column(
        "System calls",
        "per GB",
        "calls",
        Value::Counted(Count::CallsPerGb),
    ),
    column(
        "Switches, waiting",
        "per GB",
        "voluntary_switches",
        Value::Timed(Metric::VoluntarySwitches),
    ),
    column(
        "Switches, pushed off",
        "per GB",
        "involuntary_switches",
        Value::Timed(Metric::InvoluntarySwitches),
    ),
    column(
        "Faults, minor",
        "per GB",
        "minor_faults",
        Value::Timed(Metric::MinorFaults),
    ),
    column(
        "Faults, major",
        "per GB",
        "major_faults",
        Value::Timed(Metric::MajorFaults),
    ),
    column(
        "DMA, machine",
        "per byte",
        "dma_bytes",
        Value::Timed(Metric::DmaPerByte),
    ),
    column(
        "Interrupts, machine",
        "per GB",
        "interrupts",
        Value::Timed(Metric::Interrupts),
    ),
    column(
        "Softirqs, machine",
        "per GB",
        "softirqs",
        Value::Timed(Metric::Softirqs),
    ),
    column(
        "Sampled copies",
        "per byte",
        "sampled_copies_per_byte",
        Value::Counted(Count::SampledCopies),
    ),
];

const fn column(
    heading: &'static str,
    unit: &'static str,
    found: &'static str,
    value: Value,
) -> Column {
    Column {
        heading,
        unit,
        found,
        value,
    }
}

/// A table for each path, folded up.
pub(super) fn section(results: &Results, views: &[PathView<'_>]) -> Markup {
    html! {
        section.wide #figures aria-labelledby="figures-title" {
            h2 #figures-title { "All figures" }
            p {
                "Medians over the rounds, with the lowest and the highest below. A dash: not \
                measured. "
                b.deviates { "unverified" } ": the bytes received were not compared with those sent."
            }
            @for view in views { (folded(results, view)) }
        }
    }
}

fn folded(results: &Results, view: &PathView<'_>) -> Markup {
    let label = view.path.label();
    let id = view.path as usize;
    let columns: Vec<&Column> = COLUMNS
        .iter()
        .filter(|column| {
            let mut cells = view.cells();
            cells.any(|cell| figure(view, cell, column.value).is_some())
        })
        .collect();
    html! {
        details.figures {
            summary { h3 { (label) } " " (words::counted(view.cells().count() as u64, "row")) }
            div.scroll role="region" tabindex="0" aria-labelledby={ "figures-" (id) } {
                table.figures {
                    caption id={ "figures-" (id) } {
                        (label) ": cost of the moving end by size, route and contender"
                    }
                    (heading(results, &columns))
                    @for &bytes in &view.sizes {
                        tbody {
                            tr.group { th colspan=(columns.len() + 2) scope="rowgroup" { (words::size(bytes)) } }
                            @for route in &view.routes {
                                @for contender in [Contender::Zhaul, Contender::Floor] {
                                    @if let Some(cell) = view.cell(route, contender, bytes) {
                                        (row(results, view, cell, &columns))
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn heading(results: &Results, columns: &[&Column]) -> Markup {
    html! {
        thead {
            tr {
                th scope="col" { "Route" }
                @for column in columns {
                    th scope="col" {
                        (column.heading)
                        span.unit { (column.unit) }
                        @if let Some(method) = method(results, column.found) { span.method { (method) } }
                    }
                }
                th scope="col" { "Rounds" }
            }
        }
    }
}

fn row(results: &Results, view: &PathView<'_>, cell: &Cell, columns: &[&Column]) -> Markup {
    html! {
        tr.floor[cell.contender == Contender::Floor] {
            th scope="row" {
                (cell.route) span.method { (name(cell.contender)) }
                @if !cell.verified { span.method.deviates { "unverified" } }
            }
            @for column in columns {
                td {
                    @match figure(view, cell, column.value) {
                        Some(spread) => {
                            (words::number(spread.median))
                            @if let Some(range) = words::range(spread) { span.range { (range) } }
                        },
                        None => (MISSING),
                    }
                }
            }
            td {
                (cell.samples.len())
                @if cell.samples.len() < results.rounds as usize {
                    span.method.deviates { "of " (results.rounds) }
                }
            }
        }
    }
}

fn figure(view: &PathView<'_>, cell: &Cell, value: Value) -> Option<Spread> {
    match value {
        Value::Timed(metric) => {
            Spread::of(values(cell, metric).into_iter().map(|(_, value)| value))
        }
        Value::Counted(what) => count(cell, what),
        Value::OverBare if cell.contender == Contender::Floor => None,
        Value::OverBare => {
            let bare = view.cell(&cell.route, Contender::Floor, cell.bytes)?;
            Spread::ratio(
                &values(cell, Metric::MoverCpu),
                &values(bare, Metric::MoverCpu),
            )
        }
    }
}
