//! `perf_event_open(2)`: a tracepoint counted, the kernel's functions sampled, and a copy counted to
//! the byte by breakpoints on the copy routines.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::meter::Copied;
use crate::perf::{CopyRoutines, Counter, Error, Kind, Session, Symbols, Target, Tracefs};

use super::context::Context;
use super::pattern;
use super::report::{Cause, Group};
use super::scratch;
use super::seen::{Mechanism, Seen};
use super::trouble::{During, Trouble};

pub(super) const TRACEPOINTS: Mechanism = Mechanism {
    id: "perf_tracepoints",
    name: "tracepoints",
    call: "perf_event_open (PERF_TYPE_TRACEPOINT)",
    group: Group::Proof,
    since: (2, 6),
    since_text: "2.6.32",
};

pub(super) const SAMPLES: Mechanism = Mechanism {
    id: "perf_samples",
    name: "CPU samples",
    call: "perf_event_open (PERF_COUNT_SW_CPU_CLOCK)",
    ..TRACEPOINTS
};

pub(super) const BREAKPOINTS: Mechanism = Mechanism {
    id: "perf_breakpoints",
    name: "exact copy counts",
    call: "perf_event_open (PERF_TYPE_BREAKPOINT)",
    since_text: "2.6.33",
    ..TRACEPOINTS
};

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let cause = match error {
            Error::NotPermitted { .. } | Error::TracefsForbidden | Error::SymbolsHidden => {
                Cause::NotPermitted
            }
            Error::NoTracefs => Cause::Configured,
            Error::NoTracepoint(_)
            | Error::NoCopyRoutine
            | Error::NoKernelBreakpoints
            | Error::Unsupported { .. } => Cause::KernelLacks,
            _ => Cause::NotTried,
        };
        let (reason, evidence) = (error.to_string(), format!("perf: {error}"));
        let seen = if cause == Cause::NotTried {
            Seen::unknown(format!("could not be tried: {reason}"), evidence)
        } else {
            Seen::missing(cause, reason, evidence)
        };
        with_remedy(seen, &error).into()
    }
}

fn with_remedy(seen: Seen, error: &Error) -> Seen {
    match error.remedy() {
        // Said behind "to change it".
        Some(remedy) => seen.remedy(remedy.strip_prefix("needs ").unwrap_or(&remedy)),
        None => seen,
    }
}

const CALLS: u64 = 10;

/// Counts system calls of this thread.
pub(super) fn tracepoints(_: &Context) -> Result<Seen, Trouble> {
    let tracepoint = Tracefs::find()?.tracepoint("raw_syscalls:sys_enter")?;
    let counter = Counter::of_this_thread(&tracepoint)?;
    counter.enable()?;
    for _ in 0..CALLS {
        let _ = rustix::process::getppid();
    }
    counter.disable()?;
    let counted = counter.read()?.value;
    // The call that disables it is one, too.
    if !(CALLS..=CALLS + 1).contains(&counted) {
        return Err(Seen::missing(
            Cause::Misbehaves,
            "it counts wrongly",
            format!("{CALLS} system calls were made and {counted} counted"),
        )
        .into());
    }
    Ok(Seen::works(format!(
        "{CALLS} system calls of one thread were counted by raw_syscalls:sys_enter"
    )))
}

const PERIOD_NS: u64 = 100_000;
const SAMPLED: Duration = Duration::from_millis(20);

/// Samples this thread while it has the kernel copy, and looks the functions up.
pub(super) fn samples(context: &Context) -> Result<Seen, Trouble> {
    let mut builder = Session::builder();
    builder.cpu_clock(PERIOD_NS, 0);
    let mut session = builder.attach(Target::ThisThread)?;
    let file = scratch::holding(pattern::bytes(pattern::ALL))?;
    session.enable()?;
    let deadline = Instant::now() + SAMPLED;
    while Instant::now() < deadline {
        scratch::content_of(file.as_fd(), pattern::ALL).preparing("read")?;
    }
    session.disable()?;
    let symbols = context.symbols();
    let (mut all, mut in_kernel, mut named) = (0, 0, 0);
    session.drain_all(|record| {
        if let Kind::Sample { ip, user, .. } = record.kind {
            all += 1;
            in_kernel += usize::from(!user);
            let is_named = |symbols: &Symbols| symbols.lookup(ip).is_some();
            named += usize::from(!user && symbols.as_ref().is_ok_and(|symbols| is_named(symbols)));
        }
    });
    let evidence = format!("{all} samples, {in_kernel} of them in the kernel, {named} with a name");
    match symbols {
        _ if in_kernel == 0 => Err(Seen::limited(
            Cause::NotPermitted,
            "of the program only: the kernel's part is hidden",
            evidence,
        )
        .remedy("CAP_PERFMON (or root), or sysctl kernel.perf_event_paranoid=1")
        .into()),
        Err(error) => {
            let seen = Seen::limited(Cause::NotPermitted, error.to_string(), evidence);
            Err(with_remedy(seen, &error).into())
        }
        Ok(_) if named == 0 => Err(Seen::limited(
            Cause::KernelLacks,
            "the kernel's functions have no names",
            evidence,
        )
        .into()),
        Ok(_) => Ok(Seen::works(evidence).fact("samples", all)),
    }
}

/// Has the kernel copy a known number of bytes and counts them.
pub(super) fn breakpoints(context: &Context) -> Result<Seen, Trouble> {
    let routines = CopyRoutines::find(context.symbols()?)?;
    let content = pattern::bytes(pattern::FEW);
    let file = scratch::holding(content)?;
    let mut builder = Session::builder();
    let events = routines.add_to(&mut builder);
    let mut session = builder.attach(Target::ThisThread)?;
    let mut buffer = vec![0; content.len()];
    session.enable()?;
    let read = rustix::io::pread(&file, &mut buffer, 0);
    session.disable()?;
    let read = read.preparing("read")? as u64;
    let mut copied = Copied::default();
    session.drain_all(|record| {
        if let Some(copy) = events.copy(&record) {
            copied.add(copy);
        }
    });
    let names: Vec<_> = routines.names().collect();
    let counted = copied.to_user;
    let evidence = format!(
        "a read of {read} bytes was counted as {counted} copied bytes; breakpoints on {}",
        names.join(", ")
    );
    if counted == read {
        Ok(Seen::works(evidence))
    } else {
        Err(Seen::limited(Cause::Misbehaves, "the count is not exact", evidence).into())
    }
}
