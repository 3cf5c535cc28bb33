//! Response headers that the operator asks for: Cache-Control by path, extra fields, CORS.
//!
//! Everything is checked when the configuration is read, with an error that names the culprit;
//! afterwards nothing here can fail. What does not depend on the request is a block of bytes
//! (`Name: value\r\n`…) that a cached file carries along.

mod cors;

pub use cors::{Cors, CorsConfig};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::message::body::is_token;

/// Why a rule is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The pattern does not parse.
    #[error("bad pattern {glob:?}: {why}")]
    BadGlob {
        /// As configured.
        glob: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not a token of RFC 9110 §5.6.2.
    #[error("{0:?} is not a header name")]
    BadName(String),
    /// Empty at either end, or with a control character: it would end the header line.
    #[error("the value of {name} is not a valid header value: {value:?}")]
    BadValue {
        /// Field name.
        name: String,
        /// As configured.
        value: String,
    },
    /// A field that the server sets itself or that would break the connection.
    #[error("{name} cannot be set: {why}")]
    Reserved {
        /// As configured.
        name: String,
        /// Who owns the field.
        why: &'static str,
    },
    /// Not `*` and not `scheme://host[:port]`.
    #[error("{0:?} is not an origin (expected * or scheme://host[:port])")]
    BadOrigin(String),
}

/// Cache-Control by path; the first pattern that matches wins.
#[derive(Clone, Debug, Default)]
pub struct CacheRules {
    globs: GlobSet,
    values: Vec<String>,
}

impl CacheRules {
    /// Pairs of pattern and value, in order of precedence.
    ///
    /// A pattern without a slash is matched against the file name (`*.html`), one with a slash
    /// against the whole path below the root (`assets/**`, `/*.html` for the top directory only).
    /// `*` and `?` stop at a slash, `**` does not.
    ///
    /// # Errors
    /// A pattern that does not parse, or a value that cannot stand in a header.
    pub fn new(rules: &[(String, String)]) -> Result<Self, RuleError> {
        let mut set = GlobSetBuilder::new();
        let mut values = Vec::with_capacity(rules.len());
        for (pattern, value) in rules {
            check_value("Cache-Control", value)?;
            let bad = |error: &globset::Error| RuleError::BadGlob {
                glob: pattern.clone(),
                why: error.kind().to_string(),
            };
            let anchored = match pattern.strip_prefix('/') {
                Some(whole_path) => whole_path.to_owned(),
                None if pattern.contains('/') => pattern.clone(),
                None => format!("**/{pattern}"),
            };
            let glob = GlobBuilder::new(&anchored).literal_separator(true).build();
            set.add(glob.map_err(|error| bad(&error))?);
            values.push(value.clone());
        }
        let globs = set.build().map_err(|error| RuleError::BadGlob {
            glob: String::new(),
            why: error.to_string(),
        })?;
        Ok(Self { globs, values })
    }

    /// The value for a path relative to the root, as it is on disk.
    #[must_use]
    pub fn cache_control(&self, relative: &[u8]) -> Option<&str> {
        use std::os::unix::ffi::OsStrExt;
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(relative));
        let first = self.globs.matches(path).into_iter().min()?;
        self.values.get(first).map(String::as_str)
    }
}

/// Fields added to every answer that carries a file.
#[derive(Clone, Debug, Default)]
pub struct ExtraHeaders {
    block: Vec<u8>,
}

impl ExtraHeaders {
    /// Pairs of name and value; a name may occur more than once.
    ///
    /// # Errors
    /// A name or value that cannot stand in a header, or a field that is not the operator's.
    pub fn new(headers: &[(String, String)]) -> Result<Self, RuleError> {
        let mut block = Vec::new();
        for (name, value) in headers {
            check_name(name)?;
            if let Some(why) = owner_of(name) {
                return Err(RuleError::Reserved {
                    name: name.clone(),
                    why,
                });
            }
            check_value(name, value)?;
            push_field(&mut block, name, value);
        }
        Ok(Self { block })
    }

    /// The fields as they are sent, each with its CRLF.
    #[must_use]
    pub fn block(&self) -> &[u8] {
        &self.block
    }
}

/// Fields that an extra header must not duplicate or contradict.
fn owner_of(name: &str) -> Option<&'static str> {
    const FRAMING: &str = "it delimits the message";
    const CONNECTION: &str = "it belongs to the connection";
    const COMPUTED: &str = "the server computes it";
    const RESERVED: &[(&str, &str)] = &[
        ("content-length", FRAMING),
        ("transfer-encoding", FRAMING),
        ("trailer", FRAMING),
        ("connection", CONNECTION),
        ("keep-alive", CONNECTION),
        ("proxy-connection", CONNECTION),
        ("te", CONNECTION),
        ("upgrade", CONNECTION),
        ("date", COMPUTED),
        ("server", COMPUTED),
        ("etag", COMPUTED),
        ("last-modified", COMPUTED),
        ("accept-ranges", COMPUTED),
        ("content-range", COMPUTED),
        ("content-encoding", COMPUTED),
        ("vary", COMPUTED),
        ("allow", COMPUTED),
        ("location", COMPUTED),
        ("content-type", "use a MIME override"),
        ("cache-control", "use a Cache-Control rule"),
        ("access-control-allow-origin", "use the CORS setting"),
    ];
    RESERVED
        .iter()
        .find(|(known, _)| name.eq_ignore_ascii_case(known))
        .map(|&(_, why)| why)
}

fn check_name(name: &str) -> Result<(), RuleError> {
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(RuleError::BadName(name.to_owned()));
    }
    Ok(())
}

/// field-value of RFC 9110 §5.5: visible characters, inner spaces and tabs, bytes above ASCII.
fn check_value(name: &str, value: &str) -> Result<(), RuleError> {
    let is_text = value
        .bytes()
        .all(|b| b == b'\t' || (b >= b' ' && b != 0x7F));
    if !is_text || value.is_empty() || value.trim_matches([' ', '\t']) != value {
        return Err(RuleError::BadValue {
            name: name.to_owned(),
            value: value.to_owned(),
        });
    }
    Ok(())
}

fn push_field(block: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        block.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|&(a, b)| (a.to_owned(), b.to_owned()))
            .collect()
    }

    #[test]
    fn the_first_matching_pattern_wins() {
        let rules = CacheRules::new(&pairs(&[
            ("/index.html", "no-store"),
            ("*.html", "no-cache"),
            ("assets/**", "immutable"),
            ("*.{js,css}", "max-age=60"),
            ("**", "max-age=1"),
        ]))
        .unwrap();
        for (path, expected) in [
            ("index.html", "no-store"),
            ("a/index.html", "no-cache"),
            ("assets/x.html", "no-cache"),
            ("assets/deep/er/x.js", "immutable"),
            ("x.js", "max-age=60"),
            ("a/b/x.css", "max-age=60"),
            ("other/assets/x.png", "max-age=1"),
        ] {
            assert_eq!(
                rules.cache_control(path.as_bytes()),
                Some(expected),
                "{path}"
            );
        }
        assert_eq!(rules.cache_control(b"\xff.js"), Some("max-age=60"));
    }

    #[test]
    fn a_star_stops_at_a_slash() {
        let rules = CacheRules::new(&pairs(&[("a/*.js", "x")])).unwrap();
        assert_eq!(rules.cache_control(b"a/b.js"), Some("x"));
        assert_eq!(rules.cache_control(b"a/c/b.js"), None);
        assert_eq!(CacheRules::default().cache_control(b"a"), None);
    }

    #[test]
    fn unusable_cache_rules_are_refused() {
        let error = CacheRules::new(&pairs(&[("a[", "x")])).unwrap_err();
        assert!(error.to_string().contains("a["), "{error}");
        let error = CacheRules::new(&pairs(&[("*", "x\r\nSet-Cookie: y")])).unwrap_err();
        assert!(matches!(error, RuleError::BadValue { .. }));
    }

    #[test]
    fn extra_headers_become_one_block() {
        let headers = pairs(&[
            ("X-Frame-Options", "DENY"),
            ("Link", "<a>;\trel=b"),
            ("Link", "c"),
        ]);
        let extra = ExtraHeaders::new(&headers).unwrap();
        assert_eq!(
            extra.block(),
            b"X-Frame-Options: DENY\r\nLink: <a>;\trel=b\r\nLink: c\r\n"
        );
    }

    #[test]
    fn header_injection_and_reserved_fields_are_refused() {
        for name in ["", "a b", "a:", "a\r\n", "\u{e4}", "a\0"] {
            let error = ExtraHeaders::new(&pairs(&[(name, "x")])).unwrap_err();
            assert!(matches!(error, RuleError::BadName(_)), "{name:?}");
        }
        for value in [
            "",
            " x",
            "x ",
            "a\r\nb: c",
            "a\nb",
            "a\rb",
            "a\0b",
            "a\x1bb",
            "a\x7f",
        ] {
            let error = ExtraHeaders::new(&pairs(&[("X-A", value)])).unwrap_err();
            assert!(matches!(error, RuleError::BadValue { .. }), "{value:?}");
        }
        for name in [
            "Content-Length",
            "TRANSFER-ENCODING",
            "Connection",
            "date",
            "ETag",
            "Vary",
            "Server",
            "Content-Type",
            "Content-Range",
        ] {
            let error = ExtraHeaders::new(&pairs(&[(name, "x")])).unwrap_err();
            assert!(matches!(error, RuleError::Reserved { .. }), "{name}");
            assert!(error.to_string().contains(name));
        }
    }
}
