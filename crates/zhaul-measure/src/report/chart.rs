//! What the drawings share: logarithmic scales, the marks of the routes, coordinates as text.
//!
//! All drawings are 360 units wide, the width of a phone, so that text of 12 units can be read
//! there; colours come from classes, so that they follow the dark mode and the printer.

use maud::{Markup, html};

use crate::bench::results::Contender;

/// The width of every drawing.
pub(super) const WIDTH: f64 = 360.0;

/// A logarithmic axis from values to coordinates.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogScale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl LogScale {
    /// Values from `low` to `high`, both above 0, on coordinates from `from` to `to`. A single
    /// value lies in the middle.
    pub(super) fn new((low, high): (f64, f64), (from, to): (f64, f64)) -> Self {
        let (low, high) = (low.ln(), high.ln());
        let (low, high) = if high - low < 1e-9 {
            (low - 1.0, high + 1.0)
        } else {
            (low, high)
        };
        Self {
            low,
            high,
            from,
            to,
        }
    }

    /// Where a value lies; values off the scale lie at its ends.
    pub(super) fn at(&self, value: f64) -> f64 {
        let part = (value.ln() - self.low) / (self.high - self.low);
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn covers(&self, value: f64) -> bool {
        let value = value.ln();
        (self.low - 1e-9..=self.high + 1e-9).contains(&value)
    }

    /// Powers of two, as many as have room `apart` from each other.
    pub(super) fn binary_ticks(&self, apart: f64) -> Vec<f64> {
        let per_doubling = (self.to - self.from).abs() * 2f64.ln() / (self.high - self.low);
        let step = [1, 2, 5, 10, 20]
            .into_iter()
            .find(|&step| f64::from(step) * per_doubling >= apart)
            .unwrap_or(40);
        (0..64)
            .step_by(step as usize)
            .map(|power| 2f64.powi(power))
            .filter(|&value| self.covers(value))
            .collect()
    }

    /// 1, 2 and 5 times powers of ten, or powers of ten alone, or some of them: at most seven.
    pub(super) fn decimal_ticks(&self) -> Vec<f64> {
        const MOST: usize = 7;
        let steps: [(&[f64], i32); 6] = [
            (&[1.0, 2.0, 5.0], 1),
            (&[1.0], 1),
            (&[1.0], 2),
            (&[1.0], 5),
            (&[1.0], 20),
            (&[1.0], 100),
        ];
        let ticks = |(factors, stride): (&[f64], i32)| -> Vec<f64> {
            (-300..300)
                .filter(|power| power % stride == 0)
                .flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)))
                .filter(|&value| self.covers(value))
                .collect()
        };
        steps
            .into_iter()
            .map(ticks)
            .find(|ticks| ticks.len() <= MOST)
            .unwrap_or_default()
    }
}

/// The class that gives a route its colour.
pub(super) fn class(route: &str) -> &'static str {
    match route {
        // What is sent from memory shares no drawing with routes.
        "read+write" | "send" => "rw",
        "mmap+write" => "mw",
        "sendfile" | "send-zerocopy" => "sf",
        "splice" => "sp",
        "copy_file_range" => "cf",
        _ => "ot",
    }
}

/// The mark of a route, a shape of its own.
pub(super) fn mark(route: &str, x: f64, y: f64) -> Markup {
    let points = |points: &[(f64, f64)]| -> String {
        let points: Vec<String> = points
            .iter()
            .map(|(dx, dy)| format!("{},{}", px(x + dx), px(y + dy)))
            .collect();
        points.join(" ")
    };
    let corners: &[(f64, f64)] = match class(route) {
        "rw" => return html! { circle.mark cx=(px(x)) cy=(px(y)) r="3.6" {} },
        "mw" => &[(-3.3, -3.3), (3.3, -3.3), (3.3, 3.3), (-3.3, 3.3)],
        "sf" => &[(0.0, -4.4), (4.2, 3.3), (-4.2, 3.3)],
        "sp" => &[(0.0, -4.8), (4.8, 0.0), (0.0, 4.8), (-4.8, 0.0)],
        "cf" => &[(0.0, 4.4), (4.2, -3.3), (-4.2, -3.3)],
        _ => &[(-4.5, -1.5), (4.5, -1.5), (4.5, 1.5), (-4.5, 1.5)],
    };
    html! { polygon.mark points=(points(corners)) {} }
}

/// The sample of a line that a legend shows beside the route's name.
pub(super) fn key(route: &str) -> Markup {
    html! {
        svg.key viewBox="0 0 30 12" width="30" height="12" aria-hidden="true" focusable="false" {
            g class=(class(route)) {
                path.line d="M1 6H29" {}
                (mark(route, 15.0, 6.0))
            }
        }
    }
}

/// The class that tells the library's lines from those of the bare loops.
pub(super) const fn line_class(contender: Contender) -> &'static str {
    match contender {
        Contender::Zhaul => "line",
        Contender::Floor => "line floor",
    }
}

/// As much of a name as fits into a drawing; the tables have the whole.
pub(super) fn clip(route: &str) -> String {
    const MOST: usize = 15;
    if route.chars().count() <= MOST {
        return route.to_owned();
    }
    route.chars().take(MOST - 1).chain(['…']).collect()
}

/// A coordinate, to a tenth.
pub(super) fn px(coordinate: f64) -> String {
    let rounded = (coordinate * 10.0).round() / 10.0;
    // Adding zero turns -0 into 0.
    format!("{}", rounded + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_the_scale_are_ends_of_the_axis() {
        let scale = LogScale::new((1.0, 100.0), (10.0, 30.0));
        for (value, coordinate) in [(1.0, 10.0), (10.0, 20.0), (100.0, 30.0), (1e9, 30.0)] {
            assert!((scale.at(value) - coordinate).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn single_value_lies_in_the_middle() {
        assert_eq!(LogScale::new((4.0, 4.0), (0.0, 10.0)).at(4.0), 5.0);
    }

    #[test]
    fn ticks_keep_their_distance() {
        let scale = LogScale::new((1024.0, f64::from(1 << 30)), (0.0, 300.0));
        let ticks = scale.binary_ticks(40.0);
        let powers: Vec<f64> = ticks.iter().map(|tick| tick.log2()).collect();
        assert_eq!(powers, [10.0, 15.0, 20.0, 25.0, 30.0]);
    }

    #[test]
    fn ticks_are_never_too_many_nor_none() {
        for (low, high) in [
            (0.05, 6.0),
            (0.3, 0.7),
            (1e-9, 1e9),
            (1e-200, 1e200),
            (0.1, 0.1),
        ] {
            let ticks = LogScale::new((low, high), (0.0, 200.0)).decimal_ticks();
            assert!((1..=7).contains(&ticks.len()), "{low} {high}: {ticks:?}");
        }
    }

    #[test]
    fn coordinates_are_short_and_have_no_negative_zero() {
        assert_eq!(px(12.34), "12.3");
        assert_eq!(px(-0.01), "0");
        assert_eq!(px(40.0), "40");
    }
}
