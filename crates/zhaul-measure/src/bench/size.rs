//! Sizes as people write them: `1K`, `64KiB`, `1 GiB`, `1500`. Units are powers of 1024.

/// Bytes, from text.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size (write it like 4096, 64K, 1M or 1G)");
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(wrong()),
    };
    let bytes = number
        .checked_mul(1 << shift)
        .filter(|&bytes| i64::try_from(bytes).is_ok())
        .ok_or_else(|| format!("{text:?} is larger than any file"))?;
    if bytes == 0 {
        return Err(format!("{text:?}: a transfer of nothing cannot be timed"));
    }
    Ok(bytes)
}

/// The same size for people: `64 KiB`, and `1500 B` if no unit divides it.
pub fn format(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_in_any_spelling() {
        for (text, bytes) in [
            ("1", 1),
            ("1500b", 1500),
            ("64K", 64 << 10),
            ("64k", 64 << 10),
            ("64 KiB", 64 << 10),
            ("3M", 3 << 20),
            ("1GiB", 1 << 30),
            (" 1g ", 1 << 30),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_the_text() {
        for text in ["", "K", "-1", "1.5M", "1T", "64 apples", "0", "0K"] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(&format!("{:?}", text.trim())), "{error}");
        }
        assert!(parse("99999999999G").unwrap_err().contains("larger than"));
        assert!(parse("9223372036854775808").is_err());
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_divides_them() {
        assert_eq!(format(1 << 30), "1 GiB");
        assert_eq!(format(1536 << 20), "1536 MiB");
        assert_eq!(format(64 << 10), "64 KiB");
        assert_eq!(format(1500), "1500 B");
    }
}
