//! The head of an HTTP/1.x request (RFC 9112), read strictly and without allocating.
//!
//! [`parse`] looks at the bytes received so far and says that a head is complete, that more bytes
//! are needed, or that the request is refused. A refused request ends its connection: where the
//! next request would begin is no longer known, and guessing is what request smuggling lives on.
//!
//! `httparse` tokenizes; what it lets pass is checked here: bare LF as a line end (RFC 9112 §2.2),
//! Content-Length beside or instead of a well-formed Transfer-Encoding (§6.1, §6.3, §11.2), the
//! four forms of a target (§3.2), Host (§3.2, RFC 9110 §7.2), and every limit. How the bytes
//! were split into reads does not matter: a prefix of a complete head is `Partial`, and what
//! follows a head has no influence on it.
//!
//! List fields may come on several lines and are kept as [`FieldLines`]. A field that must come
//! once and comes twice has no meaning: Host, Content-Length and Transfer-Encoding refuse the
//! request, while Range, If-Range, the two dates, Origin and Access-Control-Request-Method are
//! ignored, which each of their definitions permits for an invalid value. A repeated If-Range
//! takes Range with it, since serving a part unguarded is what it exists to prevent.
//! For User-Agent and Referer, which are only logged, the first line counts.
//!
//! Not done here: percent-decoding ([`crate::message::target`]), the body ([`crate::message::body`]), whether a
//! method is allowed.

use std::mem::MaybeUninit;

use crate::message::body::BodyFraming;
use crate::message::field_lines::FieldLines;

mod fields;
mod host;
#[cfg(test)]
mod tests;

pub(crate) use host::is_valid as is_valid_authority;

/// The most header lines that any [`Limits`] can allow: the size of the slot array on the stack.
pub const MAX_HEADERS: usize = 128;

/// Bounds on a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest request line in bytes without its CRLF; beyond it 414.
    pub request_line_bytes: usize,
    /// Longest head in bytes, final empty line included; beyond it 431.
    pub head_bytes: usize,
    /// Most header lines, at most [`MAX_HEADERS`]; beyond it 431.
    pub headers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_line_bytes: 8 * 1024,
            head_bytes: 32 * 1024,
            headers: 100,
        }
    }
}

/// What the bytes received so far amount to.
#[derive(Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "boxing the common case would allocate"
)]
pub enum Outcome<'a> {
    /// A whole head; the body or the next request starts at `consumed`.
    Complete {
        /// The request.
        head: RequestHead<'a>,
        /// Bytes of `buf` that belong to the head.
        consumed: usize,
    },
    /// A head that is valid so far.
    Partial,
    /// Not acceptable: answer with `status` and close.
    Reject(Reject),
}

/// Why a request is refused. The answer closes the connection; a 405 carries `Allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// HTTP status code.
    pub status: u16,
    /// For the log; contains nothing from the request.
    pub why: &'static str,
}

/// The request method. Only these three are served; the others get 405.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method<'a> {
    /// `GET`
    #[default]
    Get,
    /// `HEAD`
    Head,
    /// `OPTIONS`
    Options,
    /// Any other token, spelled as received (methods are case-sensitive).
    Other(&'a str),
}

impl<'a> Method<'a> {
    /// The token on the wire.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        match *self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Other(token) => token,
        }
    }

    fn from_token(token: &'a str) -> Self {
        match token {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "OPTIONS" => Self::Options,
            other => Self::Other(other),
        }
    }
}

/// How the target was written (RFC 9112 §3.2). Authority-form is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `*`, with OPTIONS only: the path is then `*` too.
    Asterisk,
}

/// A request head: what the server needs of it, borrowed from the receive buffer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// Method.
    pub method: Method<'a>,
    /// The target as received, for the log.
    pub target: &'a str,
    /// How `target` was written.
    pub form: TargetForm,
    /// Path, still percent-encoded; begins with `/`, except for [`TargetForm::Asterisk`].
    pub path: &'a str,
    /// What follows the first `?`, without it.
    pub query: Option<&'a str>,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1. A persistent 1.0 connection must be confirmed by
    /// `Connection: keep-alive` in the answer.
    pub version_minor: u8,
    /// Whether the client wants the connection to persist (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// How the body is delimited.
    pub body: BodyFraming,
    /// The client waits for `100 Continue` before it sends the body (HTTP/1.1 only).
    pub expect_continue: bool,
    /// Authority of an absolute target, else Host; valid, possibly with a port. None in HTTP/1.0
    /// without Host.
    pub host: Option<&'a str>,
    /// Range, when sent once.
    pub range: Option<&'a [u8]>,
    /// If-Range, when sent once.
    pub if_range: Option<&'a [u8]>,
    /// If-Match.
    pub if_match: FieldLines<'a>,
    /// If-None-Match.
    pub if_none_match: FieldLines<'a>,
    /// If-Modified-Since, when sent once.
    pub if_modified_since: Option<&'a [u8]>,
    /// If-Unmodified-Since, when sent once.
    pub if_unmodified_since: Option<&'a [u8]>,
    /// Accept.
    pub accept: FieldLines<'a>,
    /// Accept-Encoding.
    pub accept_encoding: FieldLines<'a>,
    /// Origin, when sent once.
    pub origin: Option<&'a [u8]>,
    /// Access-Control-Request-Method, when sent once.
    pub access_control_request_method: Option<&'a [u8]>,
    /// Access-Control-Request-Headers.
    pub access_control_request_headers: FieldLines<'a>,
    /// User-Agent, first line.
    pub user_agent: Option<&'a [u8]>,
    /// Referer, first line.
    pub referer: Option<&'a [u8]>,
}

/// Reads one request head from the front of `buf`.
///
/// Each call starts from the beginning; a head that arrives byte by byte costs the square of its
/// length, which `limits.head_bytes` and the caller's header timeout bound.
#[must_use]
pub fn parse<'a>(buf: &'a [u8], limits: &Limits) -> Outcome<'a> {
    let skipped = match skip_empty_line(buf) {
        Ok(Some(skipped)) => skipped,
        Ok(None) => return Outcome::Partial,
        Err(reject) => return Outcome::Reject(reject),
    };
    let received = &buf[skipped..];
    // Never looks past the limit, so that the outcome does not depend on how much was pipelined.
    let window = &received[..received.len().min(limits.head_bytes)];

    let mut slots = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut raw = httparse::Request::new(&mut []);
    let slots = &mut slots[..limits.headers.min(MAX_HEADERS)];
    let len = match raw.parse_with_uninit_headers(window, slots) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return partial(window, limits),
        // Which version it is can only be said of the whole line.
        Err(httparse::Error::Version) => return parse_other_version(window, skipped, limits),
        Err(error) => return Outcome::Reject(refuse_syntax(error, window)),
    };
    RequestHead::of(&raw, &window[..len], skipped, limits)
}

/// Reads a head of a version that `httparse` does not know. A later minor version is a request of
/// the latest that we speak (RFC 9110 §2.5): whoever sends it understands the answer.
#[cold]
fn parse_other_version<'a>(window: &'a [u8], skipped: usize, limits: &Limits) -> Outcome<'a> {
    // Which version it is can only be said of the whole line.
    let Some(line_end) = memchr::memchr(b'\n', window) else {
        return partial(window, limits);
    };
    let line = first_line(window, window.len());
    let [
        begin @ ..,
        b' ',
        b'H',
        b'T',
        b'T',
        b'P',
        b'/',
        b'1',
        b'.',
        b'2'..=b'9',
    ] = line
    else {
        return Outcome::Reject(refuse_version(line));
    };
    let known = [begin, b" HTTP/1.1\r\n\r\n"].concat();
    let mut as_known = httparse::Request::new(&mut []);
    let (method, target) = match as_known.parse(&known) {
        Ok(_) => (
            as_known.method.map_or(0, str::len),
            as_known.path.map_or(0, str::len),
        ),
        Err(error) => return Outcome::Reject(refuse_syntax(error, window)),
    };
    let text = |range: std::ops::Range<usize>| std::str::from_utf8(&window[range]).ok();
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let headers = &mut headers[..limits.headers.min(MAX_HEADERS)];
    let fields = &window[line_end + 1..];
    let (len, count) = match httparse::parse_headers(fields, headers) {
        Ok(httparse::Status::Complete((len, headers))) => (line_end + 1 + len, headers.len()),
        Ok(httparse::Status::Partial) => return partial(window, limits),
        Err(error) => return Outcome::Reject(refuse_syntax(error, window)),
    };
    let raw = httparse::Request {
        method: text(0..method),
        path: text(method + 1..method + 1 + target),
        version: Some(1),
        headers: &mut headers[..count],
    };
    RequestHead::of(&raw, &window[..len], skipped, limits)
}

/// The first line of `buf` without its line end, at most `max` bytes: what to log of a request
/// that was refused.
#[must_use]
pub fn first_line(buf: &[u8], max: usize) -> &[u8] {
    let buf = buf.strip_prefix(b"\r\n").unwrap_or(buf);
    let line = &buf[..memchr::memchr(b'\n', buf).unwrap_or(buf.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    &line[..line.len().min(max)]
}

/// One empty line before the request line is tolerated (RFC 9112 §2.2): some clients send a stray
/// CRLF after a body. Returns its length, or None while it cannot be told yet.
fn skip_empty_line(buf: &[u8]) -> Result<Option<usize>, Reject> {
    const WHY: &str = "more than one empty line before the request line";
    match buf {
        [] | [b'\r'] | [b'\r', b'\n'] => Ok(None),
        [b'\r', b'\n', b'\r' | b'\n', ..] => Err(bad(WHY)),
        [b'\r', b'\n', ..] => Ok(Some(2)),
        [b'\r' | b'\n', ..] => Err(bad("bare CR or LF")),
        _ => Ok(Some(0)),
    }
}

/// `httparse` takes a lone LF for a line end. A proxy in front that does not would see other
/// lines than we do.
fn check_line_ends(head: &[u8], limits: &Limits) -> Result<(), Reject> {
    let mut request_line = true;
    for lf in memchr::memchr_iter(b'\n', head) {
        if lf == 0 || head[lf - 1] != b'\r' {
            return Err(bad("bare LF"));
        }
        if request_line && lf - 1 > limits.request_line_bytes {
            return Err(URI_TOO_LONG);
        }
        request_line = false;
    }
    Ok(())
}

/// More bytes are needed; or would be, were there room for them.
fn partial(window: &[u8], limits: &Limits) -> Outcome<'static> {
    // The CR of a line that just fits may already be there.
    let line_room = limits.request_line_bytes + 1;
    let line_ended = memchr::memchr(b'\n', &window[..window.len().min(line_room + 1)]).is_some();
    if window.len() >= limits.head_bytes || (!line_ended && window.len() > line_room) {
        return Outcome::Reject(if line_ended {
            HEAD_TOO_LARGE
        } else {
            URI_TOO_LONG
        });
    }
    Outcome::Partial
}

fn refuse_syntax(error: httparse::Error, window: &[u8]) -> Reject {
    match error {
        httparse::Error::TooManyHeaders => Reject {
            status: 431,
            why: "too many header lines",
        },
        httparse::Error::Version => refuse_version(first_line(window, window.len())),
        httparse::Error::HeaderName => bad("malformed header name, obs-fold or space before colon"),
        httparse::Error::HeaderValue => bad("malformed header value"),
        httparse::Error::NewLine => bad("malformed line end"),
        _ => bad("malformed request line"),
    }
}

/// 505 for a well-formed version that is not ours, 400 for anything else in its place.
fn refuse_version(line: &[u8]) -> Reject {
    let version = line.splitn(3, |&b| b == b' ').nth(2).unwrap_or_default();
    match version {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Reject {
                status: 505,
                why: "unsupported HTTP version",
            }
        }
        _ => bad("malformed HTTP version"),
    }
}

impl<'a> RequestHead<'a> {
    /// What the head `bytes` says, `skipped` bytes behind the front of what was received.
    #[inline]
    fn of(
        raw: &httparse::Request<'_, 'a>,
        bytes: &'a [u8],
        skipped: usize,
        limits: &Limits,
    ) -> Outcome<'a> {
        // It is large and filled in place: each move of it would show in the request rate.
        let mut head = Self::default();
        match head.fill(raw, bytes, limits) {
            Ok(()) => Outcome::Complete {
                head,
                consumed: skipped + bytes.len(),
            },
            Err(reject) => Outcome::Reject(reject),
        }
    }

    fn fill(
        &mut self,
        raw: &httparse::Request<'_, 'a>,
        bytes: &'a [u8],
        limits: &Limits,
    ) -> Result<(), Reject> {
        check_line_ends(bytes, limits)?;
        // A complete parse has filled all three.
        let (Some(token), Some(target), Some(version_minor)) = (raw.method, raw.path, raw.version)
        else {
            return Err(bad("malformed request line"));
        };
        self.method = Method::from_token(token);
        self.version_minor = version_minor;
        let target = Target::split(self.method, target)?;
        self.target = target.raw;
        self.form = target.form;
        self.path = target.path;
        self.query = target.query;

        let framing = fields::collect(raw.headers, bytes, self)?;
        self.body = framing.body(version_minor)?;
        self.host = host::select(framing.host, target.authority, version_minor)?;
        self.expect_continue = framing.expects_continue(version_minor)?;
        self.keep_alive = framing.keep_alive(version_minor);
        Ok(())
    }
}

struct Target<'a> {
    raw: &'a str,
    form: TargetForm,
    path: &'a str,
    query: Option<&'a str>,
    authority: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn split(method: Method<'_>, raw: &'a str) -> Result<Self, Reject> {
        if method == Method::Other("CONNECT") {
            return Err(Reject {
                status: 405,
                why: "CONNECT is not served",
            });
        }
        if memchr::memchr(b'#', raw.as_bytes()).is_some() {
            return Err(bad("fragment in the target"));
        }
        if raw.starts_with('/') {
            let (path, query) = split_query(raw);
            return Ok(Self {
                raw,
                form: TargetForm::Origin,
                path,
                query,
                authority: None,
            });
        }
        if raw == "*" {
            if method != Method::Options {
                return Err(bad("* as the target of a method other than OPTIONS"));
            }
            let form = TargetForm::Asterisk;
            return Ok(Self {
                raw,
                form,
                path: raw,
                query: None,
                authority: None,
            });
        }
        let Some(rest) = strip_http_scheme(raw) else {
            return Err(bad("target is neither a path nor an http URI"));
        };
        let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if !host::is_valid(authority.as_bytes()) {
            return Err(bad("invalid authority in the target"));
        }
        let (path, query) = split_query(tail);
        let path = if path.is_empty() { "/" } else { path };
        let form = TargetForm::Absolute;
        Ok(Self {
            raw,
            form,
            path,
            query,
            authority: Some(authority),
        })
    }
}

fn split_query(target: &str) -> (&str, Option<&str>) {
    match memchr::memchr(b'?', target.as_bytes()) {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

fn strip_http_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].into_iter().find_map(|scheme| {
        let (front, rest) = target.split_at_checked(scheme.len())?;
        front.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

const URI_TOO_LONG: Reject = Reject {
    status: 414,
    why: "request line too long",
};
const HEAD_TOO_LARGE: Reject = Reject {
    status: 431,
    why: "request head too large",
};

const fn bad(why: &'static str) -> Reject {
    Reject { status: 400, why }
}
