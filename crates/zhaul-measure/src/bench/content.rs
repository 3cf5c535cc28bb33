//! What is sent: bytes of which any two places can be told apart.
//!
//! All content is one block, repeated. Its length is a prime, so that no chunk, page or segment size
//! divides it: bytes that end up a few chunks from their place are wrong bytes.

use std::collections::HashMap;
use std::io::{self, Write};

use xxhash_rust::xxh3::Xxh3Default;

#[derive(Debug)]
pub(super) struct Content {
    block: Vec<u8>,
    digests: HashMap<(u64, u64), u64>,
}

/// A prime a little above 1 MiB.
const BLOCK_BYTES: usize = 1_048_583;

/// The period of content that does not begin again, but goes on.
pub(super) const ENDLESS: u64 = u64::MAX;

impl Content {
    pub(super) fn new() -> Self {
        let mut block = Vec::with_capacity(BLOCK_BYTES + 8);
        let mut state = 0_u64;
        while block.len() < BLOCK_BYTES {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            block.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
        }
        block.truncate(BLOCK_BYTES);
        Self {
            block,
            digests: HashMap::new(),
        }
    }

    /// The longest stretch of content at this place, at most `len` bytes.
    pub(super) fn at(&self, place: u64, len: u64) -> &[u8] {
        // Below the length of the block, so it fits.
        let start = (place % BLOCK_BYTES as u64) as usize;
        let left = self.block.len() - start;
        let len = usize::try_from(len).map_or(left, |len| len.min(left));
        &self.block[start..start + len]
    }

    /// Writes the first `len` bytes.
    pub(super) fn write_to(&self, mut sink: impl Write, len: u64) -> io::Result<()> {
        let mut place = 0;
        while place < len {
            let piece = self.at(place, len - place);
            sink.write_all(piece)?;
            place += piece.len() as u64;
        }
        Ok(())
    }

    /// The hash of `total` bytes that begin anew every `period`.
    pub(super) fn digest(&mut self, period: u64, total: u64) -> u64 {
        if let Some(&digest) = self.digests.get(&(period, total)) {
            return digest;
        }
        let mut hash = Xxh3Default::new();
        let mut done = 0;
        while done < total {
            let place = done % period;
            let piece = self.at(place, (period - place).min(total - done));
            hash.update(piece);
            done += piece.len() as u64;
        }
        let digest = hash.digest();
        self.digests.insert((period, total), digest);
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_the_block_is_a_prime() {
        let n = BLOCK_BYTES;
        assert!(
            (2..)
                .take_while(|d| d * d <= n)
                .all(|d| !n.is_multiple_of(d))
        );
    }

    #[test]
    fn content_that_begins_anew_has_the_hash_of_its_repetition() {
        let mut content = Content::new();
        let mut bytes = Vec::new();
        for _ in 0..3 {
            content.write_to(&mut bytes, 2_000_000).unwrap();
        }
        let expected = xxhash_rust::xxh3::xxh3_64(&bytes);
        assert_eq!(content.digest(2_000_000, 6_000_000), expected);
        assert_eq!(content.digest(2_000_000, 6_000_000), expected, "remembered");
        assert_ne!(content.digest(ENDLESS, 6_000_000), expected);
    }

    #[test]
    fn swapped_chunks_are_noticed() {
        let mut content = Content::new();
        let mut bytes = Vec::new();
        content.write_to(&mut bytes, 256 << 10).unwrap();
        bytes.rotate_left(64 << 10);
        let swapped = xxhash_rust::xxh3::xxh3_64(&bytes);
        assert_ne!(content.digest(ENDLESS, 256 << 10), swapped);
    }
}
