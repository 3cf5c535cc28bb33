//! What the instruments on the mover can tell, and by which method each figure was found.

use std::collections::BTreeMap;

use zhaul::Route;

use super::results::{Cell, Contender, Counted, Found, Path, Profile};
use super::way::Way;
use crate::figure::Method;
use crate::meter::{Copied, Meter, Reading, Wanted};
use crate::perf::{CopyTime, Samples};

/// The instruments of a run; they are attached to the thread that asks for them.
#[derive(Debug)]
pub(super) struct Instruments {
    counter: Option<Meter>,
    profiler: Option<Meter>,
    copies_are_exact: bool,
    /// Some counts of copies were incomplete, and left out.
    lost_copies: bool,
    profiled: Vec<Profiled>,
    /// Why a figure cannot be had.
    missing: BTreeMap<String, String>,
}

/// What a profile saw, to estimate copies from.
#[derive(Debug)]
struct Profiled {
    path: Path,
    route: Way,
    contender: Contender,
    size: u64,
    /// Moved by all transfers.
    moved: u64,
    samples: Samples,
}

const CALLS: &str = "calls";
const COPIED: &str = "copied_bytes";
const DMA: &str = "dma_bytes";
const SAMPLED: &str = "sampled_copies_per_byte";

impl Instruments {
    /// Attaches what this host allows.
    pub(super) fn attach(counts: bool, profiles: bool) -> Self {
        let mut missing = BTreeMap::new();
        let mut attach = |is_wanted: bool, wanted: Wanted, names: &[&str]| {
            if !is_wanted {
                for &name in names {
                    missing.insert(name.to_owned(), "not asked for".to_owned());
                }
                return None;
            }
            let meter = Meter::of_this_thread(wanted);
            for lack in meter.missing() {
                missing.insert(key(lack.what).to_owned(), lack.why.with_remedy());
            }
            // One that can do nothing would cost the time of its passes.
            (meter.missing().len() < names.len()).then_some(meter)
        };
        let counter = attach(
            counts,
            Wanted {
                calls: true,
                copies: true,
                ..Wanted::default()
            },
            &[CALLS, COPIED],
        );
        let profiler = attach(
            profiles,
            Wanted {
                profile: true,
                ..Wanted::default()
            },
            &[SAMPLED],
        );
        let copies_are_exact = counter
            .as_ref()
            .is_some_and(|meter| meter.copies_method() == Some(Method::Exact));
        Self {
            counter,
            profiler,
            copies_are_exact,
            lost_copies: false,
            profiled: Vec::new(),
            missing,
        }
    }

    pub(super) const fn counts(&self) -> bool {
        self.counter.is_some()
    }

    pub(super) const fn take_counter(&mut self) -> Option<Meter> {
        self.counter.take()
    }

    pub(super) fn give_back_counter(&mut self, meter: Meter) {
        self.counter = Some(meter);
    }

    pub(super) const fn take_profiler(&mut self) -> Option<Meter> {
        self.profiler.take()
    }

    pub(super) fn give_back_profiler(&mut self, meter: Meter) {
        self.profiler = Some(meter);
    }

    /// What was counted while `bytes` were moved on `route`.
    pub(super) fn counted(
        &mut self,
        (bytes, way): (u64, Way),
        reading: &Reading,
        copied_after_all: Option<u64>,
    ) -> Counted {
        // With events lost, or buffers of unknown size, the sum would be too low.
        let complete = |copied: &Copied| copied.lost == 0 && copied.unsized_buffers == 0;
        let exact = reading.copied.filter(complete);
        self.lost_copies |= reading.copied.is_some() && exact.is_none();
        let exact = exact.map(|copied| copied.to_user + copied.from_user + copied.within);
        let at_the_call = if self.copies_are_exact {
            exact
        } else {
            by_call(way, bytes)
        };
        let copied_bytes = match way {
            // No routine that is counted, and no call's contract, has the copies made later.
            Way::SendZeroCopy => at_the_call.zip(copied_after_all).map(|(a, b)| a + b),
            _ => at_the_call,
        };
        Counted {
            bytes,
            calls: reading.calls,
            copied_bytes,
            copied_after_all,
            ..Counted::default()
        }
    }

    /// The profile of a cell whose transfers moved `moved` bytes in all.
    pub(super) fn profile(
        &mut self,
        (cell, route): (&Cell, Way),
        moved: u64,
        samples: Samples,
    ) -> Profile {
        let profile = Profile {
            path: cell.path,
            route: cell.route.clone(),
            contender: cell.contender,
            bytes: cell.bytes,
            samples: samples.total,
            lost: samples.lost,
            parts: samples.parts.clone(),
            top: samples.top(TOP_FUNCTIONS),
        };
        self.profiled.push(Profiled {
            path: cell.path,
            route,
            contender: cell.contender,
            size: cell.bytes,
            moved,
            samples,
        });
        profile
    }

    /// Enters the copies per byte that the profiles allow to estimate, at the size profiled.
    pub(super) fn estimate_copies(&mut self, cells: &mut [Cell]) {
        let mut estimated = false;
        for profiled in &self.profiled {
            let Some(time) = self.copy_time(profiled) else {
                continue;
            };
            let twin = cells.iter_mut().find(|cell| {
                (cell.path, cell.contender) == (profiled.path, profiled.contender)
                    && (cell.bytes, cell.route.as_str()) == (profiled.size, profiled.route.name())
            });
            if let Some(cell) = twin {
                let estimate = time.copies_per_byte(&profiled.samples, profiled.moved);
                cell.counted.push(Counted {
                    bytes: profiled.moved,
                    sampled_copies_per_byte: Some(estimate.copies_per_byte),
                    sampled_plus_minus: Some(2.0 * estimate.error),
                    ..Counted::default()
                });
                estimated = true;
            }
        }
        if !estimated && self.profiler.is_some() {
            let why = "too few samples of read+write and mmap+write to compare with";
            self.missing.insert(SAMPLED.to_owned(), why.to_owned());
        }
    }

    /// How long a copy takes on this path: from the floor's read + write, which makes two, and the
    /// floor's mmap + write, which makes one from memory that nothing has touched before.
    fn copy_time(&self, profiled: &Profiled) -> Option<CopyTime> {
        let floor = |route| {
            self.profiled.iter().find(|other| {
                (other.path, other.size) == (profiled.path, profiled.size)
                    && (other.contender, other.route) == (Contender::Floor, Way::Route(route))
            })
        };
        let reading = floor(Route::ReadWrite)?;
        let time = CopyTime::of_read_write(&reading.samples, reading.moved)?;
        Some(match floor(Route::MmapWrite) {
            Some(mapping) => time.with_cold_write(&mapping.samples, mapping.moved),
            None => time,
        })
    }

    /// How each figure was found, and why some were not.
    pub(super) fn methods(&self) -> (BTreeMap<String, Found>, BTreeMap<String, String>) {
        let exact = |how: &str| Found {
            method: Method::Exact,
            how: how.to_owned(),
        };
        let mut found = BTreeMap::new();
        found.insert("wall_s".to_owned(), exact("monotonic clock"));
        let cpu = "getrusage(RUSAGE_THREAD) after a reading of the thread's CPU clock; the sum is \
                   exact, its division into user and system may be by ticks";
        for name in ["user_s", "system_s"] {
            found.insert(name.to_owned(), exact(cpu));
        }
        for name in [
            "voluntary_switches",
            "involuntary_switches",
            "minor_faults",
            "major_faults",
        ] {
            found.insert(name.to_owned(), exact("getrusage(RUSAGE_THREAD)"));
        }
        let devices = "the whole machine, from before a sample to after it: /proc/diskstats and the \
                       statistics of network devices that have hardware behind them";
        found.insert(DMA.to_owned(), exact(devices));
        for name in ["interrupts", "softirqs"] {
            found.insert(
                name.to_owned(),
                exact("the whole machine, from before a sample to after it: /proc/stat"),
            );
        }
        let mut missing = self.missing.clone();
        if !missing.contains_key(CALLS) {
            found.insert(
                CALLS.to_owned(),
                exact("counter on raw_syscalls:sys_enter, in passes of their own"),
            );
        }
        if self.copies_are_exact {
            missing.remove(COPIED);
            found.insert(
                COPIED.to_owned(),
                exact(
                    "execution breakpoints on the kernel's copy routines, in passes of their own",
                ),
            );
        } else {
            let why = missing.remove(COPIED);
            let exactly = why.map_or(String::new(), |why| format!("; no exact count: {why}"));
            let how = format!(
                "each byte read into a buffer and each byte written from one is a copy; what the \
                 kernel does inside sendfile, splice and copy_file_range does not show{exactly}"
            );
            let method = Method::ByCall;
            found.insert(COPIED.to_owned(), Found { method, how });
        }
        if !missing.contains_key(SAMPLED) {
            let how = "time in the kernel's copy routines per byte, by samples of the CPU clock, \
                       divided by that of the bare loop of read + write on the same path";
            let found_by = Found {
                method: Method::Sampled,
                how: how.to_owned(),
            };
            found.insert(SAMPLED.to_owned(), found_by);
        }
        (found, missing)
    }
}

/// The name of what a meter misses among the figures.
fn key(what: &str) -> &str {
    match what {
        "copies" => COPIED,
        "profile" => SAMPLED,
        other => other,
    }
}

const TOP_FUNCTIONS: usize = 12;

/// Bytes copied by the contract of the calls that moved `bytes`: `read(2)` copies what it returns
/// to the caller's memory, `write(2)` and `send(2)` copy what they accept from there. The other
/// calls promise nothing of the kind.
const fn by_call(way: Way, bytes: u64) -> Option<u64> {
    match way {
        Way::Route(Route::ReadWrite) => Some(2 * bytes),
        Way::Route(Route::MmapWrite) | Way::Send => Some(bytes),
        // Nothing at the call; what the kernel copies later its completions tell.
        Way::SendZeroCopy => Some(0),
        Way::Route(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_call_promises_is_missing_and_not_zero() {
        assert_eq!(by_call(Way::Route(Route::ReadWrite), 10), Some(20));
        assert_eq!(by_call(Way::Route(Route::MmapWrite), 10), Some(10));
        assert_eq!(by_call(Way::Send, 10), Some(10));
        for route in [Route::Sendfile, Route::Splice, Route::CopyFileRange] {
            assert_eq!(by_call(Way::Route(route), 10), None);
        }
    }

    #[test]
    fn every_figure_has_a_method_or_a_reason() {
        for (counts, profiles) in [(true, true), (false, false), (true, false)] {
            let (found, missing) = Instruments::attach(counts, profiles).methods();
            for name in ["wall_s", "user_s", "minor_faults", CALLS, COPIED] {
                let either = found.contains_key(name) != missing.contains_key(name);
                assert!(either, "{name}: {found:?} {missing:?}");
            }
        }
    }
}
