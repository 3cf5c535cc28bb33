//! The results for a stranger: a sentence and a few bars for each path, and what speaks against
//! trusting them.

use maud::{Markup, html};

use super::chart::{WIDTH, class, clip, px};
use super::crossover::crossings;
use super::view::{BASELINE, FEWEST_ROUNDS, Figure, Metric, PathView, Verdict, name, values};
use super::words::{self, rough};
use crate::bench::results::{Contender, FORMAT, Results};
use crate::stats::Spread;

/// What was measured and on what, warnings, and a card for each path.
pub(super) fn section(results: &Results, views: &[PathView<'_>]) -> Markup {
    html! {
        header {
            h1 { "What it costs to move bytes on this machine" }
            p.lead { (what_was_measured(results, views)) }
            p.on { (on_what(results)) }
        }
        (warnings(results))
        section #results-in-short aria-labelledby="results-in-short-title" {
            h2 #results-in-short-title { "In short" }
            @if views.is_empty() {
                p { "There are no figures to show." }
            } @else {
                p {
                    "CPU-seconds are those of the end that moves the bytes, for each gigabyte: the \
                    fewer, the more of the CPU is left for other work. The shorter bar is the \
                    better; the thin line at its end spans the rounds."
                }
                div.cards {
                    @for view in views { (card(results, view)) }
                }
                @if let Some(sentence) = overhead(views) { p { (sentence) } }
            }
        }
    }
}

fn what_was_measured(results: &Results, views: &[PathView<'_>]) -> String {
    let sizes = || views.iter().flat_map(|view| view.sizes.iter().copied());
    let (Some(smallest), Some(largest)) = (sizes().min(), sizes().max()) else {
        return if results.interrupted {
            "This run ended before anything was measured.".to_owned()
        } else {
            "zhaul found no route that it could measure here.".to_owned()
        };
    };
    let sizes = if smallest == largest {
        format!("in transfers of {}", words::size(smallest))
    } else {
        format!(
            "in transfers of {} to {}",
            words::size(smallest),
            words::size(largest)
        )
    };
    format!(
        "The kernel has several ways to get bytes from here to there. This run moved the same bytes \
         by one after the other, {sizes}, {} each in random order, and asked the kernel how much \
         CPU time that took.",
        words::counted(results.rounds.into(), "round"),
    )
}

fn on_what(results: &Results) -> Markup {
    let host = &results.host;
    html! {
        "Measured on " strong { (host.cpu) } ", " (words::counted(host.cores as u64, "core"))
        ", Linux " (host.kernel) ", files on " (host.file_system) ". Began "
        time datetime=(results.began) { (words::moment(&results.began)) }
        ", took " (words::duration(results.seconds)) "."
    }
}

/// What a reader must know before believing a figure.
fn warnings(results: &Results) -> Markup {
    let timed = || results.cells.iter().filter(|cell| !cell.samples.is_empty());
    let all = timed().count();
    let unverified = timed().filter(|cell| !cell.verified).count();
    let lacking = results
        .cells
        .iter()
        .filter(|cell| cell.samples.len() < results.rounds as usize)
        .count();
    let load = results.host.load.parse::<f64>().ok();
    let mut warnings: Vec<String> = Vec::new();
    if results.format != FORMAT {
        warnings.push(format!(
            "The results are in format {}, and this page was made by a version that knows format \
             {FORMAT}: figures may be missing or mean something else.",
            results.format
        ));
    }
    if results.interrupted && !results.cells.is_empty() {
        warnings.push(format!(
            "The run was interrupted: {lacking} of {} lack rounds, and others may be missing.",
            words::counted(results.cells.len() as u64, "combination"),
        ));
    }
    if unverified > 0 {
        warnings.push(format!(
            "Not verified: in {unverified} of {} the bytes received were not compared with those \
             sent. The tables mark them.",
            words::counted(all as u64, "combination"),
        ));
    }
    if (results.rounds as usize) < FEWEST_ROUNDS && all > 0 {
        warnings.push(format!(
            "Only {}: too few to tell a difference from noise ({FEWEST_ROUNDS} are needed).",
            words::counted(results.rounds.into(), "round"),
        ));
    }
    if load.is_some_and(|load| load > 1.0) {
        warnings.push(format!(
            "The machine was busy: a load of {} when the run began. Expect noise.",
            results.host.load
        ));
    }
    html! {
        @if !warnings.is_empty() {
            aside.warning aria-label="Warnings" {
                @for warning in &warnings { p { strong { "Warning. " } (warning) } }
            }
        }
    }
}

fn card(results: &Results, view: &PathView<'_>) -> Markup {
    let label = view.path.label();
    let Some(bytes) = view.reference_size() else {
        return html! { article.card { h3 { (label) } p { "Nothing was timed." } } };
    };
    let figures = Standing::of(view, bytes);
    let rounds = figures.ranked.iter().map(|(_, figure)| figure.rounds);
    let (fewest, most) = (rounds.clone().min().unwrap_or(0), rounds.max().unwrap_or(0));
    html! {
        article.card {
            h3 { (label) }
            p.result { (figures.sentence()) }
            (bars(view, &figures.ranked))
            p.small {
                "Transfers of " (words::size(bytes)) ", median of "
                @if fewest < most { (fewest) " to " }
                (words::counted(most as u64, "round"))
                @if view.subject() == Contender::Floor { ", " (name(Contender::Floor)) " (zhaul was not timed)" }
                "."
                @if let Some(ratio) = figures.ratio_within_rounds(view, bytes) { " " (ratio) }
                @if results.interrupted { " The run was interrupted." }
                @for sentence in small_transfers(view) { " " (sentence) }
            }
        }
    }
}

/// The routes of one path at one size.
struct Standing<'a> {
    /// Cheapest first.
    ranked: Vec<(&'a str, Figure)>,
    /// The one to name: of those that the noise does not tell from the cheapest, the one with the
    /// fewest mode switches.
    best: Option<(&'a str, Figure)>,
}

impl<'a> Standing<'a> {
    fn of(view: &PathView<'a>, bytes: u64) -> Self {
        let mut ranked: Vec<(&str, Figure)> = view
            .routes
            .iter()
            .filter_map(|&route| {
                let figure = view.figure(route, view.subject(), bytes, Metric::MoverCpu)?;
                Some((route, figure))
            })
            .collect();
        ranked.sort_by(|a, b| a.1.spread.median.total_cmp(&b.1.spread.median));
        let switches = |route: &str| {
            let cell = view.cell(route, view.subject(), bytes);
            cell.map_or(0, |cell| cell.expected.mode_switches)
        };
        let best = ranked
            .iter()
            .filter(|(_, figure)| {
                let cheapest = &ranked[0].1;
                figure == cheapest || figure.against(cheapest) == Verdict::Same
            })
            .min_by_key(|(route, _)| switches(route))
            .cloned();
        Self { ranked, best }
    }

    fn others(&self) -> impl Iterator<Item = &(&'a str, Figure)> {
        let best = self.best.as_ref().map(|(route, _)| *route);
        self.ranked
            .iter()
            .filter(move |(route, _)| Some(*route) != best)
    }

    /// The best, and what it is compared with: the baseline, or if that is the best, the next,
    /// or if it was not measured, the dearest.
    fn pair(&self) -> Option<[&(&'a str, Figure); 2]> {
        let best = self.best.as_ref()?;
        let other = if best.0 == BASELINE {
            self.others().next()?
        } else {
            let baseline = self.others().find(|(route, _)| *route == BASELINE);
            baseline.or_else(|| self.others().last())?
        };
        Some([best, other])
    }

    fn sentence(&self) -> Markup {
        let Some((first, figure)) = &self.best else {
            return html! { "Nothing was timed." };
        };
        let cost = |figure: &Figure| rough(figure.spread.median);
        let Some([_, (other, against)]) = self.pair() else {
            return html! {
                strong { (first) } " moved a gigabyte with " (cost(figure))
                " CPU-seconds. No other route was timed, so there is nothing to compare it with."
            };
        };
        let verdict = figure.against(against);
        let times = words::times(against.spread.median / figure.spread.median);
        html! {
            @if verdict == Verdict::Same {
                strong { "No difference" } " between " (first) " (" (cost(figure)) ") and "
                (other) " (" (cost(against)) " CPU-seconds for a gigabyte): the ranges overlap."
            } @else {
                strong { (first) } " moved a gigabyte with " strong { (cost(figure)) }
                " CPU-seconds, " (other) " with " (cost(against))
                @if figure.spread.median > 0.0 { ": " strong { (times) " times as much" } }
                @if verdict == Verdict::Unjudged { ", but in too few rounds to rule out noise" }
                "."
            }
            @let equals = self.equals_of_the_best(other);
            @if !equals.is_empty() {
                " No difference to " (words::list(&equals)) "."
            }
        }
    }

    fn equals_of_the_best(&self, but: &str) -> Vec<&'a str> {
        let Some((_, figure)) = &self.best else {
            return Vec::new();
        };
        self.others()
            .filter(|(route, other)| *route != but && figure.against(other) == Verdict::Same)
            .map(|(route, _)| *route)
            .collect()
    }

    fn ratio_within_rounds(&self, view: &PathView<'_>, bytes: u64) -> Option<String> {
        let [(first, _), (other, _)] = self.pair()?;
        let values = |route| {
            let cell = view.cell(route, view.subject(), bytes)?;
            Some(values(cell, Metric::MoverCpu))
        };
        let ratio = Spread::ratio(&values(other)?, &values(first)?)?;
        let range = words::range(ratio)?;
        Some(format!(
            "In single rounds {other} took {range} times as much as {first}."
        ))
    }
}

fn small_transfers(view: &PathView<'_>) -> Vec<String> {
    crossings(view)
        .iter()
        .filter(|crossing| crossing.below == BASELINE)
        .map(|crossing| {
            format!(
                "At {}, {BASELINE} is cheaper than {}; at {} the reverse.",
                words::size(crossing.between.0),
                crossing.above,
                words::size(crossing.between.1)
            )
        })
        .collect()
}

/// One bar for each route, cheapest first.
fn bars(view: &PathView<'_>, ranked: &[(&str, Figure)]) -> Markup {
    const ROW: f64 = 26.0;
    const LEFT: f64 = 114.0;
    const CHARACTER: f64 = 8.2;
    let widest = ranked
        .iter()
        .map(|(_, figure)| rough(figure.spread.median).chars().count())
        .max();
    let length = WIDTH - LEFT - 8.0 - CHARACTER * widest.unwrap_or(0) as f64;
    let longest = ranked
        .iter()
        .map(|(_, figure)| figure.spread.max)
        .fold(0.0, f64::max);
    let x = |value: f64| LEFT + length * if longest > 0.0 { value / longest } else { 0.0 };
    let height = ROW * ranked.len() as f64;
    let id = view.path as usize;
    let cost =
        |(route, figure): &(&str, Figure)| format!("{route} {}", rough(figure.spread.median));
    let costs: Vec<String> = ranked.iter().map(cost).collect();
    html! {
        svg.chart viewBox={ "0 0 " (WIDTH) " " (px(height)) } role="img"
            aria-labelledby={ "bars-" (id) "-title bars-" (id) "-desc" } {
            title id={ "bars-" (id) "-title" } { (view.path.label()) ": CPU-seconds for a gigabyte by route" }
            desc id={ "bars-" (id) "-desc" } { (words::list(&costs)) "." }
            @for (row, (route, figure)) in ranked.iter().enumerate() {
                @let top = ROW * row as f64;
                @let middle = top + ROW / 2.0;
                @let spread = figure.spread;
                g class=(class(route)) {
                    text.name x=(px(LEFT - 8.0)) y=(px(middle + 4.0)) text-anchor="end" { (clip(route)) }
                    rect.bar x=(px(LEFT)) y=(px(top + 5.0)) height=(px(ROW - 10.0))
                        width=(px((x(spread.median) - LEFT).max(1.0))) {}
                    path.whisker d={
                        "M" (px(x(spread.min))) " " (px(middle)) "H" (px(x(spread.max)))
                        "M" (px(x(spread.min))) " " (px(middle - 4.0)) "v8"
                        "M" (px(x(spread.max))) " " (px(middle - 4.0)) "v8"
                    } {}
                    text.value x=(px(x(spread.max) + 6.0)) y=(px(middle + 4.0)) { (rough(spread.median)) }
                }
            }
        }
    }
}

/// How near the library is to the bare system calls, over all combinations.
fn overhead(views: &[PathView<'_>]) -> Option<String> {
    let mut ratios = Vec::new();
    let (mut same, mut less, mut more) = (0, 0, 0);
    for view in views {
        for route in &view.routes {
            let floor = view.curve(route, Contender::Floor);
            for (bytes, ours) in view.curve(route, Contender::Zhaul) {
                let Some((_, bare)) = floor.iter().find(|(size, _)| *size == bytes) else {
                    continue;
                };
                ratios.push(ours.spread.median / bare.spread.median);
                match ours.against(bare) {
                    Verdict::Same => same += 1,
                    Verdict::Less => less += 1,
                    Verdict::More => more += 1,
                    Verdict::Unjudged => {}
                }
            }
        }
    }
    let ratio = Spread::of(ratios.iter().copied())?;
    let judged = if same + less + more == 0 {
        "too few rounds to judge any of them".to_owned()
    } else {
        format!("no difference in {same}, dearer in {more}, cheaper in {less}")
    };
    Some(format!(
        "zhaul itself, against the same system calls in a bare loop: {} times the CPU time, the \
         median of {} of path, route and size ({judged}).",
        words::times(ratio.median),
        words::counted(ratios.len() as u64, "combination"),
    ))
}
