//! `zhaul trace`: attaches to processes, or starts a command, and shows what their input and output
//! costs.

mod attach;
mod count_screen;
mod output;
mod screen;
mod signals;
mod units;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum, ValueHint};
use zhaul_measure::trace::Copies;

use crate::Failure;

const EXAMPLES: &str = "\
Examples:
  zhaul trace -p 1234                        # until Ctrl-C, or until the process ends
  zhaul trace -p 1234 --seconds 10 --json
  zhaul trace -p 1234 --count                # for a server at full load
  zhaul trace -- cp large.iso /mnt/          # the report goes to stderr, like that of time(1)
  zhaul trace -o report.txt -- curl -sO http://127.0.0.1:8080/large.iso

With a command, the exit code is that of the command (128 + N if signal N ended it, 127 if it
is not there, 126 if it cannot be run), or 1 if it could not be traced and was not run.";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("what").required(true))]
pub(crate) struct Arguments {
    /// Attach to this process, its threads and its children, without stopping it; repeatable
    #[arg(short, long, value_name = "PID", group = "what")]
    pid: Vec<u32>,

    /// Start this command and trace it from its first instruction on
    #[arg(last = true, value_name = "COMMAND", group = "what", value_hint = ValueHint::CommandWithArguments)]
    command: Vec<OsString>,

    /// End after so many seconds (a command goes on untraced)
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<Duration>,

    /// Seconds from one line of figures to the next; 0 for none [default: 1, with --json 0]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    interval: Option<Duration>,

    /// Only count calls, not bytes: slows what is traced down the least
    #[arg(long, conflicts_with = "copies")]
    count: bool,

    /// How copied bytes are found: auto (exact where the kernel allows it), exact or by-call
    #[arg(
        long,
        value_name = "METHOD",
        default_value = "auto",
        hide_possible_values = true
    )]
    copies: CopiesArgument,

    /// Print one JSON object at the end; with --interval also one on a line for each
    #[arg(long)]
    json: bool,

    /// Write the report to this file when it is complete
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CopiesArgument {
    Auto,
    Exact,
    ByCall,
}

impl From<CopiesArgument> for Copies {
    fn from(argument: CopiesArgument) -> Self {
        match argument {
            CopiesArgument::Auto => Self::Auto,
            CopiesArgument::Exact => Self::Exact,
            CopiesArgument::ByCall => Self::ByCall,
        }
    }
}

impl Arguments {
    /// From one line of figures to the next.
    fn interval(&self) -> Option<Duration> {
        let default = Duration::from_secs(u64::from(!self.json));
        Some(self.interval.unwrap_or(default)).filter(|interval| !interval.is_zero())
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.command.is_empty() {
        attach::processes(arguments)
    } else {
        attach::command(arguments)
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number")?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}
