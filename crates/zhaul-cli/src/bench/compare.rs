//! `zhaul bench --compare A B`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use anyhow::anyhow;
use zhaul_measure::bench::compare::{Compared, Comparison, Verdict, load};
use zhaul_measure::bench::results::{Contender, Results};
use zhaul_measure::bench::size;

use super::numbers::{number, range};
use super::output::Output;
use super::table::{columns, wrap};
use super::{show, terminal, to_json};
use crate::Failure;

/// Compares, and shows or writes what came out.
pub(super) fn run(files: &[PathBuf], json: Option<Output>) -> Result<(), Failure> {
    let [a, b] = files else {
        return Err(anyhow!("bench: --compare takes two files").into());
    };
    let comparison = Comparison::of(&read(a)?, &read(b)?);
    let to_stdout = json.as_ref().is_some_and(Output::is_stdout);
    if !to_stdout {
        show(&text(&comparison, terminal::columns()));
    }
    if let Some(json) = json {
        json.write(&to_json(&comparison)?)?;
    }
    Ok(())
}

fn read(file: &Path) -> Result<Results, Failure> {
    load(file).map_err(|error| Failure {
        why: anyhow!(
            "bench: {} {error} (name two files that --json wrote)",
            file.display()
        ),
        exit: 2,
    })
}

fn text(comparison: &Comparison, width: usize) -> String {
    let mut text = String::new();
    let differs: Vec<String> = comparison
        .differs
        .iter()
        .map(|what| format!("Beware: {what}"))
        .collect();
    text += &wrap(&differs, width);
    let mut heading = String::new();
    for one in &comparison.compared {
        let new = format!("{}, {}", one.path.label(), size::format(one.bytes));
        if heading != new {
            let _ = writeln!(text, "{BOLD}{new}{BOLD:#}");
            heading = new;
        }
        text += &line(one, width);
    }
    text.push('\n');
    text += &wrap(&summary(comparison), width);
    text
}

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

fn line(one: &Compared, width: usize) -> String {
    let style = match one.verdict {
        Verdict::Better => AnsiColor::Green.on_default(),
        Verdict::Worse => AnsiColor::Red.on_default(),
        Verdict::NoDifference | Verdict::TooFewRounds => DIM,
    };
    let floor = match one.contender {
        Contender::Zhaul => "",
        Contender::Floor => " floor",
    };
    let name = format!("{}{floor}", one.route);
    let (a, b) = (number(one.a.median), number(one.b.median));
    let verdict = verdict(one.verdict);
    let ratio = format!("×{:.2}", one.ratio);
    if width >= TABLE_WIDTH {
        let unit = one.unit;
        return format!(
            "  {name:21} {a:>6} → {b:>6} {unit:4}  {ratio:>6}  {style}{verdict}{style:#}\n"
        );
    }
    let ranges = [one.a, one.b].map(|spread| range(spread).unwrap_or_default());
    let mut text = format!("  {name}, {}\n", one.unit);
    let _ = writeln!(text, "    {a} → {b}  {ratio}");
    if ranges.iter().any(|range| columns(range) > 0) {
        let _ = writeln!(text, "    {DIM}{} → {}{DIM:#}", ranges[0], ranges[1]);
    }
    let _ = writeln!(text, "    {style}{verdict}{style:#}");
    text
}

const TABLE_WIDTH: usize = 72;

const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::NoDifference => "no difference",
        Verdict::TooFewRounds => "too few rounds to tell",
    }
}

fn summary(comparison: &Comparison) -> Vec<String> {
    let count = |verdict| comparison.count(verdict);
    let mut lines = vec![format!(
        "{} figures: {} better, {} worse, {} without difference, {} of too few rounds. The second \
         median divided by the first; a difference only where the ranges over the rounds do not \
         touch. Of two equal programs {:.1} would be called different by chance.",
        comparison.compared.len(),
        count(Verdict::Better),
        count(Verdict::Worse),
        count(Verdict::NoDifference),
        count(Verdict::TooFewRounds),
        comparison.by_chance
    )];
    for (which, names) in [
        ("first", &comparison.only_a),
        ("second", &comparison.only_b),
    ] {
        if !names.is_empty() {
            lines.push(format!("In the {which} only: {}.", names.join("; ")));
        }
    }
    lines
}
