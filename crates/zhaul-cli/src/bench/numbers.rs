//! Figures as people read them: three significant digits, and a unit prefix from 10,000 on.

use zhaul_measure::Spread;

/// Three significant digits, except that whole numbers below 10,000 stay whole.
pub(super) fn number(value: f64) -> String {
    digits(value, 3)
}

/// `lowest–highest`, or nothing if they read alike.
pub(super) fn range(spread: Spread) -> Option<String> {
    let (min, max) = (digits(spread.min, 2), digits(spread.max, 2));
    (min != max).then(|| format!("{min}–{max}"))
}

fn digits(value: f64, significant: i32) -> String {
    for (limit, unit, suffix) in [
        (9.995e9, 1e9, "G"),
        (9.995e6, 1e6, "M"),
        (9.995e3, 1e3, "k"),
    ] {
        if value.abs() >= limit {
            return format!("{}{suffix}", plain(value / unit, significant));
        }
    }
    plain(value, significant)
}

fn plain(value: f64, significant: i32) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    // The rounded value may have one digit more than the value itself.
    let magnitude = value.abs().log10().floor() as i32;
    let rounded_up = (value.abs() * 10_f64.powi(significant - 1 - magnitude)).round()
        >= 10_f64.powi(significant);
    let decimals = significant - 1 - magnitude - i32::from(rounded_up);
    // Below this a figure is nothing, for whoever compares it with others.
    let decimals = usize::try_from(decimals.clamp(0, 4)).unwrap_or(0);
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_at_every_border() {
        for (value, text) in [
            (0.0, "0"),
            (0.01234, "0.0123"),
            (0.1234, "0.123"),
            (0.9996, "1.00"),
            (1.234, "1.23"),
            (9.996, "10.0"),
            (99.96, "100"),
            (954.2, "954"),
            (9_994.0, "9994"),
            (9_996.0, "10.0k"),
            (30_517.0, "30.5k"),
            (1_234_567.0, "1235k"),
            (12_345_678.0, "12.3M"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_range_has_two_digits_and_is_left_out_if_it_says_nothing() {
        let spread = |min, max| Spread {
            median: min,
            min,
            max,
        };
        assert_eq!(range(spread(0.401, 0.432)), Some("0.40–0.43".to_owned()));
        assert_eq!(range(spread(2.301, 2.302)), None);
        assert_eq!(range(spread(0.0, 12.0)), Some("0–12".to_owned()));
    }
}
