//! Sorts the header lines of a request into the few slots that the server reads.
//!
//! A name is told by its length first, so that most lines are dismissed by one comparison. What
//! the caller may look at goes straight into the head; what only decides about framing and
//! persistence stays here.

use super::{Reject, RequestHead, bad};
use crate::message::body::BodyFraming;
use crate::message::field_lines::{FieldLines, ListField};

/// Fields about the message itself.
#[derive(Debug, Default)]
pub(super) struct Framing<'a> {
    pub(super) host: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    transfer_encoding: Option<&'a [u8]>,
    connection: FieldLines<'a>,
    expect: FieldLines<'a>,
    repeated: Repeated,
}

/// Which of the fields that have a meaning only once came more often: one bit each.
#[derive(Clone, Copy, Debug, Default)]
struct Repeated(u16);

impl Repeated {
    const HOST: u16 = 1 << 0;
    const CONTENT_LENGTH: u16 = 1 << 1;
    const TRANSFER_ENCODING: u16 = 1 << 2;
    const RANGE: u16 = 1 << 3;
    const IF_RANGE: u16 = 1 << 4;
    const IF_MODIFIED_SINCE: u16 = 1 << 5;
    const IF_UNMODIFIED_SINCE: u16 = 1 << 6;
    const ORIGIN: u16 = 1 << 7;
    const REQUEST_METHOD: u16 = 1 << 8;

    fn has(self, field: u16) -> bool {
        self.0 & field != 0
    }

    /// Fills a slot the first time and empties it for good the second time.
    fn put<'a>(&mut self, slot: &mut Option<&'a [u8]>, field: u16, value: &'a [u8]) {
        if slot.is_some() || self.has(field) {
            *slot = None;
            self.0 |= field;
        } else {
            *slot = Some(value);
        }
    }
}

/// Files all `headers`. `bytes` is the whole head, from which repeated list fields are read again.
pub(super) fn collect<'a>(
    headers: &[httparse::Header<'a>],
    bytes: &'a [u8],
    head: &mut RequestHead<'a>,
) -> Result<Framing<'a>, Reject> {
    let mut framing = Framing::default();
    for header in headers {
        framing.file(head, header.name, header.value, bytes);
    }
    let repeated = framing.repeated;
    if repeated.has(Repeated::HOST) {
        return Err(bad("repeated Host"));
    }
    if repeated.has(Repeated::CONTENT_LENGTH) {
        return Err(bad("repeated Content-Length"));
    }
    if repeated.has(Repeated::TRANSFER_ENCODING) {
        return Err(bad("repeated Transfer-Encoding"));
    }
    if repeated.has(Repeated::IF_RANGE) {
        // A guard that cannot be read must not let a part through.
        head.range = None;
    }
    Ok(framing)
}

impl<'a> Framing<'a> {
    fn file(
        &mut self,
        head: &mut RequestHead<'a>,
        name: &'a str,
        value: &'a [u8],
        bytes: &'a [u8],
    ) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let once = &mut self.repeated;
        match name.len() {
            4 if is("host") => once.put(&mut self.host, Repeated::HOST, value),
            5 if is("range") => once.put(&mut head.range, Repeated::RANGE, value),
            6 if is("accept") => head.accept.push(ListField::Accept, value, bytes),
            6 if is("origin") => once.put(&mut head.origin, Repeated::ORIGIN, value),
            6 if is("expect") => self.expect.push(ListField::Expect, value, bytes),
            7 if is("referer") => _ = head.referer.get_or_insert(value),
            8 if is("if-range") => once.put(&mut head.if_range, Repeated::IF_RANGE, value),
            8 if is("if-match") => head.if_match.push(ListField::IfMatch, value, bytes),
            10 if is("connection") => self.connection.push(ListField::Connection, value, bytes),
            10 if is("user-agent") => _ = head.user_agent.get_or_insert(value),
            13 if is("if-none-match") => {
                head.if_none_match
                    .push(ListField::IfNoneMatch, value, bytes);
            }
            14 if is("content-length") => {
                once.put(&mut self.content_length, Repeated::CONTENT_LENGTH, value);
            }
            15 if is("accept-encoding") => {
                head.accept_encoding
                    .push(ListField::AcceptEncoding, value, bytes);
            }
            17 if is("if-modified-since") => {
                let slot = &mut head.if_modified_since;
                once.put(slot, Repeated::IF_MODIFIED_SINCE, value);
            }
            17 if is("transfer-encoding") => {
                let slot = &mut self.transfer_encoding;
                once.put(slot, Repeated::TRANSFER_ENCODING, value);
            }
            19 if is("if-unmodified-since") => {
                let slot = &mut head.if_unmodified_since;
                once.put(slot, Repeated::IF_UNMODIFIED_SINCE, value);
            }
            29 if is("access-control-request-method") => {
                let slot = &mut head.access_control_request_method;
                once.put(slot, Repeated::REQUEST_METHOD, value);
            }
            30 if is("access-control-request-headers") => {
                let lines = &mut head.access_control_request_headers;
                lines.push(ListField::AccessControlRequestHeaders, value, bytes);
            }
            _ => {}
        }
    }

    /// RFC 9112 §6.3 for requests, with every ambiguity refused.
    pub(super) fn body(&self, version_minor: u8) -> Result<BodyFraming, Reject> {
        match (self.transfer_encoding, self.content_length) {
            (None, None) => Ok(BodyFraming::None),
            (None, Some(digits)) => match parse_length(digits) {
                None => Err(bad("invalid Content-Length")),
                Some(0) => Ok(BodyFraming::None),
                Some(bytes) => Ok(BodyFraming::Length(bytes)),
            },
            (Some(_), Some(_)) => Err(bad("Transfer-Encoding beside Content-Length")),
            (Some(_), None) if version_minor == 0 => Err(bad("Transfer-Encoding in HTTP/1.0")),
            (Some(codings), None) => {
                check_codings(codings)?;
                Ok(BodyFraming::Chunked)
            }
        }
    }

    /// RFC 9112 §9.3: `close` wins, and HTTP/1.0 has to ask for more than one request.
    pub(super) fn keep_alive(&self, version_minor: u8) -> bool {
        let mut keep_alive = version_minor >= 1;
        if !self.connection.is_present() {
            return keep_alive;
        }
        for option in self.connection.members() {
            if option.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
        keep_alive
    }

    /// RFC 9110 §10.1.1: 417 for what we do not know, nothing at all in HTTP/1.0.
    pub(super) fn expects_continue(&self, version_minor: u8) -> Result<bool, Reject> {
        if version_minor == 0 || !self.expect.is_present() {
            return Ok(false);
        }
        let mut expects = false;
        for member in self.expect.members() {
            if !member.eq_ignore_ascii_case(b"100-continue") {
                return Err(Reject {
                    status: 417,
                    why: "unknown expectation",
                });
            }
            expects = true;
        }
        Ok(expects)
    }
}

/// Digits only: no sign, no list of equal values, nothing that another parser might read
/// differently.
fn parse_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |total, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        total.checked_mul(10)?.checked_add(digit)
    })
}

/// Exactly `chunked` is understood. A coding in front of it is well-formed but not implemented
/// (RFC 9112 §6.1); any other value leaves the length of the body unknown (§6.3).
fn check_codings(value: &[u8]) -> Result<(), Reject> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let lines = FieldLines::One(value);
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let ends_in_chunked = lines.members().last().is_some_and(|last| is_chunked(&last));
    if ends_in_chunked && lines.members().filter(is_chunked).count() == 1 {
        return Err(Reject {
            status: 501,
            why: "transfer coding not implemented",
        });
    }
    Err(bad("Transfer-Encoding does not end in chunked"))
}
