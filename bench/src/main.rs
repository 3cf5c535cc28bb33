//! `zhaul-bench`: `zhaul serve` next to nginx and next to the floor, in one run.
//!
//! The floor is a bare loop of the same system calls; it is a child process like every other
//! server, so that all of them are measured by the same clock in the same round. Nothing here
//! asserts on time: `--check` prints how each target fared and leaves the exit status alone.
//!
//! Not here: micro-benchmarks of single routes (`zhaul bench`), and tests of the server.

mod affinity;
mod channel;
mod check;
mod child;
mod cli;
mod client;
mod cold;
mod cow;
mod cpu_clock;
mod fixture;
mod floor;
mod host;
mod interrupt;
mod limits;
mod memory;
mod receive;
mod report;
mod sample;
mod server;
mod suite;
mod wrk;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let outcome = match cli.command {
        // A floor is measured: it gets no signal handler and no settings of its own.
        cli::Command::Floor(floor) => floor::run(floor),
        cli::Command::Serve(options) => suite::run(&[suite::Suite::Serve], &options),
        cli::Command::Cold(options) => suite::run(&[suite::Suite::Cold], &options),
        cli::Command::Idle(options) => suite::run(&[suite::Suite::Idle], &options),
        cli::Command::Proxy(options) => suite::run(&[suite::Suite::Proxy], &options),
        cli::Command::Cow(options) => cow::run(&options),
        cli::Command::Channel(options) => channel::run(&options),
        cli::Command::ChannelPeer(args) => channel::peer(&args),
        cli::Command::Receive(options) => receive::run(&options),
        cli::Command::All(options) => suite::run(&suite::Suite::ALL, &options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell the user if stderr is gone as well.
            let _ = writeln!(std::io::stderr(), "zhaul-bench: {error:#}");
            // A call that the signal broke off, as connect(2), fails before anybody looks at the flag.
            if error.is::<interrupt::Interrupted>() || interrupt::check().is_err() {
                ExitCode::from(130)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
