//! A trace that only counts: no record of any call is made, so that the traced program is slowed
//! down as little as possible. How many bytes went where is then not known.
//!
//! Counting is not for nothing, either: each system call of the traced threads passes a tracepoint
//! and the filters of all counters on it. Where that is little beside what the program does,
//! counting goes on all the time, and every figure is exact. Where it is not, counting takes turns:
//! for a short while all is counted, and then nothing is attached at all, for as long as keeps the
//! cost within bounds. What happened meanwhile is estimated from the windows before and after, and
//! the figures are said to be sampled.

mod counters;

use std::collections::{BTreeSet, HashSet};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::procfs::{family, is_alive, threads};
use crate::figure::Method;
use crate::perf::{Error, Kind, Record, Woken};
use counters::{Counters, Slots, names, slots};

/// Processes whose calls are counted.
#[derive(Debug)]
pub struct Counting {
    /// While it counts.
    counters: Option<Counters>,
    /// Those asked for; the trace ends with the first.
    roots: Vec<u32>,
    began: Instant,
    sum: Sum,
    window: Window,
    /// Calls that were counted at least once, by their slots.
    met: BTreeSet<usize>,
    pids: HashSet<u32>,
    threads: HashSet<u32>,
}

/// What was counted.
#[derive(Clone, Debug)]
struct Sum {
    /// In windows that are over, and estimated between them.
    counts: Vec<f64>,
    /// How long those windows were together.
    counted_seconds: f64,
    /// Some of it is estimated.
    estimated: bool,
}

/// A short while: counted, or not.
#[derive(Debug)]
enum Window {
    Counted {
        began: Instant,
        /// What the kernel's counters showed then.
        base: Vec<u64>,
        /// The time before it, if it was not counted, with what happened in a second before that.
        gap: Option<(f64, Vec<f64>)>,
    },
    Gap {
        began: Instant,
        until: Instant,
        /// What happened in a second before it.
        rates: Vec<f64>,
    },
}

/// Calls of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCount {
    /// Its name.
    pub name: String,
    /// How often it was entered.
    pub calls: u64,
}

/// What was counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// For how long it was traced.
    pub seconds: f64,
    /// For how long it was counted: all the time if the figures are exact.
    pub counted_seconds: f64,
    /// How all of the following was found.
    pub method: Method,
    /// Calls that move data, the most frequent first; those that never were are left out.
    pub calls: Vec<CallCount>,
    /// Changes between user and kernel mode by system calls: two for each call of any kind.
    pub mode_switches: u64,
    /// Times a thread left its CPU.
    pub context_switches: u64,
    /// Page faults that waited for a disk.
    pub major_faults: u64,
    /// CPU time, user and kernel.
    pub cpu_ns: u64,
    /// Additions to the page cache, of one page or several.
    pub page_cache_adds: u64,
    /// Requests to block devices, made while a traced thread ran.
    pub block_requests: u64,
    /// Packets with payload in page fragments, sent while a traced thread ran.
    pub packets_gathered: u64,
    /// Packets without.
    pub packets_linear: u64,
}

/// What a counting trace found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CountReport {
    /// [`FORMAT`](super::FORMAT).
    pub format: u32,
    /// Processes seen.
    pub processes: usize,
    /// Threads seen.
    pub threads: usize,
    /// The figures.
    #[serde(flatten)]
    pub counted: Counted,
}

impl Counting {
    /// Attaches to processes that are there; see [`Tracer::attach`](super::Tracer::attach).
    ///
    /// # Errors
    /// As [`Builder::attach`](crate::perf::Builder::attach).
    pub fn attach(pids: &[u32]) -> Result<Self, Error> {
        Ok(Self::new(Counters::attach(pids, None)?, pids))
    }

    /// Starts a program and counts from its first instruction on.
    ///
    /// # Errors
    /// As [`attach`](Self::attach), and [`Error::Io`] if the program cannot be started.
    pub fn spawn(mut command: Command) -> Result<(Self, Child), Error> {
        let (counters, child) = Counters::spawn(&mut command)?;
        Ok((Self::new(counters, &[child.id()]), child))
    }

    fn new(counters: Counters, pids: &[u32]) -> Self {
        let now = Instant::now();
        Self {
            counters: Some(counters),
            roots: pids.to_vec(),
            began: now,
            sum: Sum::default(),
            window: Window::Counted {
                began: now,
                base: vec![0; slots()],
                gap: None,
            },
            met: BTreeSet::new(),
            threads: pids.iter().flat_map(|&pid| threads(pid)).collect(),
            pids: pids.iter().copied().collect(),
        }
    }

    /// Waits, at most so long; `false` when the first process has ended.
    ///
    /// # Errors
    /// As [`attach`](Self::attach), when counting begins again.
    pub fn step(&mut self, timeout: Duration) -> Result<bool, Error> {
        let turn = match self.window {
            Window::Counted { began, .. } => began + WINDOW,
            Window::Gap { until, .. } => until,
        };
        let wait = turn.saturating_duration_since(Instant::now()).min(timeout);
        let alive = match &self.counters {
            Some(counters) => counters.session.wait(wait)? != Woken::Ended,
            None => {
                std::thread::sleep(wait);
                is_alive(self.roots[0])
            }
        };
        self.note_tasks();
        if !alive || Instant::now() < turn {
            return Ok(alive);
        }
        match self.window {
            Window::Counted { .. } => self.end_window().map(|()| true),
            Window::Gap { .. } => self.count_again(),
        }
    }

    fn count_again(&mut self) -> Result<bool, Error> {
        let mut pids: Vec<u32> = Vec::new();
        for &root in &self.roots {
            for pid in family(root) {
                if !pids.contains(&pid) {
                    pids.push(pid);
                }
            }
        }
        let counters = match Counters::attach(&pids, Some(&self.met)) {
            Ok(counters) => counters,
            Err(Error::NoProcess(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        self.threads
            .extend(pids.iter().flat_map(|&pid| threads(pid)));
        self.pids.extend(pids);
        self.counters = Some(counters);
        if let Window::Gap { began, rates, .. } = &self.window {
            self.window = Window::Counted {
                began: now,
                base: vec![0; slots()],
                gap: Some(((now - *began).as_secs_f64(), rates.clone())),
            };
        }
        Ok(true)
    }

    /// Books a window, and detaches if counting on would cost too much, for as long as it has to.
    fn end_window(&mut self) -> Result<(), Error> {
        let (Window::Counted { began, base, gap }, Some(counters)) = (&self.window, &self.counters)
        else {
            return Ok(());
        };
        let (now, totals) = (Instant::now(), counters.totals()?);
        let seconds = (now - *began).as_secs_f64();
        let counts = since(&totals, base);
        let rates: Vec<f64> = counts.iter().map(|&count| count as f64 / seconds).collect();
        self.sum.add(&counts, seconds);
        if let Some((gap_seconds, before)) = gap {
            let means = before.iter().zip(&rates).map(|(a, b)| (a + b) / 2.0);
            self.sum.estimate(means, *gap_seconds);
        }
        let met = (0..names().len()).filter(|&slot| counts[slot] > 0);
        self.met.extend(met);
        if counts[Slots::OtherCalls.at()] > 0 {
            // Calls that were not met before: all are looked for again.
            self.met.clear();
        }
        self.window = match gap_after(counters.cost_ns(&rates), rates[Slots::CpuNs.at()]) {
            Some(gap) => {
                // Closed, not only switched off: a tracepoint that is in use costs what it costs.
                self.counters.take().map_or(Ok(()), Counters::close)?;
                Window::Gap {
                    began: now,
                    until: now + gap,
                    rates,
                }
            }
            None => Window::Counted {
                began: now,
                base: totals,
                gap: None,
            },
        };
        Ok(())
    }

    fn note_tasks(&mut self) {
        let (pids, threads) = (&mut self.pids, &mut self.threads);
        if let Some(counters) = &mut self.counters {
            counters.session.drain(|record: Record<'_>| {
                if let Kind::Fork { .. } = record.kind {
                    pids.insert(record.pid);
                    threads.insert(record.tid);
                }
            });
        }
    }

    /// The sum with the present window.
    fn sum_so_far(&self) -> Result<Sum, Error> {
        let mut sum = self.sum.clone();
        match (&self.window, &self.counters) {
            (Window::Counted { began, base, gap }, Some(counters)) => {
                let counts = since(&counters.totals()?, base);
                sum.add(&counts, began.elapsed().as_secs_f64());
                if let Some((seconds, rates)) = gap {
                    sum.estimate(rates.iter().copied(), *seconds);
                }
            }
            (Window::Gap { began, rates, .. }, _) => {
                sum.estimate(rates.iter().copied(), began.elapsed().as_secs_f64());
            }
            (Window::Counted { .. }, None) => {}
        }
        Ok(sum)
    }

    /// What was counted so far.
    ///
    /// # Errors
    /// As `read(2)` on the kernel's counters.
    pub fn counted(&self) -> Result<Counted, Error> {
        let sum = self.sum_so_far()?;
        let count = |slot: usize| sum.counts[slot].round() as u64;
        let others = [(Slots::OtherCalls.at(), "others")];
        let named = names().iter().copied().enumerate().chain(others);
        let mut calls: Vec<CallCount> = named
            .map(|(slot, name)| CallCount {
                name: name.to_owned(),
                calls: count(slot),
            })
            .filter(|line| line.calls > 0)
            .collect();
        calls.sort_by_key(|line| std::cmp::Reverse(line.calls));
        let of = |slot: Slots| count(slot.at());
        Ok(Counted {
            seconds: self.began.elapsed().as_secs_f64(),
            counted_seconds: sum.counted_seconds,
            method: if sum.estimated {
                Method::Sampled
            } else {
                Method::Exact
            },
            calls,
            mode_switches: 2 * of(Slots::Entered),
            context_switches: of(Slots::ContextSwitches),
            major_faults: of(Slots::MajorFaults),
            cpu_ns: of(Slots::CpuNs),
            page_cache_adds: of(Slots::PageCacheAdds),
            block_requests: of(Slots::BlockRequests),
            packets_gathered: of(Slots::PacketsGathered),
            packets_linear: of(Slots::PacketsLinear),
        })
    }

    /// Stops, and says what was counted.
    ///
    /// # Errors
    /// As `read(2)` on the kernel's counters.
    pub fn finish(mut self) -> Result<CountReport, Error> {
        let counted = self.counted()?;
        // The second round is there for the records of the first.
        self.note_tasks();
        self.note_tasks();
        Ok(CountReport {
            format: super::FORMAT,
            processes: self.pids.len(),
            threads: self.threads.len(),
            counted,
        })
    }
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            counts: vec![0.0; slots()],
            counted_seconds: 0.0,
            estimated: false,
        }
    }
}

impl Sum {
    fn add(&mut self, counts: &[u64], seconds: f64) {
        for (sum, &count) in self.counts.iter_mut().zip(counts) {
            *sum += count as f64;
        }
        self.counted_seconds += seconds;
    }

    /// So much a second, for so long.
    fn estimate(&mut self, rates: impl Iterator<Item = f64>, seconds: f64) {
        for (sum, rate) in self.counts.iter_mut().zip(rates) {
            *sum += rate * seconds;
        }
        self.estimated = true;
    }
}

fn since(now: &[u64], then: &[u64]) -> Vec<u64> {
    now.iter().zip(then).map(|(now, then)| now - then).collect()
}

/// How long not to count, if counting costs so much of a second, and the program uses so much.
fn gap_after(cost_ns: f64, cpu_ns: f64) -> Option<Duration> {
    // Few calls disturb nobody, however little else the program does.
    let bound_ns = (COST_BOUND * cpu_ns).max(COST_UNNOTICED_NS);
    if cost_ns <= bound_ns {
        return None;
    }
    // A program's own rhythm shall not meet ours.
    let jitter = 0.5 + fastrand::f64();
    let on = WINDOW + CLOSING;
    Some(
        on.mul_f64((cost_ns / bound_ns - 1.0) * jitter)
            .min(GAP_AT_MOST),
    )
}

/// After each, it is decided whether to count on.
const WINDOW: Duration = Duration::from_millis(100);
/// Until the kernel is rid of the tracepoint of all calls.
const CLOSING: Duration = Duration::from_millis(50);
const GAP_AT_MOST: Duration = Duration::from_secs(10);
/// What counting may cost, in percent of the CPU time that the traced processes use.
pub const COST_PERCENT: u32 = 3;
const COST_BOUND: f64 = COST_PERCENT as f64 / 100.0;
/// What counting may cost of a second in any case.
const COST_UNNOTICED_NS: f64 = 1e7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_costs_little_is_counted_all_the_time() {
        assert_eq!(gap_after(0.0, 0.0), None);
        assert_eq!(
            gap_after(1e6, 2e6),
            None,
            "half of the CPU time, but of next to none"
        );
        assert_eq!(gap_after(0.029e9, 1e9), None);
    }

    #[test]
    fn gaps_keep_the_cost_within_bounds_on_average() {
        let gaps = (0..1000).map(|_| gap_after(0.2e9, 1e9).unwrap().as_secs_f64());
        let mean = gaps.sum::<f64>() / 1000.0;
        let share = 0.15 / (0.15 + mean);
        assert!((share * 0.2 - COST_BOUND).abs() < 0.003, "{share}");
    }

    #[test]
    fn an_estimate_marks_the_sum() {
        let mut sum = Sum::default();
        sum.add(&[10], 0.1);
        assert!(!sum.estimated);
        sum.estimate([100.0].into_iter(), 0.5);
        assert_eq!(
            (sum.counts[0], sum.counted_seconds, sum.estimated),
            (60.0, 0.1, true)
        );
    }
}
