//! What the instruments cost the thread they are on, per system call: each in turn with none,
//! several rounds, the median of the differences.
//!
//! `cargo run --release -p zhaul-measure --example perf_overhead`
#![expect(clippy::print_stdout, reason = "what it is for")]

use std::time::Instant;

use zhaul_measure::Spread;
use zhaul_measure::perf::{Counter, Error, Session, Symbols, Target, Tracefs};

const CALLS: u32 = 20_000;
const ROUNDS: u32 = 15;

fn main() -> Result<(), Error> {
    let began = Instant::now();
    let symbols = Symbols::load()?;
    println!(
        "reading {} symbols: {:.0} ms",
        symbols.len(),
        began.elapsed().as_secs_f64() * 1e3
    );
    let enter = Tracefs::find()?.tracepoint("raw_syscalls:sys_enter")?;

    // Before anything else is open: what is open anywhere costs everybody.
    let open = std::cell::RefCell::new(None);
    compare(
        "a counter on sys_enter that is open and off, anywhere",
        || {
            *open.borrow_mut() = Some(Counter::of_this_thread(&enter)?);
            Ok(())
        },
        || {
            open.take();
            Ok(())
        },
    )?;

    let counter = Counter::of_this_thread(&enter)?;
    compare(
        "a counter on sys_enter",
        || counter.enable(),
        || counter.disable(),
    )?;

    let mut builder = Session::builder();
    builder.ring_bytes(4 << 20).tracepoint(&enter, None);
    let mut session = builder.attach(Target::ThisThread)?;
    let switch = session.switch();
    let (mut drained_ns, mut records) = (0.0, 0);
    compare(
        "a record of sys_enter",
        || switch.enable(),
        || {
            switch.disable()?;
            let began = cpu_ns();
            records += session.drain_all(|_| {}).records;
            drained_ns += cpu_ns() - began;
            Ok(())
        },
    )?;
    println!(
        "to take and decode a record: {:.0} ns",
        drained_ns / records as f64
    );

    let mut builder = Session::builder();
    builder
        .ring_bytes(4 << 20)
        .tracepoint_with_callchain(&enter, None);
    let mut session = builder.attach(Target::ThisThread)?;
    let switch = session.switch();
    compare(
        "a record of sys_enter with its call chain",
        || switch.enable(),
        || {
            switch.disable()?;
            session.drain_all(|_| {});
            Ok(())
        },
    )?;

    let mut builder = Session::builder();
    builder.tracepoint(&enter, Some("id == -2"));
    let session = builder.attach(Target::ThisThread)?;
    compare(
        "a filter that lets no sys_enter through",
        || session.enable(),
        || session.disable(),
    )
}

fn compare(
    what: &str,
    enable: impl Fn() -> Result<(), Error>,
    mut disable: impl FnMut() -> Result<(), Error>,
) -> Result<(), Error> {
    let mut differences = Vec::new();
    let mut without = Vec::new();
    for _ in 0..ROUNDS {
        let bare = calls_ns();
        enable()?;
        let instrumented = calls_ns();
        disable()?;
        differences.push(instrumented - bare);
        without.push(bare);
    }
    if let (Some(cost), Some(bare)) = (Spread::of(differences), Spread::of(without)) {
        println!(
            "{what}: {:.0} ns a call ({:.0} to {:.0}), on top of {:.0}",
            cost.median, cost.min, cost.max, bare.median
        );
    }
    Ok(())
}

/// CPU time of this thread, so that other work on the machine disturbs less.
fn calls_ns() -> f64 {
    let began = cpu_ns();
    for _ in 0..CALLS {
        let _ = rustix::process::getppid();
    }
    (cpu_ns() - began) / f64::from(CALLS)
}

fn cpu_ns() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}
