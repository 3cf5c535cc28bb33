//! What one thread cost between two moments.
//!
//! [`Account`] is what the kernel keeps anyway (`getrusage(2)`) and disturbs nothing. [`Meter`] adds
//! instruments, each of which slows the thread down, so nothing is timed while one runs.

mod instruments;

use zhaul_sys::getrusage::{Usage, Who, getrusage};

use crate::bench::results::Cost;
use crate::figure::Method;
use crate::perf::{Counter, Error, Samples, Tracefs};
use instruments::Instruments;

/// A reading of the calling thread's account, to be subtracted from a later one.
#[derive(Clone, Copy, Debug)]
pub struct Account(Usage);

impl Account {
    /// Reads the calling thread's account.
    ///
    /// Kernels that account CPU time by ticks bring a running thread's account up to date at the
    /// next tick, up to 4 ms later (369 of 400 readings around 300 µs of work saw none of it, on
    /// Linux 6.18 with 250 ticks a second). Reading the thread's CPU clock does it at once.
    pub fn of_this_thread() -> Self {
        let _ = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Self(getrusage(Who::Thread).unwrap_or_default())
    }

    /// What the calling thread cost since `self` was read.
    pub fn until_now(&self) -> Cost {
        let now = Self::of_this_thread().0;
        let seconds = |now: u64, then: u64| now.saturating_sub(then) as f64 / 1e6;
        Cost {
            user_s: seconds(now.user_us, self.0.user_us),
            system_s: seconds(now.system_us, self.0.system_us),
            voluntary_switches: now.voluntary_switches - self.0.voluntary_switches,
            involuntary_switches: now.involuntary_switches - self.0.involuntary_switches,
            minor_faults: now.minor_faults - self.0.minor_faults,
            major_faults: now.major_faults - self.0.major_faults,
        }
    }
}

/// What to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// System calls entered. Each costs the thread some 70 ns more while they are counted; and as
    /// long as such a counter is open, by anybody and on or off, every thread of the machine takes
    /// a slower way into the kernel (some 20 ns). So drop the meter before anything is timed.
    pub calls: bool,
    /// Bytes that the kernel's copy routines copied.
    pub copies: bool,
    /// Where the CPU time goes, sampled. A processor's timer waits while interrupts are off, and a
    /// sample due then falls on the place where they come on again; copy routines run with
    /// interrupts on, and a loop that reads cached pages was seen in them for 85 to 95 % of its
    /// samples.
    pub profile: bool,
}

/// Instruments on one thread.
#[derive(Debug)]
pub struct Meter {
    calls: Option<Counter>,
    instruments: Option<Instruments>,
    missing: Vec<Missing>,
    began: Option<Account>,
}

/// Something that was wanted and cannot be had.
#[derive(Debug)]
pub struct Missing {
    /// What: `calls`, `copies` or `profile`.
    pub what: &'static str,
    /// Why.
    pub why: Error,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.why.with_remedy())
    }
}

/// What the instruments saw. A figure that could not be had is `None`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Reading {
    /// What the kernel accounted to the thread, instruments included.
    pub cost: Cost,
    /// System calls entered, exact.
    pub calls: Option<u64>,
    /// Bytes copied by the CPU into user memory, out of it, and within the kernel: exact.
    pub copied: Option<Copied>,
    /// Where the CPU time went, sampled.
    pub profile: Option<Samples>,
}

/// Bytes copied by the CPU, by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// From the kernel to user memory.
    pub to_user: u64,
    /// From user memory to the kernel.
    pub from_user: u64,
    /// From kernel memory to kernel memory.
    pub within: u64,
    /// Buffers copied within the kernel whose size is not known: zero-copy sends that were copied
    /// after all (`skb_copy_ubufs`). They are in none of the others.
    pub unsized_buffers: u64,
    /// Events the kernel dropped because they came too fast: if not 0, the others are too low.
    pub lost: u64,
}

impl Meter {
    /// Attaches to the calling thread what the kernel allows of `wanted`; whatever cannot be had is
    /// missing in the reading, and [`Meter::missing`] says why. Threads that this one makes are not
    /// counted.
    ///
    /// It is to be started and stopped by the same thread, or the meter's own calls are not told
    /// from the thread's.
    pub fn of_this_thread(wanted: Wanted) -> Self {
        let mut missing = Vec::new();
        let calls = wanted.calls.then(calls_of_this_thread).and_then(|calls| {
            let lack = |why| missing.push(Missing { what: "calls", why });
            calls.map_err(lack).ok()
        });
        let instruments = Instruments::of_this_thread(wanted, &mut missing);
        Self {
            calls,
            instruments,
            missing,
            began: None,
        }
    }

    /// What was wanted and cannot be had here, and why.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// By which method copied bytes are found here, if at all.
    pub fn copies_method(&self) -> Option<Method> {
        let copies = self.instruments.as_ref().is_some_and(Instruments::copies);
        copies.then_some(Method::Exact)
    }

    /// Begins to count, from zero.
    ///
    /// # Errors
    /// If no thread can be made to empty the rings.
    pub fn start(&mut self) -> Result<(), Error> {
        self.began = Some(Account::of_this_thread());
        if let Some(instruments) = &mut self.instruments {
            instruments.start()?;
        }
        // Last, so that nothing of the above is counted.
        if let Some(calls) = &self.calls {
            calls.reset()?;
            calls.enable()?;
        }
        Ok(())
    }

    /// Stops, and says what happened since the start; nothing, if it was not started.
    ///
    /// # Errors
    /// As `read(2)` on the instruments.
    pub fn stop(&mut self) -> Result<Reading, Error> {
        if let Some(calls) = &self.calls {
            calls.disable()?;
        }
        let Some(began) = self.began.take() else {
            return Ok(Reading::default());
        };
        let mut reading = Reading::default();
        if let Some(instruments) = &mut self.instruments {
            instruments.stop(&mut reading)?;
        }
        reading.cost = began.until_now();
        if let Some(calls) = &self.calls {
            // The call that disables the counter is counted, too.
            reading.calls = Some(calls.read()?.value.saturating_sub(1));
        }
        Ok(reading)
    }
}

fn calls_of_this_thread() -> Result<Counter, Error> {
    let enter = Tracefs::find()?.tracepoint("raw_syscalls:sys_enter")?;
    Counter::of_this_thread(&enter)
}

#[cfg(test)]
mod account_tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn work_shorter_than_a_tick_is_accounted() {
        for _ in 0..50 {
            let account = Account::of_this_thread();
            let began = Instant::now();
            while began.elapsed() < Duration::from_micros(300) {}
            let cost = account.until_now();
            assert!(cost.cpu_s() > 0.0, "{cost:?}");
        }
    }
}
