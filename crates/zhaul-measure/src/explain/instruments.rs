//! The instruments on the thread that makes a transfer, and what they saw.

use std::collections::BTreeMap;
use std::time::Instant;

use super::tally::Tally;
use crate::bench::results::Cost;
use crate::meter::{Account, Copied, Meter, Reading, Wanted};
use crate::perf::Samples;

/// The instruments on a thread, or why there are none.
pub(crate) struct Instruments {
    tally: Result<Tally, String>,
    meter: Option<Meter>,
    missing: BTreeMap<&'static str, String>,
    /// Calls that the measuring itself makes within what is measured.
    own_calls: u64,
}

/// What was done, and what was seen of it.
pub(crate) struct Measured<T> {
    pub(crate) outcome: T,
    pub(crate) seen: Seen,
}

/// What the instruments and the kernel's accounts say.
pub(crate) struct Seen {
    pub(crate) wall_s: f64,
    pub(crate) cost: Cost,
    pub(crate) disk: Result<Disk, String>,
    /// Calls by name.
    pub(crate) calls: Result<BTreeMap<&'static str, u64>, String>,
    /// All calls.
    pub(crate) total: Option<u64>,
    pub(crate) copied: Result<Copied, String>,
    pub(crate) profile: Result<Samples, String>,
}

impl Instruments {
    /// Attaches to the calling thread what is to be had there, counting by name the calls that are
    /// `in_play`. Breakpoints count copies exactly but
    /// take so much time that samples would show little else, so there is one or the other.
    pub(crate) fn on_this_thread(wanted: bool, in_play: impl Fn(&str) -> bool) -> Self {
        if !wanted {
            let why = || "no instruments were wanted".to_owned();
            return Self {
                tally: Err(why()),
                meter: None,
                missing: ["calls", "copies", "profile"]
                    .map(|what| (what, why()))
                    .into(),
                own_calls: 0,
            };
        }
        let copies = Wanted {
            calls: true,
            copies: true,
            profile: false,
        };
        let mut meter = Meter::of_this_thread(copies);
        let mut missing = reasons(&meter);
        if meter.copies_method().is_none() {
            let profile = Wanted {
                copies: false,
                profile: true,
                ..copies
            };
            meter = Meter::of_this_thread(profile);
            missing.extend(reasons(&meter));
        } else {
            let why = "the breakpoints that count copies leave no time for samples";
            missing.insert("profile", why.to_owned());
        }
        let mut instruments = Self {
            tally: Tally::of_this_thread(in_play).map_err(|error| error.with_remedy()),
            meter: Some(meter),
            missing,
            own_calls: 0,
        };
        instruments.own_calls = instruments.measure(|| ()).seen.total.unwrap_or(0);
        instruments
    }

    /// What slows the thread down while it is measured.
    pub(crate) fn names(&self) -> Vec<String> {
        let works = |what| self.meter.is_some() && !self.missing.contains_key(what);
        let counters = self.tally.is_ok() || works("calls");
        [
            counters.then_some("counters of its calls"),
            works("copies").then_some("breakpoints on the kernel's copy routines"),
            works("profile").then_some("samples of the CPU clock"),
        ]
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect()
    }

    /// Does the work on the calling thread, which must be the one the instruments are on.
    pub(crate) fn measure<T>(&mut self, work: impl FnOnce() -> T) -> Measured<T> {
        let disk_before = Disk::of_this_thread();
        let tally_started = self.tally.as_ref().ok().map(Tally::start);
        let meter_started = self.meter.as_mut().map(Meter::start);
        let account = Account::of_this_thread();
        let began = Instant::now();
        let outcome = work();
        let wall_s = began.elapsed().as_secs_f64();
        let cost = account.until_now();
        let reading = match (&mut self.meter, meter_started) {
            (Some(meter), Some(Ok(()))) => meter.stop().map_err(|error| error.to_string()),
            (_, Some(Err(error))) => Err(error.to_string()),
            _ => Ok(Reading::default()),
        };
        let calls = match (&self.tally, tally_started) {
            (Ok(tally), Some(Ok(()))) => tally.stop().map_err(|error| error.to_string()),
            (_, Some(Err(error))) => Err(error.to_string()),
            (tally, _) => Err(tally.as_ref().err().cloned().unwrap_or_default()),
        };
        let disk = disk_before.and_then(|before| Ok(Disk::of_this_thread()?.since(before)));
        let figure = |what| match (&reading, self.missing.get(what)) {
            (Err(why), _) | (_, Some(why)) => why.clone(),
            _ => "not counted".to_owned(),
        };
        let (copied, profile) = (figure("copies"), figure("profile"));
        let reading = reading.unwrap_or_default();
        Measured {
            outcome,
            seen: Seen {
                wall_s,
                cost,
                disk,
                calls,
                total: reading.calls.map(|all| all.saturating_sub(self.own_calls)),
                copied: reading.copied.ok_or(copied),
                profile: reading.profile.ok_or(profile),
            },
        }
    }
}

fn reasons(meter: &Meter) -> BTreeMap<&'static str, String> {
    let missing = meter.missing().iter();
    missing
        .map(|missing| (missing.what, missing.why.with_remedy()))
        .collect()
}

/// What the kernel accounts to a thread for block devices (`/proc/PID/io`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disk {
    /// Bytes it had read.
    pub(crate) read: u64,
    /// Bytes it left to be written.
    pub(crate) written: u64,
}

impl Disk {
    fn of_this_thread() -> Result<Self, String> {
        let path = "/proc/thread-self/io";
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        let value = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
                .ok_or_else(|| format!("no {name} in {path}"))
        };
        Ok(Self {
            read: value("read_bytes:")?,
            written: value("write_bytes:")?,
        })
    }

    const fn since(self, before: Self) -> Self {
        Self {
            read: self.read.saturating_sub(before.read),
            written: self.written.saturating_sub(before.written),
        }
    }
}
