//! `zhaul doctor`: from the command line to [`zhaul_measure::probe::survey`], and its report to a
//! screen or as JSON.

mod deadly;
mod screen;
mod text;

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueHint};
use zhaul_measure::probe::{Ask, Report, SurveyError, survey};

use crate::Failure;

const EXAMPLES: &str = "\
Examples:
  zhaul doctor                          # this directory's file system, and the rest
  zhaul doctor /srv/www /tmp            # two file systems
  zhaul doctor -v | less                # what was tried, and what was seen
  zhaul doctor --json | jq '.mechanisms[] | select(.status != \"available\")'

Everything is tried with a few KiB, in memory, in files without a name and over
loopback, and is gone afterwards. Nothing is changed. No privilege is needed;
what is out of sight without one is said.";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Files or directories whose file systems are tried
    #[arg(value_name = "PATH", default_value = ".", value_hint = ValueHint::AnyPath)]
    paths: Vec<PathBuf>,

    /// Say of each mechanism what was tried and seen
    #[arg(short, long)]
    verbose: bool,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,

    /// Send 16 KiB to this address with MSG_ZEROCOPY, to see what the device on the way does; a
    /// service there must read and drop them
    #[arg(long, value_name = "ADDRESS:PORT")]
    peer: Option<SocketAddr>,

    /// Try one mechanism and say nothing: for a process that may be killed for it
    #[arg(long, value_name = "ID", hide = true)]
    try_alone: Option<String>,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments {
        paths,
        verbose,
        json,
        peer,
        try_alone,
    } = arguments;
    if let Some(id) = try_alone {
        paths.first().inspect(|path| deadly::try_alone(&id, path));
        return Ok(());
    }
    let ask = Ask {
        deadly: paths
            .first()
            .map_or_else(Vec::new, |p| deadly::mechanisms(p)),
        paths,
        peer,
    };
    let report = survey(&ask).map_err(|error| {
        let what_to_do = match error {
            SurveyError::Path { .. } => "name a file or directory that exists and can be reached",
            _ => "is its server there?",
        };
        anyhow!("{} ({what_to_do})", text::printable(&error.to_string()))
    })?;
    let printed = if json {
        print_json(&report)
    } else {
        let page = screen::page(&report, text::columns(), verbose);
        anstream::stdout().lock().write_all(page.as_bytes())
    };
    match printed {
        // A reader that closed the pipe has seen enough.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot print the report")?
        }
        _ => Ok(()),
    }
}

fn print_json(report: &Report) -> std::io::Result<()> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    std::io::stdout().lock().write_all(text.as_bytes())
}
