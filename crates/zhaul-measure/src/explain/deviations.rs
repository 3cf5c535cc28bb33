//! Where a run differs from its plan, and why. Pure.

use zhaul::Route;

use crate::figure::Method;
use crate::perf::least;

use super::analysis::Analysis;
use super::explanation::Explanation;
use super::tally::WAITING;
use super::units::{amount, grouped, significant};

/// One sentence for each difference worth a word.
pub(crate) fn deviations(explanation: &Explanation, analysis: &Analysis) -> Vec<String> {
    let mut found = Vec::new();
    for change in &analysis.changes {
        found.push(format!(
            "{} was left for {} after {}: {}",
            change.from,
            change.to,
            amount(change.at_bytes),
            change.why
        ));
    }
    if !analysis.finished {
        found.push("it ended early; the plan is for the whole of it".to_owned());
    }
    found.extend(calls(explanation, analysis));
    found.extend(copies(explanation, analysis));
    found.extend(disk(explanation, analysis));
    if analysis.grew {
        found.push("the source grew meanwhile; the length that was planned was moved".to_owned());
    }
    found
}

/// The call that was made more often than planned, and by how much.
fn calls(explanation: &Explanation, analysis: &Analysis) -> Option<String> {
    let by_name = analysis.calls.by_name.as_ref()?;
    let measured = analysis.calls_per_chunk.value?;
    let expected = explanation.expected.calls_per_chunk;
    let size_is_known = explanation.expected.bytes == Some(analysis.bytes);
    if !size_is_known || !analysis.finished || measured <= expected * 1.05 + 0.05 {
        return None;
    }
    let excess = |name: &str, count: u64| {
        let planned = explanation.expected.calls.get(name).copied().unwrap_or(0.0);
        count as f64 - planned
    };
    let (name, &count) = by_name
        .iter()
        .filter(|(name, _)| *name != WAITING)
        .max_by(|a, b| excess(a.0, *a.1).total_cmp(&excess(b.0, *b.1)))?;
    let planned = explanation.expected.calls.get(name).copied().unwrap_or(0.0);
    let waits = analysis.calls.waiting.unwrap_or(0);
    // Through a pipe each byte takes two calls, so a mean would mean nothing.
    let mean = (name != "splice").then(|| analysis.bytes / count.max(1));
    let mut because = match mean {
        Some(bytes) => format!("{} went at a time", amount(bytes)),
        None => "an end gave or took less than it was asked".to_owned(),
    };
    if waits > 0 {
        because.push_str(&format!(", and it waited {} times", grouped(waits)));
    }
    Some(format!(
        "{} {name} instead of {}: {because}",
        grouped(count),
        significant(planned)
    ))
}

fn copies(explanation: &Explanation, analysis: &Analysis) -> Option<String> {
    let measured = analysis.cpu_copies_per_byte.value?;
    let expected = f64::from(explanation.expected.cpu_copies_per_byte);
    if analysis.copied.is_some_and(|copied| copied.lost > 0) {
        return Some("copies were missed, so the count of copied bytes is too low".to_owned());
    }
    if !excludes(analysis, measured, expected) {
        return None;
    }
    let why = if !analysis.changes.is_empty() {
        "the route changed"
    } else if measured > expected {
        "the kernel copied where the plan saw no need"
    } else {
        "the kernel spared itself a copy"
    };
    Some(format!(
        "{} CPU copies of each byte instead of {}: {why}",
        significant(measured),
        significant(expected)
    ))
}

/// Whether the figure cannot be what was planned. Estimates and counts that leave buffers out may be
/// too low: they speak against a plan of fewer copies only.
fn excludes(analysis: &Analysis, measured: f64, expected: f64) -> bool {
    const TOLERANCE: f64 = 0.02;
    let figure = &analysis.cpu_copies_per_byte;
    let leaves_out = analysis
        .copied
        .is_some_and(|copied| copied.unsized_buffers > 0);
    let (low, high) = match figure.method {
        Some(Method::ByCall) => (measured, measured),
        Some(Method::Exact) if !leaves_out => (measured, measured),
        Some(Method::Exact) => (measured, f64::INFINITY),
        _ => {
            let plus_minus = figure.plus_minus.unwrap_or(f64::INFINITY);
            (least(measured, plus_minus), f64::INFINITY)
        }
    };
    expected < low - TOLERANCE || expected > high + TOLERANCE
}

/// Reading ahead takes more than was asked for, and others may have read it meanwhile.
fn disk(explanation: &Explanation, analysis: &Analysis) -> Option<String> {
    let read = analysis.disk_read_bytes.value?;
    let expected = explanation.expected.dma.source_bytes? as f64;
    let worth_a_word = 1_048_576.0_f64.max(expected * 0.1);
    if (read - expected).abs() < worth_a_word {
        return None;
    }
    let why = match (read > expected, &explanation.plan.route) {
        (true, route) if *route == Route::CopyFileRange.name() => {
            "the file system read what it needed for the sink, too"
        }
        (true, _) => "the kernel read ahead, or dropped pages again",
        (false, _) => "the rest was in memory by then, or has no blocks on the disk",
    };
    Some(format!(
        "{} read from the disk instead of {}: {why}",
        amount(read as u64),
        amount(expected as u64)
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::explain::analysis::{Change, Figure};
    use crate::explain::sample;

    fn told(explanation: &Explanation, change: impl FnOnce(&mut Analysis)) -> Vec<String> {
        let mut analysis = sample::analysis();
        change(&mut analysis);
        deviations(explanation, &analysis)
    }

    #[test]
    fn a_run_as_planned_needs_no_word() {
        assert_eq!(told(&sample::sendfile(), |_| {}), Vec::<String>::new());
    }

    #[test]
    fn short_calls_are_told_with_their_size_and_the_waiting() {
        let told = told(&sample::sendfile(), |analysis| {
            let calls = [("fstat", 4), ("sendfile", 12), ("poll", 9)];
            let calls: BTreeMap<_, _> = calls.map(|(name, n)| (name.to_owned(), n)).into();
            analysis.calls.by_name = Some(calls);
            analysis.calls.waiting = Some(9);
            analysis.calls_per_chunk = Figure::found(16.0 / 3.0, Method::Exact, "");
        });
        assert_eq!(
            told,
            ["12 sendfile instead of 3: 256 KiB went at a time, and it waited 9 times"]
        );
    }

    #[test]
    fn a_change_of_route_comes_first_with_its_reason() {
        let told = told(&sample::sendfile(), |analysis| {
            analysis.changes.push(Change {
                from: "sendfile".to_owned(),
                to: "read+write".to_owned(),
                at_bytes: 4096,
                why: "sendfile: invalid argument (EINVAL)".to_owned(),
            });
            analysis.cpu_copies_per_byte = Figure::found(1.9, Method::Exact, "");
        });
        assert_eq!(
            told,
            [
                "sendfile was left for read+write after 4,096 bytes: sendfile: invalid argument \
                 (EINVAL)",
                "1.9 CPU copies of each byte instead of 0: the route changed"
            ]
        );
    }

    #[test]
    fn samples_speak_only_against_a_plan_that_they_exclude() {
        let mut twice = sample::sendfile();
        twice.expected.cpu_copies_per_byte = 2;
        let said = |explanation: &Explanation, figure: Figure| {
            told(explanation, |analysis| {
                analysis.cpu_copies_per_byte = figure;
                analysis.copied = None;
            })
        };
        let nothing = Vec::<String>::new();
        // Biased low, whatever the error says.
        assert_eq!(said(&twice, Figure::estimated(1.1, 0.1, "")), nothing);
        assert_eq!(said(&twice, Figure::estimated(2.4, 0.5, "")), nothing);
        assert_eq!(said(&twice, Figure::estimated(2.2, 0.01, "")), nothing);
        let none = sample::sendfile();
        assert_eq!(said(&none, Figure::estimated(0.5, 0.1, "")), nothing);
        assert_eq!(said(&none, Figure::estimated(1.1, 0.1, "")).len(), 1);
        let spared = said(&twice, Figure::found(1.0, Method::Exact, ""));
        assert!(
            spared[0].ends_with("the kernel spared itself a copy"),
            "{spared:?}"
        );
        // What is left out of an exact count may be the rest.
        let partly = told(&twice, |analysis| {
            analysis.cpu_copies_per_byte = Figure::found(1.0, Method::Exact, "");
            analysis.copied = Some(crate::explain::CopiedBytes {
                unsized_buffers: 1,
                ..Default::default()
            });
        });
        assert_eq!(partly, nothing);
    }

    #[test]
    fn what_the_disk_gave_is_compared_with_what_was_not_in_memory() {
        let more = told(&sample::sendfile(), |analysis| {
            analysis.disk_read_bytes = Figure::found(8_388_608.0, Method::Exact, "");
        });
        assert_eq!(
            more,
            [
                "8 MiB read from the disk instead of 0 bytes: the kernel read ahead, or dropped pages again"
            ]
        );
        let mut cold = sample::sendfile();
        cold.expected.dma.source_bytes = Some(3 << 20);
        let less = told(&cold, |_| {});
        assert!(
            less[0].starts_with("0 bytes read from the disk instead of 3 MiB: "),
            "{less:?}"
        );
    }

    #[test]
    fn an_early_end_and_lost_events_are_told() {
        let told = told(&sample::sendfile(), |analysis| {
            analysis.finished = false;
            analysis.copied = Some(crate::explain::CopiedBytes {
                lost: 3,
                ..Default::default()
            });
            analysis.grew = true;
        });
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[1].contains("too low"), "{told:?}");
    }
}
