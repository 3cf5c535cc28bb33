//! Conditional requests (RFC 9110 §13).
//!
//! [`evaluate`] applies the preconditions in the order of §13.2.2: If-Match, If-Unmodified-Since,
//! If-None-Match, If-Modified-Since, and then If-Range, which only decides whether Range counts.
//! It is called for a representation that exists and would be answered with 200 (§13.2.1): a
//! missing file is 404 whatever the preconditions say.
//!
//! Dates are compared for equality, except in If-Unmodified-Since, and count only where they
//! identify the bytes (see [`crate::message::validators`]): a date later than ours may be that of a later
//! version, after which an earlier one was put back. That is what nginx does by default, too.
//!
//! Tags of files are always strong here, so only the client's spelling can be weak. If-Match and
//! If-Range compare strongly, If-None-Match weakly (§8.8.3.2). A field that cannot be read is
//! ignored where the RFC says so (dates), and otherwise matches nothing.
//!
//! A representation without a tag (see [`crate::message::etag`], racy files) still exists: `*` matches it,
//! no tag does.

use crate::message::field_lines::{FieldLines, trim_ows};
use crate::message::request::{Method, RequestHead};
use crate::message::validators::{Validators, parse_date};

/// What the preconditions decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Answer as if there were no preconditions.
    Proceed {
        /// There is a Range field and it is to be honoured: the method is GET and If-Range, if
        /// sent, holds.
        range_applies: bool,
    },
    /// 304, with the validators and the headers that a 200 would have had (§15.4.5).
    NotModified,
    /// 412.
    PreconditionFailed,
}

/// Evaluates the preconditions of `head` for the selected representation at the time `now_s`,
/// which is what Date will say.
#[must_use]
pub fn evaluate(head: &RequestHead<'_>, validators: &Validators, now_s: u64) -> Decision {
    if !matches!(head.method, Method::Get | Method::Head) {
        return Decision::Proceed {
            range_applies: false,
        };
    }
    if !may_proceed_unchanged(head, validators) {
        return Decision::PreconditionFailed;
    }
    if is_not_modified(head, validators) {
        return Decision::NotModified;
    }
    let range_applies = head.method == Method::Get
        && head.range.is_some()
        && head
            .if_range
            .is_none_or(|value| if_range_holds(value, validators, now_s));
    Decision::Proceed { range_applies }
}

/// Steps 1 and 2: If-Match, or else If-Unmodified-Since.
fn may_proceed_unchanged(head: &RequestHead<'_>, validators: &Validators) -> bool {
    if head.if_match.is_present() {
        return any_tag_matches(head.if_match, validators, Comparison::Strong);
    }
    match head.if_unmodified_since.and_then(parse_date) {
        // Where nobody knows, it does not hold: what it guards is a part of something else.
        Some(since) => validators
            .unchanged_since_s
            .is_some_and(|unchanged_since| unchanged_since <= since),
        None => true,
    }
}

/// Steps 3 and 4: If-None-Match, or else If-Modified-Since.
fn is_not_modified(head: &RequestHead<'_>, validators: &Validators) -> bool {
    if head.if_none_match.is_present() {
        return any_tag_matches(head.if_none_match, validators, Comparison::Weak);
    }
    head.if_modified_since
        .and_then(parse_date)
        .is_some_and(|since| validators.are_identified_by(since))
}

/// Step 5 (§13.1.5): the strong tag, or exactly the date that we issue, provided that it is
/// strong in the sense of §8.8.2.2, that is, at least a second older than Date.
fn if_range_holds(value: &[u8], validators: &Validators, now_s: u64) -> bool {
    if value.starts_with(b"\"") || value.starts_with(b"W/") {
        let mut tags = Tags { rest: value };
        // One tag, not a list.
        return match (tags.next(), tags.next()) {
            (Some(tag), None) => tag.matches(validators, Comparison::Strong),
            _ => false,
        };
    }
    parse_date(value).is_some_and(|date| validators.are_identified_by(date) && date < now_s)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

fn any_tag_matches(field: FieldLines<'_>, validators: &Validators, how: Comparison) -> bool {
    if field.single() == Some(b"*") {
        return true;
    }
    field
        .lines()
        .flat_map(|line| Tags { rest: line })
        .any(|tag| tag.matches(validators, how))
}

struct Tag<'a> {
    is_weak: bool,
    /// With its quotes.
    opaque: &'a [u8],
}

impl Tag<'_> {
    fn matches(&self, validators: &Validators, how: Comparison) -> bool {
        let Some(etag) = &validators.etag else {
            return false;
        };
        !(self.is_weak && how == Comparison::Strong) && self.opaque == etag.as_bytes()
    }
}

/// The entity tags of one line. A comma inside the quotes belongs to the tag; at the first thing
/// that is no tag the list ends, as nothing behind it can be told apart any more.
struct Tags<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tags<'a> {
    type Item = Tag<'a>;

    fn next(&mut self) -> Option<Tag<'a>> {
        let mut rest = trim_ows(self.rest);
        while let [b',', after @ ..] = rest {
            rest = trim_ows(after);
        }
        self.rest = b"";
        let (is_weak, quoted) = match rest.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, rest),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let close = memchr::memchr(b'"', inner)?;
        if !inner[..close].iter().copied().all(is_etagc) {
            return None;
        }
        let (opaque, after) = quoted.split_at(close + 2);
        let after = trim_ows(after);
        if !matches!(after, [] | [b',', ..]) {
            return None;
        }
        self.rest = after;
        Some(Tag { is_weak, opaque })
    }
}

/// etagc of RFC 9110 §8.8.3; the quote ends the tag and is not asked about.
fn is_etagc(byte: u8) -> bool {
    byte > b' ' && byte != 0x7F
}

#[cfg(test)]
mod tests;
