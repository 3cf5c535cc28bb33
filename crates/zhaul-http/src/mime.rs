//! Content-Type by file extension (RFC 9110 §8.3).
//!
//! Three tables, asked in this order: the operator's overrides, a short list of types that the
//! general table lacks or has outdated, and `mime_guess`. What none of them knows is
//! `application/octet-stream`: guessing from content is what makes browsers execute uploads.
//!
//! Text is declared as UTF-8, as are JSON and SVG. Other XML is not: it names its encoding itself,
//! and a charset parameter would overrule it (RFC 7303 §3.2).
//!
//! Lookups allocate and are meant for the moment at which a file enters the cache.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::body::is_token;

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
            table.insert(key, with_charset(&media_type).into_owned());
        }
        Ok(Self { overrides: table })
    }

    /// The value of Content-Type for a file of this name. For a precompressed sibling ask with the
    /// name of the original.
    #[must_use]
    pub fn content_type(&self, name: &[u8]) -> Cow<'_, str> {
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
            return with_charset(media_type);
        }
        with_charset(
            mime_guess::from_ext(extension)
                .first_raw()
                .unwrap_or(UNKNOWN),
        )
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

fn with_charset(media_type: &str) -> Cow<'_, str> {
    let is_text = media_type.starts_with("text/")
        || media_type.ends_with("/json")
        || media_type.ends_with("+json")
        || media_type == "image/svg+xml";
    if is_text && !media_type.contains(';') {
        Cow::Owned(format!("{media_type}; charset=utf-8"))
    } else {
        Cow::Borrowed(media_type)
    }
}

fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(is_token);
    let is_essence = essence
        .split_once('/')
        .is_some_and(|(a, b)| is_name(a) && is_name(b));
    is_essence && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

/// Types that `mime_guess` lacks, or knows by a name that has been superseded.
const MODERN: &[(&str, &str)] = &[
    ("avif", "image/avif"),
    ("br", UNKNOWN),
    ("cjs", "text/javascript"),
    ("conf", "text/plain"),
    ("flac", "audio/flac"),
    ("geojson", "application/geo+json"),
    ("glb", "model/gltf-binary"),
    ("gltf", "model/gltf+json"),
    ("gz", "application/gzip"),
    ("heic", "image/heic"),
    ("ico", "image/x-icon"),
    ("ipynb", "application/x-ipynb+json"),
    ("js", "text/javascript"),
    ("json5", "application/json5"),
    ("jsonl", "application/jsonl"),
    ("jsonld", "application/ld+json"),
    ("jxl", "image/jxl"),
    ("log", "text/plain"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("m4v", "video/mp4"),
    ("map", "application/json"),
    ("markdown", "text/markdown"),
    ("md", "text/markdown"),
    ("mjs", "text/javascript"),
    ("mkv", "video/x-matroska"),
    ("mp4", "video/mp4"),
    ("mpd", "application/dash+xml"),
    ("ndjson", "application/x-ndjson"),
    ("ogg", "audio/ogg"),
    ("opus", "audio/ogg"),
    ("otf", "font/otf"),
    ("rar", "application/vnd.rar"),
    ("toml", "application/toml"),
    ("ts", "video/mp2t"),
    ("ttf", "font/ttf"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
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
            .content_type(name.as_bytes())
            .into_owned()
    }

    #[test]
    fn what_a_web_site_is_made_of() {
        for (name, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a/b.c/style.css", "text/css; charset=utf-8"),
            ("app.js", "text/javascript; charset=utf-8"),
            ("app.mjs", "text/javascript; charset=utf-8"),
            ("data.json", "application/json; charset=utf-8"),
            ("app.js.map", "application/json; charset=utf-8"),
            ("logo.svg", "image/svg+xml; charset=utf-8"),
            (
                "site.webmanifest",
                "application/manifest+json; charset=utf-8",
            ),
            ("README.md", "text/markdown; charset=utf-8"),
            ("notes.txt", "text/plain; charset=utf-8"),
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
            ("a.csv", "text/csv; charset=utf-8"),
        ] {
            assert_eq!(built_in(name), expected, "{name}");
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
        assert_eq!(MimeTypes::default().content_type(b"\xff.png"), "image/png");
        assert_eq!(MimeTypes::default().content_type(b"a.\xff"), UNKNOWN);
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
        assert_eq!(types.content_type(b"a.JS"), "application/x-js");
        assert_eq!(types.content_type(b"a.log"), "text/x-log; charset=utf-8");
        assert_eq!(types.content_type(b"a.tar.gz"), "application/x-tgz");
        assert_eq!(types.content_type(b"a.gz"), "application/gzip");
        assert_eq!(types.content_type(b"\xff.js"), "application/x-js");
        let latin = [(
            "txt".to_owned(),
            "text/plain; charset=iso-8859-1".to_owned(),
        )];
        let types = MimeTypes::new(latin).unwrap();
        assert_eq!(
            types.content_type(b"a.txt"),
            "text/plain; charset=iso-8859-1"
        );
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
