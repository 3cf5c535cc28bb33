//! What the figures were measured on: the machine and the programs.

use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::server::Launcher;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Host {
    #[serde(flatten)]
    pub(crate) machine: zhaul_measure::host::Host,
    pub(crate) nginx: Option<String>,
    pub(crate) zhaul: Option<String>,
    pub(crate) wrk: Option<String>,
}

impl Host {
    pub(crate) fn describe(launcher: &Launcher, wrk: Option<&Path>, dir: &Path) -> Self {
        Self {
            machine: zhaul_measure::host::Host::describe(dir),
            nginx: launcher
                .nginx
                .as_deref()
                .and_then(|program| version(program, "-v")),
            zhaul: launcher
                .zhaul
                .as_deref()
                .and_then(|program| version(program, "--version")),
            wrk: wrk.and_then(|program| version(program, "-v")),
        }
    }
}

/// The first line that a program says about itself, shortened to its name and number.
fn version(program: &Path, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next()?.trim_start_matches("nginx version: ");
    Some(line.split(" [").next().unwrap_or(line).to_owned())
}
