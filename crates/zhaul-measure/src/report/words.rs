//! Figures, sizes and moments as people read them. Pure.

use crate::stats::Spread;

/// What stands where a figure is missing.
pub(super) const MISSING: &str = "–";

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Three significant digits; thousands are grouped.
pub(super) fn number(value: f64) -> String {
    digits(value, 3)
}

/// Two significant digits, for sentences.
pub(super) fn rough(value: f64) -> String {
    digits(value, 2)
}

/// A ratio for a sentence; near 1 two digits would say nothing.
pub(super) fn times(ratio: f64) -> String {
    if (0.905..1.095).contains(&ratio) {
        number(ratio)
    } else {
        rough(ratio)
    }
}

/// Copies for each byte: finer than hundredths no method is.
pub(super) fn copies(value: f64) -> String {
    if value < 99.5 {
        format!("{value:.2}")
    } else {
        number(value)
    }
}

fn digits(value: f64, significant: i32) -> String {
    let magnitude = value.abs();
    if magnitude == 0.0 {
        return "0".to_owned();
    }
    if !(5e-4..1e10).contains(&magnitude) {
        let precision = (significant - 1).max(0) as usize;
        return format!("{value:.precision$e}");
    }
    // Rounding first keeps 9.996 from becoming 10.00.
    let exponent = magnitude.log10().floor() as i32;
    let step = 10f64.powi(exponent - significant + 1);
    let rounded = (magnitude / step).round() * step;
    let exponent = (rounded * (1.0 + 1e-12)).log10().floor() as i32;
    let decimals = (significant - 1 - exponent).max(0) as usize;
    let sign = if value < 0.0 { "-" } else { "" };
    if exponent < 3 {
        format!("{sign}{rounded:.decimals$}")
    } else {
        format!("{sign}{}", grouped(rounded as u64))
    }
}

/// A count in full, thousands grouped.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `min–max`, or nothing if both read the same.
pub(super) fn range(spread: Spread) -> Option<String> {
    let [min, max] = [spread.min, spread.max].map(number);
    (min != max).then(|| format!("{min}–{max}"))
}

/// A size in binary units, as exact as three digits allow: `64 KiB`, `1.5 MiB`.
pub(super) fn size(bytes: u64) -> String {
    in_units(bytes as f64, number)
}

/// As [`size`], for a size that was computed: two digits.
pub(super) fn about_size(bytes: f64) -> String {
    in_units(bytes, rough)
}

fn in_units(bytes: f64, text: fn(f64) -> String) -> String {
    let mut value = bytes;
    let mut unit = 0;
    // 1023.6 KiB would be rounded to 1,024.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = if value.fract() == 0.0 {
        grouped(value as u64)
    } else {
        text(value)
    };
    format!("{text} {}", UNITS[unit])
}

/// A length of time: `48 s`, `6 min 40 s`, `2 h 5 min`.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return MISSING.to_owned();
    }
    let whole = seconds.round() as u64;
    match whole {
        0..=9 => format!("{} s", rough(seconds)),
        10..=59 => format!("{whole} s"),
        60..=3599 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A moment given in RFC 3339 as `20 November 2026, 11:35 UTC`; as it came if it is none.
pub(super) fn moment(rfc3339: &str) -> String {
    rfc3339.parse::<jiff::Timestamp>().map_or_else(
        |_| rfc3339.to_owned(),
        |moment| moment.strftime("%-d %B %Y, %H:%M UTC").to_string(),
    )
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list<T: AsRef<str>>(items: &[T]) -> String {
    match items {
        [] => String::new(),
        [only] => only.as_ref().to_owned(),
        [most @ .., last] => {
            let most: Vec<&str> = most.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", most.join(", "), last.as_ref())
        }
    }
}

/// `1 round`, `5 rounds`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_at_every_border() {
        for (value, text) in [
            (0.0, "0"),
            (0.001_234, "0.00123"),
            (0.1234, "0.123"),
            (0.9996, "1.00"),
            (1.234, "1.23"),
            (9.996, "10.0"),
            (99.96, "100"),
            (999.6, "1,000"),
            (1_234_567.0, "1,230,000"),
            (-2.5, "-2.50"),
            (4e-7, "4.00e-7"),
            (2.5e18, "2.50e18"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn sentences_get_two_digits() {
        assert_eq!(rough(2.583), "2.6");
        assert_eq!(rough(0.1194), "0.12");
        assert_eq!(rough(0.0996), "0.10");
        assert_eq!(rough(12.4), "12");
        assert_eq!(about_size(3_666.0), "3.6 KiB");
    }

    #[test]
    fn sizes_are_binary_and_round_ones_have_no_fraction() {
        for (bytes, text) in [
            (0, "0 B"),
            (1000, "1,000 B"),
            (1024, "1 KiB"),
            (1 << 20, "1 MiB"),
            (3 << 19, "1.50 MiB"),
            ((1 << 20) - 1, "1.00 MiB"),
            (1 << 30, "1 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn durations_and_moments_are_words() {
        assert_eq!(duration(0.25), "0.25 s");
        assert_eq!(duration(59.4), "59 s");
        assert_eq!(duration(400.0), "6 min 40 s");
        assert_eq!(duration(7500.0), "2 h 5 min");
        assert_eq!(duration(f64::NAN), MISSING);
        assert_eq!(moment("2026-11-02T11:35:07Z"), "2 November 2026, 11:35 UTC");
        assert_eq!(moment("<b>yesterday"), "<b>yesterday");
    }

    #[test]
    fn lists_and_counts_agree_with_grammar() {
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
        assert_eq!(list(&["a"]), "a");
        assert_eq!(counted(1, "round"), "1 round");
        assert_eq!(counted(12_000, "sample"), "12,000 samples");
    }
}
