//! The table of the literature: mode switches, CPU copies and DMA copies of each mechanism, what
//! the plan expects beside what was measured.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::checked::{Entry, ONE_CHUNK_BYTES, OwnCalls, Row, What};
use super::view::{PathView, name};
use super::words;
use crate::bench::results::Results;

/// The rows of one path.
type Group<'a> = (&'static str, Vec<Row<'a>>);

/// The usual size of the transfers that a column is about.
type Sizes = [Option<u64>; 3];

/// The table, with a remark on every deviation.
pub(super) fn section(results: &Results, views: &[PathView<'_>]) -> Markup {
    let groups: Vec<Group<'_>> = views
        .iter()
        .map(|view| {
            let rows = view
                .routes
                .iter()
                .filter_map(|route| Row::of(results, view, route));
            (view.path.label(), rows.collect())
        })
        .collect();
    html! {
        section #copies aria-labelledby="copies-title" {
            h2 #copies-title { "How often each byte is touched" }
            p {
                "Going into the kernel and back are two mode switches. A CPU copy moves each byte \
                through the processor; a DMA copy is made by a device without it. "
                strong { "Expected" } " is what zhaul's planner says before it moves anything; "
                strong { "measured" } " is what this run counted, with the way it was found. "
                b { "=" } " does not speak against that, " b.deviates { "≠" } " does in every pass: \
                by more than 5 % for mode switches and 1 % for copies. Sampled copies may be too \
                many by a factor of three, where memory is not in the caches, and too few without \
                bound: they tell copies from none."
            }
            @if !groups.is_empty() { (table(&groups)) }
            p.small {
                "The literature, for file → TCP: 4 mode switches and 2 CPU copies for read+write, 4 \
                and 1 for mmap+write, 2 and 1 for sendfile, 2 and 0 for sendfile with gather, no \
                copy for splice. It counts the mmap; here one mapping serves many chunks."
            }
            (deviations(&groups))
            @if let Some(sentence) = own_calls(&groups) { p { (sentence) } }
            (missing(results, &groups))
        }
    }
}

fn table(groups: &[Group<'_>]) -> Markup {
    let sizes = What::ALL.map(|what| {
        let entries = groups.iter().flat_map(|(_, rows)| rows);
        let measured = entries.filter_map(|row| row.entries[what as usize].measured);
        measured.map(|measured| measured.bytes).max()
    });
    let [switches, cpu, _] = sizes.map(|size| size.map(words::size));
    html! {
        div.scroll role="region" tabindex="0" aria-labelledby="copies-caption" {
            table.compare {
                caption #copies-caption {
                    "Mode switches for one transfer of one chunk"
                    @if let Some(size) = switches { " (" (size) ")" }
                    ", copies for each byte"
                    @if let Some(size) = cpu { " (transfers of " (size) ")" }
                }
                (heading())
                @for (path, rows) in groups {
                    tbody {
                        tr.group { th colspan="7" scope="rowgroup" { (path) } }
                        @for row in rows { (line(row, sizes)) }
                    }
                }
            }
        }
    }
}

fn heading() -> Markup {
    html! {
        thead {
            tr {
                th rowspan="2" scope="col" { "Mechanism" }
                @for what in What::ALL { th colspan="2" scope="colgroup" { (what.heading()) } }
            }
            tr {
                @for _ in What::ALL {
                    th scope="col" { "expected" }
                    th scope="col" { "measured" }
                }
            }
        }
    }
}

fn line(row: &Row<'_>, sizes: Sizes) -> Markup {
    html! {
        tr {
            th scope="row" { (row.route) }
            @for (entry, size) in row.entries.iter().zip(sizes) { (cells(entry, size)) }
        }
    }
}

fn cells(entry: &Entry, size: Option<u64>) -> Markup {
    let deviates = entry.deviates();
    html! {
        td.expected data-what=(entry.what.heading()) { (entry.expected) }
        td.measured.deviates[deviates] {
            @if let Some(measured) = &entry.measured {
                (sign(deviates)) " " (entry.what.in_words(measured.value))
                span.method { (measured.in_words(size)) }
                @if let Some(estimate) = &entry.estimate {
                    @let deviates = entry.is_off(estimate);
                    span.method.deviates[deviates] {
                        (sign(deviates)) " " (entry.what.in_words(estimate.value)) " "
                        (estimate.in_words(size))
                    }
                }
                @if let Some(other) = entry.other_if_telling() {
                    span.method { (name(other.of)) ": " (entry.what.in_words(other.value)) }
                }
            } @else {
                span.none { "not measured" }
            }
        }
    }
}

fn sign(deviates: bool) -> Markup {
    html! {
        @if deviates {
            b.sign title="deviates" { "≠" }
        } @else {
            span.sign title="as expected" { "=" }
        }
    }
}

/// What deviates from the plan, by what the figures say about it.
fn deviations(groups: &[Group<'_>]) -> Markup {
    let mut kinds: BTreeMap<&str, Vec<Markup>> = BTreeMap::new();
    for (path, row) in groups
        .iter()
        .flat_map(|(path, rows)| rows.iter().map(move |row| (path, row)))
    {
        for entry in row.entries.iter().filter(|entry| entry.deviates()) {
            let kind = kinds.entry(entry.explanation()).or_default();
            kind.push(deviation(path, row.route, entry));
        }
    }
    html! {
        @if groups.iter().flat_map(|(_, rows)| rows).all(|row| row.entries.iter().all(|entry| entry.what == What::Dma || entry.measured.is_none())) {
            p { "Neither calls nor copies were counted in this run." }
        } @else if kinds.is_empty() {
            p { "Nothing that was counted deviates from the plan." }
        } @else {
            h3 { "Where the run differs from the plan" }
            dl.deviations {
                @for (kind, deviations) in &kinds {
                    div {
                        dt { (kind) }
                        @for deviation in deviations { dd { (deviation) } }
                    }
                }
            }
        }
    }
}

fn deviation(path: &str, route: &str, entry: &Entry) -> Markup {
    html! {
        strong { (path) ", " (route) } ": "
        @if let Some(measured) = &entry.measured { (entry.what.in_words(measured.value)) }
        ", expected " (entry.expected)
        @if entry.what != What::Switches {
            @if let Some(other) = &entry.other {
                " (" (name(other.of)) " " (entry.what.in_words(other.value)) ")"
            }
        }
    }
}

/// What the library adds to the bare calls.
fn own_calls(groups: &[Group<'_>]) -> Option<String> {
    let range = |calls: fn(&OwnCalls) -> Option<f64>| {
        let rows = groups.iter().flat_map(|(_, rows)| rows);
        let calls: Vec<f64> = rows.filter_map(|row| calls(&row.own_calls)).collect();
        let least = calls.iter().copied().reduce(f64::min)?;
        let most = calls.into_iter().reduce(f64::max)?;
        let (least, most) = (words::rough(least), words::rough(most));
        Some(if least == most {
            least
        } else {
            format!("{least} to {most}")
        })
    };
    let per_transfer = range(|own| own.per_transfer)?;
    let and_per_mib = range(|own| own.per_mib).map_or_else(String::new, |calls| {
        format!(", and {calls} more for each MiB of large ones")
    });
    Some(format!(
        "Beside the calls that move bytes, zhaul makes {per_transfer} of its own for each \
         transfer, depending on path and route{and_per_mib}. Every cost of zhaul on this page \
         contains them."
    ))
}

fn missing(results: &Results, groups: &[Group<'_>]) -> Markup {
    let mut rows = groups.iter().flat_map(|(_, rows)| rows);
    let without_switches = rows.any(|row| row.entries[What::Switches as usize].measured.is_none());
    html! {
        p.small {
            "DMA is expected for bytes that come from a disk or go to a network device; what is in \
            memory already, or stays on the machine, needs none, and so it is in this run. What was \
            measured is what all disks and network devices of the machine moved meanwhile, for \
            whomever."
            @if without_switches {
                " Mode switches need a size of at most " (words::size(ONE_CHUNK_BYTES)) " in the run."
            }
            @if !results.missing.is_empty() {
                " Why other figures are missing is said under " a href="#methods" { "methods" } "."
            }
        }
    }
}
