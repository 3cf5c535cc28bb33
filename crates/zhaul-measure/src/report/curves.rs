//! Cost by size of the transfer, for each path: the library and the bare calls, their spread, and
//! where one route becomes cheaper than another.

use maud::{Markup, html};

use super::chart::{LogScale, WIDTH, class, key, line_class, mark, px};
use super::crossover::{Crossing, against_baseline, crossings};
use super::view::{BASELINE, Figure, PathView, name};
use super::words;
use crate::bench::results::{Contender, Results};
use crate::stats::Spread;

const HEIGHT: f64 = 286.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = WIDTH - 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 240.0;

/// One line of a chart.
struct Series<'a> {
    route: &'a str,
    contender: Contender,
    points: Vec<(u64, Figure)>,
}

/// A chart for each path.
pub(super) fn section(results: &Results, views: &[PathView<'_>]) -> Markup {
    html! {
        section #curves aria-labelledby="curves-title" {
            h2 #curves-title { "What a byte costs, by the size of the transfer" }
            p {
                "CPU-seconds for a gigabyte, which is the same as nanoseconds for a byte, at the end \
                that moves the bytes. Both scales are logarithmic: equal distances are equal \
                ratios. "
            }
            ul.legend {
                li { (sample(Contender::Zhaul)) " zhaul; the band and the upright line span its rounds" }
                li { (sample(Contender::Floor)) " the same system calls in a bare loop" }
                li {
                    svg.key viewBox="0 0 20 20" width="20" height="20" aria-hidden="true" focusable="false" {
                        circle.ring cx="10" cy="10" r="8.5" {}
                        text.in-ring x="10" y="14" { "1" }
                    }
                    " a crossover: on either side of it another route is the cheaper one"
                }
            }
            @if views.is_empty() { p { "Nothing was timed." } }
            div.charts { @for view in views { (figure(results, view)) } }
        }
    }
}

fn sample(contender: Contender) -> Markup {
    html! {
        svg.key viewBox="0 0 30 12" width="30" height="12" aria-hidden="true" focusable="false" {
            g.plain {
                path class=(line_class(contender)) d="M1 6H29" {}
                @match contender {
                    Contender::Zhaul => path.whisker d="M15 1V11" {},
                    Contender::Floor => circle.dot cx="15" cy="6" r="2" {},
                }
            }
        }
    }
}

fn figure(results: &Results, view: &PathView<'_>) -> Markup {
    let label = view.path.label();
    let series = series(view);
    let crossings = crossings(view);
    html! {
        figure {
            figcaption { h3 { (label) } }
            @if let Some(frame) = Frame::around(&series) {
                ul.legend {
                    @for route in &view.routes {
                        @if series.iter().any(|line| line.route == *route) {
                            li { (key(route)) " " (route) }
                        }
                    }
                }
                p.axis { "CPU-seconds for a gigabyte" }
                (chart(view, &series, &crossings, frame))
            } @else {
                p { "Nothing was timed." }
            }
            (findings(view, &crossings))
            @if results.interrupted { p.small { "The run was interrupted; points may be missing." } }
        }
    }
}

fn series<'a>(view: &PathView<'a>) -> Vec<Series<'a>> {
    // The library is drawn over the bare calls.
    let both = [Contender::Floor, Contender::Zhaul];
    both.into_iter()
        .flat_map(|contender| {
            view.routes.iter().map(move |&route| Series {
                route,
                contender,
                points: view.curve(route, contender),
            })
        })
        .filter(|series| !series.points.is_empty())
        .collect()
}

/// The axes of one chart.
#[derive(Clone, Copy)]
struct Frame {
    x: LogScale,
    y: LogScale,
}

impl Frame {
    /// `None` without points.
    fn around(series: &[Series<'_>]) -> Option<Self> {
        let points = || series.iter().flat_map(|series| &series.points);
        let smallest = points().map(|(bytes, _)| (*bytes).max(1)).min()?;
        let largest = points().map(|(bytes, _)| *bytes).max()?.max(1);
        // A round may have cost nothing that the kernel's clock could see.
        let lowest = points()
            .map(|(_, figure)| figure.spread.min)
            .chain(points().map(|(_, figure)| figure.spread.median / 4.0))
            .filter(|&cost| cost > 0.0)
            .fold(f64::INFINITY, f64::min);
        let lowest_median = points()
            .map(|(_, figure)| figure.spread.median)
            .fold(f64::INFINITY, f64::min);
        let highest = points()
            .map(|(_, figure)| figure.spread.max)
            .fold(0.0, f64::max);
        let (low, high) = (lowest.max(lowest_median / 2.0) * 0.85, highest * 1.2);
        // Room for two ticks at least.
        let widen = (5.0 * low / high).max(1.0).sqrt();
        Some(Self {
            x: LogScale::new(
                (smallest as f64, largest as f64),
                (LEFT + 14.0, RIGHT - 14.0),
            ),
            y: LogScale::new((low / widen, high * widen), (BOTTOM, TOP)),
        })
    }
}

fn chart(
    view: &PathView<'_>,
    series: &[Series<'_>],
    crossings: &[Crossing<'_>],
    frame: Frame,
) -> Markup {
    let id = view.path as usize;
    html! {
        svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img"
            aria-labelledby={ "curve-" (id) "-title curve-" (id) "-desc" } {
            title id={ "curve-" (id) "-title" } {
                (view.path.label()) ": CPU-seconds for a gigabyte by the size of the transfer"
            }
            desc id={ "curve-" (id) "-desc" } { (description(series)) }
            (axes(frame))
            @for line in series { (draw(line, frame)) }
            @for (index, (crossing, label)) in crossings.iter().zip(label_places(crossings, frame)).enumerate() {
                @let (x, y) = (frame.x.at(crossing.at_bytes), frame.y.at(crossing.cost));
                path.leader d={ "M" (px(x)) " " (px(y)) "L" (px(label.0)) " " (px(label.1)) } {}
                circle.meeting cx=(px(x)) cy=(px(y)) r="2.5" {}
                circle.ring cx=(px(label.0)) cy=(px(label.1)) r="8.5" {}
                text.in-ring x=(px(label.0)) y=(px(label.1 + 4.0)) { (index + 1) }
            }
        }
    }
}

fn axes(frame: Frame) -> Markup {
    html! {
        g.grid {
            @for cost in frame.y.decimal_ticks() {
                @let y = frame.y.at(cost);
                path d={ "M" (LEFT) " " (px(y)) "H" (RIGHT) } {}
                text x=(px(LEFT - 6.0)) y=(px(y + 4.0)) text-anchor="end" { (tick(cost)) }
            }
            @for bytes in frame.x.binary_ticks(48.0) {
                @let x = frame.x.at(bytes);
                path d={ "M" (px(x)) " " (TOP) "V" (px(BOTTOM + 4.0)) } {}
                text x=(px(x)) y=(px(BOTTOM + 18.0)) text-anchor="middle" { (words::about_size(bytes)) }
            }
            path.base d={ "M" (LEFT) " " (BOTTOM) "H" (RIGHT) } {}
            text.axis x=(px(f64::midpoint(LEFT, RIGHT))) y=(px(HEIGHT - 8.0)) text-anchor="middle" {
                "bytes of one transfer"
            }
        }
    }
}

/// The shortest form of a tick: it has one significant digit.
fn tick(value: f64) -> String {
    if (9e-3..2e4).contains(&value) {
        // Ten to a negative power is not exact.
        let text = format!("{value:.6}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{value:.0e}")
    }
}

fn draw(line: &Series<'_>, frame: Frame) -> Markup {
    let at = |bytes: u64, cost: f64| {
        let cost = cost.max(f64::MIN_POSITIVE);
        (frame.x.at(bytes as f64), frame.y.at(cost))
    };
    let through = |cost: fn(Spread) -> f64| -> Vec<String> {
        line.points
            .iter()
            .map(|(bytes, figure)| {
                let (x, y) = at(*bytes, cost(figure.spread));
                format!("{} {}", px(x), px(y))
            })
            .collect()
    };
    let (median, high) = (
        through(|spread| spread.median),
        through(|spread| spread.max),
    );
    let mut low = through(|spread| spread.min);
    low.reverse();
    let ours = line.contender == Contender::Zhaul;
    html! {
        g class={ (class(line.route)) } {
            @if ours && median.len() > 1 {
                path.band d={ "M" (high.join("L")) "L" (low.join("L")) "Z" } {}
            }
            path class=(line_class(line.contender)) d={ "M" (median.join("L")) } {}
            @for (bytes, figure) in &line.points {
                @let (x, y) = at(*bytes, figure.spread.median);
                path.whisker.thin[!ours] d={
                    "M" (px(x)) " " (px(at(*bytes, figure.spread.min).1))
                    "V" (px(at(*bytes, figure.spread.max).1))
                } {}
                @if ours {
                    (mark(line.route, x, y))
                } @else {
                    circle.dot cx=(px(x)) cy=(px(y)) r="2" {}
                }
            }
        }
    }
}

/// Where the numbers of the crossings go: above their points, and never upon each other.
fn label_places(crossings: &[Crossing<'_>], frame: Frame) -> Vec<(f64, f64)> {
    const APART: f64 = 19.0;
    let mut places: Vec<(f64, f64)> = Vec::new();
    for crossing in crossings {
        let x = frame.x.at(crossing.at_bytes);
        let y = frame.y.at(crossing.cost);
        let free = |&(x, y): &(f64, f64)| {
            places
                .iter()
                .all(|&(other_x, other_y)| (x - other_x).hypot(y - other_y) >= APART)
        };
        let inside = |y: f64| y.clamp(TOP + 9.0, BOTTOM - 9.0);
        let place = (1..8)
            .flat_map(|step| {
                let away = f64::from(step) * APART + 5.0;
                [(x + 8.0, inside(y - away)), (x - 8.0, inside(y + away))]
            })
            .find(free)
            .unwrap_or((x, inside(y)));
        places.push(place);
    }
    places
}

fn findings(view: &PathView<'_>, crossings: &[Crossing<'_>]) -> Markup {
    let others = view.routes.iter().filter(|route| **route != BASELINE);
    let against: Vec<(&str, String)> = others
        .filter_map(|route| Some((*route, against_baseline(view, route)?)))
        .collect();
    html! {
        @if !crossings.is_empty() {
            ol.crossings {
                @for crossing in crossings {
                    li {
                        "At " strong { (words::size(crossing.between.0)) } " "
                        (crossing.below) " is cheaper than " (crossing.above)
                        ", at " strong { (words::size(crossing.between.1)) }
                        " the reverse, both clear of the noise; the lines meet at about "
                        (words::about_size(crossing.at_bytes)) "."
                    }
                }
            }
        }
        @if !against.is_empty() {
            p.small { "Against " (BASELINE) " (" (name(view.subject())) "):" }
            ul.small {
                @for (route, words) in &against { li { strong { (route) } ": " (words) "." } }
            }
        }
    }
}

fn description(series: &[Series<'_>]) -> String {
    let lines: Vec<String> = series
        .iter()
        .rev()
        .filter_map(|line| {
            let (first, last) = (line.points.first()?, line.points.last()?);
            let at = |(bytes, figure): &(u64, Figure)| {
                format!(
                    "{} at {}",
                    words::rough(figure.spread.median),
                    words::size(*bytes)
                )
            };
            let who = format!("{}, {}", line.route, name(line.contender));
            Some(if first.0 == last.0 {
                format!("{who}: {}.", at(first))
            } else {
                format!("{who}: {}, {}.", at(first), at(last))
            })
        })
        .collect();
    lines.join(" ")
}
