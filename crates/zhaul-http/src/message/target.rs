//! From a request path to a file path below the root (RFC 3986 §2.1, §6.2.2; RFC 9112 §3.2).
//!
//! [`TargetPath::decode`] percent-decodes exactly once and gives a relative path that is ready for
//! `openat2(RESOLVE_BENEATH)`. The kernel confines; what is done here makes sure that one path has
//! one meaning, for us and for whatever stands in front of us:
//!
//! - an incomplete or non-hexadecimal escape is refused (400), never passed through;
//! - NUL is refused: no file name holds it, and C code behind us would end there;
//! - an encoded slash names nothing ([`TargetPath::names_nothing`], 400): it would be data to one
//!   program and a separator to another. For `..` and dots in front it counts as a separator;
//! - any `..` segment, however spelled, is refused. Clients resolve them before sending
//!   (RFC 3986 §5.2.4), so one that arrives is a mistake or a probe;
//! - `.` segments vanish and runs of slashes collapse;
//! - a segment above 255 bytes names nothing (404), nor does a path above 4095 (414).
//!
//! A path that names nothing is well-formed all the same: it is one that a single-page app may have
//! made for itself.
//!
//! Every other byte is let through: a file name may hold a backslash, a newline or bytes that are
//! no UTF-8, and `%C0%AE` is two such bytes, not a dot. Writers of logs and pages escape them.

use std::borrow::Cow;

/// Longest file name on Linux.
pub const MAX_SEGMENT_BYTES: usize = 255;
/// Longest path that a system call takes, without its NUL.
pub const MAX_PATH_BYTES: usize = 4095;

/// A decoded path, relative to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPath<'a> {
    /// Segments joined by single slashes, without one at either end; empty for the root itself.
    pub relative: Cow<'a, [u8]>,
    /// The target ended in a slash, that is, named a directory.
    pub is_dir: bool,
    /// Some segment begins with a dot; `/.well-known` (RFC 8615) itself does not count.
    pub has_dot_file: bool,
    /// No file can have this name, for this reason; `relative` is of no use then.
    pub names_nothing: Option<TargetError>,
}

/// Why a path is refused, or names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The path does not begin with a slash.
    #[error("path is not absolute")]
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    #[error("malformed percent-encoding")]
    BadEscape,
    /// A NUL byte, raw or encoded.
    #[error("NUL in the path")]
    Nul,
    /// `%2F`.
    #[error("encoded slash in the path")]
    EncodedSlash,
    /// A `..` segment.
    #[error("parent segment in the path")]
    ParentSegment,
    /// A segment above [`MAX_SEGMENT_BYTES`].
    #[error("path segment too long")]
    SegmentTooLong,
    /// More than [`MAX_PATH_BYTES`].
    #[error("path too long")]
    PathTooLong,
}

impl TargetError {
    /// The status to answer with.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::SegmentTooLong => 404,
            Self::PathTooLong => 414,
            Self::NotAbsolute
            | Self::BadEscape
            | Self::Nul
            | Self::EncodedSlash
            | Self::ParentSegment => 400,
        }
    }
}

impl<'a> TargetPath<'a> {
    /// Decodes the path of a target (no query). Allocates only when the path holds an escape, a
    /// `.` segment or a double slash.
    ///
    /// # Errors
    /// The path is not one that the server looks up; see the module documentation.
    pub fn decode(path: &'a str) -> Result<Self, TargetError> {
        let Some(raw) = path.as_bytes().strip_prefix(b"/") else {
            return Err(TargetError::NotAbsolute);
        };
        let (unescaped, has_encoded_slash) = unescape(raw)?;
        let scan = Scan::of(&unescaped)?;
        let is_dir = scan.ends_in_slash;
        let has_dot_file = scan.has_dot_file;
        let names_nothing = match () {
            () if has_encoded_slash => Some(TargetError::EncodedSlash),
            () if unescaped.len() > MAX_PATH_BYTES => Some(TargetError::PathTooLong),
            () if scan.has_long_segment => Some(TargetError::SegmentTooLong),
            () => None,
        };
        let relative = match unescaped {
            plain if scan.is_untidy => Cow::Owned(tidy(&plain)),
            Cow::Borrowed(plain) => Cow::Borrowed(plain.strip_suffix(b"/").unwrap_or(plain)),
            Cow::Owned(mut plain) => {
                if plain.last() == Some(&b'/') {
                    plain.pop();
                }
                Cow::Owned(plain)
            }
        };
        Ok(Self {
            relative,
            is_dir,
            has_dot_file,
            names_nothing,
        })
    }
}

/// Percent-encodes a decoded path so that it can stand in a URL path, a `Location` or an HTML
/// attribute; slashes stay. `decode` gives the same bytes back.
///
/// A backslash and a colon are encoded too: browsers take the one for a slash and the other for
/// the end of a scheme.
pub fn encode_path(path: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"-._~/!$()*,;=@+".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[
                b'%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]);
        }
    }
}

/// The `Location` of the redirect from `/dir` to `/dir/`. It is a path, never `//host`: the
/// decoded path has no empty segment.
#[must_use]
pub fn directory_location(relative: &[u8], query: Option<&str>) -> Vec<u8> {
    let mut location = Vec::with_capacity(relative.len() + 8);
    location.push(b'/');
    encode_path(relative, &mut location);
    if !relative.is_empty() {
        location.push(b'/');
    }
    if let Some(query) = query {
        location.push(b'?');
        // A raw non-ASCII byte was tolerated in the target; a field value should not repeat it.
        for &byte in query.as_bytes() {
            match byte {
                b'!'..=b'~' => location.push(byte),
                _ => encode_path(&[byte], &mut location),
            }
        }
    }
    location
}

/// Resolves escapes, and says whether a slash was among them, which can still be told here. NUL is
/// refused.
fn unescape(raw: &[u8]) -> Result<(Cow<'_, [u8]>, bool), TargetError> {
    if memchr::memchr2(b'%', 0, raw).is_none() {
        return Ok((Cow::Borrowed(raw), false));
    }
    let mut has_slash = false;
    let mut plain = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let byte = match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                let (high, low) = hex(*high).zip(hex(*low)).ok_or(TargetError::BadEscape)?;
                let byte = high << 4 | low;
                has_slash |= byte == b'/';
                byte
            }
            (b'%', _) => return Err(TargetError::BadEscape),
            _ => byte,
        };
        if byte == 0 {
            return Err(TargetError::Nul);
        }
        plain.push(byte);
    }
    Ok((Cow::Owned(plain), has_slash))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// What one look at the segments tells.
struct Scan {
    ends_in_slash: bool,
    has_dot_file: bool,
    has_long_segment: bool,
    /// There are `.` or empty segments to take out.
    is_untidy: bool,
}

impl Scan {
    fn of(path: &[u8]) -> Result<Self, TargetError> {
        let mut scan = Self {
            ends_in_slash: path.is_empty(),
            has_dot_file: false,
            has_long_segment: false,
            is_untidy: false,
        };
        let mut start = 0;
        let mut is_first = true;
        // One past the end stands for the slash that closes the last segment.
        for end in memchr::memchr_iter(b'/', path).chain([path.len()]) {
            let segment = &path[start..end];
            let is_last = end == path.len();
            match segment {
                [] if is_last => scan.ends_in_slash = true,
                [] => scan.is_untidy = true,
                [b'.'] => {
                    scan.is_untidy = true;
                    scan.ends_in_slash |= is_last;
                }
                [b'.', b'.'] => return Err(TargetError::ParentSegment),
                [b'.', ..] => {
                    scan.has_dot_file |= !(is_first && segment == b".well-known");
                    is_first = false;
                }
                _ => is_first = false,
            }
            scan.has_long_segment |= segment.len() > MAX_SEGMENT_BYTES;
            start = end + 1;
        }
        Ok(scan)
    }
}

fn tidy(path: &[u8]) -> Vec<u8> {
    let mut tidied = Vec::with_capacity(path.len());
    for segment in path
        .split(|&b| b == b'/')
        .filter(|segment| !matches!(segment, [] | [b'.']))
    {
        if !tidied.is_empty() {
            tidied.push(b'/');
        }
        tidied.extend_from_slice(segment);
    }
    tidied
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(path: &str) -> (String, bool, bool) {
        let target = TargetPath::decode(path).unwrap();
        let text = target.relative.escape_ascii().to_string();
        (text, target.is_dir, target.has_dot_file)
    }

    #[test]
    fn ordinary_paths() {
        for (path, relative, is_dir) in [
            ("/", "", true),
            ("/a", "a", false),
            ("/a/", "a", true),
            ("/a/b.txt", "a/b.txt", false),
            ("/a%20b", "a b", false),
            ("/%41", "A", false),
            ("/a%2eb", "a.b", false),
            ("/a+b", "a+b", false),
            ("//", "", true),
            ("//a", "a", false),
            ("/a//b///c//", "a/b/c", true),
            ("/./a/./b", "a/b", false),
            ("/a/.", "a", true),
            ("/.", "", true),
            ("/./", "", true),
            ("/%2e/a", "a", false),
            ("/a/...", "a/...", false),
        ] {
            let (got, got_dir, _) = decoded(path);
            assert_eq!((got.as_str(), got_dir), (relative, is_dir), "{path}");
        }
    }

    #[test]
    fn plain_paths_are_borrowed() {
        for path in ["/", "/index.html", "/a/b/c/", "/\u{e4}"] {
            let target = TargetPath::decode(path).unwrap();
            assert!(matches!(target.relative, Cow::Borrowed(_)), "{path}");
        }
    }

    #[test]
    fn climbing_is_refused_however_it_is_spelled() {
        for path in [
            "/..",
            "/../",
            "/../etc/passwd",
            "/a/../b",
            "/a/..",
            "/%2e%2e/x",
            "/.%2e/x",
            "/%2E./x",
            "//../x",
            "/./../x",
            "/a/b/../../../../etc/passwd",
            "/%2e%2e",
            "/%2e%2e%2fetc/passwd",
            "/..%2f",
            "/..%2f..%2fetc",
            "/a%2f..",
        ] {
            assert_eq!(
                TargetPath::decode(path),
                Err(TargetError::ParentSegment),
                "{path}"
            );
        }
    }

    fn names_nothing(path: &str) -> Option<(TargetError, u16)> {
        let error = TargetPath::decode(path).unwrap().names_nothing;
        error.map(|error| (error, error.status()))
    }

    #[test]
    fn an_encoded_slash_names_nothing() {
        for (path, dot) in [
            ("/a%2Fb", false),
            ("/%2f", false),
            ("/a%2f", false),
            ("/a/x%2F%2fy/b", false),
            ("/a%2f.git", true),
            ("/%2f.env", true),
        ] {
            let error = names_nothing(path);
            assert_eq!(error, Some((TargetError::EncodedSlash, 400)), "{path}");
            assert_eq!(decoded(path).2, dot, "{path}");
        }
    }

    #[test]
    fn decoding_happens_once() {
        assert_eq!(decoded("/%252e%252e%252fx").0, "%2e%2e%2fx");
        assert_eq!(decoded("/%2500").0, "%00");
    }

    #[test]
    fn bytes_that_are_no_text_are_names_and_overlong_dots_are_no_dots() {
        assert_eq!(decoded("/%c0%ae%c0%ae/x").0, "\\xc0\\xae\\xc0\\xae/x");
        assert_eq!(decoded("/%ff%0a").0, "\\xff\\n");
        assert_eq!(decoded("/..%5c..%5cx").0, "..\\\\..\\\\x");
        assert_eq!(decoded("/%c0%af").0, "\\xc0\\xaf");
    }

    #[test]
    fn nul_and_broken_escapes_are_refused() {
        for path in ["/%00", "/a.html%00.txt", "/\0"] {
            assert_eq!(TargetPath::decode(path), Err(TargetError::Nul), "{path}");
        }
        for path in [
            "/%", "/%4", "/a%", "/%zz", "/%4g", "/%%41", "/%u0041", "/%+1", "/% 1",
        ] {
            assert_eq!(
                TargetPath::decode(path),
                Err(TargetError::BadEscape),
                "{path}"
            );
        }
        for path in ["", "a", "*"] {
            assert_eq!(
                TargetPath::decode(path),
                Err(TargetError::NotAbsolute),
                "{path}"
            );
        }
    }

    #[test]
    fn dot_files_are_seen_at_any_depth_but_for_well_known() {
        for (path, dot) in [
            ("/a.b", false),
            ("/.git/config", true),
            ("/a/.env", true),
            ("/%2egit", true),
            ("/...", true),
            ("/.well-known/acme-challenge/x", false),
            ("/.well-known", false),
            ("//.well-known/x", false),
            ("/./.well-known/x", false),
            ("/.well-known/.x", true),
            ("/.well-known/.well-known", true),
            ("/a/.well-known/x", true),
            ("/.well-knownx", true),
        ] {
            assert_eq!(decoded(path).2, dot, "{path}");
        }
    }

    #[test]
    fn limits_are_exact() {
        let of = |n: usize| "a".repeat(n);
        assert_eq!(names_nothing(&format!("/{}", of(255))), None);
        let error = names_nothing(&format!("/a/{}/b", of(256)));
        assert_eq!(error, Some((TargetError::SegmentTooLong, 404)));
        // Encoded, the name is three times as long as it counts.
        assert_eq!(names_nothing(&format!("/{}", "%61".repeat(255))), None);
        let long = |n: usize| format!("/{}", "a/".repeat(n / 2) + &of(n % 2));
        assert_eq!(names_nothing(&long(MAX_PATH_BYTES)), None);
        let error = names_nothing(&long(MAX_PATH_BYTES + 1));
        assert_eq!(error, Some((TargetError::PathTooLong, 414)));
    }

    #[test]
    fn redirects_stay_on_this_host() {
        let location = |path: &str, query| {
            let target = TargetPath::decode(path).unwrap();
            String::from_utf8(directory_location(&target.relative, query)).unwrap()
        };
        assert_eq!(location("//evil.example", None), "/evil.example/");
        assert_eq!(
            location("/%5c%5cevil.example", None),
            "/%5C%5Cevil.example/"
        );
        assert_eq!(
            location("/a b:c", Some("x=1&y=\u{e4}")),
            "/a%20b%3Ac/?x=1&y=%C3%A4"
        );
        assert_eq!(
            location("/%0d%0aSet-Cookie:x", None),
            "/%0D%0ASet-Cookie%3Ax/"
        );
        assert_eq!(location("/", None), "/");
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(
            segments in prop::collection::vec(prop::collection::vec(1_u8.., 1..20), 0..6),
            is_dir in any::<bool>(),
        ) {
            let mut path = segments.join(&b'/');
            path.retain(|&b| b != 0);
            let parts: Vec<_> = path
                .split(|&b| b == b'/')
                .filter(|s| !s.is_empty() && *s != b"." && *s != b"..")
                .collect();
            let clean = parts.join(&b'/');
            let mut url = vec![b'/'];
            encode_path(&clean, &mut url);
            if is_dir {
                url.push(b'/');
            }
            let url = String::from_utf8(url).unwrap();
            let target = TargetPath::decode(&url).unwrap();
            prop_assert_eq!(&*target.relative, &clean[..]);
            prop_assert_eq!(target.is_dir, is_dir || clean.is_empty());
        }

        #[test]
        fn whatever_is_decoded_stays_below_the_root(path in "/[a./%02eEfF\\\\]{0,40}") {
            if let Ok(target) = TargetPath::decode(&path) {
                prop_assert!(!target.relative.starts_with(b"/"));
                prop_assert!(!target.relative.contains(&0));
                for segment in target.relative.split(|&b| b == b'/') {
                    prop_assert!(!matches!(segment, b"." | b".."));
                    prop_assert!(!segment.is_empty() || target.relative.is_empty());
                }
            }
        }

        #[test]
        fn arbitrary_text_never_panics(path in "\\PC{0,60}") {
            let _ = TargetPath::decode(&path);
        }
    }
}
