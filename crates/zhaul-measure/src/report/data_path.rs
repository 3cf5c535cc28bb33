//! The way of the bytes on each route as a drawing: what touches them, and where they only change
//! hands.
//!
//! A drawing shows the mechanism as the plan has it, between a disk and a network device. What the
//! run measured is said below it.

use maud::{Markup, html};

use super::chart::{WIDTH, px};
use super::checked::{Measured, What};
use super::mechanism::{Arrow, By, DRAWINGS, Drawing, Place};
use super::view::{Count, PathView, name};
use super::words;
use crate::bench::results::{Contender, Results};
use crate::figure::Method;

const HEIGHT: f64 = 232.0;

/// A drawing for each mechanism.
pub(super) fn section(results: &Results, views: &[PathView<'_>]) -> Markup {
    html! {
        section #data-paths aria-labelledby="data-paths-title" {
            h2 #data-paths-title { "The way of the bytes" }
            p {
                "Each mechanism between a disk and a network device (NIC), as the plan has it. Each \
                solid red arrow is work for the CPU. On one machine there is no device between two \
                sockets: the receiver finds the sender's buffers in its queue."
            }
            ul.legend {
                @for (by, words) in [
                    (By::Cpu, "CPU copy: thick, solid"),
                    (By::Dma, "DMA, by a device: double line"),
                    (By::Reference, "by reference, nothing moves: dashed"),
                ] {
                    li { (key(by)) " " (words) }
                }
            }
            div.drawings {
                @for drawing in &DRAWINGS { (figure(drawing, results, views)) }
            }
        }
    }
}

fn figure(drawing: &Drawing, results: &Results, views: &[PathView<'_>]) -> Markup {
    let id = drawing.id;
    html! {
        figure.drawing {
            figcaption {
                h3 { (drawing.title) }
                p.cost {
                    span { (drawing.switches) " mode switches" } ", "
                    span { (copies_in_words(drawing.number_of(By::Cpu), "CPU")) } ", "
                    span { (copies_in_words(drawing.number_of(By::Dma), "DMA")) }
                }
            }
            svg.path viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img"
                aria-labelledby={ "path-" (id) "-title path-" (id) "-desc" } {
                title id={ "path-" (id) "-title" } { "The way of the bytes: " (drawing.title) }
                desc id={ "path-" (id) "-desc" } { (drawing.description()) }
                (bands(drawing.boxes.iter().any(|(place, _)| *place == Place::User)))
                @for (step, arrow) in drawing.arrows.iter().enumerate() { (draw(arrow, step + 1)) }
                @for (place, label) in drawing.boxes { (labelled_box(*place, label)) }
            }
            p { (drawing.words) }
            @if let Some(measured) = measured(drawing, results, views) { p.small { (measured) } }
        }
    }
}

fn copies_in_words(count: u32, kind: &str) -> String {
    match count {
        0 => format!("no {kind} copy"),
        1 => format!("1 {kind} copy"),
        _ => format!("{count} {kind} copies"),
    }
}

/// What the run says about this mechanism.
fn measured(drawing: &Drawing, results: &Results, views: &[PathView<'_>]) -> Option<Markup> {
    let view = views.iter().find(|view| view.path == drawing.path)?;
    let counts = [Count::Copies, Count::SampledCopies];
    let (cell, spread, method) =
        [Contender::Zhaul, Contender::Floor]
            .into_iter()
            .find_map(|contender| {
                view.largest(results, (drawing.route, contender), &counts, u64::MAX)
            })?;
    let drawn = f64::from(drawing.number_of(By::Cpu));
    let measured = Measured::of(cell, spread, method, 1.0);
    let is_sampled = method == Some(Method::Sampled);
    Some(html! {
        "This run, " (drawing.path.label()) ", " (name(cell.contender)) ": "
        strong { (words::copies(spread.median)) }
        " CPU copies of each byte (" (method.map_or("method not recorded", Method::name)) "), "
        @if measured.excludes(What::Cpu, drawn) { strong { "not as drawn." } }
        @else if is_sampled { "which does not speak against the drawing." }
        @else { "as drawn." }
    })
}

/// A box as left, top, width, height.
const fn extent(place: Place) -> (f64, f64, f64, f64) {
    match place {
        Place::User => (125.0, 26.0, 110.0, 32.0),
        Place::Source => (10.0, 110.0, 106.0, 32.0),
        Place::Middle => (152.0, 110.0, 56.0, 32.0),
        Place::Sink => (244.0, 110.0, 106.0, 32.0),
        Place::From => (10.0, 192.0, 106.0, 32.0),
        Place::To => (244.0, 192.0, 106.0, 32.0),
    }
}

/// User space, kernel and hardware, as layers.
fn bands(uses_user_space: bool) -> Markup {
    html! {
        g.bands {
            @for (top, height) in [(1.0, 72.0), (77.0, 80.0), (161.0, 70.0)] {
                rect x="1" y=(px(top)) width=(px(WIDTH - 2.0)) height=(px(height)) rx="6" {}
            }
            text x="10" y="17" { "user space" }
            @if !uses_user_space {
                text x=(px(WIDTH / 2.0)) y="46" text-anchor="middle" { "never sees the bytes" }
            }
            text x="10" y="94" { "kernel" }
            text x=(px(WIDTH / 2.0)) y="220" text-anchor="middle" { "hardware" }
        }
    }
}

fn labelled_box(place: Place, label: &str) -> Markup {
    let (left, top, width, height) = extent(place);
    html! {
        rect.box x=(px(left)) y=(px(top)) width=(px(width)) height=(px(height)) rx="5" {}
        text.box x=(px(left + width / 2.0)) y=(px(top + height / 2.0 + 4.5)) { (label) }
    }
}

/// Start and end of an arrow, and where its label stands and is anchored.
struct Line {
    from: (f64, f64),
    to: (f64, f64),
    label: (f64, f64, &'static str),
}

fn line(arrow: &Arrow) -> Line {
    match (arrow.from, arrow.to) {
        // Up from a device, down to one.
        (Place::From, Place::Source) => Line {
            from: (63.0, 192.0),
            to: (63.0, 143.0),
            label: (74.0, 180.0, "start"),
        },
        (Place::Sink, Place::To) => Line {
            from: (297.0, 142.0),
            to: (297.0, 191.0),
            label: (286.0, 180.0, "end"),
        },
        // Past the socket, straight from the pages.
        (Place::Source, Place::To) => Line {
            from: (104.0, 142.0),
            to: (243.0, 202.0),
            label: (208.0, 174.0, "start"),
        },
        (Place::Source, Place::User) => Line {
            from: (80.0, 110.0),
            to: (142.0, 59.0),
            label: (116.0, 66.0, "end"),
        },
        (Place::User, Place::Sink) => Line {
            from: (218.0, 58.0),
            to: (280.0, 109.0),
            label: (246.0, 66.0, "start"),
        },
        (from, to) => {
            let (left, top, width, height) = extent(from);
            let (end, ..) = extent(to);
            let start = left + width;
            let y = top + height / 2.0;
            Line {
                from: (start, y),
                to: (end - 1.0, y),
                label: (f64::midpoint(start, end), y - 23.0, "middle"),
            }
        }
    }
}

fn draw(arrow: &Arrow, step: usize) -> Markup {
    let Line { from, to, label } = line(arrow);
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length = dx.hypot(dy);
    let (ux, uy) = (dx / length, dy / length);
    let head = 11.0;
    let neck = (to.0 - ux * head, to.1 - uy * head);
    let corner = |side: f64| {
        let (x, y) = (neck.0 - uy * side * 6.5, neck.1 + ux * side * 6.5);
        format!("{},{}", px(x), px(y))
    };
    let shaft = format!(
        "M{} {}L{} {}",
        px(from.0),
        px(from.1),
        px(neck.0),
        px(neck.1)
    );
    html! {
        g class=(arrow.by.class()) {
            path.shaft d=(shaft) {}
            @if arrow.by == By::Dma { path.core d=(shaft) {} }
            polygon.head points={ (px(to.0)) "," (px(to.1)) " " (corner(1.0)) " " (corner(-1.0)) } {}
            text.step x=(px(label.0)) y=(px(label.1)) text-anchor=(label.2) {
                (step) " " (arrow.by.label())
            }
        }
    }
}

fn key(by: By) -> Markup {
    html! {
        svg.key viewBox="0 0 40 14" width="40" height="14" aria-hidden="true" focusable="false" {
            g class=(by.class()) {
                path.shaft d="M1 7H28" {}
                @if by == By::Dma { path.core d="M1 7H28" {} }
                polygon.head points="39,7 28,1 28,13" {}
            }
        }
    }
}
