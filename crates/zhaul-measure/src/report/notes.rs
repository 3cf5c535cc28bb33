//! What was left out and why, how figures were found, how to read them, the machine and the
//! settings, and the raw data.

use maud::{Markup, PreEscaped, html};

use super::view::FEWEST_ROUNDS;
use super::words;
use crate::bench::results::Results;

/// Everything below the tables. `json` goes into a script element as it is.
pub(super) fn sections(results: &Results, json: &str) -> Markup {
    html! {
        (skipped(results))
        (methods(results))
        (how_to_read(results.rounds))
        (machine(results))
        (raw(json))
    }
}

fn skipped(results: &Results) -> Markup {
    html! {
        section #skipped aria-labelledby="skipped-title" {
            h2 #skipped-title { "What did not run" }
            @if results.skipped.is_empty() {
                p { "Everything that was asked for ran." }
            } @else {
                table.words {
                    caption { "Combinations that did not run, and why" }
                    thead {
                        tr {
                            th scope="col" { "Path" }
                            th scope="col" { "Route" }
                            th scope="col" { "Size" }
                            th scope="col" { "Why" }
                        }
                    }
                    tbody {
                        @for skipped in &results.skipped {
                            tr {
                                th scope="row" { (skipped.path.label()) }
                                td data-what="Route" { (skipped.route) }
                                td data-what="Size" {
                                    (skipped.bytes.map_or_else(|| "all".to_owned(), words::size))
                                }
                                td data-what="Why" { (skipped.why) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn methods(results: &Results) -> Markup {
    html! {
        section #methods aria-labelledby="methods-title" {
            h2 #methods-title { "How the figures were found" }
            dl.kinds {
                div { dt { "exact" } dd { "every event was counted" } }
                div { dt { "by call" } dd { "added up from what system calls returned, each of which copies what it says by its contract; what the kernel did inside was not seen" } }
                div { dt { "sampled" } dd { "estimated from samples" } }
                div { dt { "from the plan" } dd { "expected before anything moved: not a measurement" } }
            }
            @if results.methods.is_empty() {
                p { "The run did not record its methods." }
            } @else {
                table.words {
                    caption { "Method of each figure" }
                    thead { tr { th scope="col" { "Figure" } th scope="col" { "Method" } th scope="col" { "How" } } }
                    tbody {
                        @for (figure, found) in &results.methods {
                            tr {
                                th scope="row" { code { (figure) } }
                                td data-what="Method" { (found.method) }
                                td data-what="How" { (found.how) }
                            }
                        }
                    }
                }
            }
            @if !results.missing.is_empty() {
                table.words {
                    caption { "Figures that could not be had in this run" }
                    thead { tr { th scope="col" { "Figure" } th scope="col" { "Why" } } }
                    tbody {
                        @for (figure, why) in &results.missing {
                            tr {
                                th scope="row" { code { (figure) } }
                                td data-what="Why" { (why) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Of how many comparisons of equal things one shows ranges apart: two of all orders in which the
/// rounds of both can come.
fn one_in(rounds: u32) -> f64 {
    let orders: f64 = (1..=rounds)
        .map(|step| f64::from(rounds + step) / f64::from(step))
        .product();
    orders / 2.0
}

fn how_to_read(rounds: u32) -> Markup {
    html! {
        section #reading aria-labelledby="reading-title" {
            h2 #reading-title { "How to read this" }
            ul {
                li { "A figure is the median over the rounds; its range is the lowest and the highest \
                     round. Two figures whose ranges overlap are called " em { "no difference" } ", \
                     however far apart their medians are."
                     @if (FEWEST_ROUNDS as u32..100).contains(&rounds) {
                         " By chance alone, the ranges of two equal things lie apart in one of "
                         (words::grouped(one_in(rounds).round() as u64)) " comparisons of "
                         (rounds) " rounds."
                     }
                }
                li { "Combinations ran in random order, so that a disturbance does not fall on one of \
                     them alone. Ratios compare medians; their ranges compare within single rounds." }
                li { "Timed passes carry no instrument. Calls, copies and samples come from passes of \
                     their own." }
                li { "Speed on one machine contains the receiver's work on the same CPUs. CPU-seconds \
                     do not: they are the account that the kernel keeps for one thread. That is why \
                     they, and not speed, are in the pictures." }
                li { "Bare calls are the same system calls in a loop that does nothing else: what is \
                     above them is the library's own cost." }
                li { "GB is 10" sup { "9" } " bytes. KiB, MiB and GiB are powers of 1024." }
            }
        }
    }
}

fn machine(results: &Results) -> Markup {
    let host = &results.host;
    let facts = [
        ("Processor", host.cpu.clone()),
        ("Cores", host.cores.to_string()),
        ("Memory", format!("{} MiB", words::grouped(host.memory_mib))),
        ("Kernel", host.kernel.clone()),
        ("File system", host.file_system.clone()),
        ("Load at the start", host.load.clone()),
        ("zhaul", results.zhaul.clone()),
        ("Began", words::moment(&results.began)),
        ("Took", words::duration(results.seconds)),
        ("Rounds", results.rounds.to_string()),
        (
            "Bytes for a system call at most",
            words::size(results.chunk_bytes),
        ),
        ("Seed of the random order", results.seed.to_string()),
        ("Format of the results", results.format.to_string()),
    ];
    html! {
        section #machine aria-labelledby="machine-title" {
            h2 #machine-title { "Machine and settings" }
            dl.facts {
                @for (fact, value) in &facts { div { dt { (fact) } dd { (value) } } }
            }
            @if !results.notes.is_empty() {
                ul { @for note in &results.notes { li { (note) } } }
            }
        }
    }
}

fn raw(json: &str) -> Markup {
    html! {
        section #raw aria-labelledby="raw-title" {
            h2 #raw-title { "Raw data" }
            p {
                "Every sample, as " code { "zhaul bench --json" } " writes it, is part of this page. "
                a #download download="zhaul-bench.json" hidden { "Download the JSON" }
            }
            details {
                summary { "Show the JSON" }
                // Shown by the style sheet: nobody needs a script to read or copy it.
                script #results type="application/json" { (PreEscaped(json)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_of_ranges_apart_is_two_of_all_orders() {
        assert!((one_in(3) - 10.0).abs() < 1e-9);
        assert!((one_in(5) - 126.0).abs() < 1e-9);
    }
}
