//! From what the instruments saw to the figures of an [`Analysis`].

use std::collections::BTreeMap;

use zhaul::{Cause, Ending, Route, Summary};

use super::analysis::{Analysis, Calls, Change, CopiedBytes, Figure};
use super::explanation::Explanation;
use super::instruments::{Disk, Instruments, Seen};
use super::tally::WAITING;
use super::yardstick;
use crate::bench::results::Part;
use crate::figure::Method;
use crate::perf::{CopyTime, Samples};

/// What a run cost. The deviations are left to be found.
pub(crate) fn analysis(
    explanation: &Explanation,
    summary: &Summary,
    cause: Option<Cause>,
    rehearsal: &Seen,
    seen: &Seen,
) -> Analysis {
    let bytes = summary.moved;
    let ending = match (cause, summary.ending) {
        (Some(cause), _) => cause.to_string(),
        (None, Some(Ending::SourceEnd)) => "the end of the source".to_owned(),
        (None, _) => "the length asked for".to_owned(),
    };
    let whole = explanation.expected.bytes == Some(bytes);
    let chunks = explanation.expected.chunks.filter(|_| whole);
    let chunks = chunks.unwrap_or_else(|| bytes.div_ceil(explanation.expected.chunk_bytes.max(1)));
    let calls = calls(summary, rehearsal, seen);
    let per_chunk = calls_per_chunk(&calls, summary, chunks, seen);
    Analysis {
        finished: cause.is_none(),
        ending,
        bytes,
        stranded_bytes: summary.stranded,
        grew: summary.grew,
        wall_s: seen.wall_s,
        instruments: Vec::new(),
        route: summary.route.name().to_owned(),
        changes: Change::all_of(summary),
        calls,
        mode_switches_per_chunk: Figure {
            value: per_chunk.value.map(|calls| 2.0 * calls),
            ..per_chunk.clone()
        },
        calls_per_chunk: per_chunk,
        cpu_copies_per_byte: copies_per_byte(explanation, summary, seen),
        copied: seen.copied.as_ref().ok().map(CopiedBytes::of),
        copying_time: copying_time(seen),
        cost: seen.cost,
        cpu_s_per_gb: (bytes > 0).then(|| seen.cost.cpu_s() / bytes as f64 * 1e9),
        disk_read_bytes: disk(seen, |disk| disk.read, "had read by this thread"),
        disk_write_bytes: disk(
            seen,
            |disk| disk.written,
            "left to be written by this thread",
        ),
        in_memory_before: explanation.source.in_memory,
        deviations: Vec::new(),
    }
}

fn disk(seen: &Seen, which: impl Fn(&Disk) -> u64, what: &str) -> Figure {
    match &seen.disk {
        Ok(disk) => {
            let how = format!("the kernel's account of what was {what} (/proc/thread-self/io)");
            Figure::found(which(disk) as f64, Method::Exact, how)
        }
        Err(why) => Figure::missing(why.clone()),
    }
}

fn calls(summary: &Summary, rehearsal: &Seen, seen: &Seen) -> Calls {
    let mut calls = Calls {
        operations: summary.calls,
        total: seen.total,
        set_up: rehearsal.total.map(|total| total + 2 * ENDS),
        ..Calls::default()
    };
    if let (Ok(before), Ok(all)) = (&rehearsal.calls, &seen.calls) {
        let net: BTreeMap<String, u64> = all
            .iter()
            .map(|(name, count)| {
                let to_stop = if *name == "fstat" { ENDS } else { 0 };
                let set_up = before.get(name).copied().unwrap_or(0) + to_stop;
                ((*name).to_owned(), count.saturating_sub(set_up))
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        calls.waiting = Some(net.get(WAITING).copied().unwrap_or(0));
        calls.by_name = Some(net);
    }
    calls
}

/// A transfer that can be cancelled finds out of each end, with one fcntl and one fstat, how to wait
/// for it; that is set-up which no rehearsal does.
const ENDS: u64 = 2;

/// Calls that only the mapping route makes on purpose; elsewhere they are the allocator's.
const OF_MAPPING: [&str; 3] = ["mmap", "madvise", "munmap"];

fn calls_per_chunk(calls: &Calls, summary: &Summary, chunks: u64, seen: &Seen) -> Figure {
    if chunks == 0 {
        return Figure::missing("nothing was moved");
    }
    let Some(by_name) = &calls.by_name else {
        let why = seen.calls.as_ref().err().map_or("", String::as_str);
        let how = format!(
            "operations counted by the library, which makes them; the kernel's count is missing: {why}"
        );
        return Figure::found(calls.operations as f64 / chunks as f64, Method::Exact, how);
    };
    let maps = summary.route == Route::MmapWrite
        || summary
            .changes
            .iter()
            .any(|change| change.from == Route::MmapWrite);
    let counts = |name: &str| name != WAITING && (maps || !OF_MAPPING.contains(&name));
    let moving: u64 = by_name
        .iter()
        .filter(|(name, _)| counts(name))
        .map(|(_, count)| count)
        .sum();
    let how = "counted by the kernel for each call by name, without setting up and waiting";
    Figure::found(moving as f64 / chunks as f64, Method::Exact, how)
}

/// The part of the CPU time that samples found in the kernel's copy routines.
fn copying_time(seen: &Seen) -> Figure {
    match &seen.profile {
        Ok(samples) if samples.total > 0 => {
            let copying = samples.parts.get(&Part::Copy).copied().unwrap_or(0);
            let how = format!("{copying} of {} samples of the CPU clock", samples.total);
            Figure::found(copying as f64 / samples.total as f64, Method::Sampled, how)
        }
        Ok(_) => Figure::missing("it took too little CPU time for a sample"),
        Err(why) => Figure::missing(why.clone()),
    }
}

/// Exact where the kernel's copy routines could be watched. Else by the contract of read, write and
/// send, if these moved all of it; what sendfile, splice and copy_file_range do inside nobody saw.
fn copies_per_byte(explanation: &Explanation, summary: &Summary, seen: &Seen) -> Figure {
    if summary.moved == 0 {
        return Figure::missing("nothing was moved");
    }
    let why = match &seen.copied {
        Ok(copied) => {
            let all = copied.to_user + copied.from_user + copied.within;
            let how = match copied.lost {
                0 => "bytes passed to the kernel's copy routines, by breakpoints".to_owned(),
                lost => format!(
                    "by breakpoints on the copy routines; {lost} events were lost, so it is more"
                ),
            };
            return Figure::found(all as f64 / summary.moved as f64, Method::Exact, how);
        }
        Err(why) => why,
    };
    match by_contract(summary, explanation.sink.kind == "null") {
        Some(copies) => {
            let how = "read copies what it returns, and so does write or send; the kernel was not watched";
            Figure::found(copies, Method::ByCall, how)
        }
        None => Figure::missing(why.clone()),
    }
}

/// Where copies could be neither counted nor told by contract, they are estimated: the time that
/// samples found in the copy routines, over the time that one copy takes here. That takes samples
/// enough to tell no copy from one.
pub(crate) fn estimate_copies(analysis: &mut Analysis, seen: &Seen, instruments: &mut Instruments) {
    let figure = &mut analysis.cpu_copies_per_byte;
    let (None, Ok(samples)) = (figure.value, &seen.profile) else {
        return;
    };
    if analysis.bytes == 0 {
        return;
    }
    let because = figure.missing.take().unwrap_or_default();
    if samples.total < FEWEST_SAMPLES {
        figure.missing = Some(format!(
            "{because}; and it was over after {} samples of the CPU clock, too soon for an estimate",
            samples.total
        ));
        return;
    }
    let Some(time) = yardstick::copy_time(instruments) else {
        figure.missing = Some(format!(
            "{because}; and a copy was too quick to be timed for an estimate"
        ));
        return;
    };
    *figure = estimated(&time, samples, analysis.bytes, &because);
}

fn estimated(time: &CopyTime, samples: &Samples, bytes: u64, because: &str) -> Figure {
    let estimate = time.copies_per_byte(samples, bytes);
    let (to_user, from_user) = time.ns_per_byte();
    // No sample among many still leaves room for three.
    let of_three =
        3.0 * samples.period_ns as f64 / bytes as f64 / f64::midpoint(to_user, from_user);
    let plus_minus = (2.0 * estimate.error).max(of_three);
    if plus_minus > 0.5 {
        return Figure::missing(format!(
            "{because}; and {} samples of the CPU clock cannot tell no copy from one",
            samples.total
        ));
    }
    let how = format!(
        "time in the kernel's copy routines by {} samples of the CPU clock, over that of a loop of \
         read and write in memory; not counted, because: {because}",
        samples.total
    );
    Figure::estimated(estimate.copies_per_byte, plus_minus, how)
}

/// Fewer say nothing.
const FEWEST_SAMPLES: u64 = 10;

/// Copies of a byte by what the calls promise: `None` if a part went by calls that promise nothing.
fn by_contract(summary: &Summary, sink_is_null: bool) -> Option<f64> {
    let delivered = f64::from(u8::from(!sink_is_null));
    let mut at = 0;
    let mut copied = 0.0;
    let last = (summary.route, summary.moved);
    let parts = summary
        .changes
        .iter()
        .map(|change| (change.from, change.moved));
    for (route, until) in parts.chain([last]) {
        let bytes = (until - at) as f64;
        at = until;
        copied += match route {
            _ if bytes == 0.0 => 0.0,
            Route::ReadWrite => bytes * (1.0 + delivered),
            Route::MmapWrite => bytes * delivered,
            _ => return None,
        };
    }
    Some(copied / summary.moved as f64)
}

#[cfg(test)]
mod tests {
    use zhaul::{Errno, Operation, RouteChange, Why};

    use crate::perf::Copying;

    use super::*;

    fn summary(route: Route, moved: u64) -> Summary {
        // There is no other way to make one from here.
        let mut summary = zhaul::TransferError::refused(zhaul::Refusal::NoLease).summary;
        summary.route = route;
        summary.moved = moved;
        summary
    }

    fn change(from: Route, to: Route, moved: u64) -> RouteChange {
        let (operation, errno) = (Operation::Sendfile, Errno::EINVAL);
        let why = Why::Refused { operation, errno };
        RouteChange {
            from,
            to,
            moved,
            why,
        }
    }

    #[test]
    fn contracts_tell_what_read_write_and_send_copy_and_nothing_of_the_others() {
        assert_eq!(
            by_contract(&summary(Route::ReadWrite, 10), false),
            Some(2.0)
        );
        assert_eq!(by_contract(&summary(Route::ReadWrite, 10), true), Some(1.0));
        assert_eq!(
            by_contract(&summary(Route::MmapWrite, 10), false),
            Some(1.0)
        );
        for route in [Route::Sendfile, Route::Splice, Route::CopyFileRange] {
            assert_eq!(by_contract(&summary(route, 10), false), None, "{route}");
        }
    }

    #[test]
    fn parts_of_a_transfer_count_by_their_bytes() {
        let mut mixed = summary(Route::ReadWrite, 100);
        mixed
            .changes
            .push(change(Route::MmapWrite, Route::ReadWrite, 75));
        assert_eq!(by_contract(&mixed, false), Some(1.25));
        // A route that was left before it moved anything does not matter.
        let mut refused = summary(Route::ReadWrite, 100);
        refused
            .changes
            .push(change(Route::Sendfile, Route::ReadWrite, 0));
        assert_eq!(by_contract(&refused, false), Some(2.0));
        refused.changes[0].moved = 1;
        assert_eq!(by_contract(&refused, false), None);
    }

    fn samples(to_user: u64, from_user: u64, total: u64) -> Samples {
        let copying = Copying {
            to_user,
            from_user,
            other: 0,
        };
        Samples {
            period_ns: 200_000,
            total,
            copying,
            ..Samples::default()
        }
    }

    #[test]
    fn estimates_carry_their_error_and_too_few_samples_are_none() {
        // 0.1 ns a byte each way.
        let time = CopyTime::of_read_write(&samples(500, 500, 1000), 1_000_000_000).unwrap();
        let none = estimated(&time, &samples(0, 0, 900), 1_000_000_000, "why");
        assert_eq!(
            (none.value, none.method),
            (Some(0.0), Some(Method::Sampled))
        );
        // Three samples that might have been: 600,000 ns over 100,000,000.
        assert!((none.plus_minus.unwrap() - 0.006).abs() < 1e-9, "{none:?}");
        let two = estimated(&time, &samples(500, 500, 1000), 1_000_000_000, "why");
        assert!((two.value.unwrap() - 2.0).abs() < 1e-9, "{two:?}");
        assert!(two.plus_minus.unwrap() > 0.1, "{two:?}");
        let short = estimated(&time, &samples(0, 0, 12), 10_000_000, "why");
        assert_eq!(short.value, None);
        let why = short.missing.unwrap();
        assert!(why.starts_with("why; and 12 samples"), "{why}");
    }
}
