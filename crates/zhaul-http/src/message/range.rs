//! Byte ranges (RFC 9110 §14).
//!
//! [`resolve`] turns a Range field and a file size into the bytes to send. Whatever it returns
//! lies inside the file, and no byte is in two ranges, so that no request can cost more than one
//! sending of the file plus a bounded number of part headers (§17.15; the "Apache killer" asked
//! for the same bytes a thousand times).
//!
//! What a server may decide, and what is decided here:
//! - A field in another unit, or one that breaks the grammar, is ignored: the whole file is sent
//!   (§14.2). That includes `5-3`.
//! - A specifier that begins past the end is dropped. If none is left, the answer is 416.
//! - Nothing is unsatisfiable in an empty file: there is no byte to name in a Content-Range, and
//!   clients that send `bytes=0-` always are better served by an empty 200.
//! - Ranges that overlap or touch are merged (§15.3.7.2), and the merged ones keep the order in
//!   which the client named them: a reader that asks for the index at the end of a file first
//!   wants it first.
//! - More specifiers than the caller's limit, or more than two that overlap an earlier one, are
//!   an attack or a mistake: the field is ignored (§14.2).
//!
//! Parts of a multipart answer are laid out by [`crate::message::multipart`].

use crate::message::field_lines::trim_ows;

/// The default for the number of specifiers in one field.
pub const MAX_RANGES: usize = 32;

/// Bytes `start..end` of a file; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset behind the last byte.
    pub end: u64,
}

impl ByteRange {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Never true for a range that [`resolve`] returned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// Appends the value of Content-Range: `bytes 0-9/100`.
    pub fn write_content_range(&self, file_len: u64, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(b"bytes ");
        out.extend_from_slice(digits.format(self.start).as_bytes());
        out.push(b'-');
        // A range is not empty, so there is a last byte.
        out.extend_from_slice(digits.format(self.end.saturating_sub(1)).as_bytes());
        out.push(b'/');
        out.extend_from_slice(digits.format(file_len).as_bytes());
    }
}

/// Appends the Content-Range of a 416: `bytes */100`.
pub fn write_unsatisfied_range(file_len: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"bytes */");
    out.extend_from_slice(itoa::Buffer::new().format(file_len).as_bytes());
}

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// 200: the field is ignored.
    Whole,
    /// 206 with Content-Range.
    Single(ByteRange),
    /// 206 as multipart/byteranges; at least two, in the order to be sent, none touching another.
    Multi(Vec<ByteRange>),
    /// 416.
    Unsatisfiable,
}

/// Resolves the value of a Range field for a file of `file_len` bytes; `max_ranges` bounds the
/// specifiers ([`MAX_RANGES`]).
#[must_use]
pub fn resolve(value: &[u8], file_len: u64, max_ranges: usize) -> Resolved {
    if file_len == 0 {
        return Resolved::Whole;
    }
    match parse(value, file_len, max_ranges) {
        None => Resolved::Whole,
        Some(ranges) => arrange(ranges),
    }
}

/// The satisfiable ranges in the order of the field; None if the field is to be ignored.
fn parse(value: &[u8], file_len: u64, max_ranges: usize) -> Option<Vec<ByteRange>> {
    let equals = memchr::memchr(b'=', value)?;
    if !value[..equals].eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut ranges = Vec::new();
    let mut specifiers = 0;
    // Empty list elements are legal (§5.6.1.2), but they count too.
    for (elements, element) in value[equals + 1..].split(|&b| b == b',').enumerate() {
        if elements >= max_ranges {
            return None;
        }
        let element = trim_ows(element);
        if element.is_empty() {
            continue;
        }
        specifiers += 1;
        ranges.extend(Specifier::parse(element)?.within(file_len));
    }
    (specifiers > 0).then_some(ranges)
}

/// One range-spec (§14.1.1).
#[derive(Clone, Copy)]
enum Specifier {
    /// `first-` or `first-last`, the last byte included.
    From { first: u64, last: u64 },
    /// `-length`
    Suffix(u64),
}

impl Specifier {
    fn parse(element: &[u8]) -> Option<Self> {
        let dash = memchr::memchr(b'-', element)?;
        match (&element[..dash], &element[dash + 1..]) {
            ([], length) => Some(Self::Suffix(parse_number(length)?)),
            (first, []) => Some(Self::From {
                first: parse_number(first)?,
                last: u64::MAX,
            }),
            (first, last) => {
                let (first, last) = (parse_number(first)?, parse_number(last)?);
                (first <= last).then_some(Self::From { first, last })
            }
        }
    }

    /// The bytes that exist; None if there are none.
    fn within(self, file_len: u64) -> Option<ByteRange> {
        let range = match self {
            Self::From { first, last } => ByteRange {
                start: first,
                end: last.saturating_add(1).min(file_len),
            },
            Self::Suffix(length) => ByteRange {
                start: file_len.saturating_sub(length),
                end: file_len,
            },
        };
        (!range.is_empty()).then_some(range)
    }
}

/// Digits only. A number beyond 64 bits is valid grammar and stands for a place past any file.
fn parse_number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let push = |total: u64, digit: &u8| {
        total
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    };
    Some(digits.iter().fold(0, push))
}

/// How many specifiers may overlap an earlier byte before the field is ignored (§14.2).
const MAX_OVERLAPPING: usize = 2;

/// Merges what overlaps or touches; the result keeps the order of the field.
fn arrange(mut ranges: Vec<ByteRange>) -> Resolved {
    if ranges.is_empty() {
        return Resolved::Unsatisfiable;
    }
    let mut sorted: Vec<(ByteRange, usize)> = ranges.iter().copied().zip(0..).collect();
    sorted.sort_unstable_by_key(|(range, place)| (range.start, *place));

    let mut overlapping = 0;
    let mut merged: Vec<(ByteRange, usize)> = Vec::with_capacity(sorted.len());
    for (range, place) in sorted {
        match merged.last_mut() {
            Some((last, last_place)) if range.start <= last.end => {
                overlapping += usize::from(range.start < last.end);
                last.end = last.end.max(range.end);
                *last_place = place.min(*last_place);
            }
            _ => merged.push((range, place)),
        }
    }
    if overlapping > MAX_OVERLAPPING {
        return Resolved::Whole;
    }
    merged.sort_unstable_by_key(|&(_, place)| place);
    ranges.clear();
    ranges.extend(merged.into_iter().map(|(range, _)| range));
    match ranges[..] {
        [only] => Resolved::Single(only),
        _ => Resolved::Multi(ranges),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn r(start: u64, end: u64) -> ByteRange {
        ByteRange { start, end }
    }

    fn resolve_100(value: &str) -> Resolved {
        resolve(value.as_bytes(), 100, MAX_RANGES)
    }

    #[test]
    fn single_ranges() {
        for (value, start, end) in [
            ("bytes=0-0", 0, 1),
            ("bytes=0-9", 0, 10),
            ("bytes=10-", 10, 100),
            ("bytes=99-", 99, 100),
            ("bytes=0-99", 0, 100),
            ("bytes=0-100", 0, 100),
            ("bytes=50-99999", 50, 100),
            ("bytes=-1", 99, 100),
            ("bytes=-100", 0, 100),
            ("bytes=-101", 0, 100),
            ("bytes=007-009", 7, 10),
            ("BYTES=0-9", 0, 10),
            ("bytes= 0-9 ", 0, 10),
            ("bytes=,0-9,,", 0, 10),
            ("bytes=0-18446744073709551615", 0, 100),
            ("bytes=1-99999999999999999999999999", 1, 100),
            ("bytes=-99999999999999999999999999", 0, 100),
        ] {
            assert_eq!(
                resolve_100(value),
                Resolved::Single(r(start, end)),
                "{value}"
            );
        }
    }

    #[test]
    fn fields_that_break_the_grammar_are_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes= , ,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-3",
            "bytes=1",
            "bytes=--1",
            "bytes=1--2",
            "bytes=1-2-3",
            "bytes=+1-2",
            "bytes=1 -2",
            "bytes=1- 2",
            "bytes=0x1-2",
            "bytes =0-1",
            " bytes=0-1",
            "bytes:0-1",
            "items=0-1",
            "none",
            "bytes=0-1;2-3",
            "bytes=0-1, x",
            "bytes=0-1,5-3",
            "bytes=-0x",
            "bytes=1.0-2",
            "=0-1",
            "bytes=\u{663}-4",
        ] {
            assert_eq!(resolve_100(value), Resolved::Whole, "{value}");
        }
    }

    #[test]
    fn ranges_past_the_end_are_unsatisfiable_together_and_dropped_alone() {
        for value in [
            "bytes=100-",
            "bytes=100-200",
            "bytes=-0",
            "bytes=100-,200-,-0",
        ] {
            assert_eq!(resolve_100(value), Resolved::Unsatisfiable, "{value}");
        }
        // The second is 4 modulo 2^64.
        for huge in [
            "bytes=18446744073709551615-18446744073709551615",
            "bytes=18446744073709551620-",
        ] {
            assert_eq!(resolve_100(huge), Resolved::Unsatisfiable, "{huge}");
        }
        assert_eq!(resolve_100("bytes=100-, 5-6"), Resolved::Single(r(5, 7)));
        assert_eq!(resolve_100("bytes=-0,0-0"), Resolved::Single(r(0, 1)));
    }

    #[test]
    fn an_empty_file_is_always_sent_whole() {
        for value in ["bytes=0-", "bytes=0-0", "bytes=-5", "bytes=5-"] {
            assert_eq!(
                resolve(value.as_bytes(), 0, MAX_RANGES),
                Resolved::Whole,
                "{value}"
            );
        }
    }

    #[test]
    fn the_largest_file_does_not_overflow() {
        let len = u64::MAX;
        let value = format!("bytes={}-{}", len - 1, len);
        assert_eq!(
            resolve(value.as_bytes(), len, 1),
            Resolved::Single(r(len - 1, len))
        );
        assert_eq!(resolve(b"bytes=0-", len, 1), Resolved::Single(r(0, len)));
    }

    #[test]
    fn several_ranges_keep_their_order_and_merge_when_they_touch() {
        for (value, expected) in [
            ("bytes=0-0,-1", vec![r(0, 1), r(99, 100)]),
            ("bytes=-1,0-0", vec![r(99, 100), r(0, 1)]),
            (
                "bytes=50-59 , 30-39\t,10-19",
                vec![r(50, 60), r(30, 40), r(10, 20)],
            ),
            ("bytes=0-9,20-29,5-14", vec![r(0, 15), r(20, 30)]),
            ("bytes=80-,20-29,10-19", vec![r(80, 100), r(10, 30)]),
            ("bytes=20-29,80-,10-19", vec![r(10, 30), r(80, 100)]),
            ("bytes=0-4,6-9", vec![r(0, 5), r(6, 10)]),
        ] {
            assert_eq!(resolve_100(value), Resolved::Multi(expected), "{value}");
        }
        for (value, start, end) in [
            ("bytes=0-4,5-9", 0, 10),
            ("bytes=5-9,0-4", 0, 10),
            ("bytes=0-,5-9", 0, 100),
            ("bytes=0-9,0-9,5-6", 0, 10),
            ("bytes=0-9,10-19,20-29,30-39,40-49", 0, 50),
        ] {
            assert_eq!(
                resolve_100(value),
                Resolved::Single(r(start, end)),
                "{value}"
            );
        }
    }

    #[test]
    fn asking_for_the_same_bytes_again_and_again_is_ignored() {
        for value in [
            format!("bytes={}0-", "0-,".repeat(1300)),
            format!("bytes={}0-", "0-,".repeat(3)),
            format!(
                "bytes=5-{}",
                (6..20).map(|i| format!(",{i}-")).collect::<String>()
            ),
            "bytes=0-9,1-10,2-11,3-12".to_owned(),
        ] {
            assert_eq!(resolve_100(&value), Resolved::Whole, "{value}");
        }
    }

    #[test]
    fn the_count_is_bounded_empty_elements_included() {
        let of = |n: u64| {
            (0..n)
                .map(|i| format!("{}-{}", i * 3, i * 3))
                .collect::<Vec<_>>()
        };
        let value = |n| format!("bytes={}", of(n).join(","));
        let resolve = |value: String| resolve(value.as_bytes(), 1000, MAX_RANGES);
        let Resolved::Multi(ranges) = resolve(value(32)) else {
            panic!("32 ranges")
        };
        assert_eq!(ranges.len(), 32);
        assert_eq!(resolve(value(33)), Resolved::Whole);
        assert_eq!(
            resolve(format!("bytes={}0-1", ",".repeat(32))),
            Resolved::Whole
        );
    }

    #[test]
    fn content_range_names_the_last_byte() {
        let mut out = Vec::new();
        r(0, 10).write_content_range(100, &mut out);
        out.push(b'\n');
        write_unsatisfied_range(100, &mut out);
        assert_eq!(out, b"bytes 0-9/100\nbytes */100");
    }

    fn specifier() -> impl Strategy<Value = String> {
        prop_oneof![
            (0_u64..120, 0_u64..120).prop_map(|(a, b)| format!("{a}-{}", a.saturating_add(b))),
            (0_u64..120).prop_map(|a| format!("{a}-")),
            (0_u64..120).prop_map(|a| format!("-{a}")),
        ]
    }

    proptest! {
        #[test]
        fn results_lie_inside_the_file_and_apart(
            specifiers in prop::collection::vec(specifier(), 1..8),
            len in 0_u64..110,
        ) {
            let value = format!("bytes={}", specifiers.join(","));
            let ranges = match resolve(value.as_bytes(), len, MAX_RANGES) {
                Resolved::Single(range) => vec![range],
                Resolved::Multi(ranges) => {
                    prop_assert!(ranges.len() >= 2);
                    ranges
                }
                Resolved::Whole | Resolved::Unsatisfiable => Vec::new(),
            };
            for (i, a) in ranges.iter().enumerate() {
                prop_assert!(a.start < a.end && a.end <= len);
                for b in &ranges[..i] {
                    prop_assert!(a.end < b.start || b.end < a.start);
                }
            }
        }

        /// Against the definition: exactly the bytes that some specifier names are sent.
        #[test]
        fn exactly_the_named_bytes_are_sent(
            pairs in prop::collection::vec((0_u64..110, 0_u64..30), 1..6),
        ) {
            let list: Vec<_> = pairs.iter().map(|(a, n)| format!("{a}-{}", a + n)).collect();
            let value = format!("bytes={}", list.join(","));
            let named = |byte: u64| pairs.iter().any(|&(a, n)| (a..=a + n).contains(&byte));
            let sent = match resolve_100(&value) {
                Resolved::Single(range) => vec![range],
                Resolved::Multi(ranges) => ranges,
                Resolved::Unsatisfiable => Vec::new(),
                Resolved::Whole => return Ok(()),
            };
            for byte in 0..100 {
                let is_sent = sent.iter().any(|range| (range.start..range.end).contains(&byte));
                prop_assert_eq!(is_sent, named(byte), "byte {}", byte);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            value in prop::collection::vec(any::<u8>(), 0..60),
            len in any::<u64>(),
        ) {
            let _ = resolve(&value, len, MAX_RANGES);
        }
    }
}
