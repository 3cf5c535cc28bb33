//! The lines of one list-valued header field, without copying them together.
//!
//! RFC 9110 §5.3 lets a list field arrive on several lines and gives it the meaning of the lines
//! joined by commas. Joining would allocate on the hot path for a case that hardly ever happens,
//! so a single line is kept as it is, and only a repeated field remembers the whole head and
//! walks it again when somebody asks.
//!
//! This type does not split a line into list members: each field has its own idea of a member
//! (entity tags may contain commas), so the reader of the field does it.

/// The values of one list field, in the order in which they were received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldLines<'a> {
    /// The request has no such field.
    #[default]
    Absent,
    /// One line: its value, without surrounding white space.
    One(&'a [u8]),
    /// Several lines; found again in the head by name.
    Many {
        /// Which field.
        field: ListField,
        /// The request head, request line included.
        head: &'a [u8],
    },
}

/// The list fields that the server reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the header field of that name")]
pub enum ListField {
    Accept,
    AcceptEncoding,
    AccessControlRequestHeaders,
    Connection,
    Expect,
    IfMatch,
    IfNoneMatch,
}

impl ListField {
    /// The field name in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::AcceptEncoding => "accept-encoding",
            Self::AccessControlRequestHeaders => "access-control-request-headers",
            Self::Connection => "connection",
            Self::Expect => "expect",
            Self::IfMatch => "if-match",
            Self::IfNoneMatch => "if-none-match",
        }
    }
}

impl<'a> FieldLines<'a> {
    /// Whether the field was sent at all, be it empty.
    #[must_use]
    pub fn is_present(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    /// The value when the field came on exactly one line.
    #[must_use]
    pub fn single(&self) -> Option<&'a [u8]> {
        match *self {
            Self::One(value) => Some(value),
            Self::Absent | Self::Many { .. } => None,
        }
    }

    /// The value of each line, without surrounding white space.
    #[must_use]
    pub fn lines(&self) -> Lines<'a> {
        match *self {
            Self::Absent => Lines {
                one: None,
                name: "",
                rest: b"",
            },
            Self::One(value) => Lines {
                one: Some(value),
                name: "",
                rest: b"",
            },
            Self::Many { field, head } => Lines {
                one: None,
                name: field.name(),
                rest: after_line(head),
            },
        }
    }

    /// The members of a comma-separated list whose members contain no quoted commas, trimmed;
    /// empty members are skipped (RFC 9110 §5.6.1.2).
    pub fn members(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.lines()
            .flat_map(|line| line.split(|&b| b == b','))
            .map(trim_ows)
            .filter(|member| !member.is_empty())
    }

    /// Takes note of one more line of the field.
    pub(crate) fn push(&mut self, field: ListField, value: &'a [u8], head: &'a [u8]) {
        *self = match self {
            Self::Absent => Self::One(value),
            Self::One(_) | Self::Many { .. } => Self::Many { field, head },
        };
    }
}

/// Iterator over the lines of a field; see [`FieldLines::lines`].
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    one: Option<&'a [u8]>,
    name: &'static str,
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if let Some(value) = self.one.take() {
            return Some(value);
        }
        while !self.rest.is_empty() {
            let line = line_of(self.rest);
            self.rest = after_line(self.rest);
            let Some(colon) = memchr::memchr(b':', line) else {
                continue;
            };
            if line[..colon].eq_ignore_ascii_case(self.name.as_bytes()) {
                return Some(trim_ows(&line[colon + 1..]));
            }
        }
        None
    }
}

/// Strips the optional white space of RFC 9110 §5.6.3 from both ends.
#[must_use]
pub fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn line_of(bytes: &[u8]) -> &[u8] {
    let line = &bytes[..memchr::memchr(b'\n', bytes).unwrap_or(bytes.len())];
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn after_line(bytes: &[u8]) -> &[u8] {
    memchr::memchr(b'\n', bytes).map_or(&[], |lf| &bytes[lf + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"GET /a:b HTTP/1.1\r\nHost: x\r\nAccept: a, b\r\nX: 1\r\naCCept:\r\n\
                          ACCEPT:\t c ,,d \r\n\r\n";

    fn repeated() -> FieldLines<'static> {
        let mut lines = FieldLines::default();
        for value in [&b"a, b"[..], b"", b"c ,,d"] {
            lines.push(ListField::Accept, value, HEAD);
        }
        lines
    }

    #[test]
    fn repeated_lines_come_back_in_order_and_trimmed() {
        let lines: Vec<_> = repeated().lines().collect();
        assert_eq!(lines, [&b"a, b"[..], b"", b"c ,,d"]);
    }

    #[test]
    fn members_skip_empty_elements_and_cross_lines() {
        let members: Vec<_> = repeated().members().collect();
        assert_eq!(members, [&b"a"[..], b"b", b"c", b"d"]);
    }

    #[test]
    fn one_line_is_yielded_once_and_absent_never() {
        let mut one = FieldLines::Absent;
        assert!(!one.is_present());
        assert_eq!(one.lines().count(), 0);
        one.push(ListField::Accept, b"", HEAD);
        assert!(one.is_present());
        assert_eq!(one.lines().collect::<Vec<_>>(), [b""]);
        assert_eq!(one.single(), Some(&b""[..]));
        assert_eq!(repeated().single(), None);
    }

    #[test]
    fn a_name_in_the_request_line_is_not_a_field() {
        let head = b"Accept: / HTTP/1.1\r\nAccept: x\r\nAccept: y\r\n\r\n";
        let lines = FieldLines::Many {
            field: ListField::Accept,
            head,
        };
        assert_eq!(lines.lines().collect::<Vec<_>>(), [b"x", b"y"]);
    }
}
