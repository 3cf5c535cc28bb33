//! `zhaul bench` from outside: the binary is run with tiny sizes, and what it prints and writes is
//! looked at. No figure is judged by its value: that needs a quiet machine.
//!
//! [`figures`]: what a run measures and says; [`refusals`]: bad input; [`interrupts`]: runs that are
//! stopped; [`calibration`] and [`comparison`]: the two other things that the command does.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests panic and print to report"
)]

mod support;

mod calibration;
mod comparison;
mod figures;
mod interrupts;
mod refusals;
