//! Either way of watching: with a record of each call, or by counting.

use std::process::{Child, Command};
use std::time::Duration;

use serde::Serialize;
use zhaul_measure::perf::Error;
use zhaul_measure::trace::{Counting, Tracer};

use super::Arguments;
use super::count_screen::{self, CountLines};
use super::screen::{self, Lines};

/// What watches, and the lines it prints.
pub(super) enum Watch {
    Records(Box<Tracer>, Lines),
    Counts(Box<Counting>, CountLines),
}

/// One line of `--json --interval`.
#[derive(Serialize)]
struct JsonLine<T> {
    interval: T,
}

impl Watch {
    pub(super) fn attach(arguments: &Arguments, pids: &[u32]) -> Result<Self, Error> {
        Ok(if arguments.count {
            Self::counts(Counting::attach(pids)?)
        } else {
            Self::records(Tracer::attach(pids, arguments.copies.into())?)
        })
    }

    pub(super) fn spawn(arguments: &Arguments, command: Command) -> Result<(Self, Child), Error> {
        Ok(if arguments.count {
            let (counting, child) = Counting::spawn(command)?;
            (Self::counts(counting), child)
        } else {
            let (tracer, child) = Tracer::spawn(command, arguments.copies.into())?;
            (Self::records(tracer), child)
        })
    }

    fn records(tracer: Tracer) -> Self {
        Self::Records(Box::new(tracer), Lines::new())
    }

    fn counts(counting: Counting) -> Self {
        Self::Counts(Box::new(counting), CountLines::new())
    }

    /// Waits a little; `false` when what is watched has ended.
    pub(super) fn step(&mut self, timeout: Duration) -> Result<bool, Error> {
        match self {
            Self::Records(tracer, _) => tracer.step(timeout),
            Self::Counts(counting, _) => counting.step(timeout),
        }
    }

    /// What happened since the last line.
    pub(super) fn line(&mut self, json: bool) -> anyhow::Result<String> {
        match self {
            Self::Records(tracer, lines) => {
                let interval = tracer.progress()?;
                if json {
                    return object(&JsonLine { interval });
                }
                Ok(lines.line(&interval))
            }
            Self::Counts(counting, lines) => {
                let interval = counting.counted()?;
                if json {
                    return object(&JsonLine { interval });
                }
                Ok(lines.line(interval))
            }
        }
    }

    /// The whole.
    pub(super) fn report(self, what: &str, json: bool) -> anyhow::Result<String> {
        match self {
            Self::Records(tracer, _) => {
                let report = tracer.finish()?;
                if json {
                    return object(&report);
                }
                Ok(screen::report(&report, what))
            }
            Self::Counts(counting, _) => {
                let report = counting.finish()?;
                if json {
                    return object(&report);
                }
                Ok(count_screen::report(&report, what))
            }
        }
    }
}

fn object(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}
