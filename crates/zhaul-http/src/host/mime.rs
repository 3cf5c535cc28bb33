//! Content-Type by file extension (RFC 9110 §8.3).
//!
//! Three tables, asked in this order: the operator's overrides, a short list of types that the
//! general table lacks or has outdated, and `mime_guess`. What none of them knows is
//! `application/octet-stream`: guessing from content is what makes browsers execute uploads.
//!
//! A charset parameter overrules what a page says about itself, and stands in for what the scripts
//! and styles it includes do not say. So text gets one only where its encoding is known ([`Charset`]);
//! JSON (RFC 8259 §8.1) and XML (RFC 7303 §3.2), which need none, never do.
//!
//! Lookups allocate and are meant for the moment at which a file enters the cache.

use std::borrow::Cow;
use std::collections::HashMap;
use std::str::FromStr;

use crate::message::body::is_token;

/// The type of what has no known extension.
pub const UNKNOWN: &str = "application/octet-stream";

/// Why an override is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MimeError {
    /// Not of the form `EXT=TYPE`.
    #[error("{0:?} is not EXT=TYPE")]
    NotAnOverride(String),
    /// Empty, or with a slash.
    #[error("{0:?} is not a file extension")]
    BadExtension(String),
    /// Not `type/subtype` with optional parameters.
    #[error("{0:?} is not a media type (expected type/subtype)")]
    BadType(String),
}

/// What is said about the encoding of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Charset {
    /// UTF-8 where the bytes tell: not all ASCII, and well-formed. Chance does not make other
    /// encodings look like that. Of ASCII nothing is said: what a page includes has the encoding of
    /// the page if nobody says otherwise, and need not be ASCII.
    #[default]
    Detected,
    /// Nothing, ever.
    Never,
    /// All text is in this encoding.
    Always(String),
}

/// How much of a text [`Charset::Detected`] needs to see.
pub const CHARSET_SAMPLE_BYTES: usize = 64 * 1024;

impl FromStr for Charset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "detect" => Ok(Self::Detected),
            "none" => Ok(Self::Never),
            name if !name.is_empty() && name.bytes().all(is_token) => {
                Ok(Self::Always(name.to_owned()))
            }
            _ => Err(format!(
                "{text:?} is no encoding (use detect, none, or a name such as utf-8)"
            )),
        }
    }
}

impl Charset {
    /// Whether the content decides about this media type.
    #[must_use]
    pub fn asks_for_content(&self, media_type: &str) -> bool {
        *self == Self::Detected && takes_charset(media_type)
    }

    /// The value of Content-Type; `sample` is the beginning of the content, if that is known.
    #[must_use]
    pub fn declare(&self, media_type: &str, sample: Option<&[u8]>) -> String {
        let charset = match self {
            _ if !takes_charset(media_type) => None,
            Self::Never => None,
            Self::Always(charset) => Some(charset.as_str()),
            Self::Detected => sample.filter(|sample| is_utf8(sample)).map(|_| "utf-8"),
        };
        match charset {
            Some(charset) => format!("{media_type}; charset={charset}"),
            None => media_type.to_owned(),
        }
    }
}

fn takes_charset(media_type: &str) -> bool {
    media_type
        .get(..5)
        .is_some_and(|main| main.eq_ignore_ascii_case("text/"))
        && !media_type.contains(';')
}

/// Whether this is UTF-8 and nothing else. The end may be in the middle of a character. Escapes
/// are how ISO-2022 says in seven bits what other encodings say in eight.
fn is_utf8(sample: &[u8]) -> bool {
    let is_well_formed = match std::str::from_utf8(sample) {
        Ok(_) => true,
        Err(e) => e.error_len().is_none(),
    };
    is_well_formed && !sample.is_ascii() && !sample.contains(&0x1B)
}

/// Parses `EXT=TYPE`, as in `log=text/plain`; a dot before the extension is tolerated.
///
/// # Errors
/// The text has another form. What is on either side is checked by [`MimeTypes::new`].
pub fn parse_override(text: &str) -> Result<(String, String), MimeError> {
    let (extension, media_type) = text
        .split_once('=')
        .ok_or_else(|| MimeError::NotAnOverride(text.to_owned()))?;
    Ok((extension.to_owned(), media_type.trim().to_owned()))
}

/// The tables.
#[derive(Clone, Debug, Default)]
pub struct MimeTypes {
    /// By extension in lower case, without the first dot; may contain further dots.
    overrides: HashMap<String, String>,
}

impl MimeTypes {
    /// The built-in tables under these pairs of extension and type; of two for one extension the
    /// later one counts.
    ///
    /// # Errors
    /// An extension or type that could not stand in a file name or a header field.
    pub fn new(overrides: impl IntoIterator<Item = (String, String)>) -> Result<Self, MimeError> {
        let mut table = HashMap::new();
        for (extension, media_type) in overrides {
            let key = extension
                .strip_prefix('.')
                .unwrap_or(&extension)
                .to_ascii_lowercase();
            if key.is_empty() || key.contains(['/', '\0']) {
                return Err(MimeError::BadExtension(extension));
            }
            if !is_media_type(&media_type) {
                return Err(MimeError::BadType(media_type));
            }
            table.insert(key, media_type);
        }
        Ok(Self { overrides: table })
    }

    /// The media type of a file of this name, without a charset unless an override has one. For a
    /// precompressed sibling ask with the name of the original.
    #[must_use]
    pub fn media_type(&self, name: &[u8]) -> Cow<'_, str> {
        let Ok(name) = std::str::from_utf8(file_name(name)) else {
            // Only the extension needs to be text.
            return ascii_extension(name).map_or(Cow::Borrowed(UNKNOWN), |ext| self.of(&ext));
        };
        // `a.tar.gz` is asked for as `tar.gz`, then as `gz`. A leading dot begins no extension.
        let mut rest = name.strip_prefix('.').unwrap_or(name);
        let mut found = Cow::Borrowed(UNKNOWN);
        while let Some((_, extension)) = rest.split_once('.') {
            let extension = extension.to_ascii_lowercase();
            if let Some(media_type) = self.overrides.get(&extension) {
                return Cow::Borrowed(media_type);
            }
            if !extension.contains('.') {
                found = self.of(&extension);
            }
            rest = &rest[rest.len() - extension.len()..];
        }
        found
    }

    /// By the last extension alone, in lower case.
    fn of(&self, extension: &str) -> Cow<'_, str> {
        if let Some(media_type) = self.overrides.get(extension) {
            return Cow::Borrowed(media_type);
        }
        if let Some(&(_, media_type)) = MODERN.iter().find(|(known, _)| *known == extension) {
            return Cow::Borrowed(media_type);
        }
        let guessed = mime_guess::from_ext(extension).first_raw();
        Cow::Borrowed(guessed.unwrap_or(UNKNOWN))
    }
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or(path)
}

fn ascii_extension(name: &[u8]) -> Option<String> {
    let dot = memchr::memrchr(b'.', name).filter(|&dot| dot > 0)?;
    let extension = std::str::from_utf8(&name[dot + 1..]).ok()?;
    extension.is_ascii().then(|| extension.to_ascii_lowercase())
}

/// The coding that files of this name have by their nature (RFC 9110 §8.4.1): a compressed SVG is
/// one that browsers show only if they are told of its compression.
#[must_use]
pub fn inherent_coding(name: &[u8]) -> Option<&'static str> {
    let extension = name.rsplit(|&b| b == b'.').next()?;
    extension.eq_ignore_ascii_case(b"svgz").then_some("gzip")
}

fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(is_token);
    let is_essence = essence
        .split_once('/')
        .is_some_and(|(a, b)| is_name(a) && is_name(b));
    is_essence && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

/// Types that `mime_guess` lacks, or knows by a name that has been superseded or that belongs to
/// something else. As IANA has them, else as shared-mime-info and nginx do.
const MODERN: &[(&str, &str)] = &[
    ("3mf", "model/3mf"),
    ("amr", "audio/AMR"),
    ("appimage", "application/vnd.appimage"),
    ("ass", "text/x-ssa"),
    ("avif", "image/avif"),
    ("br", UNKNOWN),
    ("cbor", "application/cbor"),
    ("cbr", "application/vnd.comicbook-rar"),
    ("cbz", "application/vnd.comicbook+zip"),
    ("cjs", "text/javascript"),
    ("conf", "text/plain"),
    ("crate", "application/gzip"),
    ("cur", "image/x-icon"),
    ("deb", "application/vnd.debian.binary-package"),
    ("diff", "text/x-diff"),
    ("dmg", "application/x-apple-diskimage"),
    ("emf", "image/emf"),
    ("flac", "audio/flac"),
    ("flatpak", "application/vnd.flatpak"),
    ("geojson", "application/geo+json"),
    ("glb", "model/gltf-binary"),
    ("gltf", "model/gltf+json"),
    ("gz", "application/gzip"),
    ("heic", "image/heic"),
    ("ico", "image/x-icon"),
    ("ipynb", "application/x-ipynb+json"),
    ("iso", "application/x-iso9660-image"),
    ("js", "text/javascript"),
    ("json5", "application/json5"),
    ("jsonl", "application/jsonl"),
    ("jsonld", "application/ld+json"),
    ("jxl", "image/jxl"),
    ("log", "text/plain"),
    ("lz", "application/x-lzip"),
    ("lz4", "application/x-lz4"),
    ("m2ts", "video/mp2t"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("m4b", "audio/mp4"),
    ("m4s", "video/iso.segment"),
    ("m4v", "video/mp4"),
    ("map", "application/json"),
    ("markdown", "text/markdown"),
    ("md", "text/markdown"),
    ("md5", "text/plain"),
    ("mid", "audio/midi"),
    ("midi", "audio/midi"),
    ("mjs", "text/javascript"),
    ("mkv", "video/x-matroska"),
    ("mp4", "video/mp4"),
    ("mpd", "application/dash+xml"),
    ("mtl", "model/mtl"),
    ("mts", "video/mp2t"),
    ("ndjson", "application/x-ndjson"),
    ("obj", "model/obj"),
    ("ogg", "audio/ogg"),
    ("opus", "audio/ogg"),
    ("otf", "font/otf"),
    ("patch", "text/x-diff"),
    ("psd", "image/vnd.adobe.photoshop"),
    ("qcow2", "application/x-qemu-disk"),
    ("rar", "application/vnd.rar"),
    ("rpm", "application/x-redhat-package-manager"),
    ("rst", "text/x-rst"),
    ("sha1", "text/plain"),
    ("sha256", "text/plain"),
    ("sha512", "text/plain"),
    ("snap", "application/vnd.snap"),
    ("sqlite", "application/vnd.sqlite3"),
    ("ssa", "text/x-ssa"),
    ("step", "model/step"),
    ("stl", "model/stl"),
    ("stp", "model/step"),
    ("svgz", "image/svg+xml"),
    ("tbz", "application/x-bzip2"),
    ("tbz2", "application/x-bzip2"),
    ("tgz", "application/gzip"),
    ("toml", "application/toml"),
    ("ts", "video/mp2t"),
    ("ttf", "font/ttf"),
    ("txz", "application/x-xz"),
    ("tzst", "application/zstd"),
    ("udeb", "application/vnd.debian.binary-package"),
    ("usda", "model/vnd.usda"),
    ("usdz", "model/vnd.usdz+zip"),
    ("vcf", "text/vcard"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("whl", "application/zip"),
    ("wmf", "image/wmf"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xhtml", "application/xhtml+xml"),
    ("xml", "application/xml"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zst", "application/zstd"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn built_in(name: &str) -> String {
        MimeTypes::default()
            .media_type(name.as_bytes())
            .into_owned()
    }

    #[test]
    fn what_a_web_site_is_made_of() {
        for (name, expected) in [
            ("index.html", "text/html"),
            ("a/b.c/style.css", "text/css"),
            ("app.js", "text/javascript"),
            ("app.mjs", "text/javascript"),
            ("data.json", "application/json"),
            ("app.js.map", "application/json"),
            ("logo.svg", "image/svg+xml"),
            ("site.webmanifest", "application/manifest+json"),
            ("README.md", "text/markdown"),
            ("notes.txt", "text/plain"),
            ("feed.xml", "application/xml"),
            ("PHOTO.JPG", "image/jpeg"),
            ("a.png", "image/png"),
            ("a.webp", "image/webp"),
            ("a.avif", "image/avif"),
            ("a.woff2", "font/woff2"),
            ("a.wasm", "application/wasm"),
            ("a.pdf", "application/pdf"),
            ("a.mp4", "video/mp4"),
            ("a.mkv", "video/x-matroska"),
            ("a.webm", "video/webm"),
            ("a.mp3", "audio/mpeg"),
            ("a.zip", "application/zip"),
            ("a.tar.gz", "application/gzip"),
            ("a.csv", "text/csv"),
            ("a.svgz", "image/svg+xml"),
            ("a.tgz", "application/gzip"),
            ("a.deb", "application/vnd.debian.binary-package"),
            ("a.rpm", "application/x-redhat-package-manager"),
            ("a.stl", "model/stl"),
            ("a.obj", "model/obj"),
            ("a.usdz", "model/vnd.usdz+zip"),
            ("a.m4s", "video/iso.segment"),
            ("a.ts", "video/mp2t"),
            ("a.m2ts", "video/mp2t"),
            ("a.patch", "text/x-diff"),
            ("a.diff", "text/x-diff"),
        ] {
            assert_eq!(built_in(name), expected, "{name}");
        }
    }

    #[test]
    fn a_charset_is_declared_only_where_it_is_known() {
        let text = "text/html";
        let cut = "Bücher".as_bytes();
        for (media_type, content, expected) in [
            (text, "Bücher".as_bytes(), "text/html; charset=utf-8"),
            (text, &cut[..2], "text/html; charset=utf-8"),
            (text, b"plain", "text/html"),
            (text, b"", "text/html"),
            (text, b"B\xfccher", "text/html"),
            (text, b"\x82\xb1\x82\xf1", "text/html"),
            // ISO-2022-JP is ASCII to those who do not know it.
            (text, b"\x1b$B$3$s\x1b(B", "text/html"),
            (text, b"\x1b\xc3\xbc", "text/html"),
            (
                "text/html; charset=x",
                "ü".as_bytes(),
                "text/html; charset=x",
            ),
            ("application/json", "ü".as_bytes(), "application/json"),
            ("image/svg+xml", "ü".as_bytes(), "image/svg+xml"),
        ] {
            let declared = Charset::Detected.declare(media_type, Some(content));
            assert_eq!(declared, expected, "{}", content.escape_ascii());
        }
        assert_eq!(Charset::Detected.declare(text, None), text);
        assert_eq!(Charset::Never.declare(text, Some("ü".as_bytes())), text);
        let always: Charset = "windows-1252".parse().unwrap();
        let expected = "text/html; charset=windows-1252";
        assert_eq!(always.declare(text, Some("ü".as_bytes())), expected);
        assert_eq!(always.declare("image/png", None), "image/png");
        for text in ["", "a b", "utf-8\r\nX: y", "utf-8;x"] {
            assert!(text.parse::<Charset>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_compressed_by_nature_says_so() {
        assert_eq!(inherent_coding(b"a/b.svgz"), Some("gzip"));
        assert_eq!(inherent_coding(b"B.SVGZ"), Some("gzip"));
        for name in [&b"a.svg"[..], b"a.svg.gz", b"a.tgz", b"a"] {
            assert_eq!(inherent_coding(name), None);
        }
    }

    #[test]
    fn what_is_not_known_is_bytes() {
        for name in [
            "",
            "README",
            "a.",
            "a.zhaul-unknown",
            ".htaccess",
            ".js",
            "a.js/b",
            "a.j\u{f6}",
        ] {
            assert_eq!(built_in(name), UNKNOWN, "{name}");
        }
        assert_eq!(MimeTypes::default().media_type(b"\xff.png"), "image/png");
        assert_eq!(MimeTypes::default().media_type(b"a.\xff"), UNKNOWN);
    }

    #[test]
    fn overrides_come_first_and_may_span_two_extensions() {
        let pairs = [
            "js=application/x-js",
            ".LOG=text/x-log",
            "tar.gz=application/x-tgz",
        ]
        .map(|text| parse_override(text).unwrap());
        let types = MimeTypes::new(pairs).unwrap();
        assert_eq!(types.media_type(b"a.JS"), "application/x-js");
        assert_eq!(types.media_type(b"a.log"), "text/x-log");
        assert_eq!(types.media_type(b"a.tar.gz"), "application/x-tgz");
        assert_eq!(types.media_type(b"a.gz"), "application/gzip");
        assert_eq!(types.media_type(b"\xff.js"), "application/x-js");
        let latin = [(
            "txt".to_owned(),
            "text/plain; charset=iso-8859-1".to_owned(),
        )];
        let types = MimeTypes::new(latin).unwrap();
        assert_eq!(types.media_type(b"a.txt"), "text/plain; charset=iso-8859-1");
    }

    #[test]
    fn unusable_overrides_are_refused() {
        assert!(matches!(
            parse_override("js"),
            Err(MimeError::NotAnOverride(_))
        ));
        for text in ["=text/plain", ".=text/plain", "a/b=text/plain"] {
            let pair = parse_override(text).unwrap();
            assert!(
                matches!(MimeTypes::new([pair]), Err(MimeError::BadExtension(_))),
                "{text}"
            );
        }
        for text in [
            "a=",
            "a=text",
            "a=text/",
            "a=/plain",
            "a=te xt/plain",
            "a=text/plain\r\nX: y",
            "a=text/plain; x\r\nY: z",
            "a=text/pl\u{e4}in",
            "a=text/plain/x",
            "a=a=b",
        ] {
            let pair = parse_override(text).unwrap();
            assert!(
                matches!(MimeTypes::new([pair]), Err(MimeError::BadType(_))),
                "{text:?}"
            );
        }
    }
}
