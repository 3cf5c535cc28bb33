//! `zhaul bench --calibrate`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anstyle::Style;
use anyhow::{Context as _, anyhow};
use zhaul_measure::bench::calibrate::{Decision, Options, Outcome, Says, run as measure};
use zhaul_measure::bench::{calibration, size};

use super::output::Output;
use super::progress::{Interrupt, Progress};
use super::table::wrap;
use super::{explain, show, terminal, to_json, usage};
use crate::Failure;

/// Measures, and leaves the thresholds where the planner reads them: in `file`, or where this
/// user's processes look first.
pub(super) fn run(
    options: &Options,
    file: Option<&Path>,
    json: Option<&Output>,
) -> Result<(), Failure> {
    let path = match file {
        Some(path) => path.to_path_buf(),
        None => calibration::own_path().ok_or_else(|| {
            usage(anyhow!(
                "bench --calibrate: nowhere to leave the thresholds: there is no home directory, \
                 or ZHAUL_CALIBRATION is empty (use --calibrate=FILE)"
            ))
        })?,
    };
    let output = open(&path)?;
    let interrupt = Interrupt::watch()?;
    let mut progress = Progress::new(&interrupt);
    let outcome = measure(options, &mut progress);
    progress.finish();
    interrupt.spare();
    let outcome = outcome.map_err(|error| explain(&error, &interrupt))?;
    if !json.is_some_and(Output::is_stdout) {
        show(&text(&outcome, terminal::columns()));
    }
    let written = json.map_or(Ok(()), |json| json.write(&to_json(&outcome)?));
    output.write(outcome.file_text().as_bytes())?;
    written?;
    if !json.is_some_and(Output::is_stdout) {
        show(&wrap(&whereabouts(&path), terminal::columns()));
    }
    Ok(())
}

/// Before anything is measured.
fn open(path: &Path) -> anyhow::Result<Output> {
    if path == Path::new("-") {
        return Ok(Output::Stdout);
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| {
            format!(
                "cannot create {} (name a file that you may write with --calibrate=FILE)",
                dir.display()
            )
        })?;
    }
    Output::open(path)
}

fn text(outcome: &Outcome, width: usize) -> String {
    let mut text = String::new();
    for decision in &outcome.decisions {
        let _ = writeln!(text, "{BOLD}{} ÷ read+write{BOLD:#}", decision.route);
        for &(bytes, ratio) in &decision.ratios {
            let says = Says::of(ratio).words();
            let size = size::format(bytes);
            let (median, min, max) = (ratio.median, ratio.min, ratio.max);
            let _ = writeln!(
                text,
                "{size:>8}  {median:.2}  {DIM}{min:.2}–{max:.2}{DIM:#}  {says}"
            );
        }
        text += &wrap(&[decided(decision)], width);
        text.push('\n');
    }
    let how = format!(
        "CPU time of the sender, file to TCP on loopback: the median of the ratios within {} \
         rounds, and the range in which it lies with 95 % confidence. A threshold moves only for \
         sizes whose range excludes 1. Seed {}.",
        outcome.rounds, outcome.seed
    );
    text += &wrap(&[how], width);
    text
}

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

fn decided(decision: &Decision) -> String {
    let Decision {
        route,
        threshold,
        default,
        ..
    } = decision;
    let from = match *threshold {
        0 => "always".to_owned(),
        u64::MAX => "never".to_owned(),
        bytes => format!("from {} on", size::format(bytes)),
    };
    let stays = if threshold == default {
        ", which is the default"
    } else {
        ""
    };
    format!("{route} is used {from}{stays}.")
}

fn whereabouts(path: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    if path != Path::new("-") {
        lines.push(format!("Written to {}.", path.display()));
    }
    // What was written may not be what is read.
    let own = calibration::own_path().filter(|own| own.exists());
    match own.unwrap_or_else(|| PathBuf::from(calibration::SYSTEM_PATH)) {
        read if read != path => lines.push(format!(
            "Processes of this user read {} (or what ZHAUL_CALIBRATION names).",
            read.display()
        )),
        _ => lines.push("Processes of this user read it when they start.".to_owned()),
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_said_in_words() {
        let decision = |threshold| Decision {
            route: "sendfile",
            name: "sendfile_min_bytes",
            default: 0,
            threshold,
            ratios: Vec::new(),
        };
        for (threshold, words) in [
            (0, "sendfile is used always, which is the default."),
            (4096, "sendfile is used from 4 KiB on."),
            (u64::MAX, "sendfile is used never."),
        ] {
            assert_eq!(decided(&decision(threshold)), words);
        }
    }
}
