//! Amounts for people, and what people write for amounts. Pure.

use std::fmt;

/// Bytes as they are printed: exact below 10 KiB, else with three significant digits and the unit.
pub(crate) fn amount(bytes: u64) -> String {
    if bytes < 10_000 {
        return match bytes {
            1 => "1 byte".to_owned(),
            _ => format!("{} bytes", grouped(bytes)),
        };
    }
    let (unit, shift) = UNITS
        .into_iter()
        .find(|&(_, shift)| bytes >> shift > 0)
        .unwrap_or(("KiB", 10));
    let whole = bytes >> shift;
    if bytes == whole << shift {
        return format!("{} {unit}", grouped(whole));
    }
    let value = bytes as f64 / (1_u64 << shift) as f64;
    format!("{} {unit}", significant(value))
}

/// An amount with its exact number behind it, if the amount alone does not tell it.
pub(crate) fn amount_exactly(bytes: u64) -> String {
    let short = amount(bytes);
    if short.ends_with("bytes") || short.ends_with("byte") {
        short
    } else {
        format!("{short} ({} bytes)", grouped(bytes))
    }
}

/// Digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number to three significant digits, without needless zeros.
pub(crate) fn significant(value: f64) -> String {
    if !value.is_finite() {
        return "?".to_owned();
    }
    let magnitude = value.abs();
    if magnitude >= 1000.0 {
        // Grouping works on whole numbers, and at this size a fraction says nothing.
        return grouped(value.round() as u64);
    }
    let decimals = match magnitude {
        m if m >= 99.95 => 0,
        m if m >= 9.995 => 1,
        m if m >= 0.9995 => 2,
        m if m >= 0.09995 => 3,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Seconds in the unit that fits.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{} s", significant(s)),
        s if s >= 1e-3 => format!("{} ms", significant(s * 1e3)),
        s => format!("{} us", significant(s * 1e6)),
    }
}

/// Reads an amount such as `4096`, `64K`, `1MiB` or `2G`. All units are powers of 1024.
///
/// # Errors
/// [`NotAnAmount`], if it is none.
pub fn parse_bytes(text: &str) -> Result<u64, NotAnAmount> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(NotAnAmount),
    };
    let number: u64 = number.parse().map_err(|_| NotAnAmount)?;
    number.checked_mul(1 << shift).ok_or(NotAnAmount)
}

/// A text that is no amount of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnAmount;

impl fmt::Display for NotAnAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a number of bytes (write 4096, 64K, 1M or 2G)")
    }
}

impl std::error::Error for NotAnAmount {}

const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_keep_what_matters() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (4096, "4,096 bytes"),
            (65536, "64 KiB"),
            (10_001, "9.77 KiB"),
            (1 << 20, "1 MiB"),
            ((1 << 20) + 1, "1 MiB"),
            (1_500_000, "1.43 MiB"),
            (1 << 40, "1 TiB"),
            (u64::MAX, "16,777,216 TiB"),
        ] {
            assert_eq!(amount(bytes), text, "{bytes}");
        }
        assert_eq!(amount_exactly(1_500_000), "1.43 MiB (1,500,000 bytes)");
        assert_eq!(amount_exactly(17), "17 bytes");
    }

    #[test]
    fn numbers_have_three_significant_digits() {
        for (value, text) in [
            (0.0, "0"),
            (2.0, "2"),
            (4.0375, "4.04"),
            (0.9999, "1"),
            (0.001_234, "0.0012"),
            (12.345, "12.3"),
            (123.45, "123"),
            (1234.5, "1,235"),
            (f64::NAN, "?"),
        ] {
            assert_eq!(significant(value), text, "{value}");
        }
        assert_eq!(duration(0.01234), "12.3 ms");
        assert_eq!(duration(0.000_045), "45 us");
        assert_eq!(duration(75.0), "75 s");
    }

    #[test]
    fn what_people_write_is_read_and_nothing_else() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64K", 65536),
            ("64kib", 65536),
            ("1M", 1 << 20),
            ("3g", 3 << 30),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "K",
            "-1",
            "1.5M",
            "1 M",
            "16777216T",
            "1X",
            "0x10",
            "99999999999999999999",
        ] {
            assert_eq!(parse_bytes(text), Err(NotAnAmount), "{text}");
        }
    }
}
