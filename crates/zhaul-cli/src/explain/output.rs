//! The explanation on standard output, or on standard error where the bytes go to the former.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use anyhow::anyhow;
use terminal_size::{Width, terminal_size, terminal_size_of};
use zhaul_measure::explain::render::{Line, Tone};
use zhaul_measure::explain::{Explanation, render};

use crate::Failure;

/// Where words go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    Stdout,
    Stderr,
}

pub(super) fn print(explanation: &Explanation, json: bool, to: To) -> Result<(), Failure> {
    let written = match to {
        To::Stdout => write(explanation, json, to, &mut anstream::stdout().lock()),
        To::Stderr => write(explanation, json, to, &mut anstream::stderr().lock()),
    };
    match written {
        // Whoever closed the pipe has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            let stream = match to {
                To::Stdout => "standard output",
                To::Stderr => "standard error",
            };
            Err(anyhow!("{stream}: {error} (send the report elsewhere)").into())
        }
        Ok(()) => Ok(()),
    }
}

fn write(explanation: &Explanation, json: bool, to: To, out: &mut impl Write) -> io::Result<()> {
    if json {
        serde_json::to_writer_pretty(&mut *out, explanation)?;
        writeln!(out)?;
    } else {
        for line in render::tree(explanation, columns(to)) {
            write_line(&line, out)?;
        }
    }
    out.flush()
}

fn write_line(line: &Line, out: &mut impl Write) -> io::Result<()> {
    let quiet = Style::new().dimmed();
    let (label, text) = match line.tone {
        Tone::Chosen => (AnsiColor::Green.on_default().bold(), Style::new()),
        Tone::Warning => (
            AnsiColor::Yellow.on_default(),
            AnsiColor::Yellow.on_default(),
        ),
        Tone::Quiet => (quiet, quiet),
        Tone::Plain => (Style::new().bold(), Style::new()),
    };
    let rest = line.text.trim_end();
    let name = if rest.is_empty() {
        line.label.trim_end()
    } else {
        &line.label
    };
    for (style, part) in [(quiet, line.branches.as_str()), (label, name), (text, rest)] {
        if !part.is_empty() {
            write!(out, "{style}{part}{style:#}")?;
        }
    }
    writeln!(out)
}

/// COLUMNS says it; else the terminal; else 80.
fn columns(to: To) -> usize {
    let said = std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.parse().ok());
    let seen = || {
        let size = match to {
            To::Stdout => terminal_size(),
            To::Stderr => terminal_size_of(io::stderr()),
        };
        size.map(|(Width(columns), _)| columns.into())
    };
    said.filter(|&columns| columns > 0)
        .or_else(seen)
        .unwrap_or(80)
}
