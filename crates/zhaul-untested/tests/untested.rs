//! The last program that `cargo test --workspace` runs: what was skipped, and why.
#![allow(clippy::print_stdout, reason = "a report on stdout")]

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let skipped = zhaul_untested::take();
    if skipped.is_empty() {
        println!("\nNo test was skipped.");
        return;
    }
    println!("\n{} tests could not run here:", skipped.len());
    for line in skipped {
        println!("{line}");
    }
}
