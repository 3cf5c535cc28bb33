//! Tests that need what the lab guest has: breakpoints on the kernel's own code, a wire between two
//! network devices, kTLS, soft-RoCE. `lab/run` boots the guest and runs this in it.
//!
//! A test is a function whose name is its claim; it fails by panicking. There is no skipping: in
//! the guest everything is to be had, and a test that finds something missing has failed.
//!
//! `zhaul-lab [--list] [WORD…]` runs the tests whose names contain one of the words, all without.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "all of this is test code: it fails by panicking and reports on stdout"
)]

mod capabilities;
mod copies;
mod cow;
mod data;
mod fragments;
mod leases;
mod message_zerocopy;
mod meter;
mod packets;
mod receiving;
mod rxe;
mod traced;
mod wire;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// A name and what it claims.
type Test = (&'static str, fn());

/// Makes the table of a module's tests from the functions themselves.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[crate::Test] = &[$((stringify!($name), $name)),*];
    };
}
pub(crate) use tests;

const MODULES: [(&str, &[Test]); 8] = [
    ("copies", copies::TESTS),
    ("message_zerocopy", message_zerocopy::TESTS),
    ("fragments", fragments::TESTS),
    ("traced", traced::TESTS),
    ("leases", leases::TESTS),
    ("cow", cow::TESTS),
    ("capabilities", capabilities::TESTS),
    // The last: it changes the size of packets, after which a link is down for a moment.
    ("receiving", receiving::TESTS),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [option, route] = &words[..]
        && option == "--move"
    {
        traced::move_standard_input(route);
        return ExitCode::SUCCESS;
    }
    let all = MODULES.iter().flat_map(|(module, tests)| {
        tests
            .iter()
            .map(move |&(name, test)| (format!("{module}::{name}"), test))
    });
    if words.iter().any(|word| word == "--list") {
        all.for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    if std::env::var_os("ZHAUL_LAB").is_none() {
        eprintln!("zhaul-lab: runs in the lab guest only (start it with lab/run)");
        return ExitCode::from(2);
    }
    let chosen: Vec<_> = all
        .filter(|(name, _)| words.is_empty() || words.iter().any(|word| name.contains(word)))
        .collect();
    if chosen.is_empty() {
        eprintln!("zhaul-lab: no test is named like {words:?} (--list shows them)");
        return ExitCode::from(2);
    }
    run(&chosen)
}

fn run(chosen: &[(String, fn())]) -> ExitCode {
    let mut failed = Vec::new();
    for (name, test) in chosen {
        print!("test {name} ... ");
        let _ = std::io::stdout().flush();
        let began = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        let seconds = began.elapsed().as_secs_f64();
        println!("{} ({seconds:.1} s)", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(name);
        }
    }
    let passed = chosen.len() - failed.len();
    println!("\n{passed} passed, {} failed", failed.len());
    for name in &failed {
        println!("FAILED {name}");
    }
    ExitCode::from(u8::from(!failed.is_empty()))
}
