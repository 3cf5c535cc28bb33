//! What the CPU of the moving end was busy with, from samples.

use maud::{Markup, html};

use super::chart::{WIDTH, clip, px};
use super::view::{Metric, PathView, name, profiles};
use super::words;
use crate::bench::results::{Part, Path, Profile, Results};

const ROW: f64 = 50.0;
const BAR: f64 = 24.0;
/// About the width of one character of a label in a bar.
const CHARACTER: f64 = 7.8;

/// The parts in the order of the bars.
const PARTS: [Part; 5] = [Part::Copy, Part::Tcp, Part::Vfs, Part::Kernel, Part::User];

/// Samples below which shares mean little.
const FEW: u64 = 100;

/// A stacked bar for each route of each path.
pub(super) fn section(results: &Results, views: &[PathView<'_>]) -> Markup {
    html! {
        section #split aria-labelledby="split-title" {
            h2 #split-title { "What the CPU was busy with" }
            @if results.profiles.is_empty() {
                p {
                    "No samples of the CPU were taken in this run. "
                    "They need perf events, which the kernel may keep from unprivileged users; "
                    code { "zhaul doctor" } " says what to do about it."
                }
            } @else {
                p {
                    "Many times a second, a clock of the CPU notes the function it is in: these \
                    shares are " em { "sampled" } ", in passes of their own, and do not disturb \
                    the timed figures."
                }
                ul.legend {
                    @for part in PARTS { li { (key(part)) " " (label(part)) ": " (meaning(part)) } }
                }
                div.charts {
                    @for path in Path::ALL {
                        @let of_path = profiles(results, path);
                        @if !of_path.is_empty() {
                            (figure(path, &of_path, views.iter().find(|view| view.path == path)))
                        }
                    }
                }
            }
        }
    }
}

/// How long the bars are.
enum Scale {
    /// CPU-seconds for a gigabyte at the size that was sampled.
    Cost(Vec<f64>),
    /// All the same, as not all of them were timed at that size.
    Share,
}

impl Scale {
    fn of(profiles: &[&Profile], view: Option<&PathView<'_>>) -> Self {
        let costs: Option<Vec<f64>> = profiles
            .iter()
            .map(|profile| {
                let (route, bytes) = (&profile.route, profile.bytes);
                let figure = view?.figure(route, profile.contender, bytes, Metric::MoverCpu)?;
                (figure.spread.median > 0.0).then_some(figure.spread.median)
            })
            .collect();
        costs.map_or(Self::Share, Self::Cost)
    }

    /// The length of a bar as a part of the longest.
    fn length(&self, row: usize) -> f64 {
        match self {
            Self::Cost(costs) => {
                costs[row] / costs.iter().copied().fold(f64::MIN_POSITIVE, f64::max)
            }
            Self::Share => 1.0,
        }
    }
}

fn figure(path: Path, profiles: &[&Profile], view: Option<&PathView<'_>>) -> Markup {
    let scale = Scale::of(profiles, view);
    let height = ROW * profiles.len() as f64;
    let id = path as usize;
    html! {
        figure {
            figcaption {
                h3 { (path.label()) }
                p.small {
                    @match scale {
                        Scale::Cost(_) => "The length of a bar is its CPU-seconds for a gigabyte, timed.",
                        Scale::Share => "Every bar is 100 %: not all of them were timed at this size.",
                    }
                }
            }
            svg.chart viewBox={ "0 0 " (WIDTH) " " (px(height)) } role="img"
                aria-labelledby={ "split-" (id) "-title split-" (id) "-desc" } {
                title id={ "split-" (id) "-title" } { (path.label()) ": CPU time by part, sampled" }
                desc id={ "split-" (id) "-desc" } {
                    @for profile in profiles { (described(profile)) " " }
                }
                @for (row, profile) in profiles.iter().enumerate() {
                    (bar(profile, &scale, row))
                }
            }
            (details(path, profiles))
        }
    }
}

fn bar(profile: &Profile, scale: &Scale, row: usize) -> Markup {
    let top = ROW * row as f64;
    let total = total(profile);
    let full = (WIDTH - 2.0) * scale.length(row);
    let mut segments = Vec::new();
    let mut x = 1.0;
    for part in PARTS {
        let share = share(profile, part, total);
        let width = full * share;
        if width > 0.0 {
            segments.push((part, x, width, share));
        }
        x += width;
    }
    html! {
        text.name x="1" y=(px(top + 15.0)) {
            (clip(&profile.route)) ", " (name(profile.contender))
            @if let Scale::Cost(costs) = scale { ": " (words::number(costs[row])) " s" }
        }
        text.count x=(px(WIDTH - 1.0)) y=(px(top + 15.0)) text-anchor="end" {
            (words::counted(profile.samples, "sample"))
            @if profile.samples < FEW { " (few)" }
            @if profile.lost > 0 { ", some lost" }
        }
        @if segments.is_empty() {
            text.value x="1" y=(px(top + 37.0)) { "no samples" }
        }
        @for (part, x, width, share) in segments {
            rect class={ "part " (part_class(part)) } x=(px(x)) y=(px(top + 21.0)) width=(px(width)) height=(px(BAR)) {}
            rect class={ "hatch " (part_class(part)) } x=(px(x)) y=(px(top + 21.0)) width=(px(width)) height=(px(BAR)) fill={ "url(#hatch-" (part_class(part)) ")" } {}
            @if let Some(text) = inside(part, share, width) {
                text class={ "in-bar " (part_class(part)) } x=(px(x + width / 2.0)) y=(px(top + 37.5)) { (text) }
            }
        }
    }
}

/// The most telling label that has room.
fn inside(part: Part, share: f64, width: f64) -> Option<String> {
    let percent = format!("{:.0} %", share * 100.0);
    [
        format!("{} {percent}", label(part)),
        percent,
        label(part)[..1].to_uppercase(),
    ]
    .into_iter()
    .find(|text| text.chars().count() as f64 * CHARACTER + 4.0 <= width)
}

fn details(path: Path, profiles: &[&Profile]) -> Markup {
    html! {
        details {
            summary { "Samples and functions most often seen, " (path.label()) }
            @for profile in profiles { (table(profile)) }
        }
    }
}

fn table(profile: &Profile) -> Markup {
    let total = total(profile);
    html! {
        table.samples {
            caption {
                strong { (profile.route) ", " (name(profile.contender)) } ", transfers of "
                (words::size(profile.bytes)) ": " (words::counted(profile.samples, "sample")) ", "
                @if profile.lost > 0 {
                    strong.deviates { (words::grouped(profile.lost)) " more were lost" }
                } @else {
                    "none lost"
                }
            }
            thead {
                tr {
                    th scope="col" { "Part or function" }
                    th scope="col" { "Samples" }
                    th scope="col" { "Share" }
                }
            }
            tbody {
                @for part in PARTS {
                    tr {
                        th scope="row" { (label(part)) }
                        td { (words::grouped(samples(profile, part))) }
                        td { (percent(share(profile, part, total))) }
                    }
                }
            }
            @if !profile.top.is_empty() {
                tbody.functions {
                    @for (function, samples) in &profile.top {
                        tr {
                            th.symbol scope="row" { code { (function) } }
                            td { (words::grouped(*samples)) }
                            td { (percent(*samples as f64 / profile.samples.max(1) as f64)) }
                        }
                    }
                }
            }
        }
    }
}

fn described(profile: &Profile) -> String {
    let total = total(profile);
    let parts: Vec<String> = PARTS
        .iter()
        .map(|part| format!("{} {}", label(*part), percent(share(profile, *part, total))))
        .collect();
    format!(
        "{}, {}: {}.",
        profile.route,
        name(profile.contender),
        words::list(&parts)
    )
}

fn key(part: Part) -> Markup {
    html! {
        svg.key viewBox="0 0 22 14" width="22" height="14" aria-hidden="true" focusable="false" {
            rect class={ "part " (part_class(part)) } x="0" y="0" width="22" height="14" {}
            rect class={ "hatch " (part_class(part)) } x="0" y="0" width="22" height="14" fill={ "url(#hatch-" (part_class(part)) ")" } {}
        }
    }
}

fn total(profile: &Profile) -> u64 {
    PARTS
        .iter()
        .fold(0, |sum, part| sum.saturating_add(samples(profile, *part)))
}

fn samples(profile: &Profile, part: Part) -> u64 {
    profile.parts.get(&part).copied().unwrap_or(0)
}

fn share(profile: &Profile, part: Part, total: u64) -> f64 {
    samples(profile, part) as f64 / total.max(1) as f64
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// The patterns that tell the parts apart without their colours.
pub(super) fn patterns() -> Markup {
    html! {
        svg.patterns width="0" height="0" aria-hidden="true" focusable="false" {
            defs {
                pattern #hatch-copy width="7" height="7" patternUnits="userSpaceOnUse" { path d="M0 7L7 0M-1 1L1 -1M6 8L8 6" {} }
                pattern #hatch-tcp width="6" height="6" patternUnits="userSpaceOnUse" { path d="M0 0" {} }
                pattern #hatch-vfs width="6" height="6" patternUnits="userSpaceOnUse" { circle cx="3" cy="3" r="1" {} }
                pattern #hatch-kernel width="6" height="6" patternUnits="userSpaceOnUse" { path d="M0 3H6" {} }
                pattern #hatch-user width="7" height="7" patternUnits="userSpaceOnUse" { path d="M0 0L7 7M-1 6L1 8M6 -1L8 1" {} }
            }
        }
    }
}

const fn part_class(part: Part) -> &'static str {
    match part {
        Part::Copy => "copy",
        Part::Tcp => "tcp",
        Part::Vfs => "vfs",
        Part::Kernel => "kernel",
        Part::User => "user",
    }
}

const fn label(part: Part) -> &'static str {
    match part {
        Part::Copy => "copy",
        Part::Tcp => "TCP",
        Part::Vfs => "VFS",
        Part::Kernel => "kernel",
        Part::User => "user",
    }
}

const fn meaning(part: Part) -> &'static str {
    match part {
        Part::Copy => "the kernel's copy routines",
        Part::Tcp => "TCP, IP, sockets and their buffers",
        Part::Vfs => "files, page cache, pipes, splice",
        Part::Kernel => "entering and leaving it, scheduling, memory, the rest",
        Part::User => "the program itself",
    }
}
