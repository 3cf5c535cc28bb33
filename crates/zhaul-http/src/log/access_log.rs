//! Formats one access log line: the combined format of NCSA httpd, or one JSON object.
//!
//! Everything that comes from the client is escaped, so that a line is always one line and a
//! terminal that shows it stays as it was: in the combined format every byte outside printable
//! ASCII, the quote and the backslash become `\xHH`; JSON is written in ASCII with `\u` escapes,
//! which also disarms the C1 controls and bidirectional overrides that hide in valid UTF-8.
//! Bytes that are not UTF-8 become U+FFFD there; the combined format keeps them readable.
//!
//! Pure formatting into a buffer; no clock and no file. Times are UTC.

use jiff::Timestamp;

/// What is logged about one request.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When the request head was complete: microseconds since 1970.
    pub unix_us: u64,
    /// Address of the client.
    pub remote: &'a str,
    /// What was asked for.
    pub request: Request<'a>,
    /// Status of the answer.
    pub status: u16,
    /// Body bytes that were sent, which may be fewer than announced.
    pub bytes: u64,
    /// Referer.
    pub referer: Option<&'a [u8]>,
    /// User-Agent.
    pub user_agent: Option<&'a [u8]>,
    /// From the complete head to the last byte, in microseconds.
    pub duration_us: u64,
    /// How the body was moved.
    pub route: &'a str,
    /// Whether the whole answer was sent.
    pub complete: bool,
    /// Content-Encoding, if any.
    pub encoding: Option<&'a str>,
}

/// The request line.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// One that was understood.
    Parsed {
        /// Method token.
        method: &'a str,
        /// Target as received.
        target: &'a str,
        /// Minor version of HTTP/1.
        version_minor: u8,
    },
    /// The first line of one that was refused, as received.
    Malformed(&'a [u8]),
}

/// The date part of a line, formatted once a second.
#[derive(Clone, Debug, Default)]
pub struct LogClock {
    unix_s: Option<u64>,
    /// `20/Nov/2026:08:43:36 +0000`
    ncsa: String,
    /// `2026-11-20T08:43:36`
    rfc3339: String,
}

impl LogClock {
    fn set(&mut self, unix_s: u64) {
        if self.unix_s == Some(unix_s) {
            return;
        }
        self.ncsa = format_time("%d/%b/%Y:%H:%M:%S +0000", unix_s);
        self.rfc3339 = format_time("%Y-%m-%dT%H:%M:%S", unix_s);
        self.unix_s = Some(unix_s);
    }
}

/// Appends `remote - - [time] "request" status bytes "referer" "user agent"` and a newline.
pub fn write_combined(record: &Record<'_>, clock: &mut LogClock, out: &mut Vec<u8>) {
    clock.set(record.unix_us / 1_000_000);
    escape(record.remote.as_bytes(), out);
    push(out, " - - [");
    push(out, &clock.ncsa);
    push(out, "] \"");
    match record.request {
        Request::Parsed {
            method,
            target,
            version_minor,
        } => {
            escape(method.as_bytes(), out);
            out.push(b' ');
            escape(target.as_bytes(), out);
            out.push(b' ');
            push(out, protocol(version_minor));
        }
        Request::Malformed([]) => out.push(b'-'),
        Request::Malformed(line) => escape(line, out),
    }
    push(out, "\" ");
    number(u64::from(record.status), out);
    out.push(b' ');
    number(record.bytes, out);
    for field in [record.referer, record.user_agent] {
        push(out, " \"");
        match field {
            None | Some([]) => out.push(b'-'),
            Some(value) => escape(value, out),
        }
        out.push(b'"');
    }
    out.push(b'\n');
}

/// Appends one JSON object and a newline. What is unknown is `null`; a request that was not
/// understood has its first line in `malformed` instead of method, target and protocol.
pub fn write_json(record: &Record<'_>, clock: &mut LogClock, out: &mut Vec<u8>) {
    clock.set(record.unix_us / 1_000_000);
    push(out, "{\"time\":\"");
    push(out, &clock.rfc3339);
    let micros = record.unix_us % 1_000_000;
    out.push(b'.');
    for unit in [100_000, 10_000, 1000, 100, 10, 1] {
        out.push(b'0' + (micros / unit % 10) as u8);
    }
    push(out, "Z\",\"remote\":");
    json_string(record.remote.as_bytes(), out);
    match record.request {
        Request::Parsed {
            method,
            target,
            version_minor,
        } => {
            push(out, ",\"method\":");
            json_string(method.as_bytes(), out);
            push(out, ",\"target\":");
            json_string(target.as_bytes(), out);
            push(out, ",\"protocol\":\"");
            push(out, protocol(version_minor));
            out.push(b'"');
        }
        Request::Malformed(line) => {
            push(out, ",\"malformed\":");
            json_string(line, out);
        }
    }
    push(out, ",\"status\":");
    number(u64::from(record.status), out);
    push(out, ",\"bytes\":");
    number(record.bytes, out);
    push(out, ",\"referer\":");
    json_option(record.referer, out);
    push(out, ",\"user_agent\":");
    json_option(record.user_agent, out);
    push(out, ",\"duration_us\":");
    number(record.duration_us, out);
    push(out, ",\"route\":");
    json_string(record.route.as_bytes(), out);
    push(
        out,
        if record.complete {
            ",\"complete\":true"
        } else {
            ",\"complete\":false"
        },
    );
    push(out, ",\"encoding\":");
    json_option(record.encoding.map(str::as_bytes), out);
    push(out, "}\n");
}

const fn protocol(version_minor: u8) -> &'static str {
    if version_minor == 0 {
        "HTTP/1.0"
    } else {
        "HTTP/1.1"
    }
}

fn push(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn number(value: u64, out: &mut Vec<u8>) {
    push(out, itoa::Buffer::new().format(value));
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Printable ASCII without the two characters that end or escape a quoted field.
fn is_plain(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\'
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.iter().copied().all(is_plain) {
        out.extend_from_slice(bytes);
        return;
    }
    for &byte in bytes {
        if is_plain(byte) {
            out.push(byte);
        } else {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(&[b'\\', b'x', digits[0], digits[1]]);
        }
    }
}

fn json_option(value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value {
        Some(value) => json_string(value, out),
        None => push(out, "null"),
    }
}

pub(crate) fn json_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if bytes.iter().copied().all(is_plain) {
        out.extend_from_slice(bytes);
    } else {
        for chunk in bytes.utf8_chunks() {
            chunk.valid().chars().for_each(|c| json_char(c, out));
            if !chunk.invalid().is_empty() {
                json_char(char::REPLACEMENT_CHARACTER, out);
            }
        }
    }
    out.push(b'"');
}

fn json_char(c: char, out: &mut Vec<u8>) {
    match c {
        '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
        ' '..='~' => out.push(c as u8),
        _ => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                push(out, "\\u");
                for shift in [12, 8, 4, 0] {
                    out.push(HEX[usize::from(*unit >> shift & 15)]);
                }
            }
        }
    }
}

/// Formats seconds since 1970, in UTC; times after the year 9999 are given as its last second.
pub(crate) fn format_time(format: &str, unix_s: u64) -> String {
    let seconds = i64::try_from(unix_s).unwrap_or(i64::MAX);
    let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    time.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::validators::format_date;
    use proptest::prelude::*;

    fn record<'a>() -> Record<'a> {
        Record {
            unix_us: 784_111_777_004_567,
            remote: "192.0.2.1",
            request: Request::Parsed {
                method: "GET",
                target: "/a?b",
                version_minor: 1,
            },
            status: 206,
            bytes: 12_345,
            referer: Some(b"http://b/"),
            user_agent: Some(b"curl/8"),
            duration_us: 77,
            route: "sendfile",
            complete: true,
            encoding: Some("br"),
        }
    }

    fn combined(record: &Record<'_>) -> String {
        let mut out = Vec::new();
        write_combined(record, &mut LogClock::default(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn json(record: &Record<'_>) -> (String, serde_json::Value) {
        let mut out = Vec::new();
        write_json(record, &mut LogClock::default(), &mut out);
        let text = String::from_utf8(out).unwrap();
        let value = serde_json::from_str(&text).unwrap();
        (text, value)
    }

    #[test]
    fn combined_is_what_log_analysers_expect() {
        assert_eq!(
            combined(&record()),
            "192.0.2.1 - - [06/Nov/1994:08:49:37 +0000] \"GET /a?b HTTP/1.1\" 206 12345 \
             \"http://b/\" \"curl/8\"\n"
        );
        let bare = Record {
            request: Request::Malformed(b""),
            referer: None,
            user_agent: Some(b""),
            ..record()
        };
        assert!(combined(&bare).ends_with("] \"-\" 206 12345 \"-\" \"-\"\n"));
    }

    #[test]
    fn json_holds_every_field() {
        let (text, value) = json(&record());
        assert!(text.ends_with("}\n"));
        let expected = serde_json::json!({
            "time": "1994-11-06T08:49:37.004567Z", "remote": "192.0.2.1", "method": "GET",
            "target": "/a?b", "protocol": "HTTP/1.1", "status": 206, "bytes": 12345,
            "referer": "http://b/", "user_agent": "curl/8", "duration_us": 77,
            "route": "sendfile", "complete": true, "encoding": "br",
        });
        assert_eq!(value, expected);
        let bare = Record {
            request: Request::Malformed(b"G\xff\"T"),
            referer: None,
            user_agent: None,
            encoding: None,
            complete: false,
            ..record()
        };
        let (_, value) = json(&bare);
        assert_eq!(value["malformed"], "G\u{fffd}\"T");
        assert!(value["referer"].is_null() && value["encoding"].is_null());
        assert_eq!(value["complete"], false);
    }

    #[test]
    fn hostile_values_forge_neither_fields_nor_lines() {
        let hostile = b"x\" 200 1\n10.0.0.1 - - \\\x1b[2J\x7f\xc2\x9b31m\xe2\x80\xae\xff\t\r\0";
        let record = Record {
            user_agent: Some(hostile),
            request: Request::Malformed(hostile),
            ..record()
        };
        let line = combined(&record);
        let escaped = "x\\x22 200 1\\x0a10.0.0.1 - - \\x5c\\x1b[2J\\x7f\\xc2\\x9b31m\
                       \\xe2\\x80\\xae\\xff\\x09\\x0d\\x00";
        assert_eq!(line.matches(escaped).count(), 2, "{line}");
        let (text, value) = json(&record);
        assert!(
            text.trim_end().bytes().all(|b| (b' '..=b'~').contains(&b)),
            "{text}"
        );
        assert_eq!(
            value["user_agent"],
            String::from_utf8_lossy(hostile).as_ref()
        );
        for line in [line, text] {
            assert_eq!(line.lines().count(), 1);
        }
    }

    #[test]
    fn the_clock_follows_the_record() {
        let mut clock = LogClock::default();
        let mut out = Vec::new();
        for unix_us in [0, 999_999, 1_000_000, 951_782_400_000_000] {
            write_json(
                &Record {
                    unix_us,
                    ..record()
                },
                &mut clock,
                &mut out,
            );
        }
        let text = String::from_utf8(out).unwrap();
        let times: Vec<_> = text.lines().map(|line| &line[9..36]).collect();
        assert_eq!(
            times,
            [
                "1970-01-01T00:00:00.000000Z",
                "1970-01-01T00:00:00.999999Z",
                "1970-01-01T00:00:01.000000Z",
                "2000-02-29T00:00:00.000000Z",
            ]
        );
    }

    proptest! {
        #[test]
        fn dates_agree_with_http_dates(unix_s in 0_u64..253_402_207_200) {
            let http = format_date(unix_s);
            let ours = format_time("%a, %d %b %Y %H:%M:%S GMT", unix_s);
            prop_assert_eq!(&http[..], ours.as_bytes());
        }

        #[test]
        fn any_bytes_make_one_printable_line(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let record =
                Record { referer: Some(&bytes), request: Request::Malformed(&bytes), ..record() };
            let (text, value) = json(&record);
            for line in [combined(&record), text] {
                let line = line.strip_suffix('\n').unwrap();
                prop_assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)));
            }
            let lossy = String::from_utf8_lossy(&bytes);
            prop_assert_eq!(value["referer"].as_str(), Some(lossy.as_ref()));
            // Those of the format itself.
            prop_assert_eq!(combined(&record).matches('"').count(), 6);
        }
    }
}
