//! A Range field against a file; the first bytes choose the size of the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zhaul_http::multipart::{Boundary, Multipart, Piece};
use zhaul_http::range::{ByteRange, MAX_RANGES, Resolved, resolve};

fuzz_target!(|input: (u64, u8, bool, &[u8])| {
    let (bits, shift, is_raw, rest) = input;
    // Small files as often as huge ones.
    let file_len = bits >> (shift % 64);
    let unit: &[u8] = if is_raw { b"" } else { b"bytes=" };
    let value = [unit, rest].concat();
    match resolve(&value, file_len, MAX_RANGES) {
        Resolved::Whole => {}
        Resolved::Unsatisfiable => assert_ne!(file_len, 0),
        Resolved::Single(range) => check_ranges(&[range], file_len),
        Resolved::Multi(ranges) => {
            assert!((2..=MAX_RANGES).contains(&ranges.len()));
            check_ranges(&ranges, file_len);
            check_multipart(ranges, file_len);
        }
    }
});

fn check_ranges(ranges: &[ByteRange], file_len: u64) {
    for (i, range) in ranges.iter().enumerate() {
        assert!(range.start < range.end && range.end <= file_len);
        for other in &ranges[..i] {
            assert!(range.end < other.start || other.end < range.start);
        }
    }
}

fn check_multipart(ranges: Vec<ByteRange>, file_len: u64) {
    let wanted = ranges.clone();
    let multipart = Multipart::new(Boundary::from_bits(7), None, file_len, ranges);
    let announced = multipart.content_length();
    let (mut sent, mut parts) = (0_u64, Vec::new());
    for piece in multipart {
        match piece {
            Piece::Bytes(bytes) => sent = sent.saturating_add(bytes.len() as u64),
            Piece::File(range) => {
                sent = sent.saturating_add(range.len());
                parts.push(range);
            }
        }
    }
    assert_eq!(sent, announced);
    assert_eq!(parts, wanted);
}
