//! The layout of a multipart/byteranges answer (RFC 9110 §14.6, RFC 2046 §5.1.1).
//!
//! A [`Multipart`] knows the exact length of the body before the first byte is sent, and yields
//! what to send piece by piece: bytes of a part header, a range of the file, and so on to the
//! closing delimiter. Memory is bounded by the number of ranges; file bytes never pass through.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::message::range::ByteRange;

/// A delimiter that does not occur in the parts.
///
/// It is random, so that nobody can prepare a file that contains it and thereby pass off bytes of
/// that file as further parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary([u8; Self::BYTES]);

impl Boundary {
    const BYTES: usize = 32;

    /// A boundary nobody can foresee: the keys of the standard library's hash maps come from the
    /// kernel's random numbers, and SipHash does not give them away.
    #[must_use]
    pub fn random() -> Self {
        let half = || u128::from(RandomState::new().hash_one(0_u8));
        Self::from_bits(half() << 64 | half())
    }

    /// The boundary that spells these bits.
    #[must_use]
    pub fn from_bits(mut bits: u128) -> Self {
        let mut digits = [0; Self::BYTES];
        for digit in &mut digits {
            *digit = b"0123456789abcdef"[(bits & 15) as usize];
            bits >>= 4;
        }
        Self(digits)
    }

    /// The value of Content-Type for the answer.
    #[must_use]
    pub fn content_type(&self) -> Vec<u8> {
        [b"multipart/byteranges; boundary=", &self.0[..]].concat()
    }
}

/// One thing to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Delimiter and header of a part, or the closing delimiter.
    Bytes(Vec<u8>),
    /// Bytes of the file.
    File(ByteRange),
}

/// A multipart body about to be sent; an iterator over its [`Piece`]s.
#[derive(Clone, Debug)]
pub struct Multipart {
    boundary: Boundary,
    part_type: Option<String>,
    file_len: u64,
    ranges: Vec<ByteRange>,
    /// Pieces yielded so far: two for each range, one at the end.
    yielded: usize,
}

impl Multipart {
    /// Lays out `ranges` of a file of `file_len` bytes and the given type.
    #[must_use]
    pub fn new(
        boundary: Boundary,
        part_type: Option<String>,
        file_len: u64,
        ranges: Vec<ByteRange>,
    ) -> Self {
        Self {
            boundary,
            part_type,
            file_len,
            ranges,
            yielded: 0,
        }
    }

    /// The value of Content-Type for the answer.
    #[must_use]
    pub fn content_type(&self) -> Vec<u8> {
        self.boundary.content_type()
    }

    /// Where in the file the first part begins.
    #[must_use]
    pub fn first_offset(&self) -> u64 {
        self.ranges.first().map_or(0, |range| range.start)
    }

    /// Content-Length of the whole body, independent of what was yielded.
    #[must_use]
    pub fn content_length(&self) -> u64 {
        let parts = (0..self.ranges.len()).map(|index| {
            (self.part_header(index).len() as u64).saturating_add(self.ranges[index].len())
        });
        parts.fold(self.closing().len() as u64, u64::saturating_add)
    }

    fn part_header(&self, index: usize) -> Vec<u8> {
        let mut header = Vec::with_capacity(160);
        // The CRLF in front belongs to the delimiter, not to the preceding part.
        header.extend_from_slice(if index == 0 { b"--" } else { b"\r\n--" });
        header.extend_from_slice(&self.boundary.0);
        header.extend_from_slice(b"\r\n");
        if let Some(content_type) = &self.part_type {
            header.extend_from_slice(b"Content-Type: ");
            header.extend_from_slice(content_type.as_bytes());
            header.extend_from_slice(b"\r\n");
        }
        header.extend_from_slice(b"Content-Range: ");
        self.ranges[index].write_content_range(self.file_len, &mut header);
        header.extend_from_slice(b"\r\n\r\n");
        header
    }

    fn closing(&self) -> Vec<u8> {
        [b"\r\n--", &self.boundary.0[..], b"--\r\n"].concat()
    }
}

impl Iterator for Multipart {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let index = self.yielded / 2;
        let piece = match self.ranges.get(index) {
            Some(_) if self.yielded.is_multiple_of(2) => Piece::Bytes(self.part_header(index)),
            Some(&range) => Piece::File(range),
            None if self.yielded == 2 * self.ranges.len() => Piece::Bytes(self.closing()),
            None => return None,
        };
        self.yielded += 1;
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(bounds: &[(u64, u64)]) -> Vec<ByteRange> {
        bounds
            .iter()
            .map(|&(start, end)| ByteRange { start, end })
            .collect()
    }

    fn body(multipart: Multipart, file: &[u8]) -> Vec<u8> {
        multipart
            .flat_map(|piece| match piece {
                Piece::Bytes(bytes) => bytes,
                Piece::File(range) => file[range.start as usize..range.end as usize].to_vec(),
            })
            .collect()
    }

    #[test]
    fn the_body_is_what_the_rfc_shows() {
        let boundary = Boundary::from_bits(0x1234);
        let name = "4321".to_owned() + &"0".repeat(28);
        let expected = format!(
            "--{name}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n\
             --{name}\r\nContent-Type: text/plain\r\nContent-Range: bytes 7-9/10\r\n\r\n789\r\n\
             --{name}--\r\n"
        );
        let content_type = boundary.content_type();
        assert_eq!(
            content_type,
            format!("multipart/byteranges; boundary={name}").as_bytes()
        );
        let text = Some("text/plain".to_owned());
        let multipart = Multipart::new(boundary, text, 10, ranges(&[(0, 2), (7, 10)]));
        assert_eq!(multipart.content_length(), expected.len() as u64);
        assert_eq!(body(multipart, b"0123456789"), expected.as_bytes());
    }

    #[test]
    fn the_iterator_ends() {
        let mut multipart = Multipart::new(Boundary::random(), None, 10, ranges(&[(0, 1), (2, 3)]));
        assert_eq!(multipart.by_ref().count(), 5);
        assert_eq!(multipart.next(), None);
    }

    #[test]
    fn the_length_is_known_for_ranges_that_no_memory_holds() {
        let len = u64::MAX >> 1;
        let multipart = Multipart::new(Boundary::random(), None, len, ranges(&[(0, 1), (2, len)]));
        let overhead: usize = multipart
            .clone()
            .map(|piece| match piece {
                Piece::Bytes(bytes) => bytes.len(),
                Piece::File(_) => 0,
            })
            .sum();
        assert_eq!(multipart.content_length(), overhead as u64 + len - 1);
    }

    #[test]
    fn random_boundaries_differ() {
        assert_ne!(Boundary::random(), Boundary::random());
    }

    proptest! {
        #[test]
        fn content_length_is_exact(
            bounds in prop::collection::vec((0_u64..1000, 1_u64..1000), 2..32),
            content_type in prop::option::of("[a-z]{1,9}/[a-z]{1,9}"),
        ) {
            let file = vec![b'x'; 2000];
            let bounds: Vec<_> = bounds.into_iter().map(|(start, n)| (start, start + n)).collect();
            let multipart =
                Multipart::new(Boundary::random(), content_type, 2000, ranges(&bounds));
            let length = multipart.content_length();
            prop_assert_eq!(body(multipart, &file).len() as u64, length);
        }
    }
}
