use super::decide::confident_cut;
use super::*;

const K: u64 = 1024;

/// Ratios at 1, 2, 4 … KiB: `+` pays, `-` costs more, `.` tells nothing.
fn ratios(says: &str) -> Vec<(u64, Spread)> {
    let spread = |median: f64, by: f64| Spread {
        median,
        min: median - by,
        max: median + by,
    };
    let sizes = (0..).map(|shift| K << shift);
    says.chars()
        .zip(sizes)
        .map(|(says, bytes)| match says {
            '+' => (bytes, spread(0.8, 0.1)),
            '-' => (bytes, spread(1.2, 0.1)),
            _ => (bytes, spread(0.97, 0.1)),
        })
        .collect()
}

#[test]
fn noise_moves_nothing() {
    for default in [0, 4 * K, 64 * K] {
        assert_eq!(decide(default, &ratios("........")), default);
        assert_eq!(decide(default, &[]), default);
    }
}

#[test]
fn a_clear_crossover_is_found_from_either_side() {
    assert_eq!(decide(0, &ratios("---+++++")), 8 * K);
    assert_eq!(decide(64 * K, &ratios("---+++++")), 8 * K);
    assert_eq!(decide(0, &ratios("++++++++")), 0);
    assert_eq!(decide(64 * K, &ratios("++++++++")), K);
}

#[test]
fn sizes_that_tell_nothing_stay_on_the_side_of_the_default() {
    // From 0 upwards only as far as something speaks for it, and so from 64 KiB downwards.
    assert_eq!(decide(0, &ratios("--....++")), 4 * K);
    assert_eq!(decide(64 * K, &ratios("--....++")), 64 * K);
    assert_eq!(decide(64 * K, &ratios("--..++++")), 16 * K);
}

#[test]
fn one_size_out_of_line_moves_nothing() {
    assert_eq!(decide(0, &ratios("++++-+++")), 0);
    assert_eq!(decide(64 * K, &ratios("--+---++")), 64 * K);
    assert_eq!(decide(0, &ratios("+++++++-")), 0);
}

#[test]
fn never_needs_more_than_one_size() {
    assert_eq!(decide(0, &ratios(".......-")), 0);
    assert_eq!(decide(0, &ratios("......--")), u64::MAX);
    assert_eq!(decide(0, &ratios("--------")), u64::MAX);
    assert_eq!(decide(64 * K, &ratios("--------")), u64::MAX);
}

#[test]
fn a_range_that_holds_1_says_nothing() {
    let spread = |min: f64, max: f64| Spread {
        median: f64::midpoint(min, max),
        min,
        max,
    };
    assert_eq!(Says::of(spread(0.5, 1.0)), Says::Nothing);
    assert_eq!(Says::of(spread(1.0, 2.0)), Says::Nothing);
    assert_eq!(Says::of(spread(0.5, 0.99)), Says::Pays);
    assert_eq!(Says::of(spread(1.01, 2.0)), Says::Costs);
}

#[test]
fn outliers_are_cut_only_as_far_as_the_median_stays_inside() {
    // The ranks of the textbooks: the 1st of 5 to 8, the 2nd of 9 to 11, the 3rd of 12 to 14.
    for (values, cut) in [
        (1, 0),
        (5, 0),
        (8, 0),
        (9, 1),
        (11, 1),
        (12, 2),
        (14, 2),
        (15, 3),
    ] {
        assert_eq!(confident_cut(values), cut, "{values}");
    }
    let one = |value| (0..9).map(|round| (round, value)).collect::<Vec<_>>();
    let mut costs = one(0.8);
    costs[3].1 = 7.0;
    let ratio = ratio(&costs, &one(1.0)).unwrap();
    assert_eq!((ratio.median, ratio.min, ratio.max), (0.8, 0.8, 0.8));
}

fn outcome(threshold: u64) -> Outcome {
    let decision = |route: Route, name, default, threshold| Decision {
        route: route.name(),
        name,
        default,
        threshold,
        ratios: ratios("-.+"),
    };
    Outcome {
        kernel: "6.18.0".to_owned(),
        measured: "2026-01-01T00:00:00Z".to_owned(),
        seed: 7,
        rounds: 9,
        decisions: vec![
            decision(Route::Sendfile, "sendfile_min_bytes", 0, threshold),
            decision(Route::MmapWrite, "mmap_min_bytes", 65536, 65536),
        ],
    }
}

#[test]
fn the_library_reads_what_is_written_and_finds_the_evidence_no_obstacle() {
    for threshold in [0, 2048, u64::MAX] {
        let outcome = outcome(threshold);
        let text = outcome.file_text();
        assert_eq!(
            Calibration::parse(&text),
            Ok(outcome.calibration()),
            "{text}"
        );
        assert_eq!(
            outcome.calibration().thresholds.sendfile_min_bytes,
            threshold
        );
        assert!(
            text.contains("#    1 KiB  1.20  1.10-1.30  costs more"),
            "{text}"
        );
    }
}

struct Silent;

impl Observer for Silent {
    fn advanced(&mut self, _done: f64, _total: f64, _what: &str) {}

    fn is_interrupted(&self) -> bool {
        false
    }
}

#[test]
fn too_few_rounds_leave_the_defaults() {
    let options = Options {
        sizes: vec![K, 64 * K],
        rounds: 1,
        sample: Duration::from_millis(1),
        ..Options::default()
    };
    let outcome = run(&options, &mut Silent).unwrap();
    assert_eq!(outcome.calibration().thresholds, Thresholds::default());
    for decision in &outcome.decisions {
        assert_eq!(decision.ratios.len(), 2, "{decision:?}");
    }
}
