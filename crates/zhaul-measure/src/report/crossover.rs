//! Where one route becomes cheaper than another as transfers grow, and where the noise hides it.
//!
//! A crossing is claimed only between a size at which one route is cheaper beyond the noise and a
//! larger one at which the other is.

use super::view::{BASELINE, Figure, PathView, Verdict};
use super::words;

/// Two curves change places.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Crossing<'a> {
    /// The cheaper one of small transfers.
    pub(super) below: &'a str,
    /// The cheaper one of large transfers.
    pub(super) above: &'a str,
    /// The nearest sizes at which that is beyond the noise.
    pub(super) between: (u64, u64),
    /// Where the lines through the medians meet.
    pub(super) at_bytes: f64,
    /// The height at which they do.
    pub(super) cost: f64,
}

/// The verdict on one route against another, by size.
type Verdicts = Vec<(u64, Verdict)>;

type Curve = [(u64, Figure)];

/// Crossings with the baseline, and those at which the cheapest route changes.
pub(super) fn crossings<'a>(view: &PathView<'a>) -> Vec<Crossing<'a>> {
    let curves: Vec<(&str, Vec<(u64, Figure)>)> = view
        .routes
        .iter()
        .map(|&route| (route, view.curve(route, view.subject())))
        .collect();
    let cheapest = |bytes: u64| {
        curves
            .iter()
            .filter_map(|(route, curve)| Some((*route, at(curve, bytes)?.spread.median)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(route, _)| route)
    };
    let mut found = Vec::new();
    for (index, (a, curve_a)) in curves.iter().enumerate() {
        for (b, curve_b) in &curves[index + 1..] {
            found.extend(
                between(a, curve_a, b, curve_b)
                    .into_iter()
                    .filter(|crossing| {
                        let (low, high) = crossing.between;
                        *a == BASELINE
                            || cheapest(low) == Some(crossing.below)
                                && cheapest(high) == Some(crossing.above)
                    }),
            );
        }
    }
    found.sort_by(|a, b| a.at_bytes.total_cmp(&b.at_bytes));
    found
}

/// In words how `route` fares against the baseline, size by size; `None` if they share none.
pub(super) fn against_baseline(view: &PathView<'_>, route: &str) -> Option<String> {
    let subject = view.subject();
    let verdicts = verdicts(&view.curve(route, subject), &view.curve(BASELINE, subject));
    let (first, last) = (verdicts.first()?.0, verdicts.last()?.0);
    let mut parts: Vec<String> = Vec::new();
    for run in verdicts.chunk_by(|a, b| a.1 == b.1) {
        let (from, to) = (run[0].0, run[run.len() - 1].0);
        let what = match run[0].1 {
            Verdict::Less => "cheaper",
            Verdict::More => "dearer",
            Verdict::Same => "no difference",
            Verdict::Unjudged => "too few rounds to judge",
        };
        let place = match (from == first, to == last) {
            (true, true) if from == to => format!("at {}", words::size(from)),
            (true, true) => "at every size measured".to_owned(),
            _ if from == to => format!("at {}", words::size(from)),
            (true, false) => format!("up to {}", words::size(to)),
            (false, true) => format!("from {} up", words::size(from)),
            (false, false) => format!("from {} to {}", words::size(from), words::size(to)),
        };
        parts.push(format!("{what} {place}"));
    }
    Some(parts.join(", "))
}

fn between<'a>(a: &'a str, curve_a: &Curve, b: &'a str, curve_b: &Curve) -> Vec<Crossing<'a>> {
    let mut crossings = Vec::new();
    let mut clear: Option<(u64, Verdict)> = None;
    for (bytes, verdict) in verdicts(curve_a, curve_b) {
        if !matches!(verdict, Verdict::Less | Verdict::More) {
            continue;
        }
        if let Some((before, other)) = clear
            && other != verdict
        {
            let (below, above) = if verdict == Verdict::Less {
                (b, a)
            } else {
                (a, b)
            };
            let meeting = meeting_point(curve_a, curve_b, before, bytes);
            crossings.extend(meeting.map(|(at_bytes, cost)| Crossing {
                below,
                above,
                between: (before, bytes),
                at_bytes,
                cost,
            }));
        }
        clear = Some((bytes, verdict));
    }
    crossings
}

fn verdicts(a: &Curve, b: &Curve) -> Verdicts {
    a.iter()
        .filter_map(|(bytes, figure)| Some((*bytes, figure.against(at(b, *bytes)?))))
        .collect()
}

/// Where straight lines through the medians, on logarithmic scales, meet between two sizes.
fn meeting_point(a: &Curve, b: &Curve, from: u64, to: u64) -> Option<(f64, f64)> {
    let points: Vec<(f64, f64, f64)> = a
        .iter()
        .filter(|(bytes, _)| (from..=to).contains(bytes))
        .filter_map(|(bytes, figure)| {
            let log = |figure: &Figure| figure.spread.median.ln();
            Some(((*bytes as f64).ln(), log(figure), log(at(b, *bytes)?)))
        })
        .collect();
    points.windows(2).rev().find_map(|pair| {
        let [(x0, a0, b0), (x1, a1, b1)] = *pair else {
            return None;
        };
        let (d0, d1) = (a0 - b0, a1 - b1);
        if d0 == d1 || d0 * d1 > 0.0 {
            return None;
        }
        let part = d0 / (d0 - d1);
        let meeting = ((x0 + part * (x1 - x0)).exp(), (a0 + part * (a1 - a0)).exp());
        (meeting.0.is_finite() && meeting.1.is_finite()).then_some(meeting)
    })
}

fn at(curve: &Curve, bytes: u64) -> Option<&Figure> {
    let (_, figure) = curve.iter().find(|(size, _)| *size == bytes)?;
    Some(figure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Spread;

    /// Points of one size each, with a noise of this part of the median.
    fn curve(points: &[(u64, f64)], noise: f64) -> Vec<(u64, Figure)> {
        points
            .iter()
            .map(|&(bytes, median)| {
                let spread = Spread {
                    median,
                    min: median * (1.0 - noise),
                    max: median * (1.0 + noise),
                };
                (bytes, Figure { spread, rounds: 5 })
            })
            .collect()
    }

    #[test]
    fn crossing_lies_where_the_lines_meet() {
        let a = curve(&[(1 << 10, 1.0), (1 << 20, 4.0)], 0.01);
        let b = curve(&[(1 << 10, 4.0), (1 << 20, 1.0)], 0.01);
        let found = between("a", &a, "b", &b);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].below, found[0].above), ("a", "b"));
        assert!((found[0].at_bytes / f64::from(1 << 15) - 1.0).abs() < 1e-9);
        assert!((found[0].cost - 2.0).abs() < 1e-9);
    }

    #[test]
    fn curves_that_cross_within_the_noise_do_not_cross() {
        let a = curve(&[(1 << 10, 1.0), (1 << 20, 1.1)], 0.2);
        let b = curve(&[(1 << 10, 1.1), (1 << 20, 1.0)], 0.2);
        assert!(between("a", &a, "b", &b).is_empty());
    }

    #[test]
    fn noise_between_two_sizes_of_one_winner_is_no_crossing() {
        let a = curve(&[(1, 1.0), (10, 2.0), (100, 2.0), (1000, 1.0)], 0.1);
        let b = curve(&[(1, 4.0), (10, 1.9), (100, 2.1), (1000, 4.0)], 0.1);
        assert!(between("a", &a, "b", &b).is_empty());
    }

    #[test]
    fn sizes_without_a_difference_widen_the_interval() {
        let a = curve(&[(1, 1.0), (10, 2.0), (100, 2.0), (1000, 4.0)], 0.1);
        let b = curve(&[(1, 4.0), (10, 2.1), (100, 1.9), (1000, 1.0)], 0.1);
        let found = between("a", &a, "b", &b);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].between, (1, 1000));
        assert!((10.0..100.0).contains(&found[0].at_bytes));
    }
}
