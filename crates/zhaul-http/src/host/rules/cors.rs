//! Cross-origin resource sharing (Fetch standard, "HTTP extensions").
//!
//! One permitted origin list for the whole server, no credentials: the server has none to protect,
//! and `Access-Control-Allow-Credentials` together with `*` is an error to every browser.
//!
//! With `*` the answer is the same for everybody and can be cached as such. With a list it depends
//! on Origin, so that `Vary: Origin` is needed on every answer, also on those to requests without
//! the field: a shared cache would otherwise hand out an answer without the permission.

use super::{RuleError, check_name, push_field};
use crate::message::request::{Method, RequestHead};

/// What is permitted to pages of other origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorsConfig {
    /// `*`, or origins such as `https://example.org`; none switches CORS off.
    pub origins: Vec<String>,
    /// Request headers that may be sent beyond the safelisted ones; `*` for any. Range and the
    /// conditional fields are always permitted.
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read beyond the safelisted ones. Those that belong to
    /// ranges and validators always are.
    pub expose_headers: Vec<String>,
    /// How long a browser may remember a preflight answer, in seconds.
    pub max_age_s: Option<u32>,
}

/// The prepared answers.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    policy: Policy,
    /// Expose-Headers for an actual answer.
    exposed: Vec<u8>,
    /// Allow-Methods, Allow-Headers and Max-Age for a preflight.
    preflight: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
enum Policy {
    #[default]
    Off,
    Any,
    /// In lower case.
    List(Vec<String>),
}

const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";
const ALWAYS_ALLOWED: &str = "Range, If-Range, If-Match, If-None-Match, If-Modified-Since, \
                              If-Unmodified-Since";
const ALWAYS_EXPOSED: &str = "Accept-Ranges, Content-Encoding, Content-Range, ETag";

impl Cors {
    /// Checks and prepares a configuration.
    ///
    /// # Errors
    /// Something that is neither `*` nor an origin, or not a header name.
    pub fn new(config: &CorsConfig) -> Result<Self, RuleError> {
        for name in config.allow_headers.iter().chain(&config.expose_headers) {
            check_name(name)?;
        }
        let mut origins = Vec::with_capacity(config.origins.len());
        for origin in config.origins.iter().filter(|origin| *origin != "*") {
            if !is_origin(origin) {
                return Err(RuleError::BadOrigin(origin.clone()));
            }
            origins.push(origin.to_ascii_lowercase());
        }
        let policy = match config.origins.len() {
            0 => return Ok(Self::default()),
            listed if listed > origins.len() => Policy::Any,
            _ => Policy::List(origins),
        };

        let mut exposed = Vec::new();
        let list = join(ALWAYS_EXPOSED, &config.expose_headers);
        push_field(&mut exposed, "Access-Control-Expose-Headers", &list);
        let mut preflight = Vec::new();
        push_field(&mut preflight, "Access-Control-Allow-Methods", "GET, HEAD");
        let list = join(ALWAYS_ALLOWED, &config.allow_headers);
        push_field(&mut preflight, "Access-Control-Allow-Headers", &list);
        if let Some(max_age_s) = config.max_age_s {
            push_field(
                &mut preflight,
                "Access-Control-Max-Age",
                &max_age_s.to_string(),
            );
        }
        Ok(Self {
            policy,
            exposed,
            preflight,
        })
    }

    /// Whether answers must carry `Vary: Origin`; preflight answers included.
    #[must_use]
    pub fn varies_by_origin(&self) -> bool {
        matches!(self.policy, Policy::List(_))
    }

    /// What every answer carries whoever asks; empty unless the policy is `*`.
    #[must_use]
    pub fn static_block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        if matches!(self.policy, Policy::Any) {
            push_field(&mut block, ALLOW_ORIGIN, "*");
            block.extend_from_slice(&self.exposed);
        }
        block
    }

    /// Appends what an answer carries because of this Origin; nothing unless there is a list with
    /// the origin in it.
    pub fn write_response(&self, origin: Option<&[u8]>, out: &mut Vec<u8>) {
        if let Some(origin) = self.listed(origin) {
            push_field(out, ALLOW_ORIGIN, origin);
            out.extend_from_slice(&self.exposed);
        }
    }

    /// Appends the answer to a preflight and says whether `head` was one that is granted. A
    /// request that is not a preflight, or from an origin that is not permitted, gets the plain
    /// answer to OPTIONS, which the browser takes for a refusal.
    pub fn write_preflight(&self, head: &RequestHead<'_>, out: &mut Vec<u8>) -> bool {
        if head.method != Method::Options || head.access_control_request_method.is_none() {
            return false;
        }
        let allowed = match self.policy {
            Policy::Off => return false,
            Policy::Any => head.origin.map(|_| "*"),
            Policy::List(_) => self.listed(head.origin),
        };
        let Some(allowed) = allowed else { return false };
        push_field(out, ALLOW_ORIGIN, allowed);
        out.extend_from_slice(&self.preflight);
        true
    }

    /// The entry for this origin. Our spelling is echoed, not the client's: it is known to be
    /// safe, and browsers send origins in lower case.
    fn listed(&self, origin: Option<&[u8]>) -> Option<&str> {
        let Policy::List(origins) = &self.policy else {
            return None;
        };
        let origin = origin?;
        let found = origins
            .iter()
            .find(|listed| listed.as_bytes().eq_ignore_ascii_case(origin));
        found.map(String::as_str)
    }
}

fn join(always: &str, more: &[String]) -> String {
    more.iter()
        .fold(always.to_owned(), |list, name| list + ", " + name)
}

/// `scheme "://" host [ ":" port ]` (RFC 6454 §6.2), or the opaque origin `null`.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else {
        return text == "null";
    };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && crate::message::request::is_valid_authority(authority.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::request::{Limits, Outcome, parse};

    fn cors(origins: &[&str]) -> Cors {
        let config = CorsConfig {
            origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
            allow_headers: vec!["X-In".to_owned()],
            expose_headers: vec!["X-Out".to_owned()],
            max_age_s: Some(600),
        };
        Cors::new(&config).unwrap()
    }

    fn response(cors: &Cors, origin: Option<&str>) -> String {
        let mut out = Vec::new();
        cors.write_response(origin.map(str::as_bytes), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn preflight(cors: &Cors, method: &str, lines: &str) -> Option<String> {
        let bytes = format!("{method} /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let Outcome::Complete { head, .. } = parse(bytes.as_bytes(), &Limits::default()) else {
            panic!("{bytes}");
        };
        let mut out = Vec::new();
        let granted = cors.write_preflight(&head, &mut out);
        assert_eq!(granted, !out.is_empty());
        granted.then(|| String::from_utf8(out).unwrap())
    }

    const ASK: &str = "Origin: https://b.example\r\nAccess-Control-Request-Method: GET\r\n";

    #[test]
    fn a_star_is_the_same_for_everybody() {
        let cors = cors(&["*"]);
        let block = String::from_utf8(cors.static_block()).unwrap();
        assert!(
            block.starts_with("Access-Control-Allow-Origin: *\r\n"),
            "{block}"
        );
        assert!(block.contains("Content-Range, ETag, X-Out\r\n"), "{block}");
        assert!(!cors.varies_by_origin());
        assert_eq!(response(&cors, Some("https://b.example")), "");
        assert!(preflight(&cors, "OPTIONS", ASK).unwrap().starts_with(
            "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Methods: GET, HEAD\r\n"
        ));
    }

    #[test]
    fn a_list_answers_only_those_on_it() {
        let cors = cors(&[
            "https://a.example",
            "https://B.example",
            "http://localhost:3000",
        ]);
        assert!(cors.varies_by_origin());
        assert!(cors.static_block().is_empty());
        let answer = response(&cors, Some("https://b.example"));
        assert!(answer.starts_with("Access-Control-Allow-Origin: https://b.example\r\n"));
        for origin in [
            None,
            Some("https://c.example"),
            Some("http://b.example"),
            Some("https://b.example:8443"),
            Some("https://b.example.evil"),
            Some("null"),
            Some(""),
            Some("*"),
        ] {
            assert_eq!(response(&cors, origin), "", "{origin:?}");
        }
        let granted = preflight(&cors, "OPTIONS", ASK).unwrap();
        assert!(
            granted.contains("Allow-Headers: Range, If-Range"),
            "{granted}"
        );
        assert!(
            granted.ends_with("X-In\r\nAccess-Control-Max-Age: 600\r\n"),
            "{granted}"
        );
        assert_eq!(preflight(&cors, "OPTIONS", &ASK.replace("b.", "c.")), None);
    }

    #[test]
    fn only_a_preflight_is_answered_as_one() {
        let cors = cors(&["*"]);
        assert_eq!(preflight(&cors, "GET", ASK), None);
        assert_eq!(preflight(&cors, "OPTIONS", ""), None);
        assert_eq!(
            preflight(&cors, "OPTIONS", "Origin: https://b.example\r\n"),
            None
        );
        assert_eq!(
            preflight(&cors, "OPTIONS", "Access-Control-Request-Method: GET\r\n"),
            None
        );
        assert_eq!(preflight(&Cors::default(), "OPTIONS", ASK), None);
    }

    #[test]
    fn without_origins_nothing_is_sent() {
        let off = Cors::new(&CorsConfig::default()).unwrap();
        assert!(off.static_block().is_empty() && !off.varies_by_origin());
        assert_eq!(response(&off, Some("https://a.example")), "");
    }

    #[test]
    fn what_is_no_origin_or_name_is_refused() {
        for origin in [
            "a.example",
            "https://",
            "https://a.example/",
            "https://a/b",
            "://a",
            "https://a b",
            "https://a\r\nX: y",
            "",
            "https://u@a",
            "1http://a",
        ] {
            let config = CorsConfig {
                origins: vec![origin.to_owned()],
                ..CorsConfig::default()
            };
            let error = Cors::new(&config).unwrap_err();
            assert_eq!(error, RuleError::BadOrigin(origin.to_owned()));
        }
        let config = CorsConfig {
            allow_headers: vec!["a b".to_owned()],
            ..CorsConfig::default()
        };
        assert!(matches!(Cors::new(&config), Err(RuleError::BadName(_))));
    }
}
