//! Aggregates on a kernel made of vectors: whatever it answers, the bytes arrive once and in order.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../common/mod.rs"]
mod common;

mod kernel;
mod properties;
mod scripts;
mod zero_copy;

use kernel::{Kernel, Segment};
