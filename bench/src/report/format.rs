//! Figures as people read them: three significant digits, units that fit the size.

use crate::sample::Metric;
use zhaul_measure::stats::Spread;

/// Three significant digits; thousands are grouped.
pub(super) fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 999.5 {
        return grouped(value);
    }
    let decimals = match magnitude {
        m if m == 0.0 || m >= 99.95 => 0,
        m if m >= 9.995 => 1,
        m if m >= 0.9995 => 2,
        m if m >= 0.00995 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

/// A latency given in microseconds.
pub(super) fn latency(us: f64) -> String {
    match us {
        _ if us < 999.5 => format!("{}µs", number(us)),
        _ if us < 999_500.0 => format!("{}ms", number(us / 1e3)),
        _ => format!("{}s", number(us / 1e6)),
    }
}

pub(super) fn value(metric: Metric, value: f64) -> String {
    match metric {
        // A code, not a quantity.
        Metric::ManyRangesStatus => format!("{value:.0}"),
        _ if metric.is_latency() => latency(value),
        _ => number(value),
    }
}

/// `median min–max`; the range is left out if there is none.
pub(super) fn spread(metric: Option<Metric>, spread: Spread) -> String {
    let text = |figure| metric.map_or_else(|| number(figure), |metric| value(metric, figure));
    let [median, min, max] = [spread.median, spread.min, spread.max].map(text);
    if min == max {
        median
    } else {
        format!("{median} {min}–{max}")
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 {
        format!("-{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_at_every_border() {
        for (value, text) in [
            (0.0, "0"),
            (0.00112, "0.0011"),
            (0.1234, "0.123"),
            (0.9996, "1.00"),
            (1.234, "1.23"),
            (9.996, "10.0"),
            (12.34, "12.3"),
            (99.96, "100"),
            (123.4, "123"),
            (999.6, "1,000"),
            (1_234_567.0, "1,234,567"),
            (-2.5, "-2.50"),
            (-1234.0, "-1,234"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn latencies_change_units() {
        for (us, text) in [
            (85.0, "85.0µs"),
            (999.6, "1.00ms"),
            (291_000.0, "291ms"),
            (999_600.0, "1.00s"),
            (28_000_000.0, "28.0s"),
        ] {
            assert_eq!(latency(us), text);
        }
    }

    #[test]
    fn range_without_extent_is_left_out() {
        let single = Spread {
            median: 2.0,
            min: 2.0,
            max: 2.0,
        };
        assert_eq!(spread(None, single), "2.00");
        let wide = Spread {
            median: 2.0,
            min: 1.0,
            max: 3.0,
        };
        assert_eq!(spread(Some(Metric::P99Us), wide), "2.00µs 1.00µs–3.00µs");
    }
}
