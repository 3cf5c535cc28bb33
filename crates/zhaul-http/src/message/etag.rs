//! Strong entity tags (RFC 9110 §8.8.3).
//!
//! A strong tag must change whenever the bytes have. There are two ways to know:
//!
//! - **Of a file in memory** (up to 64 KiB) the tag is a hash of the bytes themselves. It is the
//!   same after `chmod`, `chown -R` and hard-link snapshots, over a restart, and on every machine
//!   that has the same bytes; and it is another one for other bytes, whatever the times say.
//! - **Of a larger file** it is a mix of everything that the kernel changes along with the content:
//!   device, inode, size, mtime and ctime with their nanoseconds. ctime is the one that counts: it
//!   cannot be set by `utimensat`, so an edit that restores size and mtime (rsync and tar restore
//!   mtime as a matter of course) still changes the tag. The price: two hosts issue different tags,
//!   and `chmod` or a new hard link makes another one, since ctime tells that from an edit no
//!   better. A client then fetches again what it already has, which is merely slow; the opposite
//!   mistake would splice parts of two versions into one download.
//!
//! # Racy files
//! Timestamps come from the kernel's coarse clock, which ticks every 1 to 10 ms. Two writes within
//! one tick leave the same ctime, so as long as the tick of the last change may still be running,
//! the tag of the bytes that we are about to send can also become the tag of others. Then no tag is
//! issued from times; the next look at the file, a moment later, gives one.
//!
//! # Times that are not the kernel's
//! In the images of SquashFS, EROFS or ISO 9660 ctime is what whoever made the image wrote, often
//! the same for all files of all releases. They have whole seconds, as have file systems too old to
//! be exact. There the tag also depends on the mount ([`FileStamp::mount`]), so that it ends with it.
//!
//! Comparison of tags is in [`crate::message::conditional`].

use xxhash_rust::xxh3::xxh3_128;

use crate::message::encoding::Coding;

/// What identifies one state of a file: fields of `statx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileStamp {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Last modification of the content: seconds since 1970.
    pub mtime_s: i64,
    /// Nanoseconds of it.
    pub mtime_ns: u32,
    /// Last change of content or inode: seconds since 1970.
    pub ctime_s: i64,
    /// Nanoseconds of it.
    pub ctime_ns: u32,
    /// What identifies this mount of the file system, where the times alone do not tell one state
    /// from another; else 0.
    pub mount: u64,
}

/// A strong entity tag as it stands in a field value, quotes included.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ETag {
    bytes: [u8; CAPACITY],
    len: u8,
}

/// Two quotes, 26 digits of base 32 for 128 bits, the longest suffix.
const CAPACITY: usize = 2 + DIGITS + SUFFIX_MAX;
const DIGITS: usize = 26;
const SUFFIX_MAX: usize = 5;

impl ETag {
    /// The tag of these bytes, which are sent with this content coding.
    ///
    /// The coding is part of the tag (RFC 9110 §8.8.3.3), so that representations stay apart even
    /// if one file were to serve as two of them.
    #[must_use]
    pub fn of_content(content: &[u8], coding: Coding) -> Self {
        Self::from_hash(xxh3_128(content), coding)
    }

    /// The tag of a file in this state.
    #[must_use]
    pub fn of_stamp(stamp: &FileStamp, coding: Coding) -> Self {
        Self::from_hash(mix(stamp), coding)
    }

    fn from_hash(mut rest: u128, coding: Coding) -> Self {
        let mut bytes = [b'"'; CAPACITY];
        for digit in &mut bytes[1..=DIGITS] {
            *digit = BASE32[(rest & 31) as usize];
            rest >>= 5;
        }
        let suffix: &[u8] = match coding {
            Coding::Identity => b"",
            Coding::Gzip => b"-gz",
            Coding::Zstd => b"-zst",
            Coding::Brotli => b"-br",
        };
        let end = 1 + DIGITS + suffix.len();
        bytes[1 + DIGITS..end].copy_from_slice(suffix);
        // The array was filled with quotes: the closing one is in place.
        Self {
            bytes,
            len: end as u8 + 1,
        }
    }

    /// The field value.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for ETag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ETag({})", self.as_bytes().escape_ascii())
    }
}

const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Absorbs one word after the other. Each round is a bijection of the state for a given word and
/// of the word for a given state, so two stamps that differ in one field never share a tag;
/// others do by chance only, one in 2^128. Not secret: a tag is no authorization. (Nor does the hash
/// of contents withstand somebody who looks for two files with one tag: it would be files of theirs.)
fn mix(stamp: &FileStamp) -> u128 {
    let words = [
        stamp.dev,
        stamp.ino,
        stamp.size,
        stamp.mtime_s.cast_unsigned(),
        u64::from(stamp.mtime_ns) << 32 | u64::from(stamp.ctime_ns),
        stamp.ctime_s.cast_unsigned(),
    ];
    let mount = Some(stamp.mount).filter(|&mount| mount != 0);
    words
        .into_iter()
        .chain(mount)
        .fold(SEED, |state, word| scramble(state ^ u128::from(word)))
}

fn scramble(mut state: u128) -> u128 {
    state ^= state >> 67;
    state = state.wrapping_mul(ODD_1);
    state ^= state >> 59;
    state = state.wrapping_mul(ODD_2);
    state ^ state >> 61
}

// Fractional digits of the square roots of 2, 3 and 5, the last two made odd.
const SEED: u128 = 0x6A09_E667_F3BC_C908_B2FB_1366_EA95_7D3E;
const ODD_1: u128 = 0xBB67_AE85_84CA_A73B_2574_2D70_78B8_3B89;
const ODD_2: u128 = 0x3C6E_F372_FE94_F82B_E739_80C0_B9DB_9069;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const STAMP: FileStamp = FileStamp {
        dev: 2049,
        ino: 131_073,
        size: 4096,
        mtime_s: 1_700_000_000,
        mtime_ns: 123_456_789,
        ctime_s: 1_700_000_001,
        ctime_ns: 987_654_321,
        mount: 0,
    };

    fn tag(stamp: &FileStamp) -> ETag {
        ETag::of_stamp(stamp, Coding::Identity)
    }

    #[test]
    fn any_changed_field_changes_the_tag() {
        let mut seen = HashSet::from([tag(&STAMP)]);
        for change in [
            |s: &mut FileStamp| s.dev += 1,
            |s: &mut FileStamp| s.ino += 1,
            |s: &mut FileStamp| s.size += 1,
            |s: &mut FileStamp| s.mtime_s += 1,
            |s: &mut FileStamp| s.mtime_ns += 1,
            |s: &mut FileStamp| s.ctime_s += 1,
            |s: &mut FileStamp| s.ctime_ns += 1,
            |s: &mut FileStamp| s.mount += 1,
            |s: &mut FileStamp| s.mtime_s = -1,
            |s: &mut FileStamp| std::mem::swap(&mut s.mtime_ns, &mut s.ctime_ns),
            |s: &mut FileStamp| std::mem::swap(&mut s.mtime_s, &mut s.ctime_s),
        ] {
            let mut changed = STAMP;
            change(&mut changed);
            assert!(seen.insert(tag(&changed)), "{changed:?}");
        }
    }

    #[test]
    fn neighbouring_stamps_do_not_collide() {
        let mut seen = HashSet::new();
        for ino in 0..200 {
            for ctime_ns in 0..200 {
                assert!(seen.insert(tag(&FileStamp {
                    ino,
                    ctime_ns,
                    ..STAMP
                })));
            }
        }
    }

    #[test]
    fn codings_have_tags_of_their_own() {
        let codings = [Coding::Identity, Coding::Gzip, Coding::Zstd, Coding::Brotli];
        let of_stamp = codings.map(|coding| ETag::of_stamp(&STAMP, coding));
        let of_content = codings.map(|coding| ETag::of_content(b"content", coding));
        let tags: HashSet<_> = of_stamp.into_iter().chain(of_content).collect();
        assert_eq!(tags.len(), 8);
    }

    #[test]
    fn tags_are_quoted_etagc_and_stable() {
        let tag = ETag::of_stamp(&STAMP, Coding::Zstd);
        let text = std::str::from_utf8(tag.as_bytes()).unwrap();
        let inner = text.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
        assert!(
            inner
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-'),
            "{text}"
        );
        assert_eq!(inner.len(), DIGITS + 4);
        // Clients keep tags over a restart and an upgrade of the server.
        assert_eq!(text, "\"6e0nnyrny18zpppqmjb168a2d5-zst\"");
    }

    #[test]
    fn content_alone_decides_about_the_tag_of_content() {
        let tag = |content: &[u8]| ETag::of_content(content, Coding::Identity);
        assert_eq!(tag(b"content"), tag(b"content"));
        let mut seen = HashSet::new();
        for len in 0..300 {
            for last in 0..3 {
                let mut content = vec![0; len];
                content.push(last);
                assert!(seen.insert(tag(&content)), "{len} {last}");
            }
        }
        // The same on every machine and in every release.
        assert_eq!(
            tag(b"content").as_bytes().escape_ascii().to_string(),
            r#"\"cmnjd4e4dhy4va6rft9879rfh4\""#
        );
    }
}
