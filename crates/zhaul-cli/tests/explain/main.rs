//! `zhaul explain` from outside: the binary is run with every kind of end, what it says is read, and
//! with `--run` the bytes that arrive are compared.
//!
//! [`plans`] shows that planning leaves the world as it was, [`runs`] that what is planned is done,
//! [`figures`] that figures are measured or said to be missing, [`mistakes`] what is said when it
//! cannot be done, [`stops`] how it ends early, [`words`] how it reads.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests panic and print to report"
)]

mod figures;
mod mistakes;
mod plans;
mod runs;
mod stops;
mod support;
mod words;
